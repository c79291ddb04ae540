#!/usr/bin/env bash
# Measures Saccade beside a server that a user would write instead, and writes tests/bench/RESULTS.md. `make bench` calls
# it, and `make bench-budget`: the first argument says which of the programs in tests/bench to run (run, budget, stills, mixed or plan), the
# others go to it.
set -euo pipefail
program=$1
shift

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/saccade
venv=$cache/bench-venv
assets=${SACCADE_TEST_ASSETS:-$root/../shared}

wanted=$root/tests/bench/requirements.txt stamp=$venv/saccade.sha256
hash=$(cat "$wanted" <(python3 --version) | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ]; then
    printf 'making the Python environment of the peers in %s\n' "$venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$wanted" >&2
    echo "$hash" >"$stamp"
fi
cd "$root"
cargo build --release --locked
saccade=${CARGO_TARGET_DIR:-$root/target}/release/saccade
model=${BENCH_MODEL:-$assets/models/yolox_nano_416.onnx}
if [ ! -e "$model" ]; then
    "$saccade" models pull yolox-nano --models-dir "$cache/bench-models"
    model=$(echo "$cache"/bench-models/yolox-nano/*/model.onnx)
fi
exec "$venv/bin/python" -B "tests/bench/$program.py" --saccade "$saccade" --peer-python "$venv/bin/python" --model "$model" "$@"
