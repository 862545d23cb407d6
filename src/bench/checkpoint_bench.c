/* checkpoint_bench.c - a state without a model around it, saved, loaded, and written plainly. */
#include "bench/checkpoint_bench.h"

#include "base/memory.h"
#include "bench/bench_operands.h"
#include "bench/checkpoint_files.h"

#include <stdio.h>

enum { ROUNDS = 3, VECTORS = 4 };

/* This rank's part of a state: weights of both networks and two moments. */
typedef struct {
    FsdpRanks ranks;
    Vit vit;
    ParamTable table;
    ShardMap map;
    float *memory[VECTORS]; /* [map.count] owned */
    CheckpointState state;
} Snapshot;

static Status snapshot_init(Snapshot *s, const CheckpointBenchParams *params, Error *error)
{
    DinoHead dino_head, ibot_head;
    int shards[PARAM_MODULE_COUNT];
    *s = (Snapshot){0};
    TRY(fsdp_ranks_init(&s->ranks, params->config, params->comm, params->device, error));
    param_table_init(&s->table);
    ssl_build_networks(params->config, &s->vit, &dino_head, &ibot_head, &s->table);
    fsdp_ranks_shards(&s->ranks, shards);
    param_table_lay_out(&s->table, shards);
    shard_map_init(&s->map, &s->table, &s->ranks);
    for (int i = 0; i < VECTORS; i++) {
        s->memory[i] = memory_alloc_array((size_t)s->map.count, sizeof(float));
        bench_operands_fill(s->memory[i], s->map.count, i + 1.0);
    }
    s->state = checkpoint_files_state(params->config, &s->map, s->memory);
    return STATUS_OK;
}

static void snapshot_fini(Snapshot *s)
{
    for (int i = 0; i < VECTORS; i++)
        memory_free(s->memory[i]);
    memory_free(s->state.meta.config);
    shard_map_fini(&s->map);
    param_table_fini(&s->table);
    vit_fini(&s->vit);
    fsdp_ranks_fini(&s->ranks);
}

/* Bytes of the file's tensors. */
static double bytes_of(const ParamTable *table)
{
    double bytes = 0;
    for (int i = 0; i < table->count; i++)
        bytes += VECTORS * sizeof(float) * (double)table->params[i].count;
    return bytes;
}

typedef struct {
    double plain[ROUNDS], save[ROUNDS], load[ROUNDS], share[ROUNDS];
} Rounds;

/* By turns which comes first. */
static Status one_round(const CheckpointBenchParams *params, Snapshot *s, double bytes, int round, Rounds *r,
                        Error *error)
{
    for (int i = 0; i < 2; i++) {
        TRY(checkpoint_files_remove(params->folder, params->comm, error));
        if (i == round % 2) {
            TRY(checkpoint_files_plain(params->folder, bytes, params->comm, &r->plain[round], error));
            continue;
        }
        TRY(checkpoint_files_save(params->folder, &s->state, params->comm, &r->save[round], error));
        TRY(checkpoint_files_load(params->folder, &s->state, params->comm, &r->load[round], error));
    }
    r->share[round] = r->plain[round] / r->save[round];
    return STATUS_OK;
}

Status checkpoint_bench_run(CheckpointBench *result, const CheckpointBenchParams *params, Error *error)
{
    *result = (CheckpointBench){.ranks = comm_size(params->comm), .threads = params->threads};
    snprintf(result->name, sizeof result->name, "%s", params->name);
    int count = params->quick ? 1 : ROUNDS;
    Rounds rounds;
    Snapshot s;
    Status status = snapshot_init(&s, params, error);
    result->tensors = VECTORS * (int64_t)s.table.count;
    result->bytes = bytes_of(&s.table);
    for (int round = 0; round < count && status == STATUS_OK; round++)
        status = one_round(params, &s, result->bytes, round, &rounds, error);
    if (status == STATUS_OK) {
        result->plain = bench_timer_statistics(rounds.plain, count);
        result->save = bench_timer_statistics(rounds.save, count);
        result->load = bench_timer_statistics(rounds.load, count);
        result->share = bench_timer_statistics(rounds.share, count).median;
    }
    Error late = {0};
    Status removed = checkpoint_files_remove(params->folder, params->comm, &late);
    snapshot_fini(&s);
    if (status != STATUS_OK || removed == STATUS_OK) return status;
    *error = late;
    return removed;
}
