/* cuda_prototype_cross_entropy.cu - the twin of ops/cpu/prototype_cross_entropy.c: cross-entropy of student
 * rows against teacher rows over many prototypes, with its gradient.
 *
 * For a block of student rows and the teacher rows that they are compared with:
 *     1. teacher scores, measured: log sum exp, entropy, largest entry of each row
 *     2. student scores; per part of a row the largest z, sum exp and <q, z> with q the sum of its targets;
 * losses
 *     3. g = weight / temp (targets * softmax - q), written over the student's scores, as bf16 beside 16-bit
 * weights (a gradient needs range before precision: 1 / K times a row's weight is nothing for fp16); then d W
 * += g^T x and d x = g W by two products Steps 2 and 3 go over as many rows at a time as leave their scores
 * in the level-2 cache for the gradient. What is read and written, and what it takes:
 * cuda_prototype_blocks.cuh.
 *
 * The host does not know the targets, which lie with the device. If all teacher rows fit a block (class
 * tokens), their scores are made once; else a block's targets are gathered, one teacher row each, even where
 * two are the same (patches have one target each, all different).
 *
 * Sums are made in a fixed order. Usage counts whole numbers, whose sum in fp32 does not depend on the order
 * of the atomic additions below 2^24.
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/cuda_prototype_rows.cuh"

extern "C" {
#include "ops/ops_backend.h"
}

/* Which rows of the teacher's scores the student rows of a block are compared with. */
typedef struct {
    const int32_t *index; /* [rows, count] teacher rows, -1: none */
    int count;
    bool gathered; /* scores are in order of `index`; otherwise of all teacher rows */
} PrototypeTargets;

typedef struct {
    const PrototypeCrossEntropy *args;
    PrototypeBlocks p, teacher_p; /* which differ in the width of a row alone */
    int64_t n, m, most, teachers; /* rows of each side; most student and teacher rows of a block */
    PrototypeTargets targets;
    bool backward;
    void *student_w, *teacher_w; /* [K, d] each, of p.dtype; in fp32 the same memory, filled by turns */
    bool student_ready, teacher_ready;
    void *gradient_w;                      /* [K, d] of the gradient's type: bf16, or student_w */
    void *student_scores, *teacher_scores; /* [most or teachers, stride] */
    void *student_x, *teacher_x,
        *gradient_x; /* rounded or gathered rows; NULL in fp32 where nothing is to do */
    PrototypeParts student_parts, teacher_parts;
    PrototypeMeasures teacher;
} CrossEntropy;

/* --- layout -------------------------------------------------------------------------------------------- */

size_t cuda_prototype_cross_entropy_scratch(const OpsLimits *limits)
{
    int64_t weights = limits->prototypes * limits->bottleneck, rows = cuda_prototype_blocks_limit(limits);
    size_t w =
        limits->reduced ? 3 * ops_cuda_piece(weights, sizeof(fp16)) : ops_cuda_piece(weights, sizeof(float));
    return 2 * cuda_prototype_blocks_bytes(limits, CUDA_BUDGET_SCORES) + w +
           2 * cuda_prototype_blocks_parts_bytes(limits, CUDA_BUDGET_SCORES) +
           3 * ops_cuda_piece(rows * limits->bottleneck, sizeof(fp16)) +
           3 * ops_cuda_piece(rows, sizeof(float));
}

/* How many rows of each side a block has, within what is planned for n rows of one target. */
static void choose_blocks(CrossEntropy *c)
{
    int64_t most = cuda_prototype_blocks_most(&c->p, CUDA_BUDGET_SCORES);
    int64_t fit = c->n > PROTOTYPE_MAX_TARGETS ? c->n : (int64_t)PROTOTYPE_MAX_TARGETS;
    if (fit > most) fit = most;
    c->targets.gathered = c->m > fit || c->m > c->n * c->targets.count;
    c->most = cuda_prototype_blocks_even(c->n, c->targets.gathered ? fit / c->targets.count : most);
    c->teachers = c->targets.gathered ? c->most * c->targets.count : c->m;
}

static void *bytes_of(const Ops *ops, int64_t count, Dtype dtype)
{
    return arena_alloc(ops->scratch, (size_t)count * dtype_size(dtype));
}

