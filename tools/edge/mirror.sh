# Sourced by the scripts beside it: Debian packages of another release or architecture, without root.
# Everything apt needs lies in $1/apt, which is removed at the end; packages are from the mirror that this machine uses.

apt_begin() { # FOLDER, then lines "ARCHITECTURE SUITE" on standard input
    apt_folder=$1/apt
    rm -rf "$apt_folder"
    mkdir -p "$apt_folder/lists/partial" "$apt_folder/cache/archives/partial" "$apt_folder/debs"
    : >"$apt_folder/status"
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -v '^[[:space:]]*#' | tr -s ' \t' '\n' | grep -E '^[a-z+]+:/.*/debian/*$' | head -n 1)
    if [ -z "$mirror" ]; then
        echo "error: no Debian mirror in /etc/apt" >&2
        exit 1
    fi
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    while read -r architecture suite; do
        echo "deb [arch=$architecture signed-by=$key] $mirror $suite main"
    done >"$apt_folder/sources.list"
    apt_do update
}

apt_do() {
    (cd "$apt_folder/debs" && apt-get -qq \
        -o "Dir::Etc::sourcelist=$apt_folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::lists=$apt_folder/lists" -o "Dir::State::status=$apt_folder/status" \
        -o "Dir::Cache=$apt_folder/cache" -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 "$@")
}

apt_end() {
    rm -rf "$apt_folder"
}
