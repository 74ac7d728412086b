# Sourced by the launchers: the checkout's own Python environment, `.venv`.
# It needs a Python >= 3.11 on the PATH (or named by $PYTHON) and nothing else.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
# `python -m git_jax.X` then finds this checkout from whatever folder it is called.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

say() { printf '%s\n' "$*" >&2; }

# Launchers started together take turns, where the system has flock.
take_turns() {
    exec 9>"$venv.lock"
    if command -v flock >/dev/null; then flock 9; fi
}

# Prints the first Python that is new enough and can make an environment.
find_python() {
    local names=(python3.11 python3.12 python3.13 python3.14 python3 python)
    local name lacking="" seen="none"
    if [[ ${PYTHON:-} ]]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        # Run it: a name on the PATH may be a shim with no Python behind it.
        if ! "$name" -c 'import sys' 2>/dev/null; then
            continue
        elif ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            seen=$("$name" --version 2>&1)
        elif ! "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            lacking=$name
        else
            printf '%s\n' "$name"
            return
        fi
    done
    if [[ $lacking ]]; then
        say "$lacking is new enough, but lacks its modules venv and ensurepip. Install" \
            "them (Debian and Ubuntu: apt-get install python3-venv), or name another" \
            "Python: PYTHON=/path/to/python3.12 bash $0"
    else
        say "git_jax needs Python 3.11 or newer. Found: $seen; looked for ${names[*]}." \
            "Install one, or name one: PYTHON=/path/to/python3.12 bash $0"
    fi
    return 1
}

# Makes `.venv` unless it is there and whole: its Python may have gone since.
make_venv() (
    take_turns
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    python=$(find_python)
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
)

# Prints what an installation depends on: the Python and the two lists, hashed.
fingerprint() {
    "$venv/bin/python" - "$root/requirements.txt" "$root/pyproject.toml" <<'PYTHON'
import hashlib
import sys

digest = hashlib.sha256(sys.version.encode())
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())
PYTHON
}

# install NAME ARGUMENT...: runs pip unless the stamp NAME says that it was done.
install() (
    take_turns
    stamp=$venv/installed-$1 wanted=$(fingerprint)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    say "installing $1 into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}" >&2
    printf '%s\n' "$wanted" >"$stamp"
)

# What a run needs: the pinned requirements, and this package itself.
install_run() {
    make_venv
    install requirements --requirement "$root/requirements.txt"
    install package --no-deps --editable "$root"
}

# What the checks need beside it, in the versions that pyproject.toml pins.
install_check() {
    install_run
    install check --constraint "$root/requirements.txt" --editable "${root}[check]"
}
