#!/usr/bin/env bash
# The whole CUDA suite and the bench on a GPU host that has a driver, the CUDA libraries and a C library, and nothing to build with.
#
#   tests/support/gpu_suite.sh pack            here: build, and put all that travels into build/gpu: some 40 MiB
#   tests/support/gpu_suite.sh [STAGE]...      there: run what was packed (all stages, or some of: tests golden ranks bench peer cifar10)
#
# Results go to ${OUT:-results/gpu}, 8 files at most: results.json (device, driver, commit, command, each stage's outcome and counts),
# tests.log, bench.log, bench.json, peer.jsonl, peer.log, cifar10.json (losses and k-NN), cifar10.log.
# Without a GPU it says "skipped: no CUDA device" and exits 0; a stage whose parts did not travel is skipped by name.
# It stops starting stages in time for GPU_SUITE_SECONDS (default 570), and ends those under way.
#
# Environment of pack
#   BUNDLE_RUNTIME   the script that collects libraries (default ../shared/tools/bundle-runtime.sh)
#   MARCH            processors that the binaries are for (default x86-64-v3)
#   PEER_SCRIPT, REFERENCE  the peer's timing script (default ../shared/peer/reference_step.py) and a checkout of github:
#                    facebookresearch/dinov2; without them there is no peer
#   CIFAR10          the archive (default ../shared/data/cifar10.tar.gz)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
gpu=${GPU_SUITE_DIR:-build/gpu}
began=$SECONDS limit=${GPU_SUITE_SECONDS:-570}
command_line="$0 $*"

# --- pack -----------------------------------------------------------------------------------------------------

pack() {
    set -e
    local bundle=${BUNDLE_RUNTIME:-../shared/tools/bundle-runtime.sh} build=${BUILD:-build/portable} suite program
    local peer=${PEER_SCRIPT:-../shared/peer/reference_step.py} data=${CIFAR10:-../shared/data/cifar10.tar.gz}
    local programs=(dinobatch tests/test_cuda tests/test_golden_cuda tests/test_mpi tests/mpi_case_cuda)
    make CUDA=1 BUILD="$build" MARCH="${MARCH:-x86-64-v3}" "${programs[@]/#/$build/}"
    rm -rf "$gpu"
    suite=$gpu/suite
    mkdir -p "$suite/bin"
    for program in "${programs[@]}"; do
        strip -o "$suite/bin/${program##*/}" "$build/$program"
    done
    BUNDLE_MAX_MIB=${BUNDLE_MAX_MIB:-200} bash "$bundle" "$suite/runtime" "$suite"/bin/*
    git describe --always --dirty >"$suite/commit"
    if [[ -r $peer && -d ${REFERENCE:-}/dinov2 ]]; then
        mkdir "$suite/peer"
        cp "$peer" "$suite/peer/reference_step.py"
        tar -C "$REFERENCE" -cf - dinov2 | tar -C "$suite/peer" -xf -
    fi
    # The programs share most of their bytes: together they take little more than one.
    tar -C "$gpu" -cf - suite | xz -T1 --lzma2=preset=6,dict=64MiB >"$gpu/suite.tar.xz"
    rm -rf "$suite"
    if [[ -r $data ]]; then cp "$data" "$gpu/cifar10.tar.gz"; fi
    du -ah --apparent-size "$gpu"
}

unpack() { # where to
    if command -v xz >/dev/null; then
        xz -dc "$gpu/suite.tar.xz" | tar -C "$1" -xf -
    else
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$gpu/suite.tar.xz" "$1"
    fi
}

# --- the host -------------------------------------------------------------------------------------------------

has_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU ' || compgen -G '/dev/nvidia[0-9]*' >/dev/null; }

# CUDA's libraries: where the loader knows them, a toolkit's, or those of a Python that has PyTorch.
find_cuda_libraries() {
    local name folders=() folder
    mapfile -t folders < <(compgen -G '/usr/local/cuda*/lib64'; compgen -G '/usr/local/nvidia/lib*'
        python3 -c 'import nvidia, os; [print(os.path.join(p, d, "lib")) for p in nvidia.__path__ for d in os.listdir(p)]' 2>/dev/null)
    for name in libcudart.so.13 libcublasLt.so.13 libnccl.so.2; do
        { PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null || true; } | grep -q "[[:space:]]$name " && continue
        for folder in ${folders[@]+"${folders[@]}"}; do
            [[ -e $folder/$name ]] || continue
            [[ :${LD_LIBRARY_PATH:-}: == *:$folder:* ]] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
            break
        done
    done
}

