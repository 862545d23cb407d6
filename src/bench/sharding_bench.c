/* sharding_bench.c - one model after the other, round by round. */
#include "bench/sharding_bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_model.h"

#include <math.h>
#include <stdio.h>

enum { ROUNDS = 3, MOST_STEPS = 32, BESIDE = 0, APART, KINDS };

/* What the steps of one row have taken. */
typedef struct {
    double seconds[KINDS][ROUNDS * MOST_STEPS];
    double medians[KINDS][ROUNDS];
    double gather_wait[KINDS], sum_wait[KINDS]; /* sums over steps and ranks */
    int counts[KINDS];
    int steps; /* of a round and kind; 0: not known yet */
} Samples;

typedef struct {
    const ShardingBenchParams *params;
    ShardingBench *result;
    Samples *samples; /* [SHARDING_ROWS] owned */
} Sharding;

const char *sharding_bench_strategy(ConfigSharding strategy)
{
    static const char *const NAMES[SHARDING_STRATEGIES] = {
        [CONFIG_SHARDING_NO_SHARD] = "NO_SHARD",
        [CONFIG_SHARDING_SHARD_GRAD_OP] = "SHARD_GRAD_OP",
        [CONFIG_SHARDING_FULL_SHARD] = "FULL_SHARD",
        [CONFIG_SHARDING_HYBRID_SHARD] = "HYBRID_SHARD",
    };
    return NAMES[strategy];
}

double sharding_bench_hidden(const ShardingRow *row)
{
    double apart = row->apart.gather_wait + row->apart.sum_wait;
    double beside = row->beside.gather_wait + row->beside.sum_wait;
    return apart > 0 ? 1 - beside / apart : 0;
}

/* --- rows --- */

static void configure(Config *config, const ShardingRow *row)
{
    ConfigPrecisions *both[] = {&config->compute_precision.teacher, &config->compute_precision.student};
    for (int i = 0; i < 2; i++) {
        both[i]->backbone.sharding_strategy = row->strategy;
        both[i]->dino_head.sharding_strategy = row->strategy;
        both[i]->ibot_head.sharding_strategy = row->strategy;
    }
    config->train.checkpoint_activations =
        row->recompute ? CONFIG_ACTIVATIONS_BLOCK : CONFIG_ACTIVATIONS_NONE;
}

static void list_rows(ShardingBench *result, const ShardingBenchParams *params)
{
    int64_t node = params->config->compute.ranks_per_node;
    bool nodes = node > 0 && node < result->ranks && result->ranks % node == 0;
    for (int s = 0; s < SHARDING_STRATEGIES; s++) {
        bool all = params->strategy < 0 && (s != CONFIG_SHARDING_HYBRID_SHARD || nodes);
        if (all || params->strategy == s)
            result->rows[result->row_count++] = (ShardingRow){.strategy = (ConfigSharding)s};
    }
    if (result->rows[0].strategy != CONFIG_SHARDING_NO_SHARD) return;
    result->rows[result->row_count] = result->rows[0];
    result->rows[result->row_count++].recompute = true;
}

/* --- memory --- */

/* Sums over a module's parameters, and over those of its largest unit. */
typedef struct {
    double count, unit_count; /* elements */
    double copy, unit_copy;   /* bytes of a full copy as passes read it */
} ModuleSize;

static ModuleSize size_of(const SslMetaArch *ssl, ParamModule module)
{
    static const double BYTES_WITH_16_BITS[PARAM_READ_COUNT] = {
        [PARAM_READ_EXACT] = 4, [PARAM_READ_BOTH] = 6, [PARAM_READ_REDUCED] = 2};
    const ParamTable *table = &ssl->student.table;
    bool reduced = weights_act(&ssl->student.weights[module]) != DTYPE_F32;
    bool cut = ssl->student.map.modules[module].shards > 1;
    ModuleSize *units = memory_alloc_array((size_t)table->unit_count, sizeof *units), sum = {0};
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        if (p->module != module) continue;
        ModuleSize *unit = &units[p->unit];
        double count = (double)p->count;
        /* what is not cut is read where it is updated, but for its 16-bit copy */
        double copy = cut ? (reduced ? BYTES_WITH_16_BITS[p->read] : 4) : (reduced ? 2 : 0);
        sum.count += count;
        sum.copy += count * copy;
        unit->count += count;
        unit->copy += count * copy;
        sum.unit_count = fmax(sum.unit_count, unit->count);
        sum.unit_copy = fmax(sum.unit_copy, unit->copy);
    }
    memory_free(units);
    return sum;
}

