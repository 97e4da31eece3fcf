#!/bin/sh
# Inside an image of manylinux or musllinux: what building the libraries needs.
set -eu

if command -v dnf >/dev/null; then
    dnf -q -y install patch perl-core
elif command -v yum >/dev/null; then
    yum -q -y install patch perl-core
else
    apk add --quiet linux-headers patch perl
fi
