#!/usr/bin/env bash
# Deduplication of a large drawn pool with planted duplicates by inverted lists, streamed: what it finds beside the truth, how long its
# parts take, how much memory, and that a run that was killed comes to the same file; and at a smaller size lists beside exact search.
# Prints results/curation/scale.md.
#
#   tests/support/curation_scale.sh [NAME=VALUE]...
#     rows=1000000  lists=2048  nprobe=8  ranks=2  threads=1    the large pool, its index, and who works on it
#     small=100000  small_lists=1024  probes="1 2 4 8 16 32 64"  the pool that is also searched exactly; 0: none
#     columns=512  duplicates=0.3  copies=4  seed=1             both pools, as `synth --features` takes them
#     mates=5000                                                rows of a cluster: the more, the more lists lie across each
#     train_rows=0  block=16384                                 curation.train_rows, curation.block_queries
#     save_minutes=0.2                                          state of the run that is killed
#     note=                                                     what the record should say of the machine beside its load
# Environment
#   DINOBATCH  the program (default build/dinobatch)
#   SCRATCH    a folder with room for both pools, 4 * columns bytes a row (default /tmp)
# Fails if memory of all ranks together is above 1.5 times the pool as fp32 (of pools of 100 MB on: the program itself takes 60 MB a
# rank), or if the killed run comes to another result. Takes 20 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."

