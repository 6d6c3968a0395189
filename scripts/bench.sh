#!/usr/bin/env bash
# Reproduces the published figures: trama and its peers at the same work, in turn.
# Arguments go to `trama-bench run`, for example: scripts/bench.sh --rounds 3 vhost-64
# The report and its plots are written to target/bench.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh build bench
cargo build --release --locked -p trama-daemon -p trama-tools -p trama-bench
target=${CARGO_TARGET_DIR:-target}
exec "$target/release/trama-bench" run --out "$target/bench/report.json" \
    --plots "$target/bench/plots" "$@"
