#!/usr/bin/env bash
# A whole curation as Slurm jobs: a chain of its steps, each of which starts when the one before has ended well.
#
#   slurm/curate.sh CURATION.yaml DIR [--data-root DIR] [key=value]...
#
# The steps are those that `dinobatch curate run CURATION.yaml --output-dir DIR ... --list` prints. Extractions that do
# not need each other, and retrievals, are jobs of an array. Resources: site.env. A step that is asked to stop, or whose
# time ends, is put back into the queue and goes on; a step that fails ends the chain. The same command given again
# submits what DIR/steps.txt does not list as done, and all that comes behind it; remove that file to start anew.
# Logs: DIR/slurm.
set -euo pipefail

if (($# < 2)) || [[ $1 == -* || $2 == -* ]]; then
  sed -n '4p' "$0" >&2
  exit 2
fi
plan=$1 folder=$2 more=("${@:3}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=slurm/site.env
. "$here/site.env"
DINOBATCH=$(realpath "${DINOBATCH:-$here/../build/dinobatch}")
export DINOBATCH DINOBATCH_LAUNCH DINOBATCH_SLURM="$here"

listed=$("$DINOBATCH" curate run "$plan" --output-dir "$folder" "${more[@]}" --list)
mapfile -t steps <<<"$listed"
mkdir -p "$folder/slurm"
# A name of its own: jobs of an earlier submission may still wait to read theirs.
list=$(mktemp "$folder/slurm/steps-$(date +%Y%m%d-%H%M%S)-XXX.txt")
printf '%s\n' "${steps[@]}" >"$list"

# The words of a step, in the shell's own quotes.
parse() { eval "words=($1)"; }

# What sbatch is told about a kind of step.
options_of() {
  local of="CURATE_SBATCH_${1^^}" own
  read -ra options <<<"$CURATE_SBATCH"
  read -ra own <<<"${!of:-}"
  options+=("${own[@]}")
  # Extraction has nothing to save: it is not asked to stop.
  [[ $1 == extract ]] || options+=("--signal=B:USR1@$CURATE_STOP_SECONDS")
}

is_done() { [[ -f $folder/steps.txt ]] && grep -qxF -- "$1" "$folder/steps.txt"; }

previous='' anew=0 kind='' members=() kept=() outputs=() words=()

# Submits the steps of the group that are not done, as one job or an array, behind the one before.
submit() {
  local number wanted=() index
  for number in "${members[@]}"; do
    if ((anew)) || ! is_done "${steps[number - 1]}"; then wanted+=("$number"); else kept+=("${steps[number - 1]}"); fi
  done
  if ((${#wanted[@]} > 0)); then
    # What these steps, and those behind them, wrote by other command lines counts no more.
    ((anew)) || printf '%s\n' "${kept[@]+"${kept[@]}"}" | sed '/^$/d' >"$folder/steps.txt"
    options_of "$kind"
    options+=(--parsable --export=ALL --requeue --chdir="$PWD" --job-name="curate-$kind" --output="$folder/slurm/%x-%j.log")
    [[ -z $previous ]] || options+=("--dependency=afterok:$previous" --kill-on-invalid-dep=yes)
    if ((${#wanted[@]} > 1)); then
      index=$(IFS=,; echo "${wanted[*]}")
      ((CURATE_ARRAY_AT_A_TIME == 0)) || index+=%$CURATE_ARRAY_AT_A_TIME
      options+=("--array=$index")
    fi
    previous=$(sbatch "${options[@]}" "$here/curate_step.sbatch" "$list" "${wanted[0]}" "$folder/steps.txt")
    previous=${previous%%;*} # "job;cluster"
    anew=1
    echo "$kind, steps ${wanted[*]} of ${#steps[@]}: job $previous"
  fi
  members=() outputs=()
}

# Whether a word of the step is what a step of the group writes.
needs_group() {
  local word output
  for word in "${words[@]}"; do
    for output in "${outputs[@]}"; do
      [[ $word != "$output" ]] || return 0
    done
  done
  return 1
}

for ((number = 1; number <= ${#steps[@]}; number++)); do
  parse "${steps[number - 1]}"
  of=${words[1]}
  [[ $of != curate ]] || of=${words[2]}
  together=0
  if [[ $of == "$kind" ]]; then
    case $of in
      extract) needs_group || together=1 ;;
      retrieve) together=1 ;;
    esac
  fi
  if ((!together && ${#members[@]} > 0)); then submit; fi
  kind=$of
  members+=("$number")
  if [[ $of == extract ]]; then
    for ((w = 0; w + 1 < ${#words[@]}; w++)); do
      [[ ${words[w]} != --output-dir ]] || outputs+=("${words[w + 1]}")
    done
  fi
done
submit
((anew)) || echo "every step is done: $folder/steps.txt"