static CrossEntropy cross_entropy_layout(const Ops *ops, const PrototypeCrossEntropy *args)
{
    CrossEntropy c = {};
    c.args = args;
    c.p = cuda_prototype_blocks_of(args->student_v);
    c.teacher_p = cuda_prototype_blocks_of(args->teacher_v);
    c.n = args->student.shape[0];
    c.m = args->teacher.shape[0];
    c.targets.index = tensor_i32(args->targets);
    c.targets.count = (int)args->targets.shape[1];
    c.backward = tensor_given(args->d_student);
    choose_blocks(&c);
    int64_t weights = c.p.K * c.p.d, teacher_weights = c.p.K * c.teacher_p.d;
    bool reduced = c.p.dtype != DTYPE_F32;
    c.student_w = bytes_of(ops, reduced || weights > teacher_weights ? weights : teacher_weights, c.p.dtype);
    c.teacher_w = reduced ? bytes_of(ops, teacher_weights, c.p.dtype) : c.student_w;
    c.gradient_w = !c.backward ? NULL : reduced ? bytes_of(ops, weights, DTYPE_BF16) : c.student_w;
    c.student_scores = bytes_of(ops, c.most * c.p.stride, c.p.dtype);
    c.teacher_scores = bytes_of(ops, c.teachers * c.p.stride, c.p.dtype);
    c.student_x = reduced ? bytes_of(ops, c.most * c.p.d, c.p.dtype) : NULL;
    c.gradient_x = reduced && c.backward ? bytes_of(ops, c.most * c.p.d, DTYPE_BF16) : NULL;
    c.teacher_x = reduced || c.targets.gathered ? bytes_of(ops, c.teachers * c.teacher_p.d, c.p.dtype) : NULL;
    c.student_parts = cuda_prototype_blocks_parts(ops, &c.p, c.most);
    c.teacher_parts = cuda_prototype_blocks_parts(ops, &c.p, c.teachers);
    c.teacher.log_sum = (float *)bytes_of(ops, c.teachers, DTYPE_F32);
    c.teacher.entropy = (float *)bytes_of(ops, c.teachers, DTYPE_F32);
    c.teacher.top = (int32_t *)bytes_of(ops, c.teachers, DTYPE_I32);
    return c;
}

/* --- stage 1: teacher ---------------------------------------------------------------------------------- */

/* The row of the teacher's scores that target j of row i of the block means; -1: none. */
__device__ __forceinline__ int64_t target_row(const PrototypeTargets &targets, int64_t i, int j)
{
    int64_t at = i * targets.count + j;
    int32_t row = __ldg(targets.index + at);
    return row < 0 || !targets.gathered ? row : at;
}

__device__ __forceinline__ int count_targets(const PrototypeTargets &targets, int64_t i)
{
    int count = 0;
    for (int j = 0; j < targets.count; j++)
        count += target_row(targets, i, j) >= 0;
    return count;
}

/* Entropy and usage of the targets of a block's rows, by one block of threads. */
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    cross_entropy_account(double *entropy, float *usage, PrototypeTargets targets, PrototypeMeasures teacher,
                          int64_t rows, int K)
{
    __shared__ double shared[WARP];
    double sum = 0.0, count = 0.0;
    for (int64_t pair = threadIdx.x; pair < rows * targets.count; pair += ROW_ACCESS_THREADS) {
        int64_t row = target_row(targets, pair / targets.count, (int)(pair % targets.count));
        if (row < 0) continue;
        sum += (double)teacher.entropy[row];
        count += 1.0;
        if (usage && teacher.top[row] < K) atomicAdd(usage + teacher.top[row], 1.0f); /* no top: all NaN */
    }
    sum = block_sum(sum, shared);
    count = block_sum(count, shared);
    if (threadIdx.x > 0) return;
    entropy[0] += sum;
    entropy[1] += count;
}

/* Scores and measures of teacher rows; index NULL: the first `rows`. */
static void measure_teachers(const Ops *ops, CrossEntropy *c, const int32_t *index, int64_t rows)
{
    const PrototypeCrossEntropy *a = c->args;
    const void *x = tensor_f32(a->teacher);
    if (c->teacher_x) {
        cuda_prototype_blocks_round(ops, c->teacher_x, c->p.dtype, tensor_f32(a->teacher), index, rows,
                                    c->teacher_p.d);
        x = c->teacher_x;
    }
    if (!c->teacher_ready)
        cuda_prototype_blocks_weights(ops, &c->teacher_p, c->teacher_w, NULL, a->teacher_v, a->teacher_scale);
    c->teacher_ready = true;
    if (c->teacher_w == c->student_w) c->student_ready = false;
    cuda_prototype_blocks_scores(ops, &c->teacher_p, c->teacher_scores, x, c->teacher_w, rows);
    cuda_prototype_blocks_measure(ops, &c->p, c->teacher, c->teacher_parts, c->teacher_scores, rows,
                                  a->teacher_temp, tensor_f32(a->teacher_bias));
}

