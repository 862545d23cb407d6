/* index_bench_plot.c - index_bench_plot: the curves. */
#include "bench/index_bench.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const COLORS[INDEX_BENCH_KINDS] = {"#0072b2", "#d55e00", "#009e73"};

/* Block $kind0, ...: nprobe, recall, recall of edges, times as fast as exact search. */
static void print_block(FILE *out, const IndexBench *bench, int i)
{
    const IndexBenchKind *kind = &bench->kinds[i];
    fprintf(out, "$kind%d << EOD\n", i);
    for (int p = 0; p < kind->point_count; p++) {
        const IndexBenchPoint *point = &kind->points[p];
        fprintf(out, "%lld %.6f %.6f %.6g\n", (long long)point->nprobe, point->recall, point->edge_recall,
                bench->flat_processor / point->processor);
    }
    fprintf(out, "EOD\n");
}

/* Recall (solid) and that of edges (dashed) of all kinds over column `x`. */
static void print_panel(FILE *out, const IndexBench *bench, int x)
{
    int kinds = bench->kind_count;
    CHECK(kinds <= INDEX_BENCH_KINDS);
    for (int i = 0; i < kinds; i++) {
        const IndexBenchKind *kind = &bench->kinds[i];
        char refine[32] = "";
        if (kind->refine > 0) snprintf(refine, sizeof refine, ", refine %lld", (long long)kind->refine);
        fprintf(out, "%s $kind%d using %d:2 with linespoints pt 7 ps 0.8 lw 1.6 lc rgb '%s' title '%s%s'",
                i ? "," : "plot", i, x, COLORS[i], kind->factory, refine);
        fprintf(out, ", $kind%d using %d:3 with linespoints pt 6 ps 0.8 lw 1.2 dt 2 lc rgb '%s' notitle", i,
                x, COLORS[i]);
    }
    fprintf(out, "\n");
}

char *index_bench_plot(const IndexBench *bench)
{
    char *text = NULL, *copy;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(out);
    for (int i = 0; i < bench->kind_count; i++)
        print_block(out, bench, i);
    fprintf(
        out,
        "set multiplot layout 1,2 title '%lld rows of %lld columns, %lld queries: the %lld nearest (solid) "
        "and those more similar than %g (dashed)'\n"
        "set grid lc rgb '#dddddd'\nset border lc rgb '#444444'\nset key bottom right\n"
        "set yrange [0:1.02]\nset ylabel 'found'\n",
        (long long)bench->rows, (long long)bench->d, (long long)bench->queries, (long long)bench->k,
        bench->threshold);
    fprintf(out, "set logscale x 2\nset xlabel 'nprobe, of %lld lists'\n", (long long)bench->kinds[0].lists);
    print_panel(out, bench, 1);
    fprintf(out,
            "set logscale x 10\nset key bottom left\nset xlabel 'queries a processor second, times those of "
            "exact search'\n");
    print_panel(out, bench, 4);
    fprintf(out, "unset multiplot\n");
    CHECK(fclose(out) == 0);
    copy = memory_strdup(text);
    free(text);
    return copy;
}
