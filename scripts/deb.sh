#!/bin/bash
# Makes the Debian package and that of its debug symbols: scripts/deb.sh [PROFILE [OPTION...]]
# Without options, also those of the plug-ins of container engines.
#
# PROFILE is release or dev (not optimised as much, and built already where the tests were); options
# are those of `cargo deb`, by default --dbgsym.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
[ $# -gt 1 ] && options=("${@:2}") || options=(--dbgsym)
scripts/install.sh build deb

target=${CARGO_TARGET_DIR:-target}
[ "$profile" = dev ] && programs=$target/debug || programs=$target/$profile
echo "deb: building ($profile)"
cargo build --profile "$profile" --locked --workspace --bins

made=$target/package
rm -rf "$made"
mkdir -p "$made/ovs"
scripts/man.sh "$programs" "$made/man"
for shell in bash fish zsh; do
    "$programs/tramactl" completions "$shell" >"$made/tramactl.$shell"
done
# tramactl under the names of Open vSwitch's commands.
for name in ovs-vsctl ovs-appctl ovs-tcpdump; do
    ln -s ../../../bin/tramactl "$made/ovs/$name"
done
# And under the one that Wireshark calls.
ln -s ../../../../bin/tramactl "$made/trama-extcap"
gzip -9nc CHANGELOG.md >"$made/changelog.gz"
version=$("$programs/tramad" --version | cut -d' ' -f2)
cat >"$made/changelog" <<END
trama ($version-1) unstable; urgency=medium

  * See CHANGELOG.md.

 -- trama developers <trama@localhost>  $(date -R -r CHANGELOG.md)
END

# The paths of files are relative to the folder of the manifest.
(cd daemon && cargo deb --quiet --no-build --profile "$profile" "${options[@]}")
if [ $# -le 1 ]; then
    (cd containers && cargo deb --quiet --no-build --profile "$profile" "${options[@]}" &&
        cargo deb --quiet --no-build --profile "$profile" "${options[@]}" --variant podman &&
        cargo deb --quiet --no-build --profile "$profile" "${options[@]}" --variant docker)
fi
if [ $# = 0 ]; then
    lintian --allow-root --fail-on error,warning \
        "$target"/debian/trama{,-cni,-podman,-docker}_"$version"-1_*.deb
fi
