#!/usr/bin/env bash
# The tables of results/fsdp: memory.md (bytes of a rank beside the theory), overlap.md (time, and how much waiting for other
# ranks is hidden), checkpoint.md (writing and reading a state, and what that costs a training).
#
#   tests/support/fsdp_tables.sh [memory] [overlap] [checkpoint]        (default: all three)
# Environment
#   DINOBATCH  the program (default build/dinobatch)
#   OUTPUT     where the tables go (default results/fsdp)
#   SCRATCH    a folder on the disk to be measured, with 15 GB free (default: a new one in /tmp)
# Fails if the sharded part does not fall as 1/N within 5 %.
set -euo pipefail
cd "$(dirname "$0")/../.."

DINOBATCH=${DINOBATCH:-build/dinobatch}
OUTPUT=${OUTPUT:-results/fsdp}
((EUID)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
temp=$(mktemp -d "${SCRATCH:-/tmp}/fsdp_tables.XXXXXX")
trap 'rm -rf "$temp"' EXIT
mkdir -p "$OUTPUT"

# Small pictures and few prototypes, so that eight ranks of a ViT-B fit in 20 GB; parameters are what counts here.
small=(student.patch_size=14 train.batch_size_per_gpu=2 crops.global_crops_size=56 crops.local_crops_size=28 crops.local_crops_number=2
    dino.head_n_prototypes=4096 ibot.head_n_prototypes=4096 compute.threads=1)

bench() { # RANKS ARGUMENT...
    local ranks=$1
    shift
    mpirun -n "$ranks" "$DINOBATCH" bench "$@" 2>"$temp/err" || { cat "$temp/err" >&2; exit 1; }
}

# What every file begins with: TITLE COMMAND.
head_of() {
    printf '# %s\n\nMade by tests/support/fsdp_tables.sh %s, %s,\n' "$1" "$2" "$("$DINOBATCH" --version)"
    printf '%s, %s cores, %s GB of memory, mpirun on one host; load average at the start: %s.\n\n' \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" \
        "$(awk '/MemTotal/ {printf "%.0f", $2 / 1e6}' /proc/meminfo)" "$(cut -d' ' -f1-3 /proc/loadavg)"
}

# The command as it can be typed, then its tables.
shown() { # RANKS ARGUMENT...
    echo "\$ mpirun -n $1 dinobatch bench ${*:2}" | sed "s|$temp|DIR|"
    bench "$@" | tail -n +2
    echo
}

memory() {
    head_of "Memory of a rank, measured and in theory" memory
    cat <<END
MiB of the rank that has most of them, as the allocators gave them out. *Sharded*: fp32 weights of student and teacher, AdamW's two
moments, gradients; theory: parameters x 20 bytes / ranks. *Copies*: gathered weights; theory: both heads of both networks, and of the
backbone two units (FULL_SHARD) or all (SHARD_GRAD_OP), once for both networks. *Rooms*: full gradients under way; theory: both heads
and two units of the backbone. One rank computes with its own weights. *All*: with activations, scratch of operations and small things.

    mpirun -n N dinobatch bench --what sharding --preset vits14 --dtype fp32 --quick --strategy S student.arch=M \\
        ${small[*]:0:5} \\
        ${small[*]:5}

| model | strategy | ranks | sharded | theory | share of one rank's | copies | theory | rooms | theory | activations | scratch | all |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
END
    for model in vit_small vit_base; do
        for strategy in full_shard shard_grad_op; do
            for ranks in 1 2 3 4 6 8; do
                bench "$ranks" --what sharding --preset vits14 --dtype fp32 --quick --strategy "$strategy" "student.arch=$model" "${small[@]}" |
                    awk -v model="$model" -v ranks="$ranks" '$1 == "MiB" { memory = 1 }
                        memory && $1 ~ /^(FULL_SHARD|SHARD_GRAD_OP)$/ { print model, ranks, $0; memory = 0 }'
            done
        done
    done >"$temp/rows"
    # model ranks strategy parts sharded theory copies theory rooms theory activations scratch all
    awk 'function off(value, wanted) { return value < 0.95 * wanted || value > 1.05 * wanted }
        $2 == 1 { one = $5 }
        { if ($4 != $2 || off($5, $6) || off($5 * $2, one)) { print "not 1/N within 5 %: " $0 >"/dev/stderr"; failed = 1 }
          printf "| %s | %s | %d | %s | %s | 1/%.2f | %s | %s | %s | %s | %s | %s | %s |\n",
              $1, $3, $2, $5, $6, one / $5, $7, $8, $9, $10, $11, $12, $13 }
        END { if (NR != 24) { print "rows: " NR " of 24" >"/dev/stderr"; failed = 1 }; exit failed }' "$temp/rows"
    printf '\nEvery row was checked: the sharded part is 1/N of that of one rank, and the theory, within 5 %%.\n'
}

overlap() {
    head_of "Waiting for other ranks, and how much of it is hidden" overlap
    cat <<'END'
*ms*: median step of the slowest rank with gathers and sums beside the computation, and beside it (*apart*) with each of them waited
for at once; *ratio* to NO_SHARD in the same rounds. *gathers*, *sums*: the share of the step in which a rank waits for them, a mean
over ranks; sums contain their arithmetic. *hidden*: the part of that waiting which communication beside the computation saves. *MiB
come, go*: what gathers bring a rank and what sums take from it in a step. *recomputing*: train.checkpoint_activations=block.

```
END
    shown 2 --what sharding --preset vits14 --dtype fp32 --seconds 6 train.batch_size_per_gpu=2
    shown 2 --what sharding --preset tiny --dtype fp32 --seconds 2
    shown 4 --what sharding --preset tiny --dtype fp32 --seconds 2 compute.ranks_per_node=2 train.batch_size_per_gpu=16
    echo '```'
}

checkpoint() {
    head_of "Checkpoints: to the disk and back, and what they cost a training" checkpoint
    cat <<'END'
The plain write is one process, 4 MiB at a time, one fsync: what `dd bs=4M conv=fsync` does; a dd of as many bytes stands above each.
By turns in one run, into the same folder. Read back with the kernel's pages of the file forgotten; every checksum is verified.
Load above the cores makes steps vary by more than a checkpoint costs (a cost below zero says just that), and delays writes by turns.

```
END
    for ranks in 1 2 4; do
        echo "\$ dd if=/dev/zero of=DIR/x bs=4M count=1469 conv=fsync"
        dd if=/dev/zero of="$temp/x" bs=4M count=1469 conv=fsync 2>&1 | tail -1
        rm "$temp/x"
        shown "$ranks" --what checkpoint --preset full-l --output-dir "$temp"
    done
    shown 1 --what checkpoint --preset vits14 --output-dir "$temp" train.batch_size_per_gpu=2
    shown 2 --what checkpoint --preset vits14 --output-dir "$temp" train.batch_size_per_gpu=2
    echo '```'
}

(($#)) || set -- memory overlap checkpoint
for part; do
    case $part in
        memory | overlap | checkpoint) ;;
        *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    "$part" >"$temp/table.md"
    cp "$temp/table.md" "$OUTPUT/$part.md"
done
