#!/bin/sh
# Install the packages of deploy/apt.txt in the sections that are named ("run", "test").
# Without root or apt it says what is missing and leaves the rest to whoever looks after the machine.
set -eu
list=$(dirname "$0")/apt.txt
wanted=$(for section in "$@"; do
    awk -v s="[$section]" '/^\[/ { on = ($0 == s) } on && !/^(\[|#|$)/ { print $1 }' "$list"
done)
missing=$(for package in $wanted; do
    dpkg -s "$package" >/dev/null 2>&1 || echo "$package"
done)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, please install:" $missing >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends $missing
