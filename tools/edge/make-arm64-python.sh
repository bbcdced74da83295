#!/bin/sh
# Python 3.11 for ARM64 with NumPy, Pillow and ONNX Runtime in FOLDER, run by QEMU: tells whether answers are right, not
# how fast. Takes no root; 230 MB.
#
#   make-arm64-python.sh FOLDER ONNXRUNTIME    (a requirement, such as onnxruntime==1.32.0)
#   [QCPU=cortex-a57|neoverse-n1|neoverse-v1] FOLDER/python script.py
#
# The processors have NEON alone, dot products, and matrix products. QEMU is of the backports: ONNX Runtime reads
# /proc/cpuinfo when it loads, and version 7.2 shows it the host's, on which it crashes.
set -eu
folder=${1:?an absolute folder} engine=${2:-onnxruntime} pip=${PIP:-python3 -m pip}
. "$(dirname "$0")/mirror.sh"

mkdir -p "$folder/root" "$folder/q"
apt_begin "$folder" <<SUITES
arm64 bookworm
amd64 bookworm-backports
SUITES
apt_do download qemu-user:amd64
for name in libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 \
    libcrypt1 libnsl2 libtirpc3 python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib; do
    apt_do download "$name:arm64"
done
for package in "$apt_folder"/debs/*_arm64.deb; do
    dpkg-deb -x "$package" "$folder/root"
done
dpkg-deb --fsys-tarfile "$apt_folder"/debs/qemu-user_*_amd64.deb | tar -x -C "$folder/q" ./usr/bin/qemu-aarch64
apt_end

$pip install --quiet --target "$folder/sp" --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    numpy pillow "$engine"

cat >"$folder/python" <<SCRIPT
#!/bin/sh
exec $folder/q/usr/bin/qemu-aarch64 -cpu "\${QCPU:-neoverse-n1}" -0 $folder/python -L $folder/root \\
    -E PYTHONHOME=/usr -E "PYTHONPATH=$folder/sp\${PYTHONPATH:+:\$PYTHONPATH}" $folder/root/usr/bin/python3.11 "\$@"
SCRIPT
chmod +x "$folder/python"
