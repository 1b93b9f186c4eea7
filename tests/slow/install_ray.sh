#!/bin/sh
# What tests/slow/test_ray.py and deploy/ray need: Ray with Serve and Data, in build/ray-venv. That
# environment sees the packages of the project's own one (torch is not installed twice), which in
# turn is spared some 50 packages. Idempotent. Wants `make install`, and no root.
set -eu
cd "$(dirname "$0")/../.."

venv=build/ray-venv
main=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
wanted="$main
$(cat deploy/ray/requirements.txt)"
if [ "$(cat $venv/installed 2> /dev/null)" != "$wanted" ]; then
    echo "install_ray: Ray in $venv"
    rm -rf $venv
    .venv/bin/python -m venv $venv
    # `addsitedir` and not the bare path: the project itself is there by a .pth file.
    own=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$main')" > "$own/locore.pth"
    $venv/bin/pip install --quiet --constraint constraints.txt \
        --requirement deploy/ray/requirements.txt
    echo "$wanted" > $venv/installed
fi
