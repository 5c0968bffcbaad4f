#!/bin/sh
# Finds out what the build needs and this machine lacks. Debian and Ubuntu: installs it where there are rights to. Elsewhere, or without
# rights: prints the line that does, and stops.
#
# Usage: deploy/prerequisites.sh [test]     `test` adds what only the tests need.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

check_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has cargo || fail "cargo is missing. Install Rust $wanted or newer, for example from https://rustup.rs, and run this again."
    found=$(cargo --version | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)
    [ "$oldest" = "$wanted" ] ||
        fail "cargo $found is too old: this needs Rust $wanted or newer. With rustup: rustup update stable"
}

# bindgen reads llama.cpp's headers through libclang and wants its own headers too, which come with the development package.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for library in /usr/lib/llvm-*/lib/libclang.so /usr/lib64/libclang.so /usr/lib/libclang.so /usr/local/lib/libclang.so \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib /opt/homebrew/opt/llvm/lib/libclang.dylib; do
        [ -e "$library" ] && return 0
    done
    return 1
}

has_venv() {
    has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null
}

# need TEST APT DNF BREW: notes the three package names when the test fails.
need() {
    "$1" && return 0
    apt="$apt $2" dnf="$dnf $3" brew="$brew $4"
}
has_cmake() { has cmake; }
has_compiler() { has c++ && has cc; }
has_make() { has make; }

install_with_apt() {
    echo "missing:$apt"
    if [ "$(id -u)" = 0 ]; then
        become=""
    elif has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        become="sudo"
    else
        ask_for_rights
    fi
    echo "installing:$apt"
    # shellcheck disable=SC2086 # The list is a list.
    $become apt-get update -qq && $become env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt ||
        fail "apt-get could not install:$apt"
}

ask_for_rights() {
    fail "missing:$apt" "Install what is missing with the line for your system, and run this again:" \
        "  sudo apt-get install$apt" "  sudo dnf install$dnf" "  brew install$brew"
}

check_rust
apt="" dnf="" brew=""
need has_cmake cmake cmake cmake
need has_compiler g++ gcc-c++ gcc
need has_make make make make
need has_libclang libclang-dev clang-devel llvm
[ "${1:-}" != test ] || need has_venv python3-venv python3 python3
[ -n "$apt" ] || exit 0
if has apt-get; then install_with_apt; else ask_for_rights; fi
