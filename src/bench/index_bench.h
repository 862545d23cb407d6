/* index_bench.h - what inverted lists find of the true neighbours, and what that costs, beside exact search
 * of the same queries in the same run; rates of everything else that a curation does with rows.
 *
 * Queries are rows of the pool, evenly drawn, that are not their own neighbours. The k nearest by exact
 * search ("Flat") are the truth. Recall: the share of them that is found. Recall of edges: of those more
 * similar than the threshold, the share that is found with a similarity above it. Seconds are the slowest
 * rank's. Processor seconds are the sum of all threads of all ranks: what work costs on a machine of which
 * other programs have a part, too; waiting for other ranks counts.
 */
#ifndef DINOBATCH_BENCH_INDEX_BENCH_H
#define DINOBATCH_BENCH_INDEX_BENCH_H

#include "bench/bench_timer.h"
#include "comm/comm.h"

enum { INDEX_BENCH_KINDS = 3, INDEX_BENCH_POINTS = 10, INDEX_BENCH_ROWS = 100000 };

typedef struct {
    Comm *comm;
    int threads;
    double seconds;       /* of searches at one point, one at least */
    int64_t rows;         /* of the pool; 0: INDEX_BENCH_ROWS */
    const char *features; /* file of the rows; NULL: drawn ones (bench_descriptors.h) of 512 columns */
    bool quick;           /* small sizes */
} IndexBenchParams;

typedef struct {
    int64_t nprobe;
    BenchTimes times; /* of all queries */
    double processor; /* seconds of processors for all queries */
    double recall, edge_recall;
    double edge_precision; /* the share of edges that are said to be above the threshold and are; of codes,
                              without refine, similarities are off */
} IndexBenchPoint;

typedef struct {
    char factory[32];
    int64_t refine; /* as in ShardIndexOptions */
    int64_t lists;
    double train_seconds; /* learning lists and codes from train_rows rows, and handing them out */
    int64_t train_rows;
    double fill_seconds; /* assigning and adding all rows */
    double build_share;  /* processor seconds of both, of the seconds of all threads */
    double bytes_a_row;  /* rows or codes with their ids */
    double fixed_bytes;  /* centroids and codebooks, on each rank */
    IndexBenchPoint points[INDEX_BENCH_POINTS];
    int point_count;
} IndexBenchKind;

typedef struct {
    int ranks, threads;
    char source[256];
    int64_t rows, d, queries, k;
    double threshold;
    int64_t edges;   /* of the queries, above the threshold */
    BenchTimes flat; /* exact search of all queries */
    IndexBenchKind kinds[INDEX_BENCH_KINDS];
    int kind_count;
    BenchTimes assign; /* of all queries to centroids, `centroids` of them on each rank */
    int64_t centroids;
    double flat_processor, assign_processor; /* seconds of processors */
} IndexBench;

/* Memory of a rank, bytes: 4 d for each of its rows, as much again for inverted lists of rows, on rank 0 the
 * sample that they are learnt from (at most 4 d rows), and what shard_search.h says. STATUS_INPUT: rows that
 * cannot be read or are too few. The same figures on all ranks. Collective over COMM. */
Status index_bench_run(IndexBench *result, const IndexBenchParams *params, Error *error);

/* Units of work a second, of all ranks together: what larger sets are computed from. */
typedef struct {
    char name[72];
    double rows_per_s; /* queries, where it is a search */
    double rows_per_processor_s;
    double pairs_a_row; /* rows or centroids that each is compared with, were all lists of one length */
    bool products;      /* each pair is a product of rows, 2 d FLOP; false: of a code */
    double bytes_a_row; /* that stay in memory */
} IndexBenchRate;

enum { INDEX_BENCH_RATES = 2 + 2 * INDEX_BENCH_KINDS };

/* Returns their number. */
int index_bench_rates(const IndexBench *bench, IndexBenchRate rates[INDEX_BENCH_RATES]);

/* Recall over nprobe, and over the speed beside exact search, as a gnuplot script; memory_free. */
char *index_bench_plot(const IndexBench *bench);

#endif
