/* attention.c - softmax attention inside each sequence of a packed batch, forward and backward, in tiles.
 *
 * Source: Dao et al., FlashAttention, arXiv:2205.14135 (online softmax; the backward pass makes the scores
 * again from the log-sum-exp). One thread computes one head of one sequence from beginning to end, in fp32,
 * so results do not depend on the number of threads. Memory per thread grows with tokens x head dimension,
 * never with tokens x tokens. Not here: masks inside a sequence, dropout, keys of another length than the
 * queries.
 */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"
#include "ops/cpu/simd.h"
#include "ops/cpu/tile_product.h"

#include <math.h>
#include <omp.h>

/* Scores are kept as [keys, queries]: softmax then works on whole vectors of queries. A tile of 24 kB fits
 * the first-level cache, all that a step of the backward pass touches the second. */
enum { QUERY_TILE = 64, KEY_TILE = 96 };
static const float LOWEST = -1e30f; /* below any score */

/* What every head of every sequence shares. */
typedef struct {
    Tensor qkv, out, lse;
    Tensor dqkv, dout; /* backward */
    const int32_t *cu_seqlens;
    int64_t sequences, heads, width, head_dim;
    int64_t padded_dim; /* head_dim as columns of tiles */
    int64_t max_seqlen;
    float scale;
} Attention;

/* One head of one sequence. */
typedef struct {
    int64_t first, tokens, head;
} Head;

/* A thread's memory. Rows of [., dim] hold zeros behind head_dim; columns of tiles behind the last query hold
 * anything, and no result depends on them. */
typedef struct {
    float *keys, *values;  /* [tokens, dim] */
    float *queries;        /* [QUERY_TILE, dim], scaled */
    float *queries_across; /* [dim, QUERY_TILE] */
    float *scores;         /* [KEY_TILE, QUERY_TILE]: scores, then probabilities */
    float *sums;           /* [QUERY_TILE, dim]: output, or dqueries, so far */
    /* backward */
    float *dkeys, *dvalues; /* [tokens, dim] */
    float *dout;            /* [QUERY_TILE, dim] */
    float *dout_across;     /* [dim, QUERY_TILE] */
    float *dscores;         /* [KEY_TILE, QUERY_TILE] */
    float *delta, *lse;     /* [tokens]: <dout, out> and log-sum-exp of each row */
} Workspace;

static float *take(Arena *arena, int64_t count)
{
    return arena_alloc(arena, (size_t)count * sizeof(float));
}

static Workspace workspace_take(Arena *arena, int64_t tokens, int64_t dim, bool backward)
{
    Workspace w = {.keys = take(arena, tokens * dim),
                   .values = take(arena, tokens * dim),
                   .queries = take(arena, QUERY_TILE * dim),
                   .queries_across = take(arena, QUERY_TILE * dim),
                   .scores = take(arena, KEY_TILE * QUERY_TILE),
                   .sums = take(arena, QUERY_TILE * dim)};
    if (!backward) return w;
    w.dkeys = take(arena, tokens * dim);
    w.dvalues = take(arena, tokens * dim);
    w.dout = take(arena, QUERY_TILE * dim);
    w.dout_across = take(arena, QUERY_TILE * dim);
    w.dscores = take(arena, KEY_TILE * QUERY_TILE);
    w.delta = take(arena, tile_product_padded(tokens));
    w.lse = take(arena, tile_product_padded(tokens));
    return w;
}

size_t cpu_attention_scratch(const OpsLimits *limits, int threads)
{
    Arena arena = arena_measuring();
    for (int t = 0; t < threads; t++)
        workspace_take(&arena, limits->max_seqlen, tile_product_padded(limits->head_dim), true);
    return arena.peak;
}

/* The same columns of the next head, probably this thread's next: rows are too far apart for the processor to
 * foresee. */
static void prefetch_next_head(const void *values, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)values + bytes + i, 0, 2);
}

/* out[rows, dim] = factor * columns [column, column + head_dim) of tensor rows first .. first + rows. */
static void load_rows(const Attention *a, float *out, Tensor in, int64_t first, int64_t rows, int64_t column,
                      float factor)
{
    int64_t dim = a->padded_dim;
    for (int64_t i = 0; i < rows; i++, out += dim) {
        int64_t at = (first + i) * in.shape[1] + column;
        if (in.dtype == DTYPE_F32) {
            const float *values = (const float *)in.data + at;
            prefetch_next_head(values, a->head_dim * (int64_t)sizeof *values);
#pragma omp simd
            for (int64_t j = 0; j < a->head_dim; j++)
                out[j] = factor * values[j];
        } else {
            const uint16_t *values = (const uint16_t *)in.data + at;
            prefetch_next_head(values, a->head_dim * (int64_t)sizeof *values);
#pragma omp simd
            for (int64_t j = 0; j < a->head_dim; j++)
                out[j] = factor * dtype_f32_from_bf16(values[j]);
        }
        for (int64_t j = a->head_dim; j < dim; j++)
            out[j] = 0.0f;
    }
}

