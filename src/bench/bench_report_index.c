/* bench_report_index.c - bench_report_print_*: tables of searching and clustering. */
#include "bench/bench_report.h"

static const double GIGA = 1e-9, MEGA = 1e-6;

static void print_kind(const IndexBench *bench, const IndexBenchKind *kind, FILE *out)
{
    fprintf(out, "  %s", kind->factory);
    if (kind->refine > 0)
        fprintf(out, ", %lld times as many candidates computed again from rows\n", (long long)kind->refine);
    else
        fprintf(out, ": learnt from %lld rows in %.2f s, filled in %.2f s, %.2f MB and %.1f bytes a row\n",
                (long long)kind->train_rows, kind->train_seconds, kind->fill_seconds,
                kind->fixed_bytes * MEGA, kind->bytes_a_row);
    fprintf(out, "    %8s %10s %10s %12s %12s %14s %10s\n", "nprobe", "recall", "of edges", "edges right",
            "queries/s", "a processor s", "of Flat's");
    for (int i = 0; i < kind->point_count; i++) {
        const IndexBenchPoint *p = &kind->points[i];
        fprintf(out, "    %8lld %10.4f %10.4f %12.4f %12.0f %14.0f %9.2fx\n", (long long)p->nprobe, p->recall,
                p->edge_recall, p->edge_precision, (double)bench->queries / p->times.median,
                (double)bench->queries / p->processor, bench->flat_processor / p->processor);
    }
}

void bench_report_print_index(const IndexBench *bench, FILE *out)
{
    fprintf(out, "\nindex: %lld rows of %lld columns (%s), %d ranks of %d threads\n", (long long)bench->rows,
            (long long)bench->d, bench->source, bench->ranks, bench->threads);
    fprintf(out,
            "  recall of the %lld nearest of %lld queries, and of their %lld edges above %g; Flat: %.0f "
            "queries/s, %.0f a processor second\n",
            (long long)bench->k, (long long)bench->queries, (long long)bench->edges, bench->threshold,
            (double)bench->queries / bench->flat.median, (double)bench->queries / bench->flat_processor);
    for (int i = 0; i < bench->kind_count; i++)
        print_kind(bench, &bench->kinds[i], out);

    IndexBenchRate rates[INDEX_BENCH_RATES];
    int count = index_bench_rates(bench, rates);
    fprintf(out,
            "\nrates: columns %lld, %d ranks of %d threads; rows, pairs and GFLOP of a processor second "
            "behind them\n"
            "  %-46s %12s %12s %14s %12s %10s %12s\n",
            (long long)bench->d, bench->ranks, bench->threads, "", "rows/s", "pairs a row", "rows",
            "1e9 pairs", "GFLOP", "bytes a row");
    for (int i = 0; i < count; i++) {
        const IndexBenchRate *r = &rates[i];
        double pairs = r->pairs_a_row * r->rows_per_processor_s;
        fprintf(out, "  %-46s %12.0f %12.0f %14.0f %12.3f", r->name, r->rows_per_s, r->pairs_a_row,
                r->rows_per_processor_s, pairs * GIGA);
        if (r->products)
            fprintf(out, " %10.1f", pairs * 2.0 * (double)bench->d * GIGA);
        else
            fprintf(out, " %10s", "-");
        fprintf(out, " %12.1f\n", r->bytes_a_row);
    }
}

static void print_faiss(const KmeansBench *k, FILE *out)
{
    if (k->faiss.count == 0)
        fprintf(out, " %9s %9s %12s %9s %9s\n", "-", "-", "-", "-", "-");
    else
        fprintf(out, " %9.3f %8.2fx %12.1f %+8.3f%% %+8.3f%%\n", k->faiss.median,
                k->faiss.median / k->ours.median, k->faiss_inertia,
                100 * (k->our_inertia / k->faiss_inertia - 1), 100 * k->worst_excess);
}

void bench_report_print_kmeans(const KmeansBench *benches, int count, FILE *out)
{
    fprintf(
        out,
        "\nk-means, spherical, %lld iterations, %d seeds, %d ranks, beside Faiss's by turns (medians; mean "
        "inertia, the worst seed's)\n"
        "  %8s %6s %6s %8s %9s %9s %12s %9s %9s %12s %9s %9s\n",
        (long long)benches[0].iterations, benches[0].seeds, benches[0].ranks, "rows", "d", "k", "threads",
        "s", "GFLOP/s", "inertia", "Faiss, s", "speed", "inertia", "ours", "worst");
    for (int i = 0; i < count; i++) {
        const KmeansBench *k = &benches[i];
        double flops = 2.0 * (double)(k->rows * k->k) * (double)(k->d * k->iterations);
        fprintf(out, "  %8lld %6lld %6lld %8d %9.3f %9.1f %12.1f", (long long)k->rows, (long long)k->d,
                (long long)k->k, k->threads, k->ours.median, flops * GIGA / k->ours.median, k->our_inertia);
        print_faiss(k, out);
    }
}
