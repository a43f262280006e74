#!/usr/bin/env bash
# Build the wheel from a source tree and install it, with the versions that were tested together,
# into a virtual environment that needs nothing else afterwards: deploy/install.sh SOURCE TARGET
#
# The Dockerfile's image is made by this script, and so is the installation that tests/system runs.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 SOURCE TARGET" >&2; exit 2; }
source=$(cd "$1" && pwd)
target=$2
[ ! -e "$target" ] || { echo "$target is already there" >&2; exit 1; }

wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
${PYTHON:-python3} -m venv "$target"
pip=("$target/bin/python" -m pip --quiet --disable-pip-version-check --no-input)
"${pip[@]}" wheel --no-deps --wheel-dir "$wheel" "$source"
"${pip[@]}" install --constraint "$source/constraints.txt" "$wheel"/twistd_gateway-*.whl

# twistd writes down which plugins it found; whoever runs it later may have no right to.
"$target/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
# Nothing is installed into it after this.
"${pip[@]}" uninstall --yes pip
"$target/bin/gateway" version