/* --- stage 2: student ---------------------------------------------------------------------------------- */

/* What the kernels of stages 2 and 3 read, of a stretch of the block's rows. */
typedef struct {
    PrototypeTargets targets;
    const void *student, *teacher; /* scores, [.., stride] */
    const float *bias, *teacher_log_sum;
    int64_t stride;
    int K;
    float student_factor, teacher_factor; /* 1 / temp */
} StudentRows;

/* Parts of student rows: largest z, sum exp(z - largest), <q, z>. The student's part stays in registers. */
template <typename T>
__global__ void __launch_bounds__(PROTOTYPE_THREADS) cross_entropy_student(PrototypeParts out, StudentRows in)
{
    const int V = PrototypeAccess<T>::V, LOADS = PrototypeAccess<T>::LOADS, WARPS = PROTOTYPE_THREADS / WARP;
    __shared__ float shared_max[WARPS], shared_sum[WARPS], shared_product[WARPS];
    const T *scores = (const T *)in.student + (int64_t)blockIdx.x * in.stride;
    float z[LOADS][V], largest = -FLT_MAX, sum = 0.0f, product = 0.0f;
#pragma unroll
    for (int load = 0; load < LOADS; load++)
        prototype_load<T>(z[load], scores, load, in.K, in.student_factor, NULL);
    for (int j = 0; j < in.targets.count; j++) {
        int64_t row = target_row(in.targets, blockIdx.x, j);
        if (row < 0) continue;
        const T *target = (const T *)in.teacher + row * in.stride;
        float log_sum = __ldg(in.teacher_log_sum + row);
#pragma unroll
        for (int load = 0; load < LOADS; load++) {
            float q[V]; /* 0 beyond K, where z is finite */
            prototype_load<T>(q, target, load, in.K, in.teacher_factor, in.bias);
#pragma unroll
            for (int v = 0; v < V; v++)
                product = fmaf(prototype_exp<T>(q[v] - log_sum), z[load][v], product);
        }
    }
#pragma unroll
    for (int load = 0; load < LOADS; load++)
#pragma unroll
        for (int v = 0; v < V; v++)
            largest = fmaxf(largest, z[load][v]);
    largest = prototype_block_max(largest, shared_max);
#pragma unroll
    for (int load = 0; load < LOADS; load++)
#pragma unroll
        for (int v = 0; v < V; v++)
            sum += prototype_exp<T>(z[load][v] - largest);
    sum = warp_sum(sum);
    product = warp_sum(product);
    if (threadIdx.x % WARP == 0) {
        shared_sum[threadIdx.x / WARP] = sum;
        shared_product[threadIdx.x / WARP] = product;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < WARPS; warp++) {
        sum += shared_sum[warp];
        product += shared_product[warp];
    }
    int64_t at = (int64_t)blockIdx.x * gridDim.y + blockIdx.y;
    out.maximum[at] = largest;
    out.sum[at] = sum;
    out.product[at] = product;
}

/* loss[rows] = targets * log sum exp z - <q, z>, a warp a row. */
__global__ void __launch_bounds__(ROW_ACCESS_THREADS, 4)
    cross_entropy_loss(float *loss, PrototypeParts in, PrototypeTargets targets, int64_t rows, int parts)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.y;
    if (row >= rows) return;
    const float *maximum = in.maximum + row * parts, *sum = in.sum + row * parts,
                *product = in.product + row * parts;
    float largest = -FLT_MAX;
    for (int part = threadIdx.x; part < parts; part += WARP)
        largest = fmaxf(largest, maximum[part]);
    largest = warp_max(largest);
    double total = 0.0, along = 0.0;
    for (int part = threadIdx.x; part < parts; part += WARP) {
        total += exp((double)maximum[part] - (double)largest) * (double)sum[part];
        along += (double)product[part];
    }
    total = warp_sum(total);
    along = warp_sum(along);
    int count = count_targets(targets, row);
    if (threadIdx.x == 0)
        loss[row] = count > 0 ? (float)(count * ((double)largest + log(total)) - along) : 0.0f;
}

