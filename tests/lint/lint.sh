#!/usr/bin/env bash
# Proves the rules of the house; prints every breach, fails if there was one. What each rule means: CONTRIBUTING.md.
set -u
cd "$(dirname "$0")/../.." || exit 2
failed=0
report() { printf 'lint: %s\n' "$@" >&2; failed=1; }

mapfile -t files < <(git ls-files -co --exclude-standard 'src/*.[ch]' 'jobs/*.[ch]' 'tests/*.[ch]' '*.cu' '*.cuh' '*.cc' |
  while IFS= read -r file; do [[ -f $file ]] && printf '%s\n' "$file"; done | sort -u)
only() { printf '%s\n' "${files[@]}" | grep -E "$1"; }

# --- floors: a folder includes itself and strictly lower ones
declare -A floor=([base]=0 [config]=1 [device]=1 [tensor]=2 [comm]=2 [ops]=3 [h5]=3 [run]=3 [nn]=4 [loss]=4 [data]=4 [fsdp]=4
  [index]=4 [optim]=5 [features]=5 [ckpt]=6 [ssl]=6 [train]=7 [curation]=7 [eval]=7 [ablation]=7 [plan]=7 [report]=7 [bench]=7 [jobs]=8)
while IFS=: read -r file _ include; do
  from=${file#src/} from=${from%%/*}
  [[ $file == jobs/* ]] && from=jobs
  to=${include#*\"} to=${to%%/*}
  [[ $include == *\"*/* ]] || { [[ $from == jobs ]] || report "$file: include paths start at src/: $include"; continue; }
  [[ $from == "$to" ]] && continue
  [[ -n ${floor[$from]:-} && -n ${floor[$to]:-} ]] || { report "$file: unknown folder in $include"; continue; }
  ((${floor[$to]} < ${floor[$from]})) || report "$file: floor ${floor[$from]} ($from) includes floor ${floor[$to]} ($to)"
done < <(grep -nE '^#include "' $(printf '%s\n' "${files[@]}" | grep -E '^(src|jobs)/'))

# --- foreign headers: in .c files of their own folders only (comm_mpi.h hands out the MPI communicator, libraries.c asks all for versions)
while IFS=: read -r file _ line; do
  [[ $file == src/comm/mpi/comm_mpi.h || ($file =~ ^src/((device|ops)/cuda|comm/nccl)/ && $line =~ cuda|cublas|nccl) ]] || report "$file: a header includes a library's header: $line"
done < <(grep -nE '#include [<"](mpi|nccl|hdf5|cuda[A-Za-z_0-9]*|cublas[A-Za-z_0-9]*|faiss|jpeglib|turbojpeg|png|yaml|cJSON|cjson|dnnl|cblas|lbfgs|omp)[./]' $(only '^(src|jobs)/.*\.(h|cuh)$'))
declare -A home=([mpi]='src/comm/mpi/|src/run/' [nccl]='src/comm/nccl/' [hdf5]='src/h5/' [cuda]='src/(device|ops)/cuda/|src/comm/nccl/'
  [faiss]='src/index/' [jpeglib]='src/data/' [turbojpeg]='src/data/' [png]='src/(data|report)/' [yaml]='src/(config|h5|run|plan)/'
  [dnnl]='src/ops/cpu/|src/bench/' [cblas]='src/ops/cpu/|src/bench/' [lbfgs]='src/eval/')
while IFS=: read -r file _ line; do
  name=${line#*[<\"]} name=${name%%[./]*}
  [[ $name == cuda* || $name == cublas* ]] && name=cuda
  [[ $file =~ ^(${home[$name]}) || $file == src/run/libraries.c ]] || report "$file: <$name> belongs to ${home[$name]}"
done < <(grep -nE '#include [<"](mpi|nccl|hdf5|cuda[A-Za-z_0-9]*|cublas[A-Za-z_0-9]*|faiss|jpeglib|turbojpeg|png|yaml|dnnl|cblas|lbfgs)[./]' $(only '^(src|jobs)/'))

# --- the choice of a backend is made at run time, not by the preprocessor
while IFS= read -r hit; do
  report "conditional on CUDA outside its folders: $hit"
done < <(grep -nE '^ *# *(if|elif|ifdef|ifndef)\b.*\bCUDA' $(only '^(src|jobs)/' | grep -vE '^src/(device/cuda|ops/cuda|comm/nccl)/'))

# --- no state of a file: what the process has one of (signals, libhdf5's lock, a statistic) is named here
while IFS= read -r hit; do
  report "a variable of the whole program: $hit"
done < <(grep -nE '^(static )?[A-Za-z_][A-Za-z_0-9 *]*( =|;|\[)|^ +static [^(]*( =|;|\[)' $(only '^(src|jobs)/.*\.(c|cu)$') |
  grep -vE '\b(const|typedef|return|goto|extern|enum|template)\b|^[^:]*:[0-9]*:(struct|union) [A-Za-z]+;|\(' |
  grep -vE '^src/(base/memory|h5/h5_guard|run/signals)\.c:')

# --- banned calls: unbounded, not thread-safe, or somebody else's job
while IFS= read -r hit; do
  report "banned call: $hit"
done < <(grep -nE '\b(strcat|sprintf|vsprintf|gets|strtok|atoi|atof|rand|srand|drand48|alloca|system|tmpnam|mktemp)\(' "${files[@]}")
while IFS= read -r hit; do
  report "heap outside base/memory: $hit"
done < <(grep -nE '[^_a-z.>](malloc|calloc|realloc|strdup)\(' $(printf '%s\n' "${files[@]}" | grep -E '^(src|jobs)/' | grep -v '^src/base/memory.c$'))
while IFS= read -r hit; do
  report "a library function must not end the program: $hit"
done < <(grep -nE '\b(exit|_exit|abort)\(' $(only '^src/.*\.(c|cu)$' | grep -vE '^src/(base/(check|memory)|comm/|run/(run|signals)|h5/h5_check|device/cuda/device_cuda\.)'))

# --- files that others may have written are checked in a child first (h5/h5_check.h); hdf5_set.c has all of its shards checked at once
while IFS= read -r hit; do
  report "opened without a check: $hit"
done < <(grep -nE '\bh5_file_open\(' $(only '^(src|jobs)/.*\.c$' | grep -vE '^src/(h5/|data/hdf5_set\.c)'))

# --- kernels: what the emulator can run (tests/emulator), nothing that a GPU does unseen
while IFS= read -r hit; do
  report "kernels start by KERNEL_LAUNCH: $hit"
done < <(grep -nE '<<<|extern +__shared__' $(only '^src/.*\.(cu|cuh)$' | grep -v '/kernel_launch\.cuh$'))
while IFS= read -r hit; do
  report "machine code outside of tests/emulator's headers: $hit"
done < <(grep -nE '\basm\b' $(only '^src/.*\.(cu|cuh)$' | while IFS= read -r file; do [[ -f tests/emulator/${file#src/} ]] || printf '%s\n' "$file"; done) /dev/null)
while IFS= read -r hit; do
  report "a CUDA call without CUDA_CHECK: $hit"
done < <(grep -nE '^ *(cuda|cublas)[A-Z][A-Za-z]*\(.*;$' $(only '^src/.*\.(cu|cuh)$') | grep -vE 'cuda[A-Za-z]*(String|Name)\(|cublas[A-Za-z]*String\(')
while IFS= read -r hit; do
  report "device memory outside of device/cuda: $hit"
done < <(grep -nE '\bcudaMalloc[A-Za-z]*\(|\bnew [A-Za-z]|\bcuda(Device|Stream|Event)Synchronize\(' $(only '^src/.*\.(cu|cuh)$' | grep -vE '^src/(device/cuda|comm/nccl)/'))

# --- sizes: 600 lines a file; 80 a function unless marked `/* long: reason */` on the line before it
awk '/\/\* long file: / { marked[FILENAME] = 1 } { lines[FILENAME] = FNR }
  END { for (f in lines) if (lines[f] > 600 && !marked[f]) { printf "lint: %s: %d lines, 600 at most\n", f, lines[f]; bad = 1 }; exit bad }' \
  "${files[@]}" >&2 || failed=1
awk 'FNR == 1 { start = 0; marked = 0 }
  /\/\* long: / { marked = 1 }
  /^\{/ { start = FNR }
  /^\}/ { if (start && FNR - start > 81 && !marked) { printf "lint: %s:%d: a function of %d lines, 80 at most\n", FILENAME, start, FNR - start; bad = 1 }
          if (start) marked = 0; start = 0 }
  END { exit bad }' "${files[@]}" >&2 || failed=1

# --- one name, one file
while IFS= read -r name; do
  report "two files are called $name"
done < <(only '^src/' | xargs -n1 basename | sort | uniq -d)

# --- marks of unfinished work
while IFS= read -r hit; do
  report "unfinished: $hit"
done < <(grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "${files[@]}")

# --- format
if command -v clang-format >/dev/null; then
  clang-format --dry-run -Werror "${files[@]}" 2>&1 | grep -E 'error:' | head -5 | sed 's/^/lint: /' >&2
  [[ ${PIPESTATUS[0]} -eq 0 ]] || { report "run make format"; }
else
  report "clang-format is missing: make setup"
fi

# --- a short clang-tidy list. Not for kernels: their vector types are gcc's. Not what it gets wrong in C: pointers that a contract keeps
# from NULL, casts between types of the same width.
if [[ ${LINT_TIDY:-1} == 1 ]] && command -v clang-tidy >/dev/null; then
  checks='-*'
  for name in suspicious-memset-usage integer-division infinite-loop suspicious-string-compare signal-handler posix-return \
    too-small-loop-variable assert-side-effect swapped-arguments terminating-continue suspicious-semicolon \
    suspicious-memory-comparison misplaced-pointer-arithmetic-in-alloc; do
    checks+=",bugprone-$name"
  done
  checks+=',misc-redundant-expression,clang-analyzer-core.*,-clang-analyzer-core.NullDereference,-clang-analyzer-core.DivideZero'
  checks+=',clang-analyzer-deadcode.*,clang-analyzer-unix.*'
  flags="-std=c17 -fopenmp -D_GNU_SOURCE -DFAISS_VERSION=\"any\" -Isrc -Ijobs -isystem tests/emulator $(pkg-config --cflags ompi-c hdf5-openmpi libcjson yaml-0.1 libpng libjpeg)"
  warnings=$(only '^(src|jobs)/.*\.c$' | grep -vE '^src/ops/(cpu|cuda)/|^src/data/image/image_resize_vnni' |
    xargs -P "$(nproc)" -n 8 sh -c 'f=$0 c=$1; shift; clang-tidy --quiet --checks="$c" "$@" -- $f 2>/dev/null' "$flags" "$checks" |
    grep -E ': (warning|error): ' | sed "s|$PWD/||" | sort -u)
  [[ -z $warnings ]] || while IFS= read -r line; do report "$line"; done <<<"$warnings"
fi

((failed == 0)) && echo "lint: ${#files[@]} files, no breach"
exit $failed
