/* bench_json.c - bench_report_json: the same figures for programs, in seconds, bytes and FLOP. */
#include "bench/bench_report.h"

#include "base/memory.h"
#include "run/version.h"

#include <cjson/cJSON.h>

static void add_named_times(cJSON *object, const char *name, const BenchTimes *times)
{
    if (times->count == 0) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    cJSON *t = cJSON_AddObjectToObject(object, name);
    cJSON_AddNumberToObject(t, "median", times->median);
    cJSON_AddNumberToObject(t, "min", times->minimum);
    cJSON_AddNumberToObject(t, "max", times->maximum);
    cJSON_AddNumberToObject(t, "mean", times->mean);
    cJSON_AddNumberToObject(t, "count", (double)times->count);
}

static void add_times(cJSON *object, const BenchTimes *times)
{
    add_named_times(object, "seconds", times);
}

/* A number, or null where there is none (0). */
static void add_known(cJSON *object, const char *name, double value)
{
    if (value > 0)
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static void add_machine(cJSON *tree, const BenchReport *report)
{
    cJSON *machine = cJSON_AddObjectToObject(tree, "machine");
    cJSON_AddStringToObject(machine, "processor", report->processor);
    cJSON_AddStringToObject(machine, "device", report->device[0] ? report->device : report->processor);
    cJSON_AddNumberToObject(machine, "cores", report->cores);
    cJSON_AddNumberToObject(machine, "threads", report->threads);
    cJSON *program = cJSON_AddObjectToObject(tree, "program");
    cJSON_AddStringToObject(program, "version", version_number());
    cJSON_AddStringToObject(program, "git", version_git());
    cJSON_AddStringToObject(program, "build", version_build());
    cJSON *limits = cJSON_AddObjectToObject(tree, "limits");
    add_known(limits, "fp32_flops_per_s", report->rows.limit[BENCH_FLOPS_FP32]);
    add_known(limits, "bf16_flops_per_s", report->rows.limit[BENCH_FLOPS_BF16]);
    add_known(limits, "fp16_flops_per_s", report->rows.limit[BENCH_FLOPS_FP16]);
    add_known(limits, "copy_bytes_per_s", report->rows.limit[BENCH_BYTES]);
}

static void add_rows(cJSON *tree, const BenchRows *rows)
{
    static const char *const UNITS[BENCH_UNIT_COUNT] = {[BENCH_FLOPS_FP32] = "fp32 FLOP",
                                                        [BENCH_FLOPS_BF16] = "bf16 FLOP",
                                                        [BENCH_FLOPS_FP16] = "fp16 FLOP",
                                                        [BENCH_BYTES] = "bytes",
                                                        [BENCH_IMAGES] = "images"};
    cJSON *array = cJSON_AddArrayToObject(tree, "measurements");
    for (int i = 0; i < rows->count; i++) {
        const BenchRow *row = &rows->rows[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "section", row->section);
        cJSON_AddStringToObject(item, "name", row->name);
        cJSON_AddStringToObject(item, "unit", UNITS[row->unit]);
        cJSON_AddNumberToObject(item, "work", row->work);
        cJSON_AddNumberToObject(item, "per_s", bench_rows_rate(row));
        add_known(item, "share_of_limit", bench_rows_share(rows, row));
        add_times(item, &row->times);
        cJSON_AddItemToArray(array, item);
    }
}

static void add_breakdown(cJSON *object, const StepBench *step)
{
    cJSON *parts = cJSON_AddArrayToObject(object, "parts");
    for (int i = 0; i < STEP_PART_COUNT; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", step_flops_part_name((StepPart)i));
        cJSON_AddNumberToObject(item, "seconds", step->part_seconds[i]);
        cJSON_AddNumberToObject(item, "flops", step->part_flops[i]);
        cJSON_AddItemToArray(parts, item);
    }
    cJSON *operations = cJSON_AddArrayToObject(object, "operations");
    for (int i = 0; i < OPS_TIMED_COUNT; i++) {
        const OpsTimedTotal *t = &step->operations[i];
        if (t->calls == 0) continue;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", ops_timed_name(i));
        cJSON_AddNumberToObject(item, "calls", (double)t->calls);
        cJSON_AddNumberToObject(item, "seconds", t->seconds);
        cJSON_AddNumberToObject(item, "share", t->seconds / step->parts_seconds);
        cJSON_AddNumberToObject(item, "flops", t->flops);
        cJSON_AddNumberToObject(item, "bytes", t->bytes);
        cJSON_AddItemToArray(operations, item);
    }
    cJSON_AddNumberToObject(object, "other_seconds", step->other_seconds);
}

static void add_step(cJSON *array, const BenchReport *report, const StepBench *step)
{
    cJSON *item = cJSON_CreateObject();
    double rate = step->flops / step->times.median;
    cJSON_AddStringToObject(item, "name", step->name);
    cJSON_AddStringToObject(item, "dtype", dtype_name(step->dtype));
    cJSON_AddNumberToObject(item, "images", (double)step->samples);
    cJSON_AddNumberToObject(item, "parameters", (double)step->parameters);
    cJSON_AddNumberToObject(item, "masked_patches", step->masked);
    add_times(item, &step->times);
    cJSON_AddNumberToObject(item, "images_per_s", (double)step->samples / step->times.median);
    cJSON_AddNumberToObject(item, "flops", step->flops);
    cJSON_AddNumberToObject(item, "parts_seconds", step->parts_seconds);
    cJSON_AddNumberToObject(item, "parts_flops", step->parts_flops);
    cJSON_AddNumberToObject(item, "counted_flops", step->counted_flops);
    cJSON_AddNumberToObject(item, "flops_per_s", rate);
    add_known(item, "share_of_product_rate", rate / bench_report_step_limit(report, step));
    cJSON_AddNumberToObject(item, "total_loss", step->loss);
    cJSON *memory = cJSON_AddObjectToObject(item, "memory_bytes");
    cJSON_AddNumberToObject(memory, "weights", (double)step->weight_bytes);
    cJSON_AddNumberToObject(memory, "step", (double)step->step_bytes);
    cJSON_AddNumberToObject(memory, "scratch", (double)step->scratch_bytes);
    cJSON_AddNumberToObject(memory, "batch", (double)step->batch_bytes);
    add_known(memory, "peak_resident", (double)step->peak_rss_bytes);
    add_known(memory, "peak_device", (double)step->peak_device_bytes);
    add_breakdown(item, step);
    cJSON_AddItemToArray(array, item);
}

/* --- several ranks --- */

static void add_sharding_times(cJSON *object, const char *name, const ShardingTimes *times)
{
    if (times->times.count == 0) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    cJSON *item = cJSON_AddObjectToObject(object, name);
    add_times(item, &times->times);
    cJSON_AddNumberToObject(item, "gather_wait_seconds", times->gather_wait);
    cJSON_AddNumberToObject(item, "sum_wait_seconds", times->sum_wait);
}

static void add_sharding_row(cJSON *array, const ShardingRow *row)
{
    cJSON *item = cJSON_CreateObject();
    const ShardingMemory *m = &row->memory;
    const struct {
        const char *name;
        double bytes;
    } memory[] = {{"sharded", (double)m->sharded},
                  {"sharded_theory", m->sharded_theory},
                  {"copies", (double)m->copies},
                  {"copies_theory", m->copies_theory},
                  {"gradient_rooms", (double)m->rooms},
                  {"gradient_rooms_theory", m->rooms_theory},
                  {"activations", (double)m->activations},
                  {"scratch", (double)m->scratch},
                  {"all", (double)m->all}};
    cJSON_AddStringToObject(item, "strategy", sharding_bench_strategy(row->strategy));
    cJSON_AddBoolToObject(item, "recompute", row->recompute);
    cJSON_AddNumberToObject(item, "parts", row->shards);
    cJSON_AddNumberToObject(item, "replicas", row->replicas);
    cJSON *bytes = cJSON_AddObjectToObject(item, "memory_bytes");
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        cJSON_AddNumberToObject(bytes, memory[i].name, memory[i].bytes);
    add_sharding_times(item, "beside", &row->beside);
    add_sharding_times(item, "apart", &row->apart);
    add_known(item, "ratio_to_no_shard", row->ratio);
    if (row->apart.times.count > 0)
        cJSON_AddNumberToObject(item, "hidden_share", sharding_bench_hidden(row));
    else
        cJSON_AddNullToObject(item, "hidden_share");
    cJSON_AddNumberToObject(item, "received_bytes", row->received);
    cJSON_AddNumberToObject(item, "sent_bytes", row->sent);
    cJSON_AddItemToArray(array, item);
}

static void add_sharding(cJSON *array, const ShardingBench *sharding)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", sharding->name);
    cJSON_AddStringToObject(item, "dtype", dtype_name(sharding->dtype));
    cJSON_AddNumberToObject(item, "ranks", sharding->ranks);
    cJSON_AddNumberToObject(item, "threads", sharding->threads);
    cJSON_AddNumberToObject(item, "images", (double)sharding->samples);
    cJSON_AddNumberToObject(item, "parameters", (double)sharding->parameters);
    cJSON *rows = cJSON_AddArrayToObject(item, "strategies");
    for (int i = 0; i < sharding->row_count; i++)
        add_sharding_row(rows, &sharding->rows[i]);
    cJSON_AddItemToArray(array, item);
}

