#!/bin/bash
# Make the virtual environment VENV, unless it is there, and install: install.sh VENV REQUIREMENTS [PACKAGE...]
# The Python is $PYTHON, else the first of python3.11, python3.10, python3.9, python3 that MindSpore supports.
set -euo pipefail
supported='import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))'
if [ ! -x "$1/bin/python" ]; then
    for python in ${PYTHON:-python3.11 python3.10 python3.9 python3 python}; do
        if "$python" -c "$supported" 2>/dev/null; then
            "$python" -m venv "$1"
            break
        fi
    done
fi
[ -x "$1/bin/python" ] || { echo "error: no Python 3.9, 3.10 or 3.11 found; set PYTHON to one" >&2; exit 2; }
"$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" "${@:3}"
