/* index_bench_rates.c - index_bench_rates: what a row costs, for sets of another size. */
#include "bench/index_bench.h"

#include <stdio.h>

enum { PROBES = 32 }; /* whose searches are told: a usual choice */

static IndexBenchRate *add(IndexBenchRate *rates, int *count, double rows, double seconds, double processor,
                           double pairs_a_row)
{
    IndexBenchRate *rate = &rates[(*count)++];
    *rate = (IndexBenchRate){.rows_per_s = rows / seconds,
                             .rows_per_processor_s = rows / processor,
                             .pairs_a_row = pairs_a_row,
                             .products = true};
    return rate;
}

static const IndexBenchPoint *usual_point(const IndexBenchKind *kind)
{
    const IndexBenchPoint *point = kind->points;
    for (int i = 1; i < kind->point_count && kind->points[i].nprobe <= PROBES; i++)
        point = &kind->points[i];
    return point;
}

static void add_kind(IndexBenchRate *rates, int *count, const IndexBench *bench, const IndexBenchKind *kind)
{
    double lists = (double)kind->lists, rows = (double)bench->rows;
    bool codes = kind != bench->kinds;
    IndexBenchRate *rate;
    if (kind->refine == 0) {
        double threads = (double)(bench->ranks * bench->threads);
        rate = add(rates, count, rows, kind->fill_seconds, kind->fill_seconds * kind->build_share * threads,
                   lists);
        rate->bytes_a_row = kind->bytes_a_row;
        snprintf(rate->name, sizeof rate->name, "building %s", kind->factory);
    }
    const IndexBenchPoint *point = usual_point(kind);
    double met = rows * (double)point->nprobe / lists;
    rate = add(rates, count, (double)bench->queries, point->times.median, point->processor,
               codes ? met : lists + met);
    rate->products = !codes;
    int length = snprintf(rate->name, sizeof rate->name, "queries, %s, nprobe %lld", kind->factory,
                          (long long)point->nprobe);
    if (kind->refine > 0)
        snprintf(rate->name + length, sizeof rate->name - (size_t)length, ", refine %lld",
                 (long long)kind->refine);
}

int index_bench_rates(const IndexBench *bench, IndexBenchRate rates[INDEX_BENCH_RATES])
{
    int count = 0;
    double queries = (double)bench->queries;
    IndexBenchRate *rate =
        add(rates, &count, queries, bench->assign.median, bench->assign_processor, (double)bench->centroids);
    rate->bytes_a_row = sizeof(int32_t);
    snprintf(rate->name, sizeof rate->name, "assignment to %lld centroids", (long long)bench->centroids);
    rate = add(rates, &count, queries, bench->flat.median, bench->flat_processor, (double)bench->rows);
    snprintf(rate->name, sizeof rate->name, "queries, Flat");
    for (int i = 0; i < bench->kind_count; i++)
        add_kind(rates, &count, bench, &bench->kinds[i]);
    return count;
}