static void add_checkpoint(cJSON *array, const CheckpointBench *checkpoint)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", checkpoint->name);
    cJSON_AddNumberToObject(item, "ranks", checkpoint->ranks);
    cJSON_AddNumberToObject(item, "threads", checkpoint->threads);
    cJSON_AddNumberToObject(item, "bytes", checkpoint->bytes);
    cJSON_AddNumberToObject(item, "tensors", (double)checkpoint->tensors);
    add_named_times(item, "plain_seconds", &checkpoint->plain);
    add_named_times(item, "save_seconds", &checkpoint->save);
    add_named_times(item, "load_seconds", &checkpoint->load);
    cJSON_AddNumberToObject(item, "share_of_plain", checkpoint->share);
    cJSON_AddItemToArray(array, item);
}

static void add_training(cJSON *array, const CheckpointTraining *training)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", training->name);
    cJSON_AddNumberToObject(item, "ranks", training->ranks);
    cJSON_AddNumberToObject(item, "threads", training->threads);
    cJSON_AddNumberToObject(item, "bytes", training->bytes);
    add_named_times(item, "step_alone_seconds", &training->alone);
    add_named_times(item, "step_between_seconds", &training->between);
    add_named_times(item, "step_beside_seconds", &training->beside);
    add_named_times(item, "save_seconds", &training->save);
    add_named_times(item, "copy_seconds", &training->copy);
    add_named_times(item, "write_beside_seconds", &training->write);
    cJSON_AddNumberToObject(item, "cost_between_seconds", training->save.median);
    if (training->beside.count > 0)
        cJSON_AddNumberToObject(item, "cost_beside_seconds", training->cost_beside);
    else
        cJSON_AddNullToObject(item, "cost_beside_seconds");
    cJSON_AddItemToArray(array, item);
}

