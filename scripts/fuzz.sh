#!/usr/bin/env bash
# Looks for bytes that break a fuzz target: `scripts/fuzz.sh [TARGET…]` builds tests/fuzz with LLVM's libFuzzer and
# AddressSanitizer into target/fuzz, and runs the named targets, or all of them, for FUZZ_SECONDS each (60). What it finds lies
# in target/fuzz/findings, what is new and worth keeping in target/fuzz/corpus. `scripts/fuzz.sh --keep [TARGET…]` adds the
# fewest of the latter that reach what tests/fuzz/corpus does not, and deletes nothing there. Exits with 1 when something was
# found.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}/fuzz
seconds=${FUZZ_SECONDS:-60}
host=x86_64-unknown-linux-gnu
# As cargo-fuzz has them: coverage for libFuzzer, and checks that a release would do without.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks=yes -Ccodegen-units=16
    -Zsanitizer=address"

keep=
if [ "${1:-}" = --keep ]; then
    keep=1
    shift
fi

# The compiler is the stable one, which has what it takes and wants to be asked twice for it.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=${FUZZ_FLAGS:-$flags} CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=0 \
    cargo build --locked --package saccade-fuzz --bin saccade-fuzz --target "$host" --config 'profile.dev.debug="line-tables-only"'
program=$target/$host/debug/saccade-fuzz
declare -A most
while read -r name length; do
    most[$name]=$length
done < <(sed -nE 's/.*Target \{ name: "([a-z0-9_]+)".*max_len: ([0-9]+) .*/\1 \2/p' tests/fuzz/src/lib.rs)

names=("$@")
[ $# -gt 0 ] || mapfile -t names < <(printf '%s\n' "${!most[@]}" | sort)
failed=()
for name in "${names[@]}"; do
    [ -n "${most[$name]:-}" ] || {
        printf 'fuzz: there is no target %s; there are: %s\n' "$name" "$(printf '%s\n' "${!most[@]}" | sort | tr '\n' ' ')" >&2
        exit 64
    }
    grown=$target/corpus/$name found=$target/findings/$name kept=tests/fuzz/corpus/$name
    mkdir -p "$grown" "$found" "$kept"
    export FUZZ_TARGET=$name ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0}
    bounds=(-max_len="${most[$name]}" -rss_limit_mb=2048 -timeout=10)
    if [ -n "$keep" ]; then
        "$program" "${bounds[@]}" -merge=1 -use_counters=0 "$kept" "$grown" 2>&1 | tail -n 1
        continue
    fi
    printf '\n== %s for %s s\n' "$name" "$seconds"
    "$program" "${bounds[@]}" -max_total_time="$seconds" -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$found/" "$grown" "$kept" </dev/null 2>"$target/$name.log" || failed+=("$name")
    grep -E '^(stat::number_of_executed_units|stat::average_exec_per_sec|stat::peak_rss_mb)|cov: [0-9]+ .*DONE' "$target/$name.log" || true
done
if [ ${#failed[@]} -gt 0 ]; then
    for name in "${failed[@]}"; do
        printf '\n== found by %s\n' "$name" >&2
        grep -v '^#' "$target/$name.log" | tail -n 60 >&2
    done
    printf '\nfuzz: findings of: %s; the bytes are in %s\n' "${failed[*]}" "$target/findings" >&2
    exit 1
fi