static void theory(ShardingMemory *memory, const SslMetaArch *ssl)
{
    enum { VECTORS = 5, ROOMS = 2, NETWORKS = 2 };
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        ModuleSize size = size_of(ssl, (ParamModule)m);
        const FsdpModule *module = &ssl->student.map.modules[m];
        bool cut = module->shards > 1, backbone = m == PARAM_BACKBONE;
        memory->sharded_theory += size.count * VECTORS * sizeof(float) / module->shards;
        /* both networks' passes over the backbone use the same memory, one after the other */
        double copies = !cut || !backbone             ? NETWORKS * size.copy
                        : module->student == FSDP_USE ? ROOMS * size.unit_copy
                                                      : size.copy;
        memory->copies_theory += copies;
        Dtype reduce = ssl->gradients.reduce[m];
        double each = sizeof(float) + (reduce == DTYPE_F32 ? 0 : (double)dtype_size(reduce));
        if (cut) memory->rooms_theory += (backbone ? ROOMS * size.unit_count : size.count) * each;
    }
}

/* The largest of all ranks. */
static size_t most(Comm *comm, size_t bytes)
{
    int64_t value = (int64_t)bytes;
    comm_all_reduce(comm, &value, 1, DTYPE_I64, COMM_MAX, NULL);
    return (size_t)value;
}

static void fill_memory(ShardingRow *row, const BenchModel *model, size_t allocated, Comm *comm)
{
    enum { LOCAL_VECTORS = 5 }; /* student, teacher, gradients, two moments */
    const SslMetaArch *ssl = &model->ssl;
    ShardingMemory *m = &row->memory;
    *m = (ShardingMemory){0};
    theory(m, ssl);
    if (device_kind(model->device) == DEVICE_CPU) allocated += model->ops->scratch->capacity;
    m->sharded = most(comm, (size_t)ssl->student.map.count * LOCAL_VECTORS * sizeof(float));
    m->copies =
        most(comm, sharded_weights_bytes(&ssl->student.copies) + sharded_weights_bytes(&ssl->teacher.copies));
    m->rooms = most(comm, ssl->gradients.bytes);
    m->activations = most(comm, ssl->step.capacity);
    m->scratch = most(comm, model->ops->scratch->capacity);
    m->all = most(comm, allocated);
    row->shards = ssl->student.map.modules[PARAM_BACKBONE].shards;
    row->replicas = ssl->student.map.modules[PARAM_BACKBONE].replicas;
}

/* --- time --- */

/* Waits and bytes so far. */
typedef struct {
    double gather_wait, sum_wait, received, sent;
} Counters;

static Counters counters_of(const SslMetaArch *ssl)
{
    const ShardedWeights *s = &ssl->student.copies, *t = &ssl->teacher.copies;
    return (Counters){s->waited + t->waited, ssl->gradients.waited, (double)(s->received + t->received),
                      (double)ssl->gradients.sent};
}

/* The slowest rank's seconds. Collective over all ranks. */
static double one_step(BenchModel *model, Comm *comm, int kind, ShardingRow *row, Samples *samples)
{
    SslMetaArch *ssl = &model->ssl;
    ssl->student.copies.prefetch = ssl->teacher.copies.prefetch = ssl->gradients.overlap = kind == BESIDE;
    bench_model_next_batch(model);
    comm_barrier(comm);
    Counters before = counters_of(ssl);
    double start = clock_seconds();
    bench_model_step(model);
    device_finish(model->device);
    double seconds = clock_seconds() - start;
    Counters after = counters_of(ssl);
    double waits[] = {after.gather_wait - before.gather_wait, after.sum_wait - before.sum_wait};
    comm_all_reduce(comm, waits, 2, DTYPE_F64, COMM_SUM, NULL);
    comm_all_reduce(comm, &seconds, 1, DTYPE_F64, COMM_MAX, NULL);
    samples->gather_wait[kind] += waits[0];
    samples->sum_wait[kind] += waits[1];
    if (kind == APART) return seconds;
    row->received = after.received - before.received;
    row->sent = after.sent - before.sent;
    return seconds;
}

