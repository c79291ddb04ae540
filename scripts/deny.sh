#!/usr/bin/env bash
# Checks the dependencies with cargo-deny, by deny.toml: licences, banned ones and sources; with --advisories also known
# faults, for which it fetches a database from GitHub.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is not installed: dependencies were not checked (cargo install cargo-deny --locked)" >&2
    exit 0
fi
cargo deny --locked check --hide-inclusion-graph licenses bans sources
[ "${1:-}" = --advisories ] || exit 0
if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --locked --offline check advisories
else
    echo "the advisory database cannot be fetched: advisories were not checked" >&2
fi
