# Sourced by the scripts beside it: finds a Python and makes the environment that they run in.
# Nothing but bash and Python 3.11 or newer is needed; packages come through pip, pinned by constraints.txt.

# The folder of the project, whatever folder the script was called from.
PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$PROJECT/.venv"

say() { printf '>> %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Prints the first command that is a Python of at least 3.11. Version managers leave commands on the path that only
# print an error, so each candidate is run.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1 | head -n 1 || true). Install one, or name it: PYTHON=/path/to/python3 $0"
}

# make_environment EXTRAS: leaves $VENV with the project (editable) and its extras. Does nothing when that is done already.
make_environment() {
    local extras="$1" python stamp wanted
    stamp="$VENV/.installed-$extras"
    wanted="$(cat "$PROJECT/pyproject.toml" "$PROJECT/constraints.txt" | cksum)"
    if [[ -x "$VENV/bin/python" && -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
        say "using $VENV"
        return
    fi
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        python="$(find_python)"
        say "making $VENV with $("$python" --version 2>&1)"
        "$python" -m venv --clear "$VENV" || fail "$python cannot make environments; on Debian: apt-get install python3-venv"
    fi
    say "installing the project with [$extras] (a minute or two the first time)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$PROJECT/constraints.txt" --editable "$PROJECT[$extras]"
    printf '%s\n' "$wanted" >"$stamp"
}