static void add_ranks(cJSON *tree, const BenchReport *report)
{
    cJSON *shardings = cJSON_AddArrayToObject(tree, "sharding");
    for (int i = 0; i < report->sharding_count; i++)
        add_sharding(shardings, &report->shardings[i]);
    cJSON *checkpoints = cJSON_AddArrayToObject(tree, "checkpoints");
    for (int i = 0; i < report->checkpoint_count; i++)
        add_checkpoint(checkpoints, &report->checkpoints[i]);
    cJSON *trainings = cJSON_AddArrayToObject(tree, "trainings");
    for (int i = 0; i < report->training_count; i++)
        add_training(trainings, &report->trainings[i]);
}

/* --- searching and clustering --- */

static void add_kind(cJSON *array, const IndexBench *bench, const IndexBenchKind *kind)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "factory", kind->factory);
    cJSON_AddNumberToObject(item, "refine", (double)kind->refine);
    cJSON_AddNumberToObject(item, "lists", (double)kind->lists);
    cJSON_AddNumberToObject(item, "train_rows", (double)kind->train_rows);
    cJSON_AddNumberToObject(item, "train_seconds", kind->train_seconds);
    cJSON_AddNumberToObject(item, "fill_seconds", kind->fill_seconds);
    cJSON_AddNumberToObject(item, "build_share", kind->build_share);
    cJSON_AddNumberToObject(item, "bytes_a_row", kind->bytes_a_row);
    cJSON_AddNumberToObject(item, "fixed_bytes", kind->fixed_bytes);
    cJSON *points = cJSON_AddArrayToObject(item, "points");
    for (int i = 0; i < kind->point_count; i++) {
        const IndexBenchPoint *point = &kind->points[i];
        cJSON *p = cJSON_CreateObject();
        cJSON_AddNumberToObject(p, "nprobe", (double)point->nprobe);
        cJSON_AddNumberToObject(p, "recall", point->recall);
        cJSON_AddNumberToObject(p, "edge_recall", point->edge_recall);
        cJSON_AddNumberToObject(p, "edge_precision", point->edge_precision);
        cJSON_AddNumberToObject(p, "queries_per_s", (double)bench->queries / point->times.median);
        cJSON_AddNumberToObject(p, "speed_beside_flat", bench->flat_processor / point->processor);
        cJSON_AddNumberToObject(p, "processor_seconds", point->processor);
        add_times(p, &point->times);
        cJSON_AddItemToArray(points, p);
    }
    cJSON_AddItemToArray(array, item);
}

