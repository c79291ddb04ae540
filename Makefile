SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Arguments for `make run` and `make demo`, such as ARGS="--listen 127.0.0.1:9000".
ARGS ?=

# Names of fuzz targets; all of them, if there are none.
TARGETS ?=

# Folders of the data sets and of checkpoints, and further words for the training program.
TRAIN_DATA ?=
TRAIN_WORK ?=
TRAIN_ARGS ?=

.PHONY: help run test setup setup-test build demo bench bench-budget bench-mixed bench-plan bench-stills deploy-check fuzz fuzz-api kernels lint docs train train-test

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Install what is missing, build, and start the server (ARGS="…" for its flags)
	@exec "$(TARGET_DIR)/release/saccade" serve $(ARGS)

test: setup-test ## Install what is missing and run every check: format, lints, web, Rust, browser
	@scripts/test.sh all

setup: ## Install system packages and ONNX Runtime, to build and to run
	@scripts/setup.sh run

setup-test: ## The same, and what the tests need: browser, GStreamer, coturn, Node.js, Python packages
	@scripts/setup.sh test

build: setup ## Build the release binary (honours CARGO_TARGET_DIR)
	@$(CARGO) build --release --locked

demo: setup ## Server, a publisher of the drawn scene, and live results in the terminal (ARGS="--seconds 10")
	@$(CARGO) run --release --locked --example demo -- $(ARGS)

bench: setup ## Measure Saccade beside a server of aiortc's, into tests/bench/RESULTS.md (ARGS="--seconds 10 --turns 1")
	@scripts/bench.sh run $(ARGS)

bench-budget: setup ## Measure how budgets are kept under load, into tests/bench/RESULTS.md (ARGS="--seconds 60")
	@scripts/bench.sh budget $(ARGS)

bench-mixed: setup ## Measure live sessions beside still pictures, into tests/bench/MIXED.md (ARGS="--seconds 10 --turns 1")
	@scripts/bench.sh mixed $(ARGS)

bench-plan: setup ## Compare what `saccade plan` says with what a search finds, into tests/bench/PLAN.md (ARGS="--seconds 260")
	@scripts/bench.sh plan $(ARGS)

bench-stills: setup ## Measure still pictures beside a FastAPI server, into tests/bench/STILLS.md (ARGS="--seconds 10 --turns 1")
	@scripts/bench.sh stills $(ARGS)

deploy-check: setup-test ## Check all that is in deploy/: images, proxies, manifests, rules and dashboards, against the real programs
	@scripts/test.sh deploy

train: setup ## Train and export the default model, or go on with it (TRAIN_DATA=DATASETS; see models/train/README.md)
	@TRAIN_DATA="$(TRAIN_DATA)" TRAIN_WORK="$(TRAIN_WORK)" scripts/train.sh run $(TRAIN_ARGS)

train-test: setup ## Run all tests of the training package, those with PyTorch too
	@scripts/train.sh test

fuzz: setup ## Look for bytes that break the parsers of what strangers send (FUZZ_SECONDS=60 a target, TARGETS="sdp_offer …" for some)
	@scripts/fuzz.sh $(TARGETS)

fuzz-api: setup-test ## Ask for every operation of the API at random, longer than the tests do (SCHEMATHESIS_SECONDS=600, SCHEMATHESIS_SEED=1)
	@$(CARGO) build --locked
	@SCHEMATHESIS_SECONDS="$${SCHEMATHESIS_SECONDS:-600}" SACCADE_TEST_SERVER="$(TARGET_DIR)/debug/saccade" \
		"$${XDG_CACHE_HOME:-$$HOME/.cache}/saccade/test-venv/bin/python" -B -m pytest -q tests/clients/test_schema.py

kernels: setup-test ## Translate the kernels for NVIDIA GPUs to PTX anew, which is committed (no GPU is needed)
	@"$${XDG_CACHE_HOME:-$$HOME/.cache}/saccade/test-venv/bin/python" -B scripts/kernels.py

lint: setup ## Check format, lints and, where cargo-deny is installed, licences and known faults of dependencies
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	@$(CARGO) clippy --package saccade --lib --bins --no-default-features --locked -- --deny warnings
	@scripts/deny.sh --advisories

docs: setup ## Build the reference of the code and say where it is
	@RUSTDOCFLAGS="--deny warnings --allow rustdoc::private-intra-doc-links" $(CARGO) doc --workspace --no-deps --document-private-items --locked
	@echo "$(TARGET_DIR)/doc/saccade/index.html"
