/* cuda_prototype_sinkhorn.cu - the twin of ops/cpu/prototype_sinkhorn.c, which has the sources and the
 * algebra: Sinkhorn-Knopp targets over the rows of all ranks, as one bias per prototype.
 *
 * First round: a running (maximum, sum of exp) per column. Each later round measures rows with the bias (log
 * sum exp) and adds exp(z + bias - log sum) to columns, over as many rows at a time as stay in the level-2
 * cache between the two. Column kernels give a thread a vector of columns and a stretch of rows; stretches
 * have accumulators of their own, which are joined in order at the end of a round. Scores that fit the budget
 * are made once; otherwise each round makes them again, block by block (cuda_prototype_blocks.cuh: what is
 * moved, and the error of 16-bit scores).
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_prototype_rows.cuh"

enum {
    SINKHORN_ROWS = 4,   /* that a thread of a column kernel loads at one time */
    SINKHORN_BLOCKS = 4, /* column kernels' blocks of a multiprocessor */
};

typedef struct {
    PrototypeBlocks p;
    const float *x;
    int64_t n, most; /* rows, and most of a block */
    bool kept;       /* one block holds all rows: its scores are made once */
    float temp;
    int64_t across, groups; /* blocks of a column kernel along columns, and along rows */
    void *w, *rounded;      /* [K, d]; [most, d], or NULL in fp32 */
    void *scores;
    PrototypeParts parts;
    PrototypeMeasures rows;
    float *group_max, *group_sum;   /* [groups, stride] */
    float *column_max, *column_sum; /* [K] */
} Sinkhorn;

/* --- layout -------------------------------------------------------------------------------------------- */

size_t cuda_prototype_sinkhorn_scratch(const OpsLimits *limits, int multiprocessors)
{
    int64_t rows = cuda_prototype_blocks_limit(limits), weights = limits->prototypes * limits->bottleneck;
    int64_t groups =
        (int64_t)SINKHORN_BLOCKS * multiprocessors * PROTOTYPE_THREADS * VectorWidth<fp16>::value +
        2 * (limits->prototypes + VectorWidth<fp16>::value);
    return cuda_prototype_blocks_bytes(limits, 2 * CUDA_BUDGET_SCORES) +
           ops_cuda_piece(weights, sizeof(float)) + ops_cuda_piece(rows * limits->bottleneck, sizeof(fp16)) +
           cuda_prototype_blocks_parts_bytes(limits, 2 * CUDA_BUDGET_SCORES) +
           ops_cuda_piece(rows, sizeof(float)) + 2 * ops_cuda_piece(groups, sizeof(float)) +
           2 * ops_cuda_piece(limits->prototypes, sizeof(float));
}

static float *floats_of(const Ops *ops, int64_t count)
{
    return (float *)arena_alloc(ops->scratch, (size_t)count * sizeof(float));
}

static Sinkhorn sinkhorn_layout(const Ops *ops, Tensor x, Tensor v, float temp)
{
    Sinkhorn s = {};
    s.p = cuda_prototype_blocks_of(v);
    s.n = x.shape[0];
    s.x = s.n > 0 ? tensor_f32(x) : NULL;
    s.temp = temp;
    s.most = cuda_prototype_blocks_even(s.n, cuda_prototype_blocks_most(&s.p, 2 * CUDA_BUDGET_SCORES));
    s.kept = s.n == s.most;
    s.column_max = floats_of(ops, s.p.K);
    s.column_sum = floats_of(ops, s.p.K);
    if (s.n == 0) return s;

    /* groups of rows until the machine is full, but with some rows in each */
    int64_t step = cuda_prototype_blocks_cached(ops, &s.p, 1, s.most);
    int64_t columns =
        PROTOTYPE_THREADS * (s.p.dtype == DTYPE_F32 ? VectorWidth<float>::value : VectorWidth<fp16>::value);
    s.across = ceil_div(s.p.stride, columns);
    s.groups = ceil_div((int64_t)SINKHORN_BLOCKS * ops_cuda(ops)->multiprocessors, s.across);
    if (s.groups > ceil_div(step, SINKHORN_ROWS)) s.groups = ceil_div(step, SINKHORN_ROWS);
    size_t element = dtype_size(s.p.dtype);
    s.w = arena_alloc(ops->scratch, (size_t)(s.p.K * s.p.d) * element);
    s.rounded = s.p.dtype == DTYPE_F32 ? NULL : arena_alloc(ops->scratch, (size_t)(s.most * s.p.d) * element);
    s.scores = arena_alloc(ops->scratch, (size_t)(s.most * s.p.stride) * element);
    s.parts = cuda_prototype_blocks_parts(ops, &s.p, s.most);
    s.rows.log_sum = floats_of(ops, s.most);
    s.group_max = floats_of(ops, s.groups * s.p.stride);
    s.group_sum = floats_of(ops, s.groups * s.p.stride);
    return s;
}

