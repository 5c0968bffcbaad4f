# Everything that is done with this repository from a shell. `make help` lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Where cargo builds. The same profile everywhere, so that llama.cpp is compiled once.
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILD := $(CARGO) build --release --locked
VENV := $(abspath $(TARGET))/python-venv

.DEFAULT_GOAL := help
.PHONY: help build demo test lint ci install uninstall bench measure mesh50 fuzz sim clean prerequisites test-prerequisites

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: prerequisites ## build target/release/atmo and target/release/atmo-sim
	$(BUILD)

demo: build ## three nodes here: a mesh, two intents, a lost provider (under half a minute once built)
	$(BUILD) --package atmo --example demo
	$(TARGET)/release/examples/demo $(TARGET)/release/atmo

# Nextest where it is installed, because it runs every test in a process of its own; plain cargo does as well.
test: test-prerequisites $(VENV)/ready ## all tests, with what they need (NO_PYTHON=1 leaves the Python client out)
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; $(TEST_ENVIRONMENT) $(CARGO) nextest run --cargo-profile release --locked --workspace; \
	else \
		set -x; $(TEST_ENVIRONMENT) $(CARGO) test --release --locked --workspace --lib --bins --tests; \
	fi

# The library of ONNX Runtime has its version in its name.
TEST_ENVIRONMENT = ATMO_TEST_PYTHON=$(VENV)/bin/python \
	ATMO_TEST_ORT="$$(echo $(VENV)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.*)"

ifdef NO_PYTHON
TEST_ENVIRONMENT = ATMO_TEST_NO_PYTHON=1
$(VENV)/ready: ;
else
$(VENV)/ready: tests/python/requirements.txt | test-prerequisites
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
endif

lint: prerequisites ## formatting, clippy, documentation, dependencies, what each crate may know
	.ci/run format purity dependencies clippy doc

ci: ## what a change must pass
	.ci/run

install: build ## install below PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/atmo
	install -m 755 $(TARGET)/release/atmo $(DESTDIR)$(PREFIX)/bin/atmo
	install -m 644 LICENSE NOTICE README.md $(DESTDIR)$(PREFIX)/share/doc/atmo/

uninstall: ## remove what `make install` installed
	rm -f $(DESTDIR)$(PREFIX)/bin/atmo
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/atmo

bench: prerequisites ## measure
	$(CARGO) bench --locked --workspace

measure: build ## the figures of the README, from real processes
	$(BUILD) --package atmo --example measure
	$(TARGET)/release/examples/measure $(TARGET)/release/atmo

mesh50: build ## fifty nodes here: one mesh, ten killed and restarted, one revoked (minutes; NODES= for another number)
	$(BUILD) --package atmo --example mesh50
	$(TARGET)/release/examples/mesh50 $(TARGET)/release/atmo $(NODES)

# Fuzzing needs unstable options of the compiler, not another one.
fuzz: ## feed the readers of foreign bytes and the mesh with random ones (SECONDS=600 for each target; needs cargo-fuzz)
	cd fuzz && for target in sse requests answers frames inputs; do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- -timeout=20 -max_total_time=$(or $(SECONDS),600) || exit 1; \
	done

sim: build ## the simulator's table of figures (ARGS= goes to atmo-sim instead: ARGS="run --scenario churn")
	$(TARGET)/release/atmo-sim $(or $(ARGS),table)

clean: ## remove everything that was built
	$(CARGO) clean

prerequisites:
	@deploy/prerequisites.sh

test-prerequisites:
	@deploy/prerequisites.sh $(if $(NO_PYTHON),,test)
