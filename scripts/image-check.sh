#!/usr/bin/env bash
# Makes the image for processors with buildah, of a program that is built already, looks at it, runs its server and its health
# check in it, and says how large it is: `scripts/image-check.sh [PROGRAM]`, by default target/release/saccade. Takes the last stage of
# deploy/Dockerfile and what deploy/image/assemble.py puts together, so that nothing is fetched. Needs root, buildah and
# ONNX Runtime (`make setup`). Tests do the same without buildah (tests/deploy/test_images.py).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${1:-${CARGO_TARGET_DIR:-$root/target}/release/saccade}
die() {
    printf 'image-check: %s\n' "$*" >&2
    exit 69
}
[ -x "$program" ] || die "there is no $program: build it with make build, or name another"
command -v buildah >/dev/null || die "there is no buildah: apt-get install buildah"
[ "$(id -u)" -eq 0 ] || die "this needs root, for whom buildah has layers without user namespaces"
runtime=$(compgen -G "${XDG_CACHE_HOME:-$HOME/.cache}/saccade/onnxruntime-openvino-*" | sort -V | tail -n 1)
[ -n "$runtime" ] || die "there is no ONNX Runtime: make setup"

work=$(mktemp -d)
# The user of the container goes through it, as it would through an engine's folders.
chmod 755 "$work"
# Layers as plain folders, in a store of its own: nothing of this machine's is touched.
builder=(buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs)
server=''
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

"$root/deploy/image/assemble.py" --binary "$program" --runtime "$runtime" --models "$root/models" --lock "$root/Cargo.lock" \
    --out "$work/context/image"
sed -n '/^FROM scratch$/,$p' "$root/deploy/Dockerfile" | sed -E 's#^COPY --from=build (.*)/image/#COPY \1image/#' >"$work/Dockerfile"
"${builder[@]}" bud --quiet --isolation chroot --format docker --file "$work/Dockerfile" --tag saccade:check "$work/context" >/dev/null
"${builder[@]}" inspect --type image saccade:check >"$work/image.json"
python3 - "$work/image.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["User"] == "65532:65532", config["User"]
assert config["Entrypoint"] == ["/usr/bin/saccade"]
assert config["Healthcheck"]["Test"][:3] == ["CMD", "/usr/bin/saccade", "health"]
assert set(config["Volumes"]) == {"/var/lib/saccade", "/var/cache/saccade"}
print("configuration: as the Dockerfile says")
PYTHON

container=$("${builder[@]}" from saccade:check)
port() { python3 -c 'import socket; one = socket.socket(); one.bind(("127.0.0.1", 0)); print(one.getsockname()[1])'; }
ops=$(port)
run=("${builder[@]}" run --isolation chroot "$container" --)
coproc SERVER { exec "${run[@]}" /usr/bin/saccade serve --listen 127.0.0.1:0 --ops-listen "127.0.0.1:$ops" --media-port 0 2>"$work/log"; }
server=$SERVER_PID
read -r -t 120 line <&"${SERVER[0]}" || { cat "$work/log" >&2; die "the server did not start"; }
printf 'server: %s\n' "$line"
health=$("${run[@]}" /usr/bin/saccade health --url "http://127.0.0.1:$ops/readyz") || die "the server in the image is not healthy"
printf 'health: %s\n' "$health"
"${run[@]}" /bin/sh -c true >/dev/null 2>&1 && die "there is a shell in the image"

"${builder[@]}" push --quiet --format oci saccade:check "dir:$work/pushed" 2>"$work/push.log" || { cat "$work/push.log" >&2; die "the image cannot be written"; }
printf 'size: %d MB, compressed %d MB\n' "$(du -sb "$work/context/image" | awk '{print int($1 / 1e6)}')" "$(du -sb "$work/pushed" | awk '{print int($1 / 1e6)}')"
