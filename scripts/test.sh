#!/bin/bash
# Every check and every test. Ends at the first failure with its exit status.
#
# What needs root (namespaces, TAPs, virtual machines' hosts) is in the package trama-tests;
# without root that package is left out, and this says so.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "tools"
scripts/install.sh build test gates
scripts/guest-image.sh >/dev/null

step "formatting"
cargo fmt --all --check

step "spelling"
.cache/python/bin/typos --format brief

step "clippy, warnings denied"
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings

step "documentation, warnings denied"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --locked

step "licences, bans and sources of the dependencies"
cargo deny --log-level error --locked check licenses bans sources

step "advisories on the dependencies"
if ! cargo deny --log-level off --locked fetch db >/dev/null 2>&1; then
    echo "not checked: the advisory database cannot be fetched from this machine"
else
    cargo deny --log-level error --locked check advisories
fi

step "programs"
cargo build --quiet --workspace --bins --locked

step "examples in the documentation"
cargo test --workspace --doc --quiet --locked

step "tests"
scope=(--workspace)
if [ "$(id -u)" != 0 ]; then
    echo "not root: the system tests (package trama-tests) are left out"
    scope+=(--exclude trama-tests)
fi
cargo nextest run "${scope[@]}" --locked

step "instructions a frame"
scripts/gates.sh

step "the package, in a system that systemd has booted"
if [ "$(id -u)" = 0 ]; then
    scripts/package-trial.sh dev || [ $? = 77 ]
else
    echo "not root: left out"
fi
