#!/usr/bin/env bash
# segmentation_tables.sh CAMVID DEMO_RUN CIFAR_RUN [DIR] - results/evaluation/segmentation.md: `evaluate segmentation` on street scenes
# (CAMVID/train, val, test) and on drawn pictures with masks, of the networks of `make demo` and of jobs/configs/cifar10_tiny.yaml and of the
# same before training. Half an hour on a core; DIR (default runs/segmentation) takes the rest, and what is done there is not done again.
set -euo pipefail
camvid=$(realpath "$1") demo=$(realpath "$2") cifar=$(realpath "$3")
cd "$(dirname "$0")/../.." || exit
bin=${DINOBATCH:-build/dinobatch}
out=${4:-runs/segmentation}
mkdir -p "$out" results/evaluation

# NAME WORDS...: runs/segmentation/NAME/segmentation.json
evaluate() {
  local name=$1
  shift
  [[ -f $out/$name/segmentation.json ]] || "$bin" evaluate segmentation --untrained --output-dir "$out/$name" "$@" >&2
}

# Street scenes: both networks on a grid of 40 x 30 patches.
streets=(--train-data "pairs:$camvid/train" --val-data "pairs:$camvid/val" --test-data "pairs:$camvid/test"
  evaluation.segmentation_classes=11 evaluation.segmentation_ignore=11 "evaluation.dense_scale=[0.75,1.5]"
  evaluation.dense_batch_size=8 evaluation.dense_iterations=600)
evaluate camvid_demo --model "$demo" "${streets[@]}" evaluation.dense_size=240 evaluation.dense_crop=240
evaluate camvid_cifar --model "$cifar" "${streets[@]}" evaluation.dense_size=120 evaluation.dense_crop=120

# Drawn pictures of 32 px, seen at 48: 6 x 6 patches.
for classes in 2 4 10; do
  evaluate "drawn_$classes" --model "$demo" --train-data "synthetic:classes=$classes,size=32,count=20000,seed=1" \
    --val-data "synthetic:classes=$classes,size=32,count=500,seed=2" --test-data "synthetic:classes=$classes,size=32,count=1000,seed=3" \
    evaluation.dense_size=48 evaluation.dense_crop=48 "evaluation.dense_scale=[1,1]" evaluation.dense_batch_size=32 \
    evaluation.dense_iterations=1600
done

# How well the ten classes can be told apart at all: from the class token of a whole picture.
[[ -f $out/classes/logreg.json ]] || "$bin" evaluate logreg --model "$demo" --output-dir "$out/classes" evaluation.logreg_c_count=5 \
  evaluation.logreg_max_iterations=300 --train-data "synthetic:classes=10,size=32,count=8000,seed=1" \
  --val-data "synthetic:classes=10,size=32,count=1000,seed=3" >&2

python3 - "$out" "$("$bin" --version)" "$(sort -n "$camvid/../classes.txt" 2>/dev/null || sort -n "$camvid/classes.txt")" \
  <<'END' >results/evaluation/segmentation.md
import json, pathlib, sys

out, version = pathlib.Path(sys.argv[1]), sys.argv[2]
names = [line.split("\t")[1] for line in sys.argv[3].splitlines()][:11]
load = lambda name: json.loads((out / name / "segmentation.json").read_text())
percent = lambda x: "" if x is None else f"{x:.2f}"


def rows(name, what):
    tree = load(name)
    for label, row in ((f"{what}, untrained", tree["untrained"]), (f"{what}, trained", tree)):
        test = row["tests"][0]
        last = {n: max(c["test_miou"][0] for c in row["classifiers"] if c["last_blocks"] == n) for n in (1, 4)}
        yield label, row, test, last


def table(items):
    print("| | mIoU | pixel accuracy | mean class accuracy | chosen | best of the last block, of the last four |")
    print("|---|---|---|---|---|---|")
    for label, row, test, last in items:
        print(f"| {label} | **{test['miou']:.2f}** | {test['pixel_accuracy']:.2f} | {test['class_accuracy']:.2f} | "
              f"{row['last_blocks']} blocks, {row['learning_rate']:g} | {last[1]:.2f}, {last[4]:.2f} |")


print("# Segmentation by linear layers on patch tokens\n")
print(f"`tests/support/segmentation_tables.sh CAMVID DEMO_RUN CIFAR_RUN`, {version}. Everything in %, on the test part; the classifier was")
print("chosen on the validation part, out of two numbers of last blocks and five learning rates. Untrained: the same network with its initial weights.\n")
streets = [*rows("camvid_demo", "demo, 240 px"), *rows("camvid_cifar", "CIFAR-10, 120 px")]
tree = load("camvid_demo")
print("## Street scenes\n")
print(f"CamVid, 320 x 240 pixels, 11 classes: {tree['train_images']} pictures for training, {tree['images']} to choose by, "
      f"{tree['tests'][0]['images']} for the figures; {tree['iterations']} steps of {tree['batch_size']}.\n")
table(streets)
print("\nIoU of each class:\n")
print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
for label, _, test, _ in streets:
    print(f"| {label} | " + " | ".join(percent(x) for x in test["iou"]) + " |")
for label, _, test, _ in (streets[1], streets[3]):
    print(f"\nPixels of each true class (rows) that were taken for each class, in % of the row: {label}.\n")
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for name, row in zip(names, test["confusion"]):
        print(f"| {name} | " + " | ".join(f"{100 * x / max(sum(row), 1):.1f}" for x in row) + " |")
tree = load("drawn_10")
print("\n## Drawn pictures\n")
print(f"Masks of `synthetic:`: background and the classes; pictures of 32 pixels, seen at 48; {tree['iterations']} steps of {tree['batch_size']}, "
      f"{tree['tests'][0]['images']} test pictures.\n")
drawn = [(n, *item) for n in (2, 4, 10) for item in rows(f"drawn_{n}", f"{n} classes")]
table(item[1:] for item in drawn)
print("\nWhere the object is, whatever its class, and how often the class is right where it was found:\n")
print("| | mIoU of object and background | right class |\n|---|---|---|")
for _, label, _, test, _ in drawn:
    table_of = test["confusion"]
    there = sum(map(sum, table_of[1:])) - sum(row[0] for row in table_of[1:])
    missed, invented = sum(row[0] for row in table_of[1:]), sum(table_of[0][1:])
    both = (there / (there + missed + invented) + table_of[0][0] / (table_of[0][0] + missed + invented)) / 2
    right = sum(table_of[k][k] for k in range(1, len(table_of)))
    print(f"| {label} | {100 * both:.2f} | {100 * right / max(there, 1):.2f} |")
logreg = json.loads((out / "classes" / "logreg.json").read_text())
print("\nThe ten classes are five shapes and five textures, each of two classes, on objects two to four patches wide. Logistic regression on the class")
print(f"tokens of whole pictures is right in {logreg['logreg_top1']:.1f} % of them, and a pixel's class can hardly be better known than its picture's.")
END