/* One row of an output tensor = factor * values[head_dim]. */
static void store_row(const Attention *a, Tensor out, int64_t row, int64_t column, const float *values,
                      float factor)
{
    int64_t at = row * out.shape[1] + column;
    if (out.dtype == DTYPE_F32) {
        float *target = (float *)out.data + at;
#pragma omp simd
        for (int64_t j = 0; j < a->head_dim; j++)
            target[j] = factor * values[j];
    } else {
        uint16_t *target = (uint16_t *)out.data + at;
#pragma omp simd
        for (int64_t j = 0; j < a->head_dim; j++)
            target[j] = row_access_bf16(factor * values[j]);
    }
}

/* The length of equal tiles of at most `tile` that cover all tokens: no short one is left at the end. */
static int64_t balanced_tile(int64_t tokens, int64_t tile)
{
    int64_t tiles = (tokens + tile - 1) / tile;
    return (tokens + tiles - 1) / tiles;
}

static int64_t tile_end(int64_t first, int64_t tile, int64_t tokens)
{
    return first + tile < tokens ? first + tile : tokens;
}

/* The online softmax of SIMD_LANES queries at once, which lie side by side: s[keys, QUERY_TILE] scores become
 * exp(s - maximum). factor: by how much what was summed before, with the old maximum, shrinks. Reductions run
 * down the columns, in a few chains that do not wait for each other. */
static void softmax_lanes(float *s, int64_t keys, float *maximum, float *total, float *factor)
{
    Simd old = simd_load(maximum), largest[4] = {old, old, old, old}, sum[2] = {{0}, {0}};
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4)
        for (int chain = 0; chain < 4; chain++)
            largest[chain] = simd_max(simd_load(s + (k + chain) * QUERY_TILE), largest[chain]);
    for (; k < keys; k++)
        largest[0] = simd_max(simd_load(s + k * QUERY_TILE), largest[0]);
    Simd top = simd_max(simd_max(largest[0], largest[1]), simd_max(largest[2], largest[3]));
    for (k = 0; k < keys; k++) {
        Simd p = simd_exp_negative(simd_load(s + k * QUERY_TILE) - top);
        sum[k % 2] += p;
        simd_store(s + k * QUERY_TILE, p);
    }
    Simd shrink = simd_exp_negative(old - top);
    simd_store(factor, shrink);
    simd_store(maximum, top);
    simd_store(total, simd_load(total) * shrink + sum[0] + sum[1]);
}

static void forward_tile(const Attention *a, const Workspace *w, Head h, int64_t query, int64_t queries)
{
    int64_t dim = a->padded_dim, lanes = tile_product_padded(queries);
    int64_t tile = balanced_tile(h.tokens, KEY_TILE);
    float maximum[QUERY_TILE], total[QUERY_TILE], factor[QUERY_TILE];
    for (int64_t i = 0; i < lanes; i++) {
        maximum[i] = LOWEST;
        total[i] = 0.0f;
    }
    load_rows(a, w->queries, a->qkv, h.first + query, queries, h.head * a->head_dim, a->scale);
    tile_product_transpose(w->queries_across, QUERY_TILE, w->queries, dim, queries, a->head_dim);
    for (int64_t key = 0, next; key < h.tokens; key = next) {
        next = tile_end(key, tile, h.tokens);
        int64_t keys = next - key;
        tile_product_run(keys, lanes, a->head_dim, (TileProductLeft){w->keys + key * dim, dim, 1},
                         w->queries_across, QUERY_TILE, false, w->scores, QUERY_TILE);
        for (int64_t i = 0; i < lanes; i += SIMD_LANES)
            softmax_lanes(w->scores + i, keys, maximum + i, total + i, factor + i);
        for (int64_t i = 0; key > 0 && i < queries; i++)
            for (int64_t j = 0; j < dim; j += SIMD_LANES)
                simd_store(w->sums + i * dim + j, factor[i] * simd_load(w->sums + i * dim + j));
        tile_product_run(queries, dim, keys, (TileProductLeft){w->scores, 1, QUERY_TILE},
                         w->values + key * dim, dim, key > 0, w->sums, dim);
    }
    float *lse = tensor_f32(a->lse);
    for (int64_t i = 0; i < queries; i++) {
        int64_t row = h.first + query + i;
        lse[row * a->heads + h.head] = maximum[i] + logf(total[i]);
        store_row(a, a->out, row, h.head * a->head_dim, w->sums + i * dim, 1.0f / total[i]);
    }
}

