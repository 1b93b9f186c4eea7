#!/bin/sh
# Run the Dockerfile where there is no Docker: as root on Debian or Ubuntu, with a base image made
# by debootstrap in the place of python:3.11-slim. buildah runs every step in a chroot.
#
#   deploy/container/check.sh FOLDER [DOCKERFILE ARGUMENTS…]
#
# leaves the image's root in FOLDER/image, and its configuration in FOLDER/image.json. The base stays
# in FOLDER for the next time. WHEELS, a folder with torch's wheel, stands in for torch's index where
# that cannot be reached; MIRROR is Debian's.
set -eu

folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."
base=localhost/locore-check-base
image=localhost/locore-check

# chroot: this has to work inside a container that may not make namespaces of its own.
export BUILDAH_ISOLATION=chroot
store() { buildah --root "$folder/store" --runroot "$folder/run" "$@"; }

if ! [ -e "$folder/base.made" ]; then
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        bookworm "$folder/base" "${MIRROR:-http://deb.debian.org/debian}"
    # Left out as in the image that this stands in for.
    rm -rf "$folder/base/var/cache/apt" "$folder/base/var/lib/apt/lists"
    container=$(store from scratch)
    store add "$container" "$folder/base" /
    store config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$container"
    store commit --rm "$container" "$base"
    rm -rf "$folder/base"
    touch "$folder/base.made"
fi

# The machine's own way to the package index: its certificates and its folder of wheels.
certificates=/etc/ssl/certs/ca-certificates.crt
{
    echo '[global]'
    echo "cert = $certificates"
    [ -z "${WHEELS:-}" ] || echo 'find-links = /wheels'
} > "$folder/pip.conf"
set -- "$@" --volume "$certificates:$certificates:ro" --volume "$folder/pip.conf:/etc/pip.conf:ro"
[ -z "${WHEELS:-}" ] ||
    set -- "$@" --volume "$WHEELS:/wheels:ro" --build-arg TORCH_INDEX=file:///wheels

# docker: the format that has HEALTHCHECK.
store bud --format docker --layers=false --build-arg "PYTHON_IMAGE=$base" "$@" --tag "$image" .
store inspect --type image "$image" > "$folder/image.json"
container=$(store from "$image")
rm -rf "$folder/image"
mkdir "$folder/image"
tree=$(store mount "$container")
cp --archive "$tree/." "$folder/image"
store umount "$container"
store rm "$container"
store rmi "$image"
du --summarize --block-size=1M "$folder/image"