static void add_rates(cJSON *object, const IndexBench *bench)
{
    IndexBenchRate rates[INDEX_BENCH_RATES];
    int count = index_bench_rates(bench, rates);
    cJSON *array = cJSON_AddArrayToObject(object, "rates");
    for (int i = 0; i < count; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", rates[i].name);
        cJSON_AddNumberToObject(item, "rows_per_s", rates[i].rows_per_s);
        double pairs = rates[i].pairs_a_row * rates[i].rows_per_s;
        cJSON_AddNumberToObject(item, "pairs_a_row", rates[i].pairs_a_row);
        cJSON_AddNumberToObject(item, "pairs_per_s", pairs);
        add_known(item, "flops_per_s", rates[i].products ? pairs * 2.0 * (double)bench->d : 0);
        double of_processor = rates[i].pairs_a_row * rates[i].rows_per_processor_s;
        cJSON_AddNumberToObject(item, "pairs_per_processor_s", of_processor);
        add_known(item, "flops_per_processor_s",
                  rates[i].products ? of_processor * 2.0 * (double)bench->d : 0);
        cJSON_AddNumberToObject(item, "bytes_a_row", rates[i].bytes_a_row);
        cJSON_AddItemToArray(array, item);
    }
}

static void add_index(cJSON *tree, const IndexBench *bench)
{
    cJSON *item = cJSON_AddObjectToObject(tree, "index");
    cJSON_AddStringToObject(item, "source", bench->source);
    cJSON_AddNumberToObject(item, "ranks", bench->ranks);
    cJSON_AddNumberToObject(item, "threads", bench->threads);
    cJSON_AddNumberToObject(item, "rows", (double)bench->rows);
    cJSON_AddNumberToObject(item, "columns", (double)bench->d);
    cJSON_AddNumberToObject(item, "queries", (double)bench->queries);
    cJSON_AddNumberToObject(item, "neighbours", (double)bench->k);
    cJSON_AddNumberToObject(item, "threshold", bench->threshold);
    cJSON_AddNumberToObject(item, "edges", (double)bench->edges);
    cJSON_AddNumberToObject(item, "flat_queries_per_s", (double)bench->queries / bench->flat.median);
    add_named_times(item, "flat_seconds", &bench->flat);
    cJSON_AddNumberToObject(item, "flat_processor_seconds", bench->flat_processor);
    cJSON *kinds = cJSON_AddArrayToObject(item, "kinds");
    for (int i = 0; i < bench->kind_count; i++)
        add_kind(kinds, bench, &bench->kinds[i]);
    add_rates(item, bench);
}

static void add_kmeans(cJSON *array, const KmeansBench *bench)
{
    bool both = bench->faiss.count > 0;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "rows", (double)bench->rows);
    cJSON_AddNumberToObject(item, "columns", (double)bench->d);
    cJSON_AddNumberToObject(item, "clusters", (double)bench->k);
    cJSON_AddNumberToObject(item, "iterations", (double)bench->iterations);
    cJSON_AddNumberToObject(item, "seeds", bench->seeds);
    cJSON_AddNumberToObject(item, "ranks", bench->ranks);
    cJSON_AddNumberToObject(item, "threads", bench->threads);
    add_times(item, &bench->ours);
    add_named_times(item, "faiss_seconds", &bench->faiss);
    cJSON_AddNumberToObject(item, "inertia", bench->our_inertia);
    add_known(item, "faiss_inertia", bench->faiss_inertia);
    add_known(item, "inertia_ratio", both ? bench->our_inertia / bench->faiss_inertia : 0);
    add_known(item, "worst_inertia_ratio", both ? 1 + bench->worst_excess : 0);
    add_known(item, "speed_beside_faiss", both ? bench->faiss.median / bench->ours.median : 0);
    cJSON_AddItemToArray(array, item);
}

char *bench_report_json(const BenchReport *report)
{
    cJSON *tree = cJSON_CreateObject();
    add_machine(tree, report);
    if (report->pictures[0]) cJSON_AddStringToObject(tree, "pictures", report->pictures);
    add_rows(tree, &report->rows);
    cJSON *steps = cJSON_AddArrayToObject(tree, "steps");
    for (int i = 0; i < report->step_count; i++)
        add_step(steps, report, &report->steps[i]);
    add_ranks(tree, report);
    if (report->has_index) add_index(tree, &report->index);
    cJSON *kmeans = cJSON_AddArrayToObject(tree, "kmeans");
    for (int i = 0; i < report->kmeans_count; i++)
        add_kmeans(kmeans, &report->kmeans[i]);
    char *text = cJSON_PrintUnformatted(tree), *copy = memory_strdup(text);
    cJSON_free(text);
    cJSON_Delete(tree);
    return copy;
}
