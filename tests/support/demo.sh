#!/usr/bin/env bash
# demo.sh [DIR] [key=value...] - the whole way once: pictures, pretraining on two MPI ranks, k-NN before and after, curves, PCA. DIR: a
# folder of your own pictures (a sub-folder is a class; with fewer than two there is no k-NN). Results in runs/demo or runs/demo-own.
# key=value goes to pretrain.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${DINOBATCH:-build/dinobatch}
configs=(--config-file jobs/configs/demo.yaml)
ranks=${DEMO_RANKS:-2}

step() { printf '\n=== %s\n' "$*" >&2; }

# The pictures of folder $1, as paths below it.
pictures_of() { find -L "$1" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.jpe' -o -iname '*.png' \) -printf '%P\n'; }

if [[ $# -gt 0 && $1 != *=* ]]; then
  dir=$1
  shift
  [[ -d $dir ]] || { echo "demo: $dir is not a folder" >&2; exit 2; }
  count=$(pictures_of "$dir" | wc -l)
  ((count > 0)) || { echo "demo: $dir: no JPEG or PNG in it" >&2; exit 2; }
  out=runs/demo-own
  configs+=(--config-file jobs/configs/demo_own.yaml)
  rm -rf "$out"
  mkdir -p "$out"
  # Some thousands of small copies do for a run of minutes; the crops are of 32 px.
  part=$(((count + 19999) / 20000))
  step "packing small copies of the pictures of $dir"
  $bin pack --data "folder:$dir;stride=$part" --shorter-side 64 --output-dir "$out/data"
  pictures="hdf5:$out/data/*.h5"
  data=(train.dataset_path="$pictures")
  classes=$(pictures_of "$dir" | sed -n 's|/.*||p' | sort -u | wc -l)
  if ((classes > 1)); then
    # Two parts of at most 1000 without a picture in common; fewer neighbours vote where there are few.
    ((apart = 2 * (count / part / 2000 + 1), votes = count / part / apart / 2))
    bank="$pictures;stride=$apart" queries="$pictures;offset=$((apart / 2));stride=$apart"
    data+=(evaluation.eval_period_iterations=2000 evaluation.knn_k="[$((votes > 20 ? 20 : votes > 1 ? votes : 1))]"
      evaluation.train_dataset_path="$bank" evaluation.val_dataset_path="$queries")
  fi
else
  out=runs/demo
  rm -rf "$out"
  mkdir -p "$out"
  step "drawing the data set: 10 classes of shape and texture"
  for part in "train 20000 0" "bank 2000 1" "val 1000 2"; do
    read -r name count seed <<<"$part"
    $bin synth --data "synthetic:classes=10,size=32,count=$count,seed=$seed" --format hdf5 --output-dir "$out/data/$name"
  done
  pictures="hdf5:$out/data/val/*.h5"
  classes=10
  bank="hdf5:$out/data/bank/*.h5" queries="hdf5:$out/data/val/*.h5"
  data=(train.dataset_path="hdf5:$out/data/train/*.h5" evaluation.train_dataset_path="$bank"
    evaluation.val_dataset_path="$queries")
fi

step "pretraining on $ranks MPI ranks"
mpirun -n "$ranks" $bin pretrain "${configs[@]}" --output-dir "$out" "${data[@]}" "$@"

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
if ((classes > 1)); then echo "k-NN           $out/eval/final/knn.json"; fi
echo "metrics        $out/training_metrics.json"
