#!/usr/bin/env bash
# curation_planted.sh BENCHMARK [DIR] - results/curation/planted.md: jobs/configs/curation/planted.yaml on a benchmark with truth, and the
# same with the network as it is before training and with the pixels themselves, each with thresholds of its own by
# calibrate. Half an hour on two cores; DIR (default runs/planted) takes the rest, and what is done there is not done again.
set -euo pipefail
benchmark=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit
bin=${DINOBATCH:-build/dinobatch}
out=${2:-runs/planted}
plan=jobs/configs/curation/planted.yaml
mkdir -p "$out" results/curation

sed 's/^copy_detection:$/&\n  model: untrained/' "$plan" >"$out/untrained.yaml"
# No network: the block of its configuration goes, and so does the word on its layers.
sed -e '/^  pretrain:$/,/^$/d' -e 's/^  words: .*/  words: [--resize, square]/' \
  -e 's/^copy_detection:$/&\n  model: raw-pixels\n  settings: [evaluation.crop_size=32, evaluation.resize_size=32]/' \
  "$plan" >"$out/raw-pixels.yaml"
cp "$plan" "$out/trained.yaml"

for what in trained untrained raw-pixels; do
  started=$SECONDS
  "$bin" curate run "$out/$what.yaml" --data-root "$benchmark" --output-dir "$out/$what" 2>&1 | tee -a "$out/$what.log" >&2
  echo $((SECONDS - started)) >>"$out/$what.seconds"
done

python3 - "$out" "$("$bin" --version)" <<'END' >results/curation/planted.md
import pathlib, re, sys

out, version = pathlib.Path(sys.argv[1]), sys.argv[2]
what = ["trained", "untrained", "raw-pixels"]
figures = {}
for name in what:
    for line in (out / f"{name}.log").read_text().splitlines():
        found = re.fullmatch(r"(\w+@?\d*)\s+(-?[\d.]+)(?:  of (\d+))?", line)
        if found:
            figures.setdefault(found[1], {})[name] = found[2]
        found = re.search(r"dedup.threshold ([\d.-]+), exclude.threshold ([\d.-]+)", line)
        if found:
            figures.setdefault("dedup.threshold", {})[name] = found[1]
            figures.setdefault("exclude.threshold", {})[name] = found[2]
    figures.setdefault("seconds, all steps", {})[name] = str(sum(map(int, (out / f"{name}.seconds").read_text().split())))
print("# A planted curation\n")
print(f"`tests/support/curation_planted.sh BENCHMARK`, {version}. Figures as `curate score` names them.\n")
print("| | " + " | ".join(what) + " |\n|---|" + "---|" * len(what))
for figure, values in figures.items():
    print(f"| {figure} | " + " | ".join(values.get(name, "") for name in what) + " |")
END
