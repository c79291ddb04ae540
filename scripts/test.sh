#!/usr/bin/env bash
# Runs every check of the repository, one after the other, and fails at the end if one failed; with `deploy`, those of
# deploy/ alone. `make test` and `make deploy-check` call it after `scripts/setup.sh test`.
set -euo pipefail

what=${1:-all}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/saccade
target=${CARGO_TARGET_DIR:-$root/target}
[ ! -d "$cache/node/bin" ] || export PATH="$cache/node/bin:$PATH"
[ ! -x "$cache/test-venv/bin/python" ] || export SACCADE_TEST_PYTHON=${SACCADE_TEST_PYTHON:-$cache/test-venv/bin/python}
export SACCADE_TEST_SERVER=${SACCADE_TEST_SERVER:-$target/debug/saccade}
# Whatever is built here is built once.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

failed=()
step() {
    local name=$1
    shift
    printf '\n== %s (after %d s)\n' "$name" "$SECONDS"
    "$@" </dev/null || failed+=("$name")
}

rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-fail-fast && cargo test --workspace --locked --doc
    else
        cargo test --workspace --locked --no-fail-fast
    fi
}

client_tests() { "${SACCADE_TEST_PYTHON:-python3}" -B -m pytest -q --durations=5 tests/clients; }

kernel_tests() { "${SACCADE_TEST_PYTHON:-python3}" -B -m pytest -q tests/kernels; }

deploy_tests() { "${SACCADE_TEST_PYTHON:-python3}" -B -m pytest -q --durations=5 tests/deploy; }

gpu_tests() { "${SACCADE_TEST_PYTHON:-python3}" -B -m pytest -q tests/gpu; }

# Those with PyTorch, which is large, are run by `make train-test`.
training_tests() { "${SACCADE_TEST_PYTHON:-python3}" -B -m pytest -q models/train/tests/test_data.py models/train/tests/test_half.py; }

web_tests() { (cd web && npm run check && npm run check:dist && npm test); }

if [ "$what" = deploy ]; then
    step "build" cargo build --locked
    step "deployment" deploy_tests
else
    step "format" cargo fmt --all --check
    step "lints" cargo clippy --workspace --all-targets --locked -- --deny warnings
    step "licences" scripts/deny.sh
    if [ -e web/package.json ]; then
        step "web client" web_tests
    fi
    step "Rust tests" rust_tests
    step "kernels" kernel_tests
    step "bundle for GPUs" gpu_tests
    step "foreign clients" client_tests
    step "deployment" deploy_tests
    step "training data and graphs" training_tests
    if [ -x tests/e2e/run ]; then
        step "browser test" tests/e2e/run
    fi
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nfailed:' >&2
    printf ' %s;' "${failed[@]}" >&2
    printf ' see above\n' >&2
    exit 1
fi
