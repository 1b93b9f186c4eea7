#!/bin/sh
# What tests/slow/test_page_browser.py needs, installed where it is not yet: Debian's Chromium and
# the font of the screenshots (apt-get, as root), the driver `playwright` into the virtual
# environment, and axe-core, which checks accessibility and is not shipped, beside it.
set -eu
cd "$(dirname "$0")/../.."
venv=${VENV:-.venv}
axe=$venv/share/axe-core

if ! command -v chromium >/dev/null || ! fc-list | grep -q Inter; then
    echo "Installing Debian's chromium and fonts-inter"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium fontconfig fonts-inter >/dev/null
fi
if ! "$venv/bin/python" -c 'import playwright' 2>/dev/null; then
    echo "Installing playwright into $venv"
    "$venv/bin/pip" install --quiet playwright==1.65.2
fi
if [ ! -f "$axe/axe.min.js" ]; then
    echo "Fetching axe-core into $axe"
    mkdir -p "$axe"
    (cd "$axe" && npm pack --silent axe-core@4.14.1 >/dev/null)
    tar -xzf "$axe"/axe-core-4.14.1.tgz -C "$axe" --strip-components=1 package/axe.min.js package/LICENSE
    rm "$axe"/axe-core-4.14.1.tgz
fi
echo "The browser tests have what they need: $(chromium --version)"
