#!/usr/bin/env bash
# Builds FFmpeg's libraries without anything of the GPL into a folder: `deploy/image/ffmpeg-lgpl.sh /opt/ffmpeg`. The sources are
# those of the Debian package that is installed, so that the names of the libraries stay those that the server is linked with.
# It knows what sessions and common files need: H.264 by openh264 instead of x264, VP8 and VP9 by libvpx.
# Runs as root on Debian, since it installs what the build needs. With a second argument, it takes the sources that lie in
# that folder, and installs nothing.
set -euo pipefail

folder=${1:?usage: ffmpeg-lgpl.sh FOLDER [SOURCES]}
sources=${2:-}
version=$(dpkg-query -W -f='${source:Version}' libavcodec-dev)

if [ -z "$sources" ]; then
    work=$(mktemp -d)
    listed=/etc/apt/sources.list.d/saccade-sources.sources
    trap 'rm -rf "$work" "$listed"' EXIT
    # Sources of what is configured already.
    sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$listed"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends build-essential dpkg-dev nasm pkg-config \
        libopenh264-dev libvpx-dev zlib1g-dev
    cd "$work"
    apt-get -q source "ffmpeg=$version"
    sources=$(echo "$work"/ffmpeg-*/)
fi

cd "$sources"
./configure --prefix="$folder" --libdir="$folder/lib" --shlibdir="$folder/lib" --enable-shared --disable-static --enable-pic \
    --disable-gpl --disable-nonfree --disable-autodetect --disable-everything --disable-programs --disable-doc \
    --disable-network --disable-avdevice --disable-avfilter --disable-postproc --enable-zlib --enable-libvpx --enable-libopenh264 \
    --enable-decoder=h264,hevc,vp8,vp9,mpeg4,mjpeg,png,rawvideo \
    --enable-encoder=libopenh264,libvpx_vp8,libvpx_vp9,mjpeg,png \
    --enable-parser=h264,hevc,vp8,vp9,mpeg4video,mjpeg,png \
    --enable-bsf=h264_mp4toannexb,hevc_mp4toannexb,extract_extradata,vp9_superframe,vp9_superframe_split \
    --enable-demuxer=mov,matroska,avi,mpegts,h264,hevc,ivf,image2,image2pipe,rawvideo,mjpeg,yuv4mpegpipe \
    --enable-muxer=mp4,mov,matroska,webm,avi,image2,ivf,h264,mjpeg --enable-protocol=file,pipe
make --silent --jobs "$(nproc)"
make --silent install-libs
cp COPYING.LGPLv2.1 "$folder/"
echo "$version" >"$folder/VERSION"
# Debian's packages of what these libraries are linked with, to be installed where they are used.
dpkg-query -W -f='${Depends}\n' libopenh264-dev libvpx-dev | tr ',' '\n' | sed -nE 's/^ *(lib[a-z0-9-]+) \(= .*/\1/p' >"$folder/packages"