/* --- stage 3: gradients -------------------------------------------------------------------------------- */

template <typename T> struct GradientOf {
    typedef float type;
};
template <> struct GradientOf<fp16> {
    typedef bf16 type; /* of the same size: written over the scores */
};

/* d z / temp over the scores: each thread reads what it writes before it writes. */
template <typename T>
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    cross_entropy_gradient(void *gradient, StudentRows in, PrototypeParts student, const float *row_weight,
                           const double *loss_scale)
{
    typedef typename GradientOf<T>::type G;
    const int V = PrototypeAccess<T>::V, LOADS = PrototypeAccess<T>::LOADS;
    int64_t i = blockIdx.x, parts = gridDim.y;
    const T *scores = (const T *)in.student + i * in.stride;
    float log_sum = prototype_join(student.maximum + i * parts, student.sum + i * parts, (int)parts);
    float weight = row_weight[i] * in.student_factor * (loss_scale ? (float)*loss_scale : 1.0f);
    float count = (float)count_targets(in.targets, i);
    G *out = (G *)gradient + i * in.stride;
#pragma unroll
    for (int load = 0; load < LOADS; load++) {
        float slope[V], q[V];
        if (prototype_column<T>(load) >= in.K) break;
        prototype_load<T>(slope, scores, load, in.K, in.student_factor, NULL);
#pragma unroll
        for (int v = 0; v < V; v++)
            slope[v] = count * prototype_exp<T>(slope[v] - log_sum);
        for (int j = 0; j < in.targets.count; j++) {
            int64_t row = target_row(in.targets, i, j);
            if (row < 0) continue;
            float target_log_sum = __ldg(in.teacher_log_sum + row);
            prototype_load<T>(q, (const T *)in.teacher + row * in.stride, load, in.K, in.teacher_factor,
                              in.bias);
#pragma unroll
            for (int v = 0; v < V; v++)
                slope[v] -= prototype_exp<T>(q[v] - target_log_sum);
        }
#pragma unroll
        for (int v = 0; v < V; v++)
            slope[v] = count > 0.0f ? weight * slope[v] : 0.0f;
        store_f32(out + prototype_column<T>(load), slope);
    }
}

/* d_student_w += g^T x and d_student = g W of a block's rows. */
static void multiply_gradients(const Ops *ops, const CrossEntropy *c, int64_t first, int64_t rows)
{
    const float *x = tensor_f32(c->args->student) + first * c->p.d;
    if (c->gradient_x) cuda_prototype_blocks_round(ops, c->gradient_x, DTYPE_BF16, x, NULL, rows, c->p.d);
    CudaGemmProduct across = {};
    across.m = c->p.K;
    across.n = c->p.d;
    across.k = rows;
    across.dtype = c->gradient_x ? DTYPE_BF16 : DTYPE_F32;
    across.a = c->student_scores;
    across.a_transposed = true;
    across.a_stride = c->p.stride;
    across.b = c->gradient_x ? c->gradient_x : (const void *)x;
    across.accumulate = true;
    across.c = tensor_f32(c->args->d_student_w);
    across.c_dtype = DTYPE_F32;
    cuda_gemm_run(ops_cuda(ops)->gemm, &across);

    CudaGemmProduct along = {};
    along.m = rows;
    along.n = c->p.d;
    along.k = c->p.K;
    along.dtype = across.dtype;
    along.a = c->student_scores;
    along.a_stride = c->p.stride;
    along.b = c->gradient_w;
    along.c = tensor_f32(c->args->d_student) + first * c->p.d;
    along.c_dtype = DTYPE_F32;
    cuda_gemm_run(ops_cuda(ops)->gemm, &along);
}

/* --- blocks -------------------------------------------------------------------------------------------- */

static void make_student_scores(const Ops *ops, CrossEntropy *c, int64_t first, int64_t rows)
{
    const PrototypeCrossEntropy *a = c->args;
    const float *rows_in = tensor_f32(a->student) + first * c->p.d;
    const void *x = rows_in;
    if (c->student_x) {
        cuda_prototype_blocks_round(ops, c->student_x, c->p.dtype, rows_in, NULL, rows, c->p.d);
        x = c->student_x;
    }
    if (!c->student_ready)
        cuda_prototype_blocks_weights(ops, &c->p, c->student_w,
                                      c->gradient_w != c->student_w ? c->gradient_w : NULL, a->student_v,
                                      a->student_scale);
    c->student_ready = true;
    if (c->teacher_w == c->student_w) c->teacher_ready = false;
    cuda_prototype_blocks_scores(ops, &c->p, c->student_scores, x, c->student_w, rows);
}