static void make_scores(const Ops *ops, const Sinkhorn *s, int64_t first, int64_t rows)
{
    const void *x = s->x + first * s->p.d;
    if (s->rounded) {
        cuda_prototype_blocks_round(ops, s->rounded, s->p.dtype, s->x + first * s->p.d, NULL, rows, s->p.d);
        x = s->rounded;
    }
    cuda_prototype_blocks_scores(ops, &s->p, s->scores, x, s->w, rows);
}

/* --- columns ------------------------------------------------------------------------------------------- */

/* Rows [first, last) of a group: blockIdx.y of gridDim.y even stretches. */
__device__ __forceinline__ void group_rows(int64_t rows, int64_t *first, int64_t *last)
{
    int64_t each = (rows + gridDim.y - 1) / gridDim.y;
    *first = blockIdx.y * each;
    *last = *first + each < rows ? *first + each : rows;
}

/* group_max and group_sum of z over a group's rows; what they hold counts unless `fresh`. */
template <typename T>
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_first(float *group_max, float *group_sum, const T *scores, int64_t stride, int64_t rows,
                   float inverse_temp, bool fresh)
{
    const int V = VectorWidth<T>::value;
    int64_t column = ((int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x) * V,
            at = blockIdx.y * stride + column;
    int64_t first, last;
    float maximum[V], sum[V];
    if (column >= stride) return;
    group_rows(rows, &first, &last);
#pragma unroll
    for (int v = 0; v < V; v++) {
        maximum[v] = fresh ? -FLT_MAX : group_max[at + v];
        sum[v] = fresh ? 0.0f : group_sum[at + v];
    }
    for (int64_t row = first; row < last; row += SINKHORN_ROWS) {
        float z[SINKHORN_ROWS][V];
#pragma unroll
        for (int u = 0; u < SINKHORN_ROWS; u++)
            load_f32(z[u], scores + (row + u < last ? row + u : row) * stride + column);
#pragma unroll
        for (int v = 0; v < V; v++) {
            float largest = maximum[v];
#pragma unroll
            for (int u = 0; u < SINKHORN_ROWS; u++) {
                z[u][v] = row + u < last ? z[u][v] * inverse_temp : -FLT_MAX;
                largest = fmaxf(largest, z[u][v]);
            }
            sum[v] *= prototype_exp<T>(maximum[v] - largest);
            maximum[v] = largest;
#pragma unroll
            for (int u = 0; u < SINKHORN_ROWS; u++)
                sum[v] += prototype_exp<T>(z[u][v] - largest);
        }
    }
    store_f32(group_max + at, maximum);
    store_f32(group_sum + at, sum);
}

/* group_sum (+)= sum over a group's rows of softmax(z + bias) = exp(z + bias - log_sum). */
template <typename T>
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_later(float *group_sum, const T *scores, int64_t stride, int64_t rows, int K, float inverse_temp,
                   const float *bias, const float *log_sum, bool fresh)
{
    const int V = VectorWidth<T>::value;
    int column = ((int)blockIdx.x * PROTOTYPE_THREADS + (int)threadIdx.x) * V;
    int64_t first, last;
    float add[V], sum[V];
    if (column >= stride) return;
    float *out = group_sum + blockIdx.y * stride + column;
    group_rows(rows, &first, &last);
    prototype_load_bias(add, bias, column, K);
#pragma unroll
    for (int v = 0; v < V; v++)
        sum[v] = fresh ? 0.0f : out[v];
    for (int64_t row = first; row < last; row += SINKHORN_ROWS) {
        float z[SINKHORN_ROWS][V], below[SINKHORN_ROWS];
#pragma unroll
        for (int u = 0; u < SINKHORN_ROWS; u++) {
            int64_t from = row + u < last ? row + u : row;
            load_f32(z[u], scores + from * stride + column);
            below[u] = row + u < last ? __ldg(log_sum + from) : FLT_MAX;
        }
#pragma unroll
        for (int u = 0; u < SINKHORN_ROWS; u++)
#pragma unroll
            for (int v = 0; v < V; v++)
                sum[v] += prototype_exp<T>(fmaf(z[u][v], inverse_temp, add[v]) - below[u]);
    }
    store_f32(out, sum);
}

/* Joins the groups of the first round; bias = the maximum, for the other ranks. No groups: no rows here. */
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_join_first(float *bias, float *column_max, float *column_sum, const float *group_max,
                        const float *group_sum, int groups, int64_t stride, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x;
    if (k >= K) return;
    float maximum = -FLT_MAX, sum = 0.0f;
    for (int group = 0; group < groups; group++)
        maximum = fmaxf(maximum, group_max[group * stride + k]);
    for (int group = 0; group < groups; group++)
        sum += group_sum[group * stride + k] * expf(group_max[group * stride + k] - maximum);
    bias[k] = column_max[k] = maximum;
    column_sum[k] = sum;
}

/* column_sum over the maximum of all ranks, which `bias` holds. */
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_rescale(float *column_sum, const float *column_max, const float *bias, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x;
    if (k < K) column_sum[k] *= expf(column_max[k] - bias[k]);
}

/* bias = -log sum exp z. A sum is 0 only where no rank has a row: then no bias is as good as any. */
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_bias_first(float *bias, const float *column_sum, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x;
    if (k < K) bias[k] = column_sum[k] == 0.0f ? 0.0f : -(bias[k] + logf(column_sum[k]));
}

__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_join_later(float *column_sum, const float *group_sum, int groups, int64_t stride, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x;
    if (k >= K) return;
    float sum = 0.0f;
    for (int group = 0; group < groups; group++)
        sum += group_sum[group * stride + k];
    column_sum[k] = sum;
}

__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    sinkhorn_bias_later(float *bias, const float *column_sum, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * PROTOTYPE_THREADS + threadIdx.x;
    if (k < K && column_sum[k] != 0.0f) bias[k] -= logf(column_sum[k]);
}

/* --- rounds -------------------------------------------------------------------------------------------- */

template <typename T> static void first_round(const Ops *ops, const Sinkhorn *s, float *bias)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    dim3 grid((unsigned)s->across, (unsigned)s->groups);
    for (int64_t first = 0; first < s->n; first += s->most) {
        int64_t rows = s->n - first < s->most ? s->n - first : s->most;
        make_scores(ops, s, first, rows);
        KERNEL_LAUNCH(sinkhorn_first<T>, grid, PROTOTYPE_THREADS, 0, stream, s->group_max, s->group_sum,
                      (const T *)s->scores, s->p.stride, rows, 1.0f / s->temp, first == 0);
    }
    KERNEL_LAUNCH(sinkhorn_join_first, (unsigned)ceil_div(s->p.K, PROTOTYPE_THREADS), PROTOTYPE_THREADS, 0,
                  stream, bias, s->column_max, s->column_sum, s->group_max, s->group_sum, (int)s->groups,
                  s->p.stride, s->p.K);
}