static void forward_head(const Attention *a, const Workspace *w, Head h)
{
    int64_t column = h.head * a->head_dim;
    load_rows(a, w->keys, a->qkv, h.first, h.tokens, a->width + column, 1.0f);
    load_rows(a, w->values, a->qkv, h.first, h.tokens, 2 * a->width + column, 1.0f);
    for (int64_t query = 0, next; query < h.tokens; query = next) {
        next = tile_end(query, QUERY_TILE, h.tokens);
        forward_tile(a, w, h, query, next - query);
    }
}

/* scores = P = exp(S - lse), dscores = P (dP - delta) for one tile, from scores = S and dscores = dP. */
static void dscores_tile(const Workspace *w, int64_t keys, int64_t query, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += SIMD_LANES) {
        Simd lse = simd_load(w->lse + query + i), delta = simd_load(w->delta + query + i);
        float *p = w->scores + i, *ds = w->dscores + i;
        for (int64_t k = 0; k < keys; k++, p += QUERY_TILE, ds += QUERY_TILE) {
            Simd probability = simd_exp_negative(simd_load(p) - lse);
            simd_store(p, probability);
            simd_store(ds, probability * (simd_load(ds) - delta));
        }
    }
}

/* The share of one tile of queries in dkeys and dvalues, and its dqueries. */
static void backward_tile(const Attention *a, const Workspace *w, Head h, int64_t query, int64_t queries)
{
    int64_t column = h.head * a->head_dim, dim = a->padded_dim, lanes = tile_product_padded(queries);
    int64_t tile = balanced_tile(h.tokens, KEY_TILE);
    load_rows(a, w->queries, a->qkv, h.first + query, queries, column, a->scale);
    load_rows(a, w->dout, a->dout, h.first + query, queries, column, 1.0f);
    tile_product_transpose(w->queries_across, QUERY_TILE, w->queries, dim, queries, a->head_dim);
    tile_product_transpose(w->dout_across, QUERY_TILE, w->dout, dim, queries, a->head_dim);
    for (int64_t key = 0, next; key < h.tokens; key = next) {
        next = tile_end(key, tile, h.tokens);
        int64_t keys = next - key;
        const float *k = w->keys + key * dim, *v = w->values + key * dim;
        tile_product_run(keys, lanes, a->head_dim, (TileProductLeft){k, dim, 1}, w->queries_across,
                         QUERY_TILE, false, w->scores, QUERY_TILE);
        tile_product_run(keys, lanes, a->head_dim, (TileProductLeft){v, dim, 1}, w->dout_across, QUERY_TILE,
                         false, w->dscores, QUERY_TILE);
        dscores_tile(w, keys, query, lanes);
        tile_product_run(keys, dim, queries, (TileProductLeft){w->scores, QUERY_TILE, 1}, w->dout, dim,
                         query > 0, w->dvalues + key * dim, dim);
        tile_product_run(keys, dim, queries, (TileProductLeft){w->dscores, QUERY_TILE, 1}, w->queries, dim,
                         query > 0, w->dkeys + key * dim, dim);
        tile_product_run(queries, dim, keys, (TileProductLeft){w->dscores, 1, QUERY_TILE}, k, dim, key > 0,
                         w->sums, dim);
    }
    for (int64_t i = 0; i < queries; i++)
        store_row(a, a->dqkv, h.first + query + i, column, w->sums + i * dim, a->scale);
}

/* delta = <dout, out> of each row, and lse, gathered for the head. */
static void gather_statistics(const Attention *a, const Workspace *w, Head h)
{
    int64_t column = h.head * a->head_dim, dim = a->padded_dim;
    const float *lse = tensor_f32(a->lse);
    for (int64_t i = 0; i < h.tokens; i++) {
        load_rows(a, w->queries, a->out, h.first + i, 1, column, 1.0f);
        load_rows(a, w->dout, a->dout, h.first + i, 1, column, 1.0f);
        Simd sum = {0};
        for (int64_t j = 0; j < dim; j += SIMD_LANES)
            sum += simd_load(w->queries + j) * simd_load(w->dout + j);
        w->delta[i] = simd_sum(sum);
        w->lse[i] = lse[(h.first + i) * a->heads + h.head];
    }
}

