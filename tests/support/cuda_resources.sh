#!/usr/bin/env bash
# cuda_resources.sh TABLE REPORT...: what ptxas said about each kernel (nvcc -Xptxas -v), as a table. Fails if a kernel spills registers to memory
# and tests/support/cuda_spills.txt does not say why it may, or if ptxas runs a kernel's wgmma instructions one after the other.
set -euo pipefail
cd "$(dirname "$0")/../.."
(($# > 1)) || { echo "cuda-all: no nvcc was found (CUDA_PATH, NVCC and CUDA of config.mk)" >&2; exit 1; }
table=$1 allowed=tests/support/cuda_spills.txt
shift

# One line a kernel and architecture: file, architecture, registers, shared, stack, spill stores, spill loads, name as the linker knows it.
rows() {
  awk '
    FNR == 1 { file = FILENAME; sub(/.*\//, "", file); sub(/\.ptxas$/, "", file) }
    /Compiling entry function/ { split($0, part, "\x27"); name = part[2]; arch = part[4] }
    /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
    /: Used [0-9]+ registers/ {
      registers = $0; sub(/.*Used /, "", registers); sub(/ .*/, "", registers)
      shared = 0
      if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
      print file, arch, registers, shared, stack, stores, loads, name
    }' "$@" | sort -u
}

{
  printf '%-36s %-7s %9s %7s %6s %7s %6s  %s\n' file target registers shared stack stores loads kernel
  rows "$@" | while read -r file arch registers shared stack stores loads name; do
    printf '%-36s %-7s %9d %7d %6d %7d %6d  %s\n' "$file" "$arch" "$registers" "$shared" "$stack" "$stores" "$loads" "$(c++filt "$name" | sed 's/(.*//; s/^void //')"
  done
} >"$table"
kernels=$(($(wc -l <"$table") - 1))

# Each line of the list: a regular expression of `file target kernel`, then two spaces and the reason.
failed=0
while read -r file arch _ _ _ stores loads kernel; do
  ((stores + loads > 0)) || continue
  reason=$(while IFS= read -r line; do
    [[ $line == \#* || -z $line ]] && continue
    if [[ "$file $arch $kernel" =~ ${line%%  *} ]]; then echo "${line#*  }"; break; fi
  done <"$allowed")
  if [[ -n $reason ]]; then
    echo "cuda-all: $file, $arch, $kernel: spills $stores + $loads bytes: $reason"
  else
    echo "cuda-all: $file, $arch, $kernel: spills $stores + $loads bytes" >&2
    failed=1
  fi
done < <(tail -n +2 "$table")
serialized=$(grep -hE 'wgmma.mma_async instructions are serialized' "$@" | c++filt | sort -u || true)
if [[ -n $serialized ]]; then
  echo "cuda-all: $serialized" >&2
  failed=1
fi
echo "cuda-all: $kernels kernels, table in $table"
exit $failed
