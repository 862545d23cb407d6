/* bench_report_ranks.c - bench_report_print_*: tables of what is measured on several ranks. */
#include "bench/bench_report.h"

static const double MILLI = 1e3, MEGA = 1e-6, MIB = 1.0 / 1048576;

static const char *row_name(const ShardingRow *row, char text[32])
{
    snprintf(text, 32, "%s%s", sharding_bench_strategy(row->strategy), row->recompute ? ", recomputing" : "");
    return text;
}

static void print_memory(const ShardingBench *sharding, FILE *out)
{
    fprintf(out, "  %-28s %6s %9s %9s %9s %9s %9s %9s %11s %9s %9s\n", "MiB of a rank", "parts", "sharded",
            "theory", "copies", "theory", "rooms", "theory", "activations", "scratch", "all");
    for (int i = 0; i < sharding->row_count; i++) {
        const ShardingRow *row = &sharding->rows[i];
        const ShardingMemory *m = &row->memory;
        char name[32];
        fprintf(out, "  %-28s %6d %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f %11.1f %9.1f %9.1f\n",
                row_name(row, name), row->shards, (double)m->sharded * MIB, m->sharded_theory * MIB,
                (double)m->copies * MIB, m->copies_theory * MIB, (double)m->rooms * MIB,
                m->rooms_theory * MIB, (double)m->activations * MIB, (double)m->scratch * MIB,
                (double)m->all * MIB);
    }
}

/* Waits as shares of the step. */
static void print_waits(const ShardingTimes *times, FILE *out)
{
    if (times->times.count == 0)
        fprintf(out, " %10s %8s %8s", "-", "-", "-");
    else
        fprintf(out, " %10.1f %6.1f %% %6.1f %%", times->times.median * MILLI,
                times->gather_wait / times->times.mean * 100, times->sum_wait / times->times.mean * 100);
}

static void print_times(const ShardingBench *sharding, FILE *out)
{
    fprintf(out, "  %-28s %6s %10s %8s %8s %10s %8s %8s %8s %10s %9s\n", "step", "ratio", "ms", "gathers",
            "sums", "apart, ms", "gathers", "sums", "hidden", "MiB come", "go");
    for (int i = 0; i < sharding->row_count; i++) {
        const ShardingRow *row = &sharding->rows[i];
        char name[32], ratio[16] = "-", hidden[16] = "-";
        if (row->ratio > 0) snprintf(ratio, sizeof ratio, "%.3f", row->ratio);
        if (row->apart.times.count > 0)
            snprintf(hidden, sizeof hidden, "%.0f %%", sharding_bench_hidden(row) * 100);
        fprintf(out, "  %-28s %6s", row_name(row, name), ratio);
        print_waits(&row->beside, out);
        print_waits(&row->apart, out);
        fprintf(out, " %8s %10.1f %9.1f\n", hidden, row->received * MIB, row->sent * MIB);
    }
}

void bench_report_print_sharding(const ShardingBench *sharding, FILE *out)
{
    fprintf(out,
            "\nsharding %s, %s, %d ranks of %d threads, %lld images, %.1f million parameters, %lld steps in "
            "%d rounds\n",
            sharding->name, dtype_name(sharding->dtype), sharding->ranks, sharding->threads,
            (long long)sharding->samples, (double)sharding->parameters * MEGA,
            (long long)sharding->rows[0].beside.times.count, sharding->rounds);
    print_memory(sharding, out);
    print_times(sharding, out);
}

static void print_rate(const char *what, const BenchTimes *times, double bytes, double share, FILE *out)
{
    fprintf(out, "  %-28s %9.3f %9.3f %9.3f %9.1f", what, times->median, times->minimum, times->maximum,
            bytes * MEGA / times->median);
    if (share > 0) fprintf(out, " %10.1f %%", share * 100);
    fprintf(out, "\n");
}

void bench_report_print_checkpoint(const CheckpointBench *c, FILE *out)
{
    fprintf(out, "\ncheckpoint %s, %.1f MB in %lld tensors, %d ranks of %d threads, %lld rounds\n", c->name,
            c->bytes * MEGA, (long long)c->tensors, c->ranks, c->threads, (long long)c->save.count);
    fprintf(out, "  %-28s %9s %9s %9s %9s %12s\n", "", "median s", "min", "max", "MB/s", "of the plain");
    print_rate("plain write and fsync", &c->plain, c->bytes, 0, out);
    print_rate("saved", &c->save, c->bytes, c->share, out);
    print_rate("loaded from the disk", &c->load, c->bytes, 0, out);
}

static void print_steps(const char *what, const BenchTimes *steps, double still, double cost, FILE *out)
{
    fprintf(out, "  %-28s %6lld %9.1f %9.1f %9.1f %12.1f %12.1f\n", what, (long long)steps->count,
            steps->median * MILLI, steps->mean * MILLI, steps->maximum * MILLI, still * MILLI, cost * MILLI);
}

void bench_report_print_training(const CheckpointTraining *t, FILE *out)
{
    fprintf(out, "\ncheckpoints of a training, %s, %.1f MB, %d ranks of %d threads, %lld rounds\n", t->name,
            t->bytes * MEGA, t->ranks, t->threads, (long long)t->save.count);
    fprintf(out, "  %-28s %6s %9s %9s %9s %12s %12s\n", "ms", "steps", "median", "mean", "longest",
            "stands still", "costs in all");
    print_steps("nothing is written", &t->alone, 0, 0, out);
    print_steps("after one between steps", &t->between, t->save.median, t->save.median, out);
    if (t->beside.count == 0) {
        fprintf(out, "  none beside steps: MPI lets only one thread communicate\n");
        return;
    }
    print_steps("while one is written beside", &t->beside, t->copy.median, t->cost_beside, out);
    fprintf(out, "  the writing beside steps takes %.1f ms\n", t->write.median * MILLI);
}
