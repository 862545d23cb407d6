#!/usr/bin/env bash
# Our training step and augmentation beside the public PyTorch reference: the same work, threads and machine,
# by turns in one run, so that a slow moment meets both. Prints images/s of each and the ratio.
#
#   PEER_PYTHON=python3 REFERENCE=DIR tests/support/bench_peer.sh [--threads N] [--rounds R] [--preset tiny|vits14]
#                                                                 [--dtype fp32|bf16] [--only step|augment]
# Environment
#   PEER_PYTHON  a Python that imports torch (and torchvision, for the augmentation)
#   REFERENCE    a checkout of github: facebookresearch/dinov2
#   PEER_SCRIPT  the script that times the reference's step (default ../shared/peer/reference_step.py)
#   DINOBATCH    our program (default build/dinobatch)
#   PICTURES     a tar of JPEGs (default ../shared/data/photos.tar)
# Says what is missing and exits 0 when there is no peer: nothing depends on it.
set -euo pipefail
cd "$(dirname "$0")/../.."

threads=$(nproc) rounds=2 presets="tiny vits14" dtypes="fp32 bf16" only="step augment"
while (($#)); do
    case $1 in
        --threads) threads=$2 ;;
        --rounds) rounds=$2 ;;
        --preset) presets=$2 ;;
        --dtype) dtypes=$2 ;;
        --only) only=$2 ;;
        *) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done

PEER_SCRIPT=${PEER_SCRIPT:-../shared/peer/reference_step.py}
DINOBATCH=${DINOBATCH:-build/dinobatch}
PICTURES=${PICTURES:-../shared/data/photos.tar}
skip() { echo "skipped: $1"; exit 0; }
[[ -n ${PEER_PYTHON:-} ]] || skip "PEER_PYTHON does not name a Python with torch"
"$PEER_PYTHON" -c 'import torch, yaml' 2>/dev/null || skip "$PEER_PYTHON imports no torch and yaml"
[[ -d ${REFERENCE:-}/dinov2 ]] || skip "REFERENCE is no checkout of facebookresearch/dinov2"
[[ -r $PEER_SCRIPT ]] || skip "$PEER_SCRIPT is not there"
[[ -x $DINOBATCH ]] || skip "$DINOBATCH is not built"

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

# The presets of jobs/job_bench.c in the peer's words: change both together.
declare -A work=(
    [tiny]="--embed-dim 96 --depth 4 --heads 3 --patch-size 4 --global-size 32 --local-size 16 --local-crops 4 --batch 32"
    [vits14]="--arch vit_small --patch-size 14 --global-size 224 --local-size 98 --local-crops 8 --batch 4"
)
declare -A steps=([tiny]=6 [vits14]=3)
peer_step() { # PRESET DTYPE
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=$threads "$PEER_PYTHON" "$PEER_SCRIPT" --reference "$REFERENCE" ${work[$1]} --prototypes 8192 \
        --drop-path 0.3 --centering sinkhorn_knopp --dtype "$2" --threads "$threads" --steps "${steps[$1]}" --warmup 1 \
        2>"$temp/peer.err" | tail -1
}
our_step() { # PRESET DTYPE
    "$DINOBATCH" bench --what step --preset "$1" --dtype "$2" --seconds 1 --json "compute.threads=$threads" \
        2>"$temp/ours.err" | tail -1
}

# Reads lines "ours JSON" and "peer JSON" of one measurement.
compare='
import json, statistics, sys
who = {"ours": [], "peer": []}
for line in sys.stdin:
    name, text = line.split(" ", 1)
    figures = json.loads(text)
    if name == "ours":
        step = figures["steps"][0]
        who[name].append((step["images_per_s"], step["memory_bytes"]["peak_resident"] or 0))
    else:
        who[name].append((figures["images_per_s"], figures["peak_memory_bytes"]))
rate = {name: statistics.median(r for r, _ in runs) for name, runs in who.items()}
memory = {name: max(m for _, m in runs) / 2**20 for name, runs in who.items()}
print("%8.2f %8.2f %6.2f   %7.0f %7.0f   %s" % (rate["ours"], rate["peer"], rate["ours"] / rate["peer"], memory["ours"],
      memory["peer"], ", ".join("%.2f" % (a[0] / b[0]) for a, b in zip(who["ours"], who["peer"]))))'

if [[ $only == *step* ]]; then
    "$PEER_PYTHON" -c 'import torch; print("peer: torch", torch.__version__)'
    echo "training step, $threads threads, images/s (median of $rounds rounds)"
    printf '%-8s %-5s %8s %8s %6s   %7s %7s   %s\n' preset dtype ours peer ratio "MiB" "MiB" "ratio of each round"
    for preset in $presets; do
        for dtype in $dtypes; do
            printf '%-8s %-5s ' "$preset" "$dtype"
            for ((round = 0; round < rounds; round++)); do
                ours=$(our_step "$preset" "$dtype") || { cat "$temp/ours.err" >&2; exit 1; }
                peer=$(peer_step "$preset" "$dtype") || { cat "$temp/peer.err" >&2; exit 1; }
                printf 'ours %s\npeer %s\n' "$ours" "$peer"
            done | "$PEER_PYTHON" -c "$compare"
        done
    done
fi

if [[ $only == *augment* ]]; then
    "$PEER_PYTHON" -c 'import torchvision' 2>/dev/null || skip "$PEER_PYTHON imports no torchvision"
    [[ -r $PICTURES ]] || skip "$PICTURES is not there"
    mkdir "$temp/all" "$temp/pictures"
    tar -xf "$PICTURES" -C "$temp/all"
    mapfile -t files < <(find "$temp/all" -type f -iname '*.jp*g' | LC_ALL=C sort)
    count=$((${#files[@]} < 16 ? ${#files[@]} : 16)) # as many as the bench takes: both see the same pictures
    ((count > 0)) || skip "$PICTURES holds no JPEG"
    for ((i = 0; i < count; i++)); do
        cp "${files[$((${#files[@]} * i / count))]}" "$temp/pictures/$i.jpg"
    done
    for ((round = 0; round < rounds; round++)); do
        printf 'ours %s\n' "$("$DINOBATCH" bench --what augment --data "folder:$temp/pictures" --seconds 2 --json \
            compute.threads=1 2>"$temp/ours.err" | tail -1)"
        printf 'peer %s\n' "$("$PEER_PYTHON" tests/support/bench_torchvision.py --reference "$REFERENCE" \
            --pictures "$temp/pictures" --seconds 2 2>"$temp/peer.err" | tail -1)"
    done | "$PEER_PYTHON" -c '
import json, statistics, sys
names = ["decode", "crops", "decode_and_crops"]
who = {"ours": [], "peer": []}
for line in sys.stdin:
    name, text = line.split(" ", 1)
    figures = json.loads(text)
    if name == "ours":
        rows = [m for m in figures["measurements"] if m["unit"] == "images"]
        who[name].append([m["per_s"] for m in rows])
    else:
        who[name].append([figures[n + "_images_per_s"] for n in names])
print("augmentation, one core, %d pictures, torchvision %s, Pillow %s, images/s" % (
      figures["pictures"], figures["torchvision"], figures["pillow"]))
for i, n in enumerate(names):
    ours, peer = (statistics.median(run[i] for run in who[w]) for w in ("ours", "peer"))
    print("%-18s %8.1f %8.1f %6.2f" % (n, ours, peer, ours / peer))'
fi
