#!/usr/bin/env bash
# Make .venv from the lock file. Does nothing when it is up to date. Called by every make target that needs it.
# uv installs it: a fifth of pip's time, because it links packages from its cache instead of copying them.
set -euo pipefail
cd "$(dirname "$0")/.."

torch="2.13.0+cpu"
uv="0.13.9"
venv=.venv
stamp="$venv/installed"
wanted=$(cat requirements/cpu.lock requirements/setup.sh pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "set-up: $("$python" --version) is too old; assay needs Python 3.11 or newer (set PYTHON=...)" >&2; exit 2; }
command -v gcc >/dev/null || {
    echo "set-up: no gcc; the rewards compile C programs (Debian, Ubuntu: apt-get install gcc)" >&2; exit 2; }

echo "set-up: installing into $venv (about 4 GB; half a minute once downloaded)" >&2
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" || {
    echo "set-up: no virtual environment could be made (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet "uv==$uv"

# uv does not read pip's settings: hand over where packages come from, and the certificates.
setting() { # NAME: pip's value, from its environment variable or its configuration files
    local variable="PIP_$(echo "$1" | tr 'a-z-' 'A-Z_')"
    echo "${!variable:-$("$venv/bin/python" -m pip config get "global.$1" 2>/dev/null)}"
}
hand_over() { # UV_VARIABLE VALUE
    [ -n "${!1:-}" ] || [ -z "$2" ] || export "$1=$2"
}
hand_over UV_DEFAULT_INDEX "$(setting index-url)"
hand_over UV_INDEX "$(setting extra-index-url | tr '\n' ' ')"
hand_over UV_FIND_LINKS "$(setting find-links | tr -s ' \n' ',' | sed 's/,$//')"
hand_over UV_INSECURE_HOST "$(setting trusted-host | tr '\n' ' ')"
hand_over SSL_CERT_FILE "$(setting cert)"
export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match} UV_LINK_MODE=${UV_LINK_MODE:-hardlink}
pip() { VIRTUAL_ENV=$PWD/$venv "$venv/bin/uv" pip "$@"; }
# Python compiles what it imports, once; where that is forbidden, each start of vLLM would take 10 s more.
compile=${PYTHONDONTWRITEBYTECODE:+--compile-bytecode}

# The CPU build of torch: from the configured index if it has one, else from PyTorch's own.
if [ "$("$venv/bin/python" -c 'from importlib.metadata import version as v; print(v("torch"))' 2>/dev/null)" != "$torch" ]; then
    said=$(mktemp)
    pip install $compile --quiet --no-deps "torch==$torch" 2>"$said" ||
        pip install $compile --quiet --no-deps "torch==$torch" --index https://download.pytorch.org/whl/cpu || {
            echo "set-up: no torch $torch, neither in PyTorch's index nor in the configured one, which said:" >&2
            cat "$said" >&2; exit 2; }
    rm -f "$said"
fi
pip install $compile --quiet --no-deps -r requirements/cpu.lock
# CUDA builds of these break `import transformers` beside a CPU torch (see requirements/lock.py)
pip uninstall --quiet torchvision torchaudio torchcodec 2>/dev/null || true
pip install --quiet --no-deps --no-build-isolation --editable .

ls /usr/lib/*/libtcmalloc_minimal.so.4 >/dev/null 2>&1 ||
    echo "set-up: optional, makes rollouts faster: apt-get install libtcmalloc-minimal4" >&2
echo "$wanted" > "$stamp"
