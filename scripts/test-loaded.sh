#!/bin/bash
# The tests beside LOAD processes (4) that compute and one that writes to the disk without a pause.
# A test that fails here and not alone depends on the machine. Arguments are those of `nextest run`:
#
#   LOAD=8 scripts/test-loaded.sh -E 'package(trama-nat)' --stress-count 20
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --quiet --workspace --bins --locked
cargo nextest run --workspace --locked --no-run

file=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$file"' EXIT
# They end with this script, also if it is killed.
for ((number = 0; number < ${LOAD:-4}; number++)); do
    while kill -0 $$ 2>/dev/null; do :; done &
done
while kill -0 $$ 2>/dev/null; do
    dd if=/dev/zero of="$file" bs=1M count=64 conv=fsync status=none
done &

cargo nextest run --workspace --locked "$@"
