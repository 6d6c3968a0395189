#!/usr/bin/env bash
# Reproduces the published figures: trama and its peers at the same work, in turn.
# Arguments go to trama-bench, for example: scripts/bench.sh --rounds 3 vhost64
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh build bench
cargo build --release --locked -p trama-daemon -p trama-bench
exec "${CARGO_TARGET_DIR:-target}/release/trama-bench" "$@"
