#!/bin/sh
# Install the packages of deploy/apt.txt in the sections that are named ("run", "test").
# A second word on a line names the package's command. Where that command is there already, by whatever
# way it came, the package is not asked for: NodeSource's nodejs brings npm and refuses Debian's.
# Without root or apt it says what is missing and leaves the rest to whoever looks after the machine.
set -eu
list=$(dirname "$0")/apt.txt
wanted=$(for section in "$@"; do
    awk -v s="[$section]" '/^\[/ { on = ($0 == s) } on && !/^(\[|#|$)/' "$list"
done)
missing=$(echo "$wanted" | while read -r package command; do
    test -n "$command" && command -v "$command" >/dev/null && continue
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
