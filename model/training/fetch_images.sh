#!/bin/sh
# Photographs and drawings for training and out-of-domain tests that need no labels: the stamps of
# Tux Paint and the Open Clip Art library, from Debian's packages, unpacked and not installed.
#
#   sh model/training/fetch_images.sh FOLDER [IMAGES]
#
# makes FOLDER/stamps and FOLDER/clipart, each with IMAGES files (default 300), always the same.
set -eu
folder=${1:?usage: fetch_images.sh FOLDER [IMAGES]}
images=${2:-300}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

take() {  # NAME PACKAGE: every so many-th of its larger images
    (cd "$work" && apt-get download -q "$2" && dpkg-deb -x "$2"_*.deb "$1")
    find "$work/$1" -name '*.png' -size +8k ! -type l | LC_ALL=C sort > "$work/$1.txt"
    step=$(($(wc -l < "$work/$1.txt") / images))
    mkdir -p "$folder/$1"
    awk -v step="$step" -v most="$images" 'NR % step == 0 && NR / step <= most' "$work/$1.txt" |
        while read -r path; do
            cp "$path" "$folder/$1/$(basename "$path")"
        done
    echo "$folder/$1: $(ls "$folder/$1" | wc -l) images of $2"
}

take stamps tuxpaint-stamps-default
take clipart openclipart-png
