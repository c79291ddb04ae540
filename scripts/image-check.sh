#!/usr/bin/env bash
# Makes the image for processors with buildah, looks at it, runs its server and its health check in it, and says how large it is.
#
#     scripts/image-check.sh [PROGRAM]   of a program that is built already, by default target/release/saccade: the last stage of
#                                        deploy/Dockerfile on what deploy/image/assemble.py puts together; nothing is fetched
#     scripts/image-check.sh --whole     of the sources, from the Dockerfile's first stage on, in a quarter of an hour and more;
#                                        FFMPEG=lgpl for an FFmpeg without x264
#
# Needs root, buildah, and ONNX Runtime (`make setup`) or, with --whole, debootstrap: the image of Rust that the Dockerfile begins
# with need not be fetched from a registry, since a Debian made by debootstrap with this machine's Rust stands in for it.
# SACCADE_IMAGE_STORE names a folder that keeps layers for the next run. Tests look at the last stage without buildah
# (tests/deploy/test_images.py).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
die() {
    printf 'image-check: %s\n' "$*" >&2
    exit 69
}
command -v buildah >/dev/null || die "there is no buildah: apt-get install buildah"
[ "$(id -u)" -eq 0 ] || die "this needs root, for whom buildah has layers without user namespaces"

work=$(mktemp -d)
# The user of the container goes through it, as it would through an engine's folders.
chmod 755 "$work"
store=${SACCADE_IMAGE_STORE:-$work/store}
# Nothing of this machine's own store is touched.
builder=(buildah --root "$store" --runroot "$work/run" --storage-driver overlay)
server=''
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    # What buildah has mounted is let go of before its folder is removed.
    "${builder[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

# A Debian with a C compiler and this machine's Rust, under the name of the image that the Dockerfile begins with.
stand_in() {
    local name=$1 sysroot container
    command -v debootstrap >/dev/null || die "there is no debootstrap: apt-get install debootstrap"
    sysroot=$(rustc --print sysroot)
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$work/rust" >"$work/debootstrap.log" 2>&1 ||
        { tail "$work/debootstrap.log" >&2; die "debootstrap failed"; }
    mkdir -p "$work/rust/usr/local/rustup" "$work/rust/usr/local/cargo"
    cp -a "$sysroot/bin" "$sysroot/lib" "$work/rust/usr/local/rustup/"
    # Where images of Debian's name it.
    printf 'Types: deb\nURIs: %s\nSuites: bookworm\nComponents: main\nSigned-By: %s\n' "$(awk '{ print $2; exit }' "$work/rust/etc/apt/sources.list")" \
        /usr/share/keyrings/debian-archive-keyring.gpg >"$work/rust/etc/apt/sources.list.d/debian.sources"
    rm "$work/rust/etc/apt/sources.list"
    # Whom this machine trusts to be the registries of packages, and how its pip is told.
    cp /etc/ssl/certs/ca-certificates.crt "$work/rust/etc/ssl/certs/"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$work/rust/etc/"
    container=$("${builder[@]}" from scratch)
    "${builder[@]}" copy --quiet "$container" "$work/rust/" / >/dev/null
    "${builder[@]}" config --env CARGO_HOME=/usr/local/cargo --env RUSTUP_HOME=/usr/local/rustup \
        --env PATH=/usr/local/cargo/bin:/usr/local/rustup/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    "${builder[@]}" commit --quiet --rm "$container" "$name" >/dev/null
    rm -rf "$work/rust"
}

bud=("${builder[@]}" bud --isolation chroot --format docker --tag saccade:check)
if [ "${1:-}" = --whole ]; then
    rust=$(sed -n 's/^ARG RUST=//p' "$root/deploy/Dockerfile")
    [[ "$(rustc --version)" = "rustc $rust."* ]] || die "the Dockerfile builds with Rust $rust, this machine has $(rustc --version)"
    "${builder[@]}" inspect --type image "rust:$rust-slim-bookworm" >/dev/null 2>&1 || stand_in "rust:$rust-slim-bookworm"
    "${bud[@]}" --layers --pull=never --build-arg "FFMPEG=${FFMPEG:-debian}" --file "$root/deploy/Dockerfile" "$root"
else
    program=${1:-${CARGO_TARGET_DIR:-$root/target}/release/saccade}
    [ -x "$program" ] || die "there is no $program: build it with make build, or name another"
    runtime=$(compgen -G "${XDG_CACHE_HOME:-$HOME/.cache}/saccade/onnxruntime-openvino-*" | sort -V | tail -n 1)
    [ -n "$runtime" ] || die "there is no ONNX Runtime: make setup"
    "$root/deploy/image/assemble.py" --binary "$program" --runtime "$runtime" --models "$root/models" --lock "$root/Cargo.lock" \
        --out "$work/context/image"
    sed -n '/^FROM scratch$/,$p' "$root/deploy/Dockerfile" | sed -E 's#^COPY --from=build (.*)/image/#COPY \1image/#' >"$work/Dockerfile"
    "${bud[@]}" --quiet --file "$work/Dockerfile" "$work/context" >/dev/null
fi
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
printf 'size: %d MB, compressed %d MB\n' "$(du -sb "$("${builder[@]}" mount "$container")" | awk '{print int($1 / 1e6)}')" "$(du -sb "$work/pushed" | awk '{print int($1 / 1e6)}')"
