#!/usr/bin/env bash
# Trains and exports the default model (`run`), or tests the training package (`test`). `make train` and
# `make train-test` call it. An interrupted run goes on where its last epoch ended.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/saccade
venv=$cache/train-venv
recipe=$root/models/train/ppe-nano/recipe.toml

say() { printf '%s\n' "$*" >&2; }

# PyTorch is large: it has a folder of its own, which only these two commands make.
make_venv() {
    local wanted=$root/models/train/requirements.txt stamp=$venv/saccade.sha256 hash
    hash=$(cat "$wanted" <(python3 --version) | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ] || return 0
    say "making the Python environment of the training in $venv (about 6 GB)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$wanted" >&2
    echo "$hash" >"$stamp"
}

# The drawn scenes of the recipe: seeds 1000 to 1039 train, 1 to 8 are measured on.
draw_scenes() {
    local part=$1
    [ ! -e "$WORK/scenes/$part/annotations.json" ] || return 0
    cargo build --release --locked --example render_scene
    "$python" -B -m detector --work "$WORK/scenes/$part" scenes --seeds "$2" "$3" \
        --renderer "${CARGO_TARGET_DIR:-$root/target}/release/examples/render_scene"
}

make_venv
python=$venv/bin/python
cd "$root/models/train"
case ${1:-} in
run)
    shift
    [ -d "${TRAIN_DATA:-}" ] || { say "name the folder of the data sets: make train TRAIN_DATA=DIR (see models/train/README.md)"; exit 64; }
    DATA=$(realpath "$TRAIN_DATA")
    WORK=$(realpath --canonicalize-missing "${TRAIN_WORK:-$cache/train}")
    export DATA WORK
    draw_scenes train 1000 1040
    draw_scenes test 1 9
    "$python" -B -m detector --work "$WORK/run" --threads "$(nproc)" "$@" train "$recipe"
    "$python" -B -m detector --work "$WORK/run" "$@" export "$recipe" --out "$WORK/out"
    ;;
test)
    "$python" -B -m pytest -q tests
    ;;
*)
    say "usage: scripts/train.sh run|test"
    exit 64
    ;;
esac
