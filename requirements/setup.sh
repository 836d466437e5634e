#!/usr/bin/env bash
# Make .venv from the lock file. Does nothing when it is up to date. Called by every make target that needs it.
set -euo pipefail
cd "$(dirname "$0")/.."

torch="2.13.0+cpu"
venv=.venv
stamp="$venv/installed"
wanted=$(cat requirements/cpu.lock requirements/setup.sh pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "set-up: $("$python" --version) is too old; assay needs Python 3.11 or newer (set PYTHON=...)" >&2; exit 2; }
command -v gcc >/dev/null || {
    echo "set-up: no gcc; the rewards compile C programs (Debian, Ubuntu: apt-get install gcc)" >&2; exit 2; }

echo "set-up: installing into $venv (about 4 GB; two minutes once downloaded)" >&2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# The CPU build of torch: from the configured index if it has one, else from PyTorch's own.
if [ "$("$venv/bin/python" -c 'from importlib.metadata import version as v; print(v("torch"))' 2>/dev/null)" != "$torch" ]; then
    pip install --quiet --no-deps "torch==$torch" 2>/dev/null ||
        pip install --quiet --no-deps "torch==$torch" --index-url https://download.pytorch.org/whl/cpu
fi
pip install --quiet --no-deps -r requirements/cpu.lock
# CUDA builds of these break `import transformers` beside a CPU torch (see requirements/lock.py)
pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null || true
pip install --quiet --no-deps --no-build-isolation --editable .

ls /usr/lib/*/libtcmalloc_minimal.so.4 >/dev/null 2>&1 ||
    echo "set-up: optional, makes rollouts faster: apt-get install libtcmalloc-minimal4" >&2
echo "$wanted" > "$stamp"
