#!/usr/bin/env bash
# demo.sh [DIR] - the whole way once: pictures, pretraining on two MPI ranks, k-NN before and after, curves, PCA. DIR: a folder of your
# own pictures (a sub-folder is a class; without classes there is no k-NN). Results in runs/demo or runs/demo-own.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=build/dinobatch
config=jobs/configs/demo.yaml
ranks=${DEMO_RANKS:-2}

step() { printf '\n=== %s\n' "$*" >&2; }

if [[ $# -gt 0 ]]; then
  [[ -d $1 ]] || { echo "demo: $1 is not a folder" >&2; exit 2; }
  out=runs/demo-own
  rm -rf "$out"
  mkdir -p "$out"
  step "packing the pictures of $1"
  $bin pack --data "folder:$1" --output-dir "$out/data"
  data=(train.dataset_path="hdf5:$out/data/*.h5" evaluation.eval_period_iterations=0)
  pictures="hdf5:$out/data/*.h5"
  classes=$(find -L "$1" -mindepth 1 -maxdepth 1 -type d | wc -l)
  bank="hdf5:$out/data/*.h5;stride=2" queries="hdf5:$out/data/*.h5;stride=3"
else
  out=runs/demo
  rm -rf "$out"
  mkdir -p "$out"
  step "drawing the data set: 10 classes of shape and texture"
  for part in "train 20000 0" "bank 2000 1" "val 1000 2"; do
    read -r name count seed <<<"$part"
    $bin synth --data "synthetic:classes=10,size=32,count=$count,seed=$seed" --format hdf5 --output-dir "$out/data/$name"
  done
  data=(train.dataset_path="hdf5:$out/data/train/*.h5")
  pictures="hdf5:$out/data/val/*.h5"
  classes=10
  bank="hdf5:$out/data/bank/*.h5" queries="hdf5:$out/data/val/*.h5"
fi

step "pretraining on $ranks MPI ranks"
mpirun -n "$ranks" $bin pretrain --config-file $config --output-dir "$out" "${data[@]}" \
  evaluation.train_dataset_path="$bank" evaluation.val_dataset_path="$queries"

if ((classes > 1)); then
  step "k-NN before and after"
  $bin evaluate knn --model "$out" --untrained --raw-pixels --train-data "$bank" --val-data "$queries" --output-dir "$out/eval/final"
fi

step "pictures"
$bin visualize curves --run "$out" --output "$out/curves.png"
$bin visualize pca --model "$out" --data "$pictures" --count 12 --output "$out/pca.png"

newest=$(cat "$out/checkpoints/last_checkpoint")
step "done"
echo "checkpoint     $out/checkpoints/$newest"
echo "loss curves    $out/curves.png"
echo "PCA picture    $out/pca.png"
((classes > 1)) && echo "k-NN           $out/eval/final/knn.json"
echo "metrics        $out/training_metrics.json"
