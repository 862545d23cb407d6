#!/usr/bin/env bash
# Installs the Debian packages that building and testing need; does nothing, quickly, when they are there.
# Without the right to install it prints the one line to run and exits 1.
set -euo pipefail

packages=(
    build-essential pkg-config git
    libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools libdnnl-dev
    libfaiss-dev libopenblas-openmp-dev liblbfgs-dev
    libjpeg62-turbo-dev libpng-dev libyaml-dev libcjson-dev zlib1g-dev
    libcriterion-dev clang clang-format clang-tidy libclang-rt-14-dev
    gnuplot-nox procps time
    munge slurmctld slurmd slurm-client
)

# One query for all: a line "NAME installed" for each package that is there, any architecture.
missing() {
    local have
    have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
    for package in "${packages[@]}"; do
        grep -qx "$package installed" <<<"$have" || echo "$package"
    done
}

if ! command -v dpkg-query >/dev/null; then
    echo "setup: this is not a Debian-like system; install what these Debian packages hold: ${packages[*]}" >&2
    exit 1
fi

mapfile -t wanted < <(missing)
((${#wanted[@]} == 0)) && exit 0

if ((EUID != 0)); then
    echo "setup: packages are missing; run this, then try again:" >&2
    echo "sudo apt-get update && sudo apt-get install -y --no-install-recommends ${wanted[*]}" >&2
    exit 1
fi

# Another apt may hold the lock, a mirror may hiccup: a few tries, each a little later.
try() {
    local attempt
    for attempt in 1 2 3 4 5; do
        "$@" && return 0
        echo "setup: attempt $attempt failed: $*" >&2
        sleep $((attempt * 3))
    done
    return 1
}

# The daemons among them are started by the tests that need them, not now.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "${wanted[@]}")

echo "setup: installing ${wanted[*]}" >&2
# The lists at hand may do; a bare system has none, an old one points at packages that are gone.
if ! "${install[@]}" >/dev/null 2>&1; then
    try apt-get update -o DPkg::Lock::Timeout=120 >/dev/null
    try "${install[@]}" >/dev/null
fi

mapfile -t wanted < <(missing)
if ((${#wanted[@]} != 0)); then
    echo "setup: still missing: ${wanted[*]}" >&2
    exit 1
fi