static void backward_head(const Attention *a, const Workspace *w, Head h)
{
    int64_t column = h.head * a->head_dim, dim = a->padded_dim;
    gather_statistics(a, w, h);
    load_rows(a, w->keys, a->qkv, h.first, h.tokens, a->width + column, 1.0f);
    load_rows(a, w->values, a->qkv, h.first, h.tokens, 2 * a->width + column, 1.0f);
    for (int64_t query = 0, next; query < h.tokens; query = next) {
        next = tile_end(query, QUERY_TILE, h.tokens);
        backward_tile(a, w, h, query, next - query);
    }
    for (int64_t i = 0; i < h.tokens; i++) {
        store_row(a, a->dqkv, h.first + i, a->width + column, w->dkeys + i * dim, 1.0f);
        store_row(a, a->dqkv, h.first + i, 2 * a->width + column, w->dvalues + i * dim, 1.0f);
    }
}

static Attention attention_of(Tensor qkv, Tensor out, Tensor lse, Tensor cu_seqlens, int64_t heads)
{
    CHECK(qkv.ndim == 2 && out.ndim == 2 && row_access_is_act(qkv) && out.dtype == qkv.dtype && heads > 0);
    Attention a = {.qkv = qkv,
                   .out = out,
                   .lse = lse,
                   .cu_seqlens = tensor_i32(cu_seqlens),
                   .sequences = tensor_count(cu_seqlens) - 1,
                   .heads = heads,
                   .width = out.shape[1],
                   .head_dim = out.shape[1] / heads};
    CHECK(a.head_dim * heads == a.width && qkv.shape[1] == 3 * a.width && qkv.shape[0] == out.shape[0]);
    CHECK(tensor_count(lse) == out.shape[0] * heads && lse.dtype == DTYPE_F32);
    CHECK(a.sequences >= 0 && a.cu_seqlens[0] == 0 && a.cu_seqlens[a.sequences] == out.shape[0]);
    for (int64_t s = 0; s < a.sequences; s++) {
        int64_t tokens = a.cu_seqlens[s + 1] - a.cu_seqlens[s];
        CHECK(tokens >= 0);
        if (tokens > a.max_seqlen) a.max_seqlen = tokens;
    }
    a.padded_dim = tile_product_padded(a.head_dim);
    a.scale = 1.0f / sqrtf((float)a.head_dim);
    return a;
}

/* Heads of one sequence lie side by side in memory: one thread takes all of them where there are sequences
 * enough to keep every thread busy. */
static void each_head(const Ops *ops, const Attention *a, bool backward)
{
    int threads = ops_cpu_threads(ops, a->qkv.shape[0] * a->width, a->sequences * a->heads);
    int64_t neighbours = a->sequences >= 4 * threads ? a->heads : 1;
    ArenaMark mark = arena_mark(ops->scratch);
    Workspace workspaces[OPS_CPU_MAX_THREADS];
    for (int t = 0; t < threads; t++)
        workspaces[t] = workspace_take(ops->scratch, a->max_seqlen, a->padded_dim, backward);
#pragma omp parallel for num_threads(threads) schedule(dynamic, neighbours)
    for (int64_t i = 0; i < a->sequences * a->heads; i++) {
        const Workspace *workspace = &workspaces[omp_get_thread_num()];
        int64_t s = i / a->heads;
        Head h = {.first = a->cu_seqlens[s],
                  .tokens = a->cu_seqlens[s + 1] - a->cu_seqlens[s],
                  .head = i % a->heads};
        if (backward)
            backward_head(a, workspace, h);
        else
            forward_head(a, workspace, h);
    }
    arena_reset(ops->scratch, mark);
    ops_cpu_progress(ops);
}

void cpu_attention_forward(const Ops *ops, Tensor out, Tensor lse, Tensor qkv, Tensor cu_seqlens,
                           int64_t heads)
{
    if (out.shape[0] == 0) return;
    Attention a = attention_of(qkv, out, lse, cu_seqlens, heads);
    each_head(ops, &a, false);
}

void cpu_attention_backward(const Ops *ops, Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv,
                            Tensor cu_seqlens, int64_t heads)
{
    if (out.shape[0] == 0) return;
    Attention a = attention_of(qkv, out, lse, cu_seqlens, heads);
    CHECK(dout.ndim == 2 && dout.shape[0] == out.shape[0] && dout.shape[1] == a.width &&
          dout.dtype == out.dtype);
    CHECK(dqkv.ndim == 2 && dqkv.shape[0] == out.shape[0] && dqkv.shape[1] == 3 * a.width);
    CHECK(dqkv.dtype == qkv.dtype);
    a.dqkv = dqkv;
    a.dout = dout;
    each_head(ops, &a, true);
}
