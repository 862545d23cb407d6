# shellcheck shell=bash
# Sourced by the job scripts of this folder: how a job runs the program, is asked to stop, and comes back.
#
# Slurm tells the script that its time ends (--signal=B:USR1@SECONDS); the script hands the request to srun or mpirun,
# which hand it to every rank; the program saves and ends with 75, and the job goes back into the queue.
child='' asked=0
trap 'asked=1; echo "$(date +%FT%T) asked to stop"; [[ -z $child ]] || kill -USR1 "$child"' USR1 # first, for without it the request ends the script
set -uo pipefail

slurm_folder=${DINOBATCH_SLURM:-${SLURM_SUBMIT_DIR:-.}/slurm} # Slurm runs a copy of the script, which knows no folder
[[ -f $slurm_folder/site.env ]] || {
  echo "$slurm_folder: no site.env there: submit from the repository's folder, or set DINOBATCH_SLURM" >&2
  exit 2
}
# shellcheck source=slurm/site.env
. "$slurm_folder/site.env"
DINOBATCH=$(realpath -m "${DINOBATCH:-$slurm_folder/../build/dinobatch}")
[[ -x $DINOBATCH ]] || { echo "$DINOBATCH: no program there: make it, or set DINOBATCH" >&2; exit 2; }

if [[ -z $DINOBATCH_LAUNCH ]]; then
  if srun --mpi=list 2>&1 | grep -q pmix; then
    DINOBATCH_LAUNCH='srun --mpi=pmix --kill-on-bad-exit=1'
  else
    DINOBATCH_LAUNCH=mpirun
  fi
fi
read -ra launcher <<<"$DINOBATCH_LAUNCH"
# Since Slurm 22.05 srun does not take this over from sbatch by itself.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# launch WORDS...: the program on every task of the job; returns its status.
launch() {
  local status
  echo "$(date +%FT%T) start $((${SLURM_RESTART_COUNT:-0} + 1)): dinobatch $*"
  "${launcher[@]}" "$DINOBATCH" "$@" &
  child=$!
  ((!asked)) || kill -USR1 "$child"
  while :; do # a request interrupts the waiting
    asked=0
    wait "$child"
    status=$?
    ((asked)) || break
  done
  child=''
  echo "$(date +%FT%T) status $status"
  return "$status"
}

# come_back STATUS: ends the script; with 75 the job, or this member of the array, is put back into the queue.
come_back() {
  if (($1 == 75)); then
    local job=$SLURM_JOB_ID
    [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    scontrol requeue "$job" && sleep 60 # Slurm ends the script meanwhile
  fi
  exit "$1"
}