template <typename T>
static void later_block(const Ops *ops, const Sinkhorn *s, const float *bias, int64_t rows, bool fresh)
{
    dim3 grid((unsigned)s->across, (unsigned)s->groups);
    int64_t step = cuda_prototype_blocks_cached(ops, &s->p, 1, rows);
    for (int64_t at = 0; at < rows; at += step) {
        int64_t some = rows - at < step ? rows - at : step;
        const T *scores = (const T *)s->scores + at * s->p.stride;
        cuda_prototype_blocks_measure(ops, &s->p, s->rows, s->parts, scores, some, s->temp, bias);
        KERNEL_LAUNCH(sinkhorn_later<T>, grid, PROTOTYPE_THREADS, 0, ops_cuda(ops)->stream, s->group_sum,
                      scores, s->p.stride, some, (int)s->p.K, 1.0f / s->temp, bias, s->rows.log_sum,
                      fresh && at == 0);
    }
}

template <typename T> static void later_round(const Ops *ops, const Sinkhorn *s, const float *bias)
{
    for (int64_t first = 0; first < s->n; first += s->most) {
        int64_t rows = s->n - first < s->most ? s->n - first : s->most;
        if (!s->kept) make_scores(ops, s, first, rows);
        later_block<T>(ops, s, bias, rows, first == 0);
    }
    KERNEL_LAUNCH(sinkhorn_join_later, (unsigned)ceil_div(s->p.K, PROTOTYPE_THREADS), PROTOTYPE_THREADS, 0,
                  ops_cuda(ops)->stream, s->column_sum, s->group_sum, (int)s->groups, s->p.stride, s->p.K);
}

