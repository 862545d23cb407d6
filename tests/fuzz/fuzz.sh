#!/usr/bin/env bash
# fuzz.sh [SECONDS]: builds the fuzz targets with clang (ASan, UBSan, libFuzzer), replays every seed, then searches for SECONDS in all
# (default 60): pictures on one core; YAML, tar files and safetensors one after the other on the second. What it learns stays in
# BUILD/corpus and is the start of the next search. A finding ends it with status 1 and the path of the input that shows it.
#
# The seeds in corpus/ are made from nothing but the synthetic data set. image/: a drawn picture in each form that libjpeg and libpng can
# write, and broken ones; tar/: the formats of GNU tar around empty and tiny members; yaml/: what the parser treats in a way of its own;
# safetensors/: headers, right and wrong, each with a NUL and bytes of tensors behind it. jobs/configs and, where the folder is there,
# DATA_DIR/bad are seeds as well.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
build=${FUZZ_BUILD:-build/fuzz}
bad=${DATA_DIR:-../shared/data}/bad
CLANG=${CLANG:-clang}
targets=(image yaml tar safetensors)
rm -rf "$build/seeds" "$build/found" "$build/log"
mkdir -p "$build/obj" "$build/found" "$build/log"

command -v "$CLANG" >/dev/null || { echo "fuzz: clang is missing: make setup" >&2; exit 1; }
[[ $seconds =~ ^[0-9]+$ ]] || { echo "fuzz: expected a number of seconds, got '$seconds'" >&2; exit 2; }

# --- build
sources=(src/base/*.c src/config/*.c src/data/image/*.c tests/fuzz/*.c src/ckpt/safetensors{,_index}.c
  src/data/{augment,data_buffer,data_kind,item_runs,shard_files,tar_reader,tar_set,text_table}.c)
cat >"$build/Makefile" <<EOF
SOURCES := ${sources[*]}
PICKED := \$(filter-out tests/fuzz/%,\$(SOURCES))
CFLAGS := -std=c17 -g -O1 -march=native -Isrc -D_GNU_SOURCE -DDINOBATCH_POISON -MMD -MP -Wall -Wextra -Wno-unknown-pragmas \
  -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all $(pkg-config --cflags yaml-0.1 libpng libjpeg zlib libcjson)
all: ${targets[*]/#/$build/fuzz_}
$build/obj/%.o: %.c
	@mkdir -p \$(@D)
	@$CLANG \$(CFLAGS) -c \$< -o \$@
$build/fuzz_%: $build/obj/tests/fuzz/fuzz_%.o \$(PICKED:%.c=$build/obj/%.o)
	@$CLANG -fsanitize=fuzzer,address,undefined \$^ $(pkg-config --libs yaml-0.1 libpng libjpeg zlib libcjson) -lm -o \$@
.SECONDARY:
-include \$(shell find $build/obj -name '*.d')
EOF
make -s -f "$build/Makefile" -j"$(nproc)" all

# --- seeds
export ASAN_OPTIONS=allocator_may_return_null=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
for target in "${targets[@]}"; do
  mkdir -p "$build/seeds/$target" "$build/corpus/$target"
  cp tests/fuzz/corpus/"$target"/* "$build/seeds/$target/"
done
cp --backup=numbered jobs/configs/*.yaml jobs/configs/*/*.yaml "$build/seeds/yaml/"
if [[ -d $bad ]]; then
  find "$bad" -maxdepth 1 -name '*.tar' -exec cp -t "$build/seeds/tar" {} +
  find "$bad" -maxdepth 1 -type f ! -name '*.tar' ! -name '*.md' ! -name '*.csv' -exec cp -t "$build/seeds/image" {} +
fi
# Words for the mutations of YAML: the keys, from the reference's own file of defaults.
sed -nE 's/^ *([A-Za-z_0-9]+):.*/"\1: "/p' jobs/configs/ssl_default_config.yaml | sort -u >"$build/yaml.dict"
printf '"%s"\n' '\x0a  ' ': ' '- ' '[' ']' '{' '}' '&a ' '*a' '!!str ' '---\x0a' '1e999' '-1' 'null' '\xc2\x85' '%YAML 1.1\x0a' >>"$build/yaml.dict"

printf '"%s"\n' '\"dtype\":' '\"shape\":[' '\"data_offsets\":[0,' '\"F32\"' '\"BF16\"' '\"F64\"' '\"I8\"' '\"__metadata__\":{}' \
  '\"a\":{' '9223372036854775807' '4294967296' '1e308' '\\\\u0000' '\x00' >"$build/safetensors.dict"

finding() { # TARGET: says what was found, and leaves
  local input
  input=$(find "$build/found" -name "$1-*" | head -1)
  grep -a -m1 -E 'ERROR: |runtime error|CHECK' "$build/log/$1.log" >&2 || tail -5 "$build/log/$1.log" >&2
  echo "fuzz: $1: a finding, see $build/log/$1.log; reproduce: $build/fuzz_$1 ${input:-(no input kept)}" >&2
  exit 1
}

limits=(-rss_limit_mb=512 -timeout=10 -print_final_stats=1)
for target in "${targets[@]}"; do
  "$build/fuzz_$target" "${limits[@]}" -runs=0 -artifact_prefix="$build/found/$target-" "$build/seeds/$target" >"$build/log/$target.log" 2>&1 ||
    finding "$target"
done

# --- search
declare -A longest=([image]=16384 [yaml]=1024 [tar]=8192 [safetensors]=2048)
declare -A words=([yaml]="-dict=$build/yaml.dict" [safetensors]="-dict=$build/safetensors.dict")
search() { # TARGET SECONDS
  "$build/fuzz_$1" "${limits[@]}" -max_len="${longest[$1]}" ${words[$1]:-} -max_total_time="$2" -artifact_prefix="$build/found/$1-" \
    "$build/corpus/$1" "$build/seeds/$1" >"$build/log/$1.log" 2>&1 || { touch "$build/log/$1.failed"; return 1; }
}
if ((seconds > 2)); then
  trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT
  search image "$seconds" &
  { search yaml $((seconds / 3)) && search tar $((seconds / 3)) && search safetensors $((seconds - 2 * (seconds / 3))); } &
  { wait -n && wait -n; } || true
  for target in "${targets[@]}"; do
    [[ ! -e $build/log/$target.failed ]] || finding "$target"
  done
fi

runs() { sed -n 's/^stat::number_of_executed_units: *//p' "$build/log/$1.log"; }
echo "fuzz: image $(runs image) runs, yaml $(runs yaml) runs, tar $(runs tar) runs, safetensors $(runs safetensors) runs, no finding"