static void take_steps(const Sharding *s, BenchModel *model, int index, int round)
{
    Comm *comm = s->params->comm;
    ShardingRow *row = &s->result->rows[index];
    Samples *samples = &s->samples[index];
    Samples forgotten = {0};
    double first = one_step(model, comm, BESIDE, row, &forgotten); /* warms up */
    if (samples->steps == 0)
        samples->steps = s->params->quick ? 1 : (int)fmin(MOST_STEPS, ceil(s->params->seconds / first));
    for (int i = 0; i < samples->steps; i++)
        for (int kind = BESIDE; kind < (row->shards > 1 ? KINDS : APART); kind++)
            samples->seconds[kind][samples->counts[kind]++] = one_step(model, comm, kind, row, samples);
    for (int kind = BESIDE; kind < KINDS && samples->counts[kind] > 0; kind++) {
        double own[MOST_STEPS];
        for (int i = 0; i < samples->steps; i++)
            own[i] = samples->seconds[kind][samples->counts[kind] - samples->steps + i];
        samples->medians[kind][round] = bench_timer_statistics(own, samples->steps).median;
    }
}

/* One row's part of a round. Collective over all ranks. */
static Status measure(const Sharding *s, int index, int round, Error *error)
{
    const ShardingBenchParams *params = s->params;
    ShardingBench *result = s->result;
    ShardingRow *row = &result->rows[index];
    configure(params->config, row);
    size_t used = device_memory_used(params->device);
    BenchModel model;
    Status status =
        bench_model_init(&model, params->config, params->comm, params->device, params->threads, NULL, error);
    if (status == STATUS_OK) {
        fill_memory(row, &model, device_memory_used(params->device) - used, params->comm);
        result->dtype = weights_act(&model.ssl.student.weights[PARAM_BACKBONE]);
        result->samples = model.groups.total_groups * model.groups.group_size;
        result->parameters = 0;
        for (int i = 0; i < model.ssl.student.table.count; i++)
            result->parameters += model.ssl.student.table.params[i].count;
        take_steps(s, &model, index, round);
    }
    bench_model_fini(&model);
    return status;
}

/* --- results --- */

static ShardingTimes times_of(Samples *samples, int kind, int ranks)
{
    if (samples->counts[kind] == 0) return (ShardingTimes){0};
    double all = (double)samples->counts[kind] * ranks;
    return (ShardingTimes){bench_timer_statistics(samples->seconds[kind], samples->counts[kind]),
                           samples->gather_wait[kind] / all, samples->sum_wait[kind] / all};
}

static void fill(const Sharding *s)
{
    ShardingBench *result = s->result;
    for (int r = 0; r < result->row_count; r++) {
        ShardingRow *row = &result->rows[r];
        row->beside = times_of(&s->samples[r], BESIDE, result->ranks);
        row->apart = times_of(&s->samples[r], APART, result->ranks);
        if (result->rows[0].strategy != CONFIG_SHARDING_NO_SHARD) continue;
        double ratios[ROUNDS];
        for (int i = 0; i < result->rounds; i++)
            ratios[i] = s->samples[r].medians[BESIDE][i] / s->samples[0].medians[BESIDE][i];
        row->ratio = bench_timer_statistics(ratios, result->rounds).median;
    }
}

Status sharding_bench_run(ShardingBench *result, const ShardingBenchParams *params, Error *error)
{
    *result = (ShardingBench){
        .ranks = comm_size(params->comm), .threads = params->threads, .rounds = params->quick ? 1 : ROUNDS};
    snprintf(result->name, sizeof result->name, "%s", params->name);
    list_rows(result, params);
    Sharding s = {params, result, memory_alloc_array(SHARDING_ROWS, sizeof *s.samples)};
    Status status = STATUS_OK;
    for (int round = 0; round < result->rounds; round++)
        for (int r = 0; r < result->row_count && status == STATUS_OK; r++)
            status = measure(&s, r, round, error);
    if (status == STATUS_OK) fill(&s);
    memory_free(s.samples);
    return status;
}
