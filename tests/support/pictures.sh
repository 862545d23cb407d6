#!/usr/bin/env bash
# pictures.sh [MODEL [DIR]] - results/pictures, all of it, of drawn pictures: what a network sees (MODEL, a run folder; default runs/demo, which
# `make demo` leaves), how its training went, and contact sheets of a small curation. DIR (default runs/pictures) takes the rest. A minute.
set -euo pipefail
cd "$(dirname "$0")/../.." || exit
bin=${DINOBATCH:-build/dinobatch}
model=${1:-runs/demo}
out=${2:-runs/pictures}
results=results/pictures
rm -rf "$out"
mkdir -p "$out" "$results"

# --- the network. It was trained on crops of 32 px in patches of 8; it sees these at 128 px.
drawn=synthetic:classes=10,size=224,count=1000,seed=8
seen=(--model "$model" --size 128)
"$bin" synth --data synthetic:classes=10,size=224,count=200,seed=7 --output-dir "$out/drawn"
"$bin" visualize pca "${seen[@]}" --data "$drawn" --count 10 --columns 5 --drawn 128 --output "$results/pca.png"
"$bin" visualize attention "${seen[@]}" --data "$drawn" --count 5 --drawn 128 --output "$results/attention.png"
"$bin" visualize matches "${seen[@]}" --data "folder:$out/drawn/images/dotted_star" --count 4 --lines 12 --drawn 192 \
  --output "$results/matches.png"
"$bin" visualize neighbours --model "$model" --data synthetic:classes=10,size=64,count=2000,seed=1 \
  --queries synthetic:classes=10,size=64,count=200,seed=2 --count 6 --columns 6 --drawn 64 --output "$results/neighbours.png"
"$bin" visualize curves --run "$model" --output "$results/curves.png"

# --- a curation. 4000 pictures, 1200 of them near-copies (cropped, mirrored, brighter or darker) of others, are the pool, and 100 of another
# seed the query set; descriptors are whitened pixels, so nothing is trained.
pool=synthetic:classes=10,size=32,count=4000,seed=4,duplicates=0.3
queries=synthetic:classes=10,size=32,count=100,seed=5

extract() { "$bin" extract --model raw-pixels --resize square --output-dir "$out/$1.h5" --data "${@:2}" evaluation.crop_size=16; }
extract plain "$pool"
extract pool "$pool" --whiten "$out/plain.h5"
extract queries "$queries" --whiten "$out/plain.h5"

curate() { "$bin" curate "$1" --features "$out/pool.h5" --output-dir "$out" "${@:2}"; }
curate dedup curation.dedup.threshold=0.4
curate retrieve --keep "$out/dedup.h5" --queries "$out/queries.h5" --name drawn curation.retrieve.mode=sample \
  curation.retrieve.neighbours=5

"$bin" visualize duplicates --curation "$out/dedup.h5" --data "$pool" --count 5 --drawn 48 --columns 6 --output "$results/duplicates.png"
"$bin" visualize neighbours --curation "$out/retrieve_drawn.h5" --data "$pool" --queries "$queries" --count 5 --drawn 64 --columns 6 \
  --output "$results/retrieved.png"
