#!/usr/bin/env bash
# curation_pictures.sh [DIR] - results/pictures: contact sheets of a small curation of drawn pictures. 4000 of them, 1200 near-copies
# (cropped, mirrored, brighter or darker) of others, are the pool, and 100 of another seed the query set; descriptors are whitened
# pixels, so nothing is trained. Seconds. DIR (default runs/pictures) takes the rest.
set -euo pipefail
cd "$(dirname "$0")/../.." || exit
bin=${DINOBATCH:-build/dinobatch}
out=${1:-runs/pictures}
pool=synthetic:classes=10,size=32,count=4000,seed=4,duplicates=0.3
queries=synthetic:classes=10,size=32,count=100,seed=5
rm -rf "$out"
mkdir -p "$out" results/pictures

extract() { "$bin" extract --model raw-pixels --resize square --output-dir "$out/$1.h5" --data "${@:2}" evaluation.crop_size=16; }
extract plain "$pool"
extract pool "$pool" --whiten "$out/plain.h5"
extract queries "$queries" --whiten "$out/plain.h5"

curate() { "$bin" curate "$1" --features "$out/pool.h5" --output-dir "$out" "${@:2}"; }
curate dedup curation.dedup.threshold=0.4
curate retrieve --keep "$out/dedup.h5" --queries "$out/queries.h5" --name drawn curation.retrieve.mode=sample \
  curation.retrieve.neighbours=5

sheet() { "$bin" visualize "$1" --data "$pool" --count 5 --size 24 --columns 6 --output "results/pictures/$1.png" "${@:2}"; }
sheet duplicates --curation "$out/dedup.h5"
sheet neighbours --curation "$out/retrieve_drawn.h5" --queries "$queries"
