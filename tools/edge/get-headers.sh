#!/bin/sh
# ONNX Runtime's C headers in FOLDER/include, of Debian trixie's libonnxruntime-dev (API 21), and an empty FOLDER/lib for
# the library. Takes no root.
#
#   get-headers.sh FOLDER
set -eu
folder=${1:?an absolute folder}
. "$(dirname "$0")/mirror.sh"

mkdir -p "$folder/lib"
apt_begin "$folder" <<SUITES
amd64 trixie
SUITES
apt_do download libonnxruntime-dev:amd64
dpkg-deb -x "$apt_folder"/debs/libonnxruntime-dev_*.deb "$apt_folder/unpacked"
cp -r "$apt_folder/unpacked/usr/include" "$folder/"
apt_end
find "$folder/include" -name onnxruntime_c_api.h | grep -q . || {
    echo "error: libonnxruntime-dev holds no onnxruntime_c_api.h" >&2
    exit 1
}
