#!/bin/sh
# The steps behind the Makefile that look at the machine: interpreter, compiler, installation.
#
#   sh tools/bootstrap.sh toolchain   make .venv if need be; note in .venv/toolchain what was found
#   sh tools/bootstrap.sh install     install the pinned packages and onebit, build the kernel
#   sh tools/bootstrap.sh announce    say which kernel runs and where the book is
#
# What is missing is told in one sentence with the cure for Debian (and Ubuntu) and for macOS.
set -eu
cd "$(dirname "$0")/.."

PY=.venv/bin/python
XCODE='xcode-select --install'

fail() {
    printf 'onebit: %s\n' "$1" >&2
    exit 1
}

# True if $1 runs and is a Python that the course supports.
supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Version and home of an interpreter; a virtual environment has those of the one it was made with.
identity() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix)'
}

# Print the interpreter to make .venv with.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.13 python3.12 python3.11
    fi
    for candidate; do
        if supported "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    candidate=$1
    found=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) ||
        found='not to be found'
    fail "the course needs Python 3.11, 3.12 or 3.13 and $candidate is $found: \`sudo apt-get install python3 python3-venv python3-dev\` on Debian, \`brew install python@3.13\` on macOS, or name one with \`PYTHON=/path/to/python3 make book\`."
}

# Make .venv unless there is one that works here and is of the interpreter asked for.
ensure_venv() {
    # Its commands hold the tree's address, so an environment does not survive a move.
    place=$(sed -n 's/^tree: //p' .venv/toolchain 2>/dev/null) || place=''
    if supported "$PY" && [ "${place:-$PWD}" = "$PWD" ]; then
        [ -n "${PYTHON:-}" ] || return 0
        python=$(find_python)
        [ "$(identity "$python")" != "$(identity "$PY")" ] || return 0
    else
        python=$(find_python)
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || {
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$python cannot make virtual environments, since its venv module is incomplete: \`sudo apt-get install python3-venv\` (or python$version-venv) on Debian, \`brew install python@$version\` on macOS."
    }
    echo "Making .venv with Python $(identity "$python")"
    "$python" -m venv --clear .venv
}

# True if the compiler $1 accepts the C source on standard input; $2 is an option to give it.
compiles() {
    # CC may hold words ("ccache gcc"), so $1 is left to split.
    $1 ${2:+"$2"} -fsyntax-only -x c - >/dev/null 2>&1
}

# Set `compiler` (empty if none works) and `headers` (yes or no).
find_compiler() {
    default=$("$PY" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')
    include=$("$PY" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    compiler='' headers=no
    # Without its developer tools, macOS has a `cc` that only opens a window to offer them.
    if [ "$(uname)" = Darwin ] && ! xcode-select -p >/dev/null 2>&1; then
        return
    fi
    for candidate in "${CC:-}" "$default" cc gcc clang; do
        if [ -n "$candidate" ] && echo '#include <stdlib.h>' | compiles "$candidate"; then
            compiler=$candidate
            break
        fi
    done
    if [ -n "$compiler" ] && echo '#include <Python.h>' | compiles "$compiler" "-I$include"; then
        headers=yes
    fi
}

# One sentence on why the C kernel cannot be built, and the cure; nothing if it can.
obstacle() {
    version=$("$PY" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ -z "$compiler" ]; then
        echo "there is no working C compiler: \`sudo apt-get install gcc libc6-dev python3-dev\` on Debian, \`$XCODE\` on macOS, then make again."
    elif [ "$headers" = no ]; then
        echo "Python's header files are missing: \`sudo apt-get install python3-dev\` (or python$version-dev) on Debian, \`brew install python@$version\` on macOS, then make again."
    fi
}

toolchain() {
    ensure_venv
    find_compiler
    why=$(obstacle)
    if [ "${ONEBIT_REQUIRE_KERNEL:-}" = 1 ]; then
        [ -z "$why" ] || fail "ONEBIT_REQUIRE_KERNEL=1, but $why"
        # Installed earlier without the kernel: install again.
        [ "$(cat .venv/installed 2>/dev/null)" != numpy ] || rm -f .venv/toolchain
    fi
    found="tree: $PWD
python: $(identity "$PY")
compiler: ${compiler:-none}
headers: $headers"
    [ "$found" = "$(cat .venv/toolchain 2>/dev/null)" ] || printf '%s\n' "$found" >.venv/toolchain
}

install() {
    find_compiler
    # Name the compiler only if the one that Python would take itself does not work.
    if [ -n "$compiler" ] && [ "$compiler" != "$default" ]; then
        export CC="$compiler"
    fi
    rm -f .venv/installed
    requirements=$(cat pyproject.toml constraints.txt | cksum)
    if [ "$requirements" = "$(cat .venv/requirements 2>/dev/null)" ]; then
        # Only the kernel, the toolchain or the place of the tree is new.
        "$PY" -m pip install -c constraints.txt --no-build-isolation --no-deps -e .
    else
        rm -f .venv/requirements
        "$PY" -m pip install -c constraints.txt setuptools wheel cffi
        "$PY" -m pip install -c constraints.txt --no-build-isolation -e '.[course,test]'
        printf '%s\n' "$requirements" >.venv/requirements
    fi
    kernel=$(env -u ONEBIT_KERNEL -u ONEBIT_REQUIRE_KERNEL "$PY" -c 'import onebit; print(onebit.kernel_name())')
    if [ "$kernel" = numpy ] && [ "${ONEBIT_REQUIRE_KERNEL:-}" = 1 ]; then
        fail 'ONEBIT_REQUIRE_KERNEL=1, but the C kernel was not built: see the messages above.'
    fi
    printf '%s\n' "$kernel" >.venv/installed
}

announce() {
    kernel=$(cat .venv/installed)
    if [ "$kernel" = numpy ]; then
        find_compiler
        why=$(obstacle)
        echo "Kernel:  numpy (exact, but slow). The C kernel was not built: ${why:-see \`$PY -m onebit doctor\`.}"
    else
        echo "Kernel:  $kernel"
    fi
    echo "Book:    $("$PY" -c 'import pathlib; print(pathlib.Path("_build/html/index.html").resolve().as_uri())')"
    echo "Search:  with excerpts from a web server only: \`make serve\`"
}

case "${1:-}" in
toolchain | install | announce) "$1" ;;
*) fail 'usage: sh tools/bootstrap.sh toolchain|install|announce' ;;
esac
