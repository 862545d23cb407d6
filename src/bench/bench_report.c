/* bench_report.c - tables. */
#include "bench/bench_report.h"

#include <string.h>

static const double MILLI = 1e3, GIGA = 1e-9;

double bench_report_step_limit(const BenchReport *report, const StepBench *step)
{
    double own = report->rows.limit[bench_rows_flops(step->dtype)];
    return own > 0 ? own : report->rows.limit[BENCH_FLOPS_FP32];
}

/* "12.3 %", or "-" where there is nothing to compare with. */
static const char *percent(double share, char text[16])
{
    if (share > 0)
        snprintf(text, 16, "%.1f %%", share * 100);
    else
        snprintf(text, 16, "-");
    return text;
}

static void print_row(const BenchRows *rows, const BenchRow *row, FILE *out)
{
    static const char *const UNITS[BENCH_UNIT_COUNT] = {[BENCH_FLOPS_FP32] = "GFLOP/s",
                                                        [BENCH_FLOPS_BF16] = "GFLOP/s",
                                                        [BENCH_FLOPS_FP16] = "GFLOP/s",
                                                        [BENCH_BYTES] = "GB/s",
                                                        [BENCH_IMAGES] = "images/s"};
    char share[16];
    double rate = bench_rows_rate(row) * (row->unit == BENCH_IMAGES ? 1 : GIGA);
    fprintf(out, "  %-48s %9.3f %9.3f %9.3f  %9.1f %-8s %8s\n", row->name, row->times.median * MILLI,
            row->times.minimum * MILLI, row->times.maximum * MILLI, rate, UNITS[row->unit],
            percent(bench_rows_share(rows, row), share));
}

static void print_limit(const char *type, double limit, FILE *out)
{
    if (limit > 0)
        fprintf(out, ", %s products %.1f GFLOP/s", type, limit * GIGA);
    else
        fprintf(out, ", %s products not supported", type);
}

void bench_report_print_machine(const BenchReport *report, FILE *out)
{
    fprintf(out, "%s, %d of %d cores\n", report->processor, report->threads, report->cores);
    if (report->device[0]) fprintf(out, "computing on %s\n", report->device);
}

void bench_report_print_rows(const BenchReport *report, FILE *out)
{
    const BenchRows *rows = &report->rows;
    fprintf(out, "limits: fp32 products %.1f GFLOP/s", rows->limit[BENCH_FLOPS_FP32] * GIGA);
    print_limit("bf16", rows->limit[BENCH_FLOPS_BF16], out);
    if (report->device[0]) print_limit("fp16", rows->limit[BENCH_FLOPS_FP16], out);
    fprintf(out, ", copying %.1f GB/s\n", rows->limit[BENCH_BYTES] * GIGA);
    if (report->pictures[0]) fprintf(out, "pictures: %s\n", report->pictures);
    const char *section = "";
    for (int i = 0; i < rows->count; i++) {
        const BenchRow *row = &rows->rows[i];
        if (strcmp(section, row->section) != 0)
            fprintf(out, "\n%-50s %9s %9s %9s  %18s %8s\n", row->section, "median ms", "min", "max", "rate",
                    "of limit");
        section = row->section;
        print_row(rows, row, out);
    }
}

static void print_part(const char *name, int64_t calls, double seconds, double total, double rate,
                       const char *unit, double limit, FILE *out)
{
    char share[16];
    fprintf(out, "  %-28s", name);
    if (calls > 0)
        fprintf(out, " %6lld", (long long)calls);
    else
        fprintf(out, " %6s", "");
    fprintf(out, " %10.3f %6.1f %%", seconds * MILLI, seconds / total * 100);
    if (rate > 0)
        fprintf(out, "  %9.1f %-8s %8s", rate * GIGA, unit, percent(limit > 0 ? rate / limit : 0, share));
    fprintf(out, "\n");
}

static void print_parts(const BenchReport *report, const StepBench *step, FILE *out)
{
    double limit = bench_report_step_limit(report, step);
    fprintf(out, "  %-28s %6s %10s %8s  %18s %8s\n", "part", "", "ms", "of step", "rate", "of limit");
    for (int i = 0; i < STEP_PART_COUNT; i++)
        if (step->part_seconds[i] != 0)
            print_part(step_flops_part_name((StepPart)i), 0, step->part_seconds[i], step->parts_seconds,
                       step->part_flops[i] / step->part_seconds[i], "GFLOP/s", limit, out);
}

static void print_operations(const BenchReport *report, const StepBench *step, FILE *out)
{
    bool printed[OPS_TIMED_COUNT] = {false};
    double product_limit = bench_report_step_limit(report, step);
    fprintf(out, "  %-28s %6s %10s %8s  %18s %8s\n", "operation", "calls", "ms", "of step", "rate",
            "of limit");
    for (;;) {
        int slowest = -1;
        for (int i = 0; i < OPS_TIMED_COUNT; i++)
            if (!printed[i] && step->operations[i].seconds > 0 &&
                (slowest < 0 || step->operations[i].seconds > step->operations[slowest].seconds))
                slowest = i;
        if (slowest < 0) break;
        printed[slowest] = true;
        const OpsTimedTotal *t = &step->operations[slowest];
        bool products = t->flops > 0;
        print_part(ops_timed_name(slowest), t->calls, t->seconds, step->parts_seconds,
                   (products ? t->flops : t->bytes) / t->seconds, products ? "GFLOP/s" : "GB/s",
                   products ? product_limit : report->rows.limit[BENCH_BYTES], out);
    }
    print_part("other", 0, step->other_seconds, step->parts_seconds, 0, "", 0, out);
}

void bench_report_print_step(const BenchReport *report, const StepBench *step, FILE *out)
{
    static const double MIB = 1.0 / 1048576;
    double rate = step->flops / step->times.median;
    char share[16];
    fprintf(out, "\nstep %s, %s, %lld images, %.1f million parameters\n", step->name, dtype_name(step->dtype),
            (long long)step->samples, (double)step->parameters * 1e-6);
    fprintf(out, "  %.1f ms median (%.1f to %.1f, %lld steps), %.2f images/s\n", step->times.median * MILLI,
            step->times.minimum * MILLI, step->times.maximum * MILLI, (long long)step->times.count,
            (double)step->samples / step->times.median);
    fprintf(out, "  %.2f GFLOP a step, %.1f GFLOP/s, %s of the product rate\n", step->flops * GIGA,
            rate * GIGA, percent(rate / bench_report_step_limit(report, step), share));
    fprintf(out,
            "  memory, MiB: weights, gradients, moments %.1f; activations %.1f; scratch %.1f; batch %.1f; "
            "peak of the process %.1f\n",
            (double)step->weight_bytes * MIB, (double)step->step_bytes * MIB,
            (double)step->scratch_bytes * MIB, (double)step->batch_bytes * MIB,
            (double)step->peak_rss_bytes * MIB);
    if (step->peak_device_bytes > 0)
        fprintf(out, "  peak of device memory, MiB: %.1f\n", (double)step->peak_device_bytes * MIB);
    print_parts(report, step, out);
    print_operations(report, step, out);
}