template <typename T>
static void run_rounds(const Ops *ops, const Sinkhorn *s, float *bias, int iterations, Comm *comm)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    unsigned grid = (unsigned)ceil_div(s->p.K, PROTOTYPE_THREADS);
    first_round<T>(ops, s, bias);
    comm_all_reduce(comm, bias, s->p.K, DTYPE_F32, COMM_MAX, ops->device);
    KERNEL_LAUNCH(sinkhorn_rescale, grid, PROTOTYPE_THREADS, 0, stream, s->column_sum, s->column_max, bias,
                  s->p.K);
    comm_all_reduce(comm, s->column_sum, s->p.K, DTYPE_F32, COMM_SUM, ops->device);
    KERNEL_LAUNCH(sinkhorn_bias_first, grid, PROTOTYPE_THREADS, 0, stream, bias, s->column_sum, s->p.K);
    for (int round = 1; round < iterations; round++) {
        later_round<T>(ops, s, bias);
        comm_all_reduce(comm, s->column_sum, s->p.K, DTYPE_F32, COMM_SUM, ops->device);
        KERNEL_LAUNCH(sinkhorn_bias_later, grid, PROTOTYPE_THREADS, 0, stream, bias, s->column_sum, s->p.K);
    }
}

extern "C" void cuda_prototype_sinkhorn(const Ops *ops, Tensor bias, Tensor x, Tensor v, Tensor scale,
                                        float temp, int iterations, Comm *comm)
{
    CHECK(v.ndim == 2 && x.ndim == 2 && x.shape[1] == v.shape[1] && temp > 0.0f && iterations >= 1);
    CHECK(tensor_count(bias) == v.shape[0] && tensor_count(scale) == v.shape[0]);
    ArenaMark mark = arena_mark(ops->scratch);
    Sinkhorn s = sinkhorn_layout(ops, x, v, temp);
    if (s.n > 0) cuda_prototype_blocks_weights(ops, &s.p, s.w, NULL, v, scale);
    if (s.p.dtype == DTYPE_F32)
        run_rounds<float>(ops, &s, tensor_f32(bias), iterations, comm);
    else
        run_rounds<fp16>(ops, &s, tensor_f32(bias), iterations, comm);
    arena_reset(ops->scratch, mark);
}