rows=1000000 lists=2048 nprobe=8 ranks=2 threads=1
small=100000 small_lists=1024 probes="1 2 4 8 16 32 64"
columns=512 mates=5000 duplicates=0.3 copies=4 seed=1
train_rows=0 block=16384 save_minutes=0.2 note=
for word; do
    [[ $word =~ ^(rows|lists|nprobe|ranks|threads|small|small_lists|probes|columns|mates|duplicates|copies|seed|train_rows|block|save_minutes|note)= ]] ||
        { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
    declare "$word"
done
DINOBATCH=${DINOBATCH:-build/dinobatch}
((EUID)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMP_PROC_BIND=false
temp=$(mktemp -d "${SCRATCH:-/tmp}/curation_scale.XXXXXX")
trap 'rm -rf "$temp"' EXIT
failed=0

figure() { sed -nE "s/.*\"$1\":([0-9.]+).*/\1/p" "$2"; }
of() { awk "BEGIN { printf \"$1\", $2 }"; }

pool() { # ROWS
    "$DINOBATCH" synth --features "rows=$1,columns=$columns,clusters=$((1 + $1 / mates)),duplicates=$duplicates,copies=$copies,seed=$seed" \
        --output-dir "$temp/pool_$1.h5" --json >"$temp/pool_$1.json" 2>"$temp/err" || { cat "$temp/err" >&2; exit 1; }
    h5dump -d /labels -y -w 1 -o "$temp/labels_$1" "$temp/pool_$1.h5" >"$temp/dump"
}

# What a rank runs under: its number, to be killed by, its seconds and its kilobytes at most.
cat >"$temp/rank.sh" <<'RANK'
echo $$ >>"$1.pids"
exec time -a -o "$1.time" -f '%e %M' "${@:2}"
RANK

# Starts `curate dedup` on the pool of ROWS: NAME ROWS RANKS THREADS KEY=VALUE... Leaves NAME/dedup.h5, NAME.json, NAME.log, NAME.time.
dedup() {
    local name=$temp/$1 pool=$temp/pool_$2.h5 launch=()
    (($3 > 1)) && launch=(mpirun -n "$3")
    rm -f "$name.time" "$name.pids"
    "${launch[@]}" bash "$temp/rank.sh" "$name" "$DINOBATCH" curate dedup --features "$pool" --output-dir "$name" --json \
        "compute.threads=$4" "curation.train_rows=$train_rows" "curation.block_queries=$block" "${@:5}" >"$name.out" 2>"$name.log" || return 1
    tail -1 "$name.out" >"$name.json"
}
finished() { dedup "$@" || { cat "$temp/$1.log" >&2; exit 1; }; }

# Pairs of the truth that are found, and found pairs that are true: NAME ROWS.
truth() {
    h5dump -d /group -y -w 1 -o "$temp/group" "$temp/$1/dedup.h5" >"$temp/dump"
    paste "$temp/labels_$2" "$temp/group" | tr -d ', ' | awk -F'\t' '
        NF < 2 || $2 == "" { next }
        { found[$2]++; if ($1 >= 0) { planted[$1]++; both[$1 " " $2]++ } }
        function pairs(n) { return n * (n - 1) / 2 }
        END {
            for (g in found) f += pairs(found[g])
            for (g in planted) p += pairs(planted[g])
            for (g in both) b += pairs(both[g])
            printf "%.5f | %.5f", p ? b / p : 1, f ? b / f : 1
        }'
}
same() { h5diff "$temp/$1/dedup.h5" "$temp/$2/dedup.h5" /group && h5diff "$temp/$1/dedup.h5" "$temp/$2/dedup.h5" /keep; }
seconds() { sort -n "$temp/$1.time" | tail -1 | cut -d' ' -f1; }
logged() { sed -nE "s/.*$2.*/\1/p" "$temp/$1.log" | tail -1; }

table_head() {
    printf '| %s | edges | groups | rows kept | true pairs found | found pairs true | s: lists learnt | filled | searched | all |\n' "$1"
    printf '|---|---|---|---|---|---|---|---|---|---|\n'
}
table_row() { # TITLE NAME ROWS
    local json=$temp/$2.json learnt filled searched
    learnt=$(logged "$2" 'lists learnt in ([0-9.]+) s') filled=$(logged "$2" 'filled in ([0-9.]+) s')
    searched=$(logged "$2" 'looked for their neighbours in ([0-9.]+) s')
    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$(figure edges "$json")" "$(figure groups "$json")" \
        "$(figure rows_kept "$json")" "$(truth "$2" "$3")" "${learnt:--}" "${filled:--}" "$searched" "$(seconds "$2")"
}

small_tables() {
    local p edges
    printf '\n## Lists beside exact search, %s rows\n\n%s objects; 1 rank of %s threads.\n\n' "$small" "$(figure objects "$temp/pool_$small.json")" \
        "$((ranks * threads))"
    table_head "index"
    finished flat "$small" 1 "$((ranks * threads))" curation.index=Flat
    table_row "Flat" flat "$small"
    edges=$(figure edges "$temp/flat.json")
    for p in $probes; do
        finished "ivf$p" "$small" 1 "$((ranks * threads))" "curation.index=IVF$small_lists,Flat" "curation.nprobe=$p"
        table_row "IVF$small_lists,Flat, nprobe $p: $(of %.5f "$(figure edges "$temp/ivf$p.json") / $edges") of the edges, $(
            same flat "ivf$p" >"$temp/differ" && echo "the same groups" || echo "other groups"
        )" "ivf$p" "$small"
    done
}

large_tables() {
    local index=("curation.index=IVF$lists,Flat" "curation.nprobe=$nprobe") bytes=$((4 * columns * rows)) peak ratio
    printf '\n## %s rows\n\n%s objects. `mpirun -n %s dinobatch curate dedup --features POOL compute.threads=%s curation.train_rows=%s curation.block_queries=%s %s`\n\n' "$rows" \
        "$(figure objects "$temp/pool_$rows.json")" "$ranks" "$threads" "$train_rows" "$block" "${index[*]}"
    table_head "run"
    finished large "$rows" "$ranks" "$threads" "${index[@]}"
    table_row "undisturbed" large "$rows"
    peak=$(awk '{ sum += $2 } END { printf "%.0f", sum * 1024 }' "$temp/large.time")
    ratio=$(of %.3f "$peak / $bytes")

    # Killed at two fifths or later, when something has been saved.
    dedup killed "$rows" "$ranks" "$threads" "${index[@]}" "curation.save_minutes=$save_minutes" &
    local launcher=$!
    until [[ -f $temp/killed/dedup.partial.h5 ]] && grep -qE '^dedup .* [4-9][0-9]%' "$temp/killed.log"; do
        sleep 0.05
        kill -0 $launcher 2>/dev/null || { echo "it was done before it could be killed" >&2; exit 1; }
    done
    # of each rank the program, whose parent is `time`
    local pid
    for pid in $(cat "$temp/killed.pids"); do pkill -9 -P "$pid" || true; done
    wait $launcher 2>/dev/null && { echo "killed, and yet it ended well" >&2; exit 1; }
    grep -E '^dedup .*%' "$temp/killed.log" | tail -1 >"$temp/last"
    finished killed "$rows" "$ranks" "$threads" "${index[@]}"
    table_row "killed, started again" killed "$rows"

    printf '\nMemory: %s bytes at most, all ranks together (sum of VmHWM: %s kB), %s times the rows as fp32 (bound 1.5).\n' "$peak" \
        "$(awk '{ printf "%s%s", sep, $2; sep = " + " }' "$temp/large.time")" "$ratio"
    ((bytes < 100000000)) || awk "BEGIN { exit !($ratio <= 1.5) }" || failed=1
    printf '\n`kill -9` of all ranks after `%s`; the second start went on after `%s`. /group and /keep beside those of the undisturbed run: %s.\n' \
        "$(sed -E 's/ +/ /g' "$temp/last")" "$(grep -E '^dedup .*%' "$temp/killed.log" | head -1 | sed -E 's/ +/ /g')" \
        "$(same large killed >"$temp/differ" && echo "the same, bit for bit" || echo "DIFFERENT")"
    ((! $(wc -l <"$temp/differ"))) || failed=1
    grep -q 'going on from' "$temp/killed.log" || failed=1
}

printf '# Deduplication at scale\n\nMade by `tests/support/curation_scale.sh%s`,\n%s, %s, %s cores, %s GB of memory; load average at the start: %s. %s\n\n' \
    "$(for word; do [[ $word == note=* ]] || printf ' %q' "$word"; done)" "$("$DINOBATCH" --version)" \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(awk '/MemTotal/ {printf "%.0f", $2 / 1e6}' /proc/meminfo)" \
    "$(cut -d' ' -f1-3 /proc/loadavg)" "$note"
printf 'Rows are drawn: `synth --features rows=N,columns=%s,clusters=1+N/%s,duplicates=%s,copies=%s,seed=%s`, copies of an object at a cosine of 0.75\n' \
    "$columns" "$mates" "$duplicates" "$copies" "$seed"
printf 'to 0.95, mates of a cluster of 0.3 or so. Groups are made of edges above 0.6. An object is what should be kept once. Pairs are pairs of rows\nof one planted group, and of one group found.\n'
if ((small)); then
    pool "$small"
    small_tables
fi
pool "$rows"
large_tables
printf '\nLoad average at the end: %s.\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
exit $failed
