#!/bin/bash
# Holds the instructions that a frame costs to the committed baseline; --accept writes a new one.
#
# Built like the product, for processors of x86-64-v3 (valgrind knows no AVX-512), in a target
# directory of its own: other flags would make Cargo build everything anew each time.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh build gates
if [ "$(uname -m)" != x86_64 ] || ! grep -qw avx2 /proc/cpuinfo; then
    echo "gates: not checked: the baseline is of x86-64-v3, which this processor is not"
    exit 0
fi
RUSTFLAGS="${RUSTFLAGS:-} -C target-cpu=x86-64-v3" \
    exec cargo bench --quiet --locked --target-dir "${CARGO_TARGET_DIR:-target}/gates" \
    --package trama-switch --bench instructions -- "$@"