/* Stages 2 and 3 but for the products, over rows [at, at + rows) of the block that starts at row `first`. */
template <typename T>
static void student_rows(const Ops *ops, const CrossEntropy *c, PrototypeTargets targets, int64_t first,
                         int64_t at, int64_t rows)
{
    const PrototypeCrossEntropy *a = c->args;
    cudaStream_t stream = ops_cuda(ops)->stream;
    T *scores = (T *)c->student_scores + at * c->p.stride;
    PrototypeParts parts = c->student_parts;
    parts.maximum += at * c->p.parts;
    parts.sum += at * c->p.parts;
    parts.product += at * c->p.parts;
    targets.index += at * targets.count;
    StudentRows in;
    in.targets = targets;
    in.student = scores;
    /* gathered rows are counted from the stretch's first row */
    int64_t behind = targets.gathered ? at * targets.count : 0;
    in.teacher = (const T *)c->teacher_scores + behind * c->p.stride;
    in.teacher_log_sum = c->teacher.log_sum + behind;
    in.bias = tensor_f32(a->teacher_bias);
    in.K = (int)c->p.K;
    in.stride = c->p.stride;
    in.student_factor = 1.0f / a->student_temp;
    in.teacher_factor = 1.0f / a->teacher_temp;
    dim3 grid((unsigned)rows, (unsigned)c->p.parts);
    KERNEL_LAUNCH(cross_entropy_student<T>, grid, PROTOTYPE_THREADS, 0, stream, parts, in);
    if (c->backward)
        KERNEL_LAUNCH(cross_entropy_gradient<T>, grid, PROTOTYPE_THREADS, 0, stream, (void *)scores, in,
                      parts, (const float *)tensor_f32(a->row_weight) + first + at,
                      tensor_given(a->loss_scale) ? (const double *)tensor_f64(a->loss_scale)
                                                  : (const double *)NULL);
}

static void student_block(const Ops *ops, CrossEntropy *c, int64_t first, int64_t rows)
{
    PrototypeTargets targets = c->targets;
    targets.index += first * targets.count;
    if (targets.gathered) measure_teachers(ops, c, targets.index, rows * targets.count);
    cudaStream_t stream = ops_cuda(ops)->stream;
    KERNEL_LAUNCH(cross_entropy_account, 1, ROW_ACCESS_THREADS, 0, stream, tensor_f64(c->args->entropy),
                  (float *)(tensor_given(c->args->usage) ? tensor_f32(c->args->usage) : NULL), targets,
                  c->teacher, rows, (int)c->p.K);
    make_student_scores(ops, c, first, rows);
    int64_t step = c->backward ? cuda_prototype_blocks_cached(ops, &c->p, 1 + targets.count, rows) : rows;
    for (int64_t at = 0; at < rows; at += step) {
        int64_t some = rows - at < step ? rows - at : step;
        if (c->p.dtype == DTYPE_F32)
            student_rows<float>(ops, c, targets, first, at, some);
        else
            student_rows<fp16>(ops, c, targets, first, at, some);
    }
    KERNEL_LAUNCH(cross_entropy_loss, row_access_grid(rows), dim3(WARP, ROW_ACCESS_WARPS), 0, stream,
                  tensor_f32(c->args->loss) + first, c->student_parts, targets, rows, (int)c->p.parts);
    if (c->backward) multiply_gradients(ops, c, first, rows);
}

extern "C" void cuda_prototype_cross_entropy(const Ops *ops, PrototypeCrossEntropy *args)
{
    int64_t n = args->student.shape[0];
    if (n == 0) return;
    ops_check_prototype_cross_entropy(args);
    ArenaMark mark = arena_mark(ops->scratch);
    CrossEntropy c = cross_entropy_layout(ops, args);
    if (!c.targets.gathered && c.m > 0) measure_teachers(ops, &c, NULL, c.m);
    for (int64_t first = 0; first < n; first += c.most)
        student_block(ops, &c, first, n - first < c.most ? n - first : c.most);
    arena_reset(ops->scratch, mark);
}
