#!/usr/bin/env bash
# asan.sh [SUITE...]: builds the unit, operation and golden suites with AddressSanitizer and UBSan and poisoned arenas in build/asan, and
# runs them. Leaks count: Criterion reports a test as passed before its process ends, so they are looked for in the sanitizers' log files.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${ASAN_BUILD:-build/asan}
suites=("$@")
((${#suites[@]})) || suites=(unit ops golden)
log=$PWD/$build/log
rm -rf "$log"
mkdir -p "$log"

started=$SECONDS
make -s -j"$(nproc)" BUILD="$build" SANITIZE=1 "${suites[@]/#/$build/tests/test_}" || exit 1
echo "asan: built in $((SECONDS - started)) s"

export ASAN_OPTIONS=log_path=$log/asan:detect_stack_use_after_return=1:fast_unwind_on_malloc=0:malloc_context_size=12
export UBSAN_OPTIONS=log_path=$log/ubsan:print_stacktrace=1 LSAN_OPTIONS=suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0:exitcode=0
export OPENBLAS_NUM_THREADS=1 DATA_DIR=${DATA_DIR:-../shared/data} GOLDEN_DIR=${GOLDEN_DIR:-tests/golden/data}
failed=0
for suite in "${suites[@]}"; do
  from=$SECONDS
  "$build/tests/test_$suite" --timeout 120 || failed=1
  echo "asan: $suite in $((SECONDS - from)) s"
done

# Now and then Criterion's own process ends with something of its runner's unfreed: a report of leaks alone, without one frame of ours.
is_of_criterion() {
  ! grep -qE 'ERROR: AddressSanitizer|runtime error' "$1" && grep -q 'in criterion_run_all_tests' "$1" &&
    ! grep -qE '^ *#[0-9]+ .* (/[^ ]*/)?(src|jobs|tests)/[^ ]+\.(c|h|cc):[0-9]+' "$1"
}

for file in "$log"/*; do
  if [[ ! -s $file ]] || is_of_criterion "$file"; then continue; fi
  echo "asan: finding in $file:" >&2
  head -40 "$file" >&2
  failed=1
  break
done
((failed == 0)) && echo "asan: ${suites[*]}: no finding, $((SECONDS - started)) s"
exit $failed
