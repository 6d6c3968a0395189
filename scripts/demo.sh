#!/bin/bash
# Two virtual machines and a host talk through trama; a third machine in another VLAN hears
# nothing. Exit status 0 only if every step worked. Leaves nothing behind, interrupted or not.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "demo: needs root for a network namespace and a TAP device: sudo make demo" >&2
    exit 1
fi
scripts/install.sh demo
echo "demo: building, without much optimisation: some minutes on two cores when nothing is built yet"
# What the demonstration runs, and nothing else; `make test` goes on with it.
cargo build --locked --bins --package trama-daemon --package trama-tools --package trama-tests
scripts/guest-image.sh >/dev/null

TMPDIR=$(mktemp -d)
export TMPDIR
demo=
clean() {
    set +e
    trap '' INT TERM
    # The demonstration's children die with it; namespaces have no owner.
    if [ -n "$demo" ]; then
        kill "$demo" 2>/dev/null
        wait "$demo" 2>/dev/null
        for path in /run/netns/trama-t"$demo"-*; do
            [ -e "$path" ] && ip netns del "$(basename "$path")"
        done
    fi
    rm -rf "$TMPDIR"
}
trap clean EXIT
trap 'exit 130' INT TERM

"${CARGO_TARGET_DIR:-target}"/debug/demo &
demo=$!
wait "$demo"
