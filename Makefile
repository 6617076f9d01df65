# Everything from a fresh Debian machine with Go and Rust, as root: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

TARGET := x86_64-unknown-linux-musl
BINARY := target/$(TARGET)/image/volumeviz
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
BENCH := cargo bench --locked --quiet --bench walk --profile image --target $(TARGET)
export IMAGES := $(CURDIR)/target/cluster
PACKAGES := postgresql pgbouncer g++ musl-tools openssl ca-certificates jq util-linux procps e2fsprogs xfsprogs btrfs-progs
BIN := $(or $(CLUSTER_BIN),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/volumeviz/bin)
HELM_DOCS := $(BIN)/helm-docs --log-level error --chart-search-root charts --sort-values-order file
say = @printf '\n=== %s\n' '$(1)'

.PHONY: help setup build image lint dependencies deny arm64 test test-unit fuzz test-store test-api test-notify test-e2e test-faults test-faults-fast release reproducible bench bench-docker demo demo-down crds metrics schema chart-docs

help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## Install what building and testing needs (once: about 12 minutes, most of it Kubernetes)
	$(call say,Setting up)
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	  [ -z "$$missing" ] || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; }
	@rustup target list --installed | grep -qx $(TARGET) || rustup target add $(TARGET)
	@tests/cluster/build

build: setup ## Build the static binary
	$(call say,Building)
	@cargo build --locked --profile image --target $(TARGET)

image: build ## Make the images of the local cluster, without a registry
	@tests/cluster/images $(BINARY) $(IMAGES)

crds: ## Write the CustomResourceDefinitions and docs/reference.md from their Rust types
	@cargo run --quiet -- crds --dir crds
	@cp crds/*.yaml charts/volumeviz/files/crds/
	@cp deploy/bootstrap.sql charts/volumeviz/files/
	@UPDATE=1 cargo test --locked --quiet --test structure reference::

metrics: ## Write the tables of docs/metrics.md from what the processes tell
	@UPDATE=1 cargo test --locked --quiet --test structure metrics::

schema: setup ## Write src/migrate/schema.txt and docs/schema.md from the migrations
	@cargo build --locked --quiet
	@tests/with-postgres tests/schema target/debug/volumeviz > src/migrate/schema.txt
	@UPDATE=1 cargo test --locked --quiet --test structure

chart-docs: setup ## Write the chart's README.md from its values
	@$(HELM_DOCS)

lint: setup ## Format, clippy, chart
	$(call say,Linting)
	@cargo fmt --check
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo clippy --locked --quiet --all-targets -- -D warnings
	@$(BIN)/helm lint --quiet charts/volumeviz --values tests/chart/bundled.yaml
	@$(HELM_DOCS) --dry-run | diff charts/volumeviz/README.md - || { echo "charts/volumeviz/README.md is behind: run \`make chart-docs\`" >&2; exit 1; }
	@tests/chart/conform

dependencies: ## Licences and sources of dependencies; none that is banned or not used (the first time: three minutes to build the tools)
	$(call say,Dependencies)
	@release/cargo deny --locked --log-level error check --hide-inclusion-graph --allow duplicate licenses bans sources
	@release/cargo machete --skip-target-dir

deny: dependencies ## The same, and known vulnerabilities, for which GitHub must be reachable
	@release/cargo deny fetch db || { echo 'deny: advisories were NOT checked: their database is unreachable; licences, bans, sources and use are well' >&2; exit 1; }
	@release/cargo deny --locked check advisories

arm64: setup ## See that it compiles for arm64
	$(call say,arm64)
	@release/setup arm64
	@release/build arm64 --check

test-unit: setup ## Rules, walker, command line
	$(call say,Unit tests)
	@cargo test --locked --lib --bins --test structure --test walk --test scan --test docker_proxy --test packaging --test templates

fuzz: setup ## All that is read from outside, on input that is made up: FUZZ_SECONDS (10) a target
	$(call say,Fuzzing)
	@fuzz/run

test-store: setup ## The database, on a real PostgreSQL
	$(call say,Store tests)
	@tests/with-postgres cargo test --locked --test store -- --skip alone::
	@tests/with-postgres cargo test --locked --test store -- --test-threads=1 alone::

test-api: setup ## Schema, leader election, HTTP API and a controller that dies, on a real kube-apiserver
	$(call say,API tests)
	@tests/with-apiserver cargo test --locked --test api
	@tests/with-postgres tests/with-apiserver cargo test --locked --test http
	@tests/with-postgres tests/with-apiserver cargo test --locked --test crash

test-notify: setup ## Notifications to webhooks, TLS, Alertmanager and Events, in a network of their own
	$(call say,Notification tests)
	@cargo test --locked --no-run --quiet --test notify
	@tests/with-network tests/with-postgres tests/with-apiserver cargo test --locked --offline --test notify

test-e2e: image ## The product, on three real nodes
	$(call say,End-to-end tests)
	@cargo test --locked --no-run --test e2e
	@tests/with-cluster cargo test --locked --test e2e -- --test-threads=1 --nocapture

test-faults: image ## The product while things break, all of it
	$(call say,Fault tests)
	@CRASH_AT=all tests/with-postgres tests/with-apiserver cargo test --locked --test crash
	@cargo test --locked --no-run --test faults
	@tests/with-cluster cargo test --locked --test faults -- --test-threads=1 --nocapture

test-faults-fast: image ## The same without the faults whose ends take minutes
	$(call say,Fault tests: fast tier)
	@cargo test --locked --no-run --test faults
	@tests/with-cluster cargo test --locked --test faults -- --test-threads=1 --nocapture --skip slow::

# What only compiles and computes is done beside the cluster, whose tests mostly wait.
BESIDE := target/beside.log
test: lint test-unit test-store test-api test-notify ## Set up, and run every test but the slow faults
	@nice -n 19 $(MAKE) dependencies fuzz arm64 >$(BESIDE) 2>&1 & other=$$!; \
	  trap 'kill $$other 2>/dev/null || true' EXIT; \
	  $(MAKE) test-e2e test-faults-fast && status=0 || status=$$?; \
	  wait $$other || status=$$?; \
	  cat $(BESIDE); exit $$status

release: setup ## Make the files of a release from what is committed, for amd64 and arm64, into target/release-VERSION
	$(call say,Release)
	@release/package target/release-$(VERSION)

reproducible: setup ## Make a release twice, and compare: four builds from nothing
	$(call say,Reproducible?)
	@release/reproducible

bench: setup ## `volumeviz scan` beside du and its like: about 25 minutes and 12 GB; BENCH_SCALE=0.01 for a try
	$(call say,Benchmarks)
	@benches/walk/peers target/bench
	@nice -n 19 $(BENCH) --no-run
	@$(BENCH)

bench-docker: setup ## `volumeviz scan` beside `docker system df -v`, on a dockerd of its own
	$(call say,Benchmarks: Docker)
	@nice -n 19 $(BENCH) --no-run
	@$(BENCH) -- docker

demo: image ## A local cluster with real volumes, and a scan of them
	@tests/cluster/demo

demo-down: ## Stop the local cluster
	@tests/cluster/cluster down
