#!/usr/bin/env bash
# slurm.sh COMMAND [WORD]... - a Slurm of its own for one command: munged, slurmctld and slurmd with one virtual node of SLURM_CPUS (64)
# processors, on ports of the loopback that were free, in a temporary folder. sbatch, srun and the others find it by SLURM_CONF.
#   tests/support/slurm.sh bash        # to try slurm/*.sbatch by hand: sbatch --wait --nodes=1 --ntasks-per-node=2 --gpus-per-node=0 ...
#   tests/support/slurm.sh bash -c 'sbatch slurm/ablate.sbatch TABLE DIR; while squeue -h | grep .; do sleep 5; done'
# The status is the command's; 77 where Slurm cannot run, and one line says why. When the command ends, and when this script does, however
# that may be, daemons, jobs and folder are gone.
set -uo pipefail
(($# > 0)) || { sed -n 2p "$0" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin
host=$(uname -n) host=${host%%.*} user=$(id -un) attempts=3

refuse() { echo "skipped: Slurm cannot run here: $*" >&2; }

missing=()
for program in munged slurmctld slurmd sbatch srun scontrol scancel squeue; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]} > 0)); then
  refuse "no ${missing[*]}; Debian: apt-get install munge slurmctld slurmd slurm-client"
  exit 77
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/slurm-XXXXXX") && mkfifo "$folder/alive" || exit 1
conf=$folder/slurm.conf

# Everything that has our configuration in its environment: the daemons, the command, jobs.
ours() (
  unset SLURM_CONF # or grep finds itself
  grep -lzxF "SLURM_CONF=$conf" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
)
kill_ours() {
  local pids
  while mapfile -t pids < <(ours) && ((${#pids[@]} > 0)); do
    kill -KILL "${pids[@]}" 2>/dev/null
    sleep 0.05
  done
}

# What cleans up is a process of its own, in a process group of its own, that waits for the last writer of the pipe to be gone.
set -m
(
  cat "$folder/alive"
  kill_ours
  rm -rf "$folder"
) </dev/null &
cleaner=$!
set +m
exec {alive}>"$folder/alive"
leave() {
  exec {alive}>&-
  wait "$cleaner"
  exit "$1"
}

# A port of 20000 to 31999, below those that the kernel hands out, on which nothing listens now.
free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
    grep -qi ":$(printf %04X "$port") [0-9A-F:]* 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null || break
  done
  echo "$port"
}

# cred_expire: a requeued job waits as long as credentials live, 5 s is the least. EnableIPv6: without it "127.0.0.1" is no address to
# Slurm where the loopback is the only interface. NoInAddrAny listens on this machine's name alone: where that is the loopback.
# cgroup/v1: the other one does not start without a mounted cgroup.
configure() {
  local name listen=EnableIPv6
  ! getent ahostsv4 "$(uname -n)" | grep -q '^127\.' || listen+=,NoInAddrAny,NoCtldInAddrAny
  for name in state spool tmp shm log; do mkdir -p "$folder/$name"; done
  chmod 755 "$folder" "$folder/log"
  echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
  cat >"$conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=$listen
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
TmpFS=$folder/tmp
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MailProg=/bin/true
KillWait=5
MinJobAge=3600
ReturnToService=2
NodeName=node NodeHostname=$host NodeAddr=127.0.0.1 CPUs=${SLURM_CPUS:-64} RealMemory=1000000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=30 State=UP
END
}

daemon() {
  local log=$folder/log/$1
  "$@" >"$log" 2>&1 </dev/null {alive}>&- &
  daemons+=($!)
  disown
}

# The daemons, and whether the node has registered within 120 s; a daemon that ends before ends the waiting.
start() {
  local pid daemons=()
  configure
  rm -rf "$folder"/munge.* "$folder"/log/* # of the attempt before
  (umask 077; head -c 1024 /dev/urandom >"$folder/munge.key")
  daemon munged --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --seed-file="$folder/munge.seed" --origin=127.0.0.1 --num-threads=2
  while [[ ! -S $folder/munge.socket ]] && kill -0 "${daemons[0]}" 2>/dev/null; do sleep 0.05; done
  daemon slurmctld -D
  daemon slurmd -D -N node
  local end=$((SECONDS + 120))
  until scontrol -o show node 2>/dev/null | grep -q 'SlurmdStartTime=2'; do
    for pid in "${daemons[@]}"; do
      kill -0 "$pid" 2>/dev/null || return 1
    done
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# Temporary files and shared memory of jobs, too, belong to the folder. Ranks that wait leave the processor to others: there are fewer
# than the node says.
export SLURM_CONF=$conf TMPDIR=$folder/tmp OMPI_MCA_btl_vader_backing_directory=$folder/shm OMPI_MCA_mpi_yield_when_idle=1
until start; do # a port may be another's by now
  why=$(grep -hiE 'fatal|error' "$folder"/log/* | tail -n 1)
  kill_ours
  if ((--attempts == 0)); then
    refuse "${why:-the node did not register within 120 s}"
    leave 77
  fi
done
"$@" {alive}>&-
leave $?
