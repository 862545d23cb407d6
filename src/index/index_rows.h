/* index_rows.h - rows of numbers that are read in blocks, dealt to ranks in runs: what search, graphs and
 * k-means work on.
 *
 * A set of `total` rows has the ids 0 .. total - 1; each rank owns a run of consecutive ones, in rank order.
 * Where the rows lie (an array, a features file with fp16 numbers) is the business of `read`; nobody asks for
 * more than a block at a time, and no rank ever holds all rows. index_rows_memory makes one from an array;
 * others fill the struct in.
 *
 *     IndexRows rows = index_rows_memory("pool", values, n, d);
 *     TRY(index_rows_place(&rows, comm, error));                    // fills in first and total
 *     TRY(index_rows_read(&rows, 0, block, INDEX_ROWS_UNIT, out, error));
 */
#ifndef DINOBATCH_INDEX_INDEX_ROWS_H
#define DINOBATCH_INDEX_INDEX_ROWS_H

#include "comm/comm.h"

typedef struct IndexRows IndexRows;

struct IndexRows {
    const char *name; /* for messages: a file's; borrowed */
    int64_t count;    /* rows of this rank, may be 0 */
    int64_t first;    /* id of this rank's first row = rows of the lower ranks */
    int64_t total;    /* rows of all ranks */
    int64_t d;        /* columns, the same on all ranks */
    void *context;    /* of `read`; borrowed */
    /* out[n, d] fp32 = this rank's rows [first, first + n), counted from its own first one. Called by one
     * thread at a time; not collective. */
    Status (*read)(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error);
    /* text[size] = what messages call this rank's row `row`; NULL: "NAME: row ID". */
    void (*place)(const IndexRows *rows, int64_t row, char *text, size_t size);
};

typedef enum {
    INDEX_ROWS_RAW,  /* as they are */
    INDEX_ROWS_UNIT, /* each divided by its length: inner products are cosines */
} IndexRowsForm;

/* Steps of the random streams of this folder (RNG_INDEX); mini-batches take the ones from the last on. */
enum {
    INDEX_DRAW_TRAIN,   /* sample that an index learns from */
    INDEX_DRAW_INIT,    /* first centroids */
    INDEX_DRAW_SPREAD,  /* choices of k-means++ */
    INDEX_DRAW_BALANCE, /* rows of a balanced sample */
    INDEX_DRAW_BATCH = 16,
};

/* The run of ids that rank `rank` of `size` owns where the caller is free to choose: index_range_first to
 * index_range_first of the next rank. The lengths differ by at most one. */
int64_t index_range_first(int64_t total, int rank, int size);

/* The rank whose run by index_range_first holds `id`. */
int index_range_owner(int64_t total, int64_t id, int size);

/* An array values[count, d] of this rank, borrowed. first = 0, total = count: right for one rank; for more
 * call index_rows_place. */
IndexRows index_rows_memory(const char *name, const float *values, int64_t count, int64_t d);

/* This rank's rows [first, first + count) of `whole`, borrowed, under the ids that they have there; total
 * stays, so that they may ask an index over `whole` for others than themselves. */
IndexRows index_rows_part(const IndexRows *whole, int64_t first, int64_t count);

/* Sets first and total from the ranks' counts. STATUS_INPUT on all ranks if they disagree on d. Collective
 * over COMM. */
Status index_rows_place(IndexRows *rows, Comm *comm, Error *error);

/* out[n, d] = this rank's rows [first, first + n). STATUS_INPUT, naming the row by its id, when a number is
 * not finite, and, for INDEX_ROWS_UNIT, when a row is zero: it points nowhere. A row's numbers do not depend
 * on the block that it is read in, nor on the ranks. Not collective. */
Status index_rows_read(const IndexRows *rows, int64_t first, int64_t n, IndexRowsForm form, float *out,
                       Error *error);

/* The inner product of two rows, and the squared length of one: products and sums in fp64, in an order that
 * depends on d only, so that the same two rows give the same bits on any rank, in any block, either way
 * round. */
double index_rows_dot(const float *a, const float *b, int64_t d);

/* ids[m]: m distinct ids of 0 .. total - 1, ascending; m <= total. One uniform draw from each of m equal
 * strata, so every row is as likely as any other, and a set that is sorted by something is covered evenly.
 * A function of (seed, step) alone. Not collective. */
void index_rows_sample(int64_t *ids, int64_t m, int64_t total, uint64_t seed, uint64_t step);

/* [*begin, *end) of ids[m] (ascending) are this rank's. Not collective. */
void index_rows_own(const IndexRows *rows, const int64_t *ids, int64_t m, int64_t *begin, int64_t *end);

/* out[m, d] = the rows with these ids[m], ascending, all of them this rank's; neighbours are read together.
 * Errors as of index_rows_read. Not collective. */
Status index_rows_pick(const IndexRows *rows, const int64_t *ids, int64_t m, IndexRowsForm form, float *out,
                       Error *error);

/* out[m, d] on rank `root`, which alone needs the room = the rows with these ids[m] (ascending, the same on
 * all ranks), each read by its owner. The outcome is agreed. Collective over COMM. */
Status index_rows_collect(const IndexRows *rows, const int64_t *ids, int64_t m, IndexRowsForm form, int root,
                          float *out, Comm *comm, Error *error);

#endif
