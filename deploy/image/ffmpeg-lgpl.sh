#!/usr/bin/env bash
# Builds FFmpeg's libraries without anything of the GPL into a folder: `deploy/image/ffmpeg-lgpl.sh /opt/ffmpeg`. The sources are
# those of the Debian package that is installed, so that the names of the libraries stay what the server was linked with.
# What is left out: encoding H.264 (x264). What stays: decoding H.264, VP8, VP9 and pictures, encoding VP8 and VP9 with libvpx.
# Runs as root on Debian, since it installs what the build needs.
set -euo pipefail

folder=${1:?usage: ffmpeg-lgpl.sh FOLDER}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$(dpkg-query -W -f='${source:Version}' libavcodec-dev)
# Sources of what is configured already.
sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >/etc/apt/sources.list.d/saccade-sources.sources
trap 'rm -rf "$work" /etc/apt/sources.list.d/saccade-sources.sources' EXIT
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends build-essential dpkg-dev nasm pkg-config libvpx-dev zlib1g-dev
cd "$work"
apt-get -q source "ffmpeg=$version"
cd ffmpeg-*/
./configure --prefix="$folder" --enable-shared --disable-static --disable-programs --disable-doc --disable-network \
    --disable-autodetect --disable-avdevice --disable-avfilter --disable-postproc --enable-pic --enable-zlib --enable-libvpx \
    --disable-gpl --disable-nonfree --disable-encoders --disable-muxers --disable-hwaccels --disable-indevs --disable-outdevs \
    --enable-encoder=libvpx_vp8,libvpx_vp9,mjpeg,png --enable-muxer=mp4,matroska,webm,image2,mov \
    --extra-version="lgpl-$version" \
    --libdir="$folder/lib" --shlibdir="$folder/lib"
make --silent --jobs "$(nproc)"
make --silent install-libs
cp COPYING.LGPLv2.1 "$folder/"
echo "$version" >"$folder/VERSION"