# --- stages ---------------------------------------------------------------------------------------------------

left() { echo $((limit - (SECONDS - began))); }

json_text() { local t=${1//\\/\\\\}; t=${t//\"/\\\"}; t=${t//$'\t'/ }; printf '"%s"' "${t//$'\n'/ }"; }

results=() failed=0
note() { # STAGE STATUS SECONDS SUMMARY
    results+=("{\"stage\":$(json_text "$1"),\"status\":$(json_text "$2"),\"seconds\":$3,\"summary\":$(json_text "$4")}")
    printf '%-24s %-8s %5s s  %s\n' "$1" "$2" "$3" "$4"
    [[ $2 != failed ]] || failed=1
}

# Runs a command with its output in LOG of the results; its last lines that match are the summary.
stage() { # NAME LOG MOST_SECONDS PATTERN COMMAND...
    local name=$1 log=$out/$2 most=$3 pattern=$4 start=$SECONDS status=0 seconds summary
    shift 4
    seconds=$(($(left) < most ? $(left) : most))
    if ((seconds < 10)); then note "$name" skipped 0 "no time left"; return; fi
    printf '\n=== %s: %s\n' "$name" "$*" >>"$log"
    timeout -k 5 "$seconds" "$@" >"$temp/output" 2>&1 || status=$?
    cat "$temp/output" >>"$log"
    summary=$(grep -E "$pattern" "$temp/output" | tail -n 3 | cut -c1-160 | sed 's/\x1b\[[0-9;]*m//g')
    case $status in
    0) note "$name" passed $((SECONDS - start)) "$summary" ;;
    124 | 137) note "$name" failed $((SECONDS - start)) "ended after $seconds s; $summary" ;;
    *) note "$name" failed $((SECONDS - start)) "exit $status; ${summary:-$(tail -n 1 "$temp/output")}" ;;
    esac
}

wanted() { [[ -z $stages || " $stages " == *" $1 "* ]]; }

run_tests() { stage tests tests.log 240 '^\[====\] Synthesis|skipped' "$suite/bin/test_cuda" --timeout 200; }

run_golden() {
    mkdir -p "$temp/golden"
    ln -s "$PWD"/tests/golden/data/{train_*,vit_*,sscd}.h5 "$temp/golden/"
    TEST_DEVICE=cuda GOLDEN_DIR=$temp/golden stage golden tests.log 120 '^golden|Synthesis' "$suite/bin/test_golden_cuda"
}

# Ranks that share the GPU, or have one each where there are several.
run_ranks() {
    MPI_CASE_CUDA_BIN=$suite/bin/mpi_case_cuda stage ranks tests.log 120 '^\[====\] Synthesis' \
        "$suite/bin/test_mpi" --filter 'comm_gpu/*' --timeout 100
}

run_bench() {
    stage bench bench.log 180 '^step|images/s|product rate|device memory' "$suite/bin/dinobatch" bench --device cuda --seconds 0.5 \
        --output-dir "$temp/bench"
    [[ ! -e $temp/bench/bench.json ]] || cp "$temp/bench/bench.json" "$out/"
}

# The same work as preset full-l, and full-s.
run_peer() {
    [[ -e $suite/peer/reference_step.py ]] || { note peer skipped 0 "it did not travel"; return; }
    python3 -c 'import torch, yaml; assert torch.cuda.is_available()' 2>/dev/null ||
        { note peer skipped 0 "no Python here with torch and yaml that sees the GPU"; return; }
    local arch mode flag
    for arch in vit_large vit_small; do
        for mode in eager compile; do
            flag=() && [[ $mode == eager ]] || flag=(--compile)
            stage "peer $arch $mode" peer.log 150 '^\{' python3 "$suite/peer/reference_step.py" --reference "$suite/peer" --device cuda \
                --arch "$arch" --patch-size 14 --global-size 224 --local-size 98 --local-crops 8 --batch 32 --prototypes 131072 \
                --drop-path 0.3 --centering sinkhorn_knopp --dtype bf16 --steps 10 --warmup 3 ${flag[@]+"${flag[@]}"}
            tail -n 1 "$temp/output" | grep '^{' | sed "s/^{/{\"mode\": \"$mode\", /" >>"$out/peer.jsonl"
        done
    done
}

