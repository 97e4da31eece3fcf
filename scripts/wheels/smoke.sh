#!/bin/sh
# Inside a container of a distribution: install the wheel that pip chooses out of
# /espresso/dist, with what the sandbox needs, and press the button.
set -eu

python=python3
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if command -v dnf >/dev/null; then
        dnf -q -y install python3.11 python3.11-pip
    elif command -v zypper >/dev/null; then
        zypper -q -n install python311 python311-pip
    fi
    python=python3.11
fi
if command -v apt-get >/dev/null && ! $python -c 'import ensurepip' 2>/dev/null; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends python3 python3-venv
    python=python3
fi
venv=$(mktemp -d)
$python -m venv "$venv"
"$venv"/bin/pip install --quiet --only-binary :all: h11 trustme
"$venv"/bin/pip install --quiet --no-index --no-deps --only-binary :all: \
    --find-links /espresso/dist espresso-deltadefi
"$venv"/bin/python -I /espresso/scripts/wheels/smoke.py
