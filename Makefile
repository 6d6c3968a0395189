# The commands that matter; each is a script that installs what it needs and says so first.
.PHONY: help build demo test test-loaded fuzz gates gates-accept requirements bench \
    deb package-trial guest-image clean

help:
	@echo "make build   the release programs, in target/release"
	@echo "make demo    two virtual machines and a host talk through trama (root)"
	@echo "make test    every check and test (root for namespaces and TAPs)"
	@echo "make test-loaded   the tests beside LOAD (4) busy processes; ARGS are those of nextest run"
	@echo "make fuzz    a fuzz target for as long as ARGS say: docs/testing.md"
	@echo "make gates   instructions a frame, against the committed baseline (part of make test)"
	@echo "make requirements   which requirements of RFCs and of virtio are kept and tested"
	@echo "make deb     the Debian packages, in target/debian"
	@echo "make package-trial   installs, upgrades and removes it in a booted system of its own (root)"
	@echo "make bench   the published figures, peers beside us (root)"

build:
	scripts/install.sh build
	cargo build --release --workspace --bins

demo:
	scripts/demo.sh

test:
	scripts/test.sh

test-loaded:
	scripts/test-loaded.sh $(ARGS)

fuzz:
	cargo run --quiet -p trama-fuzz -- $(ARGS)

gates:
	scripts/gates.sh

gates-accept:
	scripts/gates.sh --accept

requirements:
	cargo run --quiet -p trama-structure --example requirements

deb:
	scripts/deb.sh

package-trial:
	scripts/package-trial.sh

bench:
	scripts/bench.sh $(ARGS)

guest-image:
	scripts/guest-image.sh

clean:
	cargo clean
	rm -rf .cache