# As far as the time allows: SIGUSR1 saves and ends it.
run_cifar10() {
    [[ -e $gpu/cifar10.tar.gz ]] || { note cifar10 skipped 0 "it did not travel"; return; }
    local data=$temp/data start=$SECONDS status=0 seconds
    mkdir -p "$data" && tar -xzf "$gpu/cifar10.tar.gz" -C "$data"
    seconds=$(($(left) - 25))
    if ((seconds < 30)); then note cifar10 skipped 0 "no time left"; return; fi
    timeout -s USR1 -k 20 "$seconds" "$suite/bin/dinobatch" pretrain --config-file jobs/configs/cifar10_vits.yaml --output-dir "$temp/run" \
        compute.device=cuda train.dataset_path="folder:$data/cifar10/train" \
        evaluation.train_dataset_path="folder:$data/cifar10/train" evaluation.val_dataset_path="folder:$data/cifar10/test" \
        >"$out/cifar10.log" 2>&1 || status=$?
    { # one object: k-NN by iteration, and what was logged
        printf '{"exit":%d,"knn":{' "$status"
        local comma='' file files
        mapfile -t files < <(compgen -G "$temp/run/eval/training_*/knn.json" | sort -V)
        for file in ${files[@]+"${files[@]}"}; do
            printf '%s"%s":%s' "$comma" "$(basename "$(dirname "$file")" | sed 's/training_//')" "$(cat "$file")"
            comma=,
        done
        printf '},"metrics":[%s]}\n' "$(awk 'NR % 10 == 1' "$temp/run/training_metrics.json" 2>/dev/null | paste -sd,)"
    } >"$out/cifar10.json"
    [[ $status == 124 || $status == 75 ]] && status=0
    note cifar10 "$([[ $status == 0 ]] && echo passed || echo failed)" $((SECONDS - start)) \
        "$(grep -o 'iteration [0-9]*: k-NN.*' "$out/cifar10.log" | tail -n 1)"
}

write_results() {
    local device driver IFS=,
    device=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null | paste -sd';')
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    printf '{"device":%s,"driver":%s,"commit":%s,"command":%s,"host":%s,"processor":%s,"cores":%d,"date":"%s","seconds":%d,"stages":[%s]}\n' \
        "$(json_text "$device")" "$(json_text "$driver")" "$(json_text "$(cat "$suite/commit" 2>/dev/null)")" "$(json_text "$command_line")" \
        "$(json_text "$(uname -srm)")" "$(json_text "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)")" "$(nproc)" \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" $((SECONDS - began)) "${results[*]}" >"$out/results.json"
}

# --- which of it ------------------------------------------------------------------------------------------------

if [[ ${1:-} == pack ]]; then
    pack
    exit
fi
stages="$*"
for word in $stages; do
    [[ " tests golden ranks bench peer cifar10 " == *" $word "* ]] || { sed -n '2,21s/^# \{0,1\}//p' "$0" >&2; exit 2; }
done
if ! has_gpu; then
    echo "skipped: no CUDA device"
    exit 0
fi
[[ -r $gpu/suite.tar.xz ]] || { echo "gpu_suite.sh: $gpu holds no programs: run '$0 pack' where there is a compiler" >&2; exit 2; }

out=${OUT:-results/gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
memory=/tmp
[[ ! -w /dev/shm ]] || memory=/dev/shm # 60,000 small files take a disk a minute
temp=$(mktemp -d "${TMPDIR:-$memory}/gpu_suite.XXXXXX")
trap 'rm -rf "$temp"' EXIT
unpack "$temp" || { echo "gpu_suite.sh: $gpu/suite.tar.xz cannot be unpacked" >&2; exit 2; }
suite=$temp/suite
# shellcheck disable=SC1091
[[ ! -e $suite/runtime/env.sh ]] || { set +u; . "$suite/runtime/env.sh"; set -u; }
find_cuda_libraries
export DINOBATCH=$suite/bin/dinobatch OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
for part in tests golden ranks bench peer cifar10; do
    ! wanted "$part" || "run_$part"
    write_results
done
exit "$failed"
