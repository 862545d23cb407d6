/* sharding_bench.h - what the sharding strategies cost and save on the ranks of a run: memory of a rank
 * beside the theory, time of a step as a ratio to NO_SHARD, bytes between ranks, and how much of the waiting
 * for them prefetching hides. One row more recomputes activations.
 *
 * Every round builds each model anew, one at a time, and takes steps by turns with communication beside the
 * computation (as training does) and without: gathers only when a unit is wanted, sums waited for at once.
 * So a slow moment of the machine meets all of them, and memory is that of one model.
 *
 * Waiting is the host's, through MPI: it contains the arithmetic of sums and the wait for slower ranks.
 */
#ifndef DINOBATCH_BENCH_SHARDING_BENCH_H
#define DINOBATCH_BENCH_SHARDING_BENCH_H

#include "bench/bench_timer.h"
#include "comm/comm.h"
#include "config/config.h"

enum { SHARDING_STRATEGIES = 4, SHARDING_ROWS = SHARDING_STRATEGIES + 1 };

typedef struct {
    const char *name; /* of the configuration; static or borrowed */
    Config *config;   /* checked; its strategies and train.checkpoint_activations are overwritten */
    Comm *comm;
    Device *device;
    int threads;
    double seconds; /* of steps, for each row and round */
    bool quick;     /* one round of one step */
    int strategy;   /* a ConfigSharding, or -1: all; HYBRID_SHARD only if compute.ranks_per_node says how */
} ShardingBenchParams;

/* Steps of one kind. Waits are seconds of a step, means over steps and ranks. */
typedef struct {
    BenchTimes times; /* of the slowest rank; count 0: not taken */
    double gather_wait, sum_wait;
} ShardingTimes;

/* Bytes of the rank that has the most of them. `theory`: from parameters alone, without padding. */
typedef struct {
    size_t sharded;     /* weights of both networks, moments, gradients */
    size_t copies;      /* full copies for computing */
    size_t rooms;       /* full gradients under way */
    size_t activations; /* the step's arena */
    size_t scratch;     /* of operations */
    size_t all;         /* that allocators have given out, the above included */
    double sharded_theory, copies_theory, rooms_theory;
} ShardingMemory;

typedef struct {
    ConfigSharding strategy;
    bool recompute;       /* train.checkpoint_activations: block */
    int shards, replicas; /* of the backbone */
    ShardingMemory memory;
    ShardingTimes beside, apart; /* with communication beside the computation, and without */
    double ratio;                /* of the step's time to NO_SHARD's; 0: that was not measured */
    double received, sent;       /* bytes of a step and rank: by gathers, for sums */
} ShardingRow;

typedef struct {
    char name[32];
    Dtype dtype; /* of the student's products */
    int ranks, threads, rounds;
    int64_t samples; /* of a step, all ranks */
    int64_t parameters;
    ShardingRow rows[SHARDING_ROWS];
    int row_count;
} ShardingBench;

/* "NO_SHARD", ... */
const char *sharding_bench_strategy(ConfigSharding strategy);

/* The share of waiting that prefetching hides, or 0 where there is none. */
double sharding_bench_hidden(const ShardingRow *row);

/* STATUS_INPUT for a configuration that does not suit the ranks. The same figures on all ranks. Collective
 * over COMM. */
Status sharding_bench_run(ShardingBench *result, const ShardingBenchParams *params, Error *error);

#endif
