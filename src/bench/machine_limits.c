/* machine_limits.c - large products, products of the model's shapes, copies. */
#include "bench/machine_limits.h"

#include "base/memory.h"
#include "bench/bench_operands.h"
#include "ops/ops.h"

#include <stdio.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static const char SECTION[] = "limits";

bool machine_limits_has_bf16(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return false;
#endif
}

void machine_limits_processor(char *text, int size)
{
    char line[512];
    snprintf(text, (size_t)size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        const char *colon = strstr(line, ": ");
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(text, (size_t)size, "%s", colon + 2);
        text[strcspn(text, "\n")] = '\0';
        break;
    }
    fclose(file);
}

/* --- products ----------------------------------------------------------------------------------------- */

typedef enum { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT } Direction;

typedef struct {
    const char *name;
    Direction direction;
    int64_t n, m, k; /* of linear_forward: y[n, m] = x[n, k] . w[m, k]^T */
} Shape;

/* What suits a processor: a large product, and the model's at a batch that fills it. */
typedef struct {
    Shape large;
    const Shape *shapes;
    size_t shape_count;
    int64_t largest;   /* elements of an operand */
    size_t copy_bytes; /* each way */
} Sizes;

enum { TOKENS = 4096, GPU_TOKENS = 29248 /* of 32 pictures: 2 x 257 + 8 x 50 */ };

static const Shape CPU_SHAPES[] = {{"ViT-S qkv", FORWARD, TOKENS, 1152, 384},
                                   {"ViT-S proj", FORWARD, TOKENS, 384, 384},
                                   {"ViT-S fc1", FORWARD, TOKENS, 1536, 384},
                                   {"ViT-S fc2", FORWARD, TOKENS, 384, 1536},
                                   {"ViT-S fc1 d input", BACKWARD_INPUT, TOKENS, 1536, 384},
                                   {"ViT-S fc1 d weight", BACKWARD_WEIGHT, TOKENS, 1536, 384},
                                   {"ViT-S fc2 d weight", BACKWARD_WEIGHT, TOKENS, 384, 1536},
                                   {"tiny qkv", FORWARD, TOKENS, 288, 96},
                                   {"tiny fc2", FORWARD, TOKENS, 96, 384},
                                   {"tiny fc1 d weight", BACKWARD_WEIGHT, TOKENS, 384, 96},
                                   {"head", FORWARD, 512, 2048, 2048}};
static const Shape GPU_SHAPES[] = {{"ViT-S qkv", FORWARD, GPU_TOKENS, 1152, 384},
                                   {"ViT-S fc1", FORWARD, GPU_TOKENS, 1536, 384},
                                   {"ViT-S fc2 d weight", BACKWARD_WEIGHT, GPU_TOKENS, 384, 1536},
                                   {"ViT-B fc1", FORWARD, GPU_TOKENS, 3072, 768},
                                   {"ViT-L qkv", FORWARD, GPU_TOKENS, 3072, 1024},
                                   {"ViT-L proj", FORWARD, GPU_TOKENS, 1024, 1024},
                                   {"ViT-L fc1", FORWARD, GPU_TOKENS, 4096, 1024},
                                   {"ViT-L fc2", FORWARD, GPU_TOKENS, 1024, 4096},
                                   {"ViT-L fc1 d input", BACKWARD_INPUT, GPU_TOKENS, 4096, 1024},
                                   {"ViT-L fc1 d weight", BACKWARD_WEIGHT, GPU_TOKENS, 4096, 1024},
                                   {"ViT-L fc2 d weight", BACKWARD_WEIGHT, GPU_TOKENS, 1024, 4096},
                                   {"head", FORWARD, TOKENS, 2048, 2048}};

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static const Sizes CPU_SIZES = {.large = {"product", FORWARD, 2048, 2048, 2048},
                                .shapes = CPU_SHAPES,
                                .shape_count = COUNT_OF(CPU_SHAPES),
                                .largest = TOKENS * 2048,
                                .copy_bytes = (size_t)64 << 20 /* twice what the caches hold */};
static const Sizes GPU_SIZES = {.large = {"product", FORWARD, 8192, 8192, 8192},
                                .shapes = GPU_SHAPES,
                                .shape_count = COUNT_OF(GPU_SHAPES),
                                .largest = (int64_t)GPU_TOKENS * 4096,
                                .copy_bytes = (size_t)GPU_TOKENS * 4096 * sizeof(float)};
static const Shape QUICK_SHAPES[] = {{"qkv", FORWARD, 48, 96, 32},
                                     {"fc1 d input", BACKWARD_INPUT, 48, 64, 32},
                                     {"fc1 d weight", BACKWARD_WEIGHT, 48, 64, 32}};
static const Sizes QUICK_SIZES = {.large = {"product", FORWARD, 64, 64, 64},
                                  .shapes = QUICK_SHAPES,
                                  .shape_count = COUNT_OF(QUICK_SHAPES),
                                  .largest = 64 * 96,
                                  .copy_bytes = 64 * 96 * sizeof(float)};

typedef struct {
    const Ops *ops;
    Direction direction;
    Tensor y, x, w;
} Product;

static void multiply(void *context)
{
    const Product *p = context;
    if (p->direction == FORWARD)
        p->ops->linear_forward(p->ops, p->y, p->x, p->w, tensor_none());
    else if (p->direction == BACKWARD_INPUT)
        p->ops->linear_backward_input(p->ops, p->x, p->y, p->w);
    else
        p->ops->linear_backward_weight(p->ops, p->w, tensor_none(), p->y, p->x);
}

/* `weights`: the type of the matrix; a gradient of weights is fp32 whatever it is. */
static void measure_product(BenchRows *rows, const Ops *ops, Arena *arena, const Shape *s, Dtype activations,
                            Dtype weights, double seconds)
{
    Dtype reduced = activations != DTYPE_F32 ? activations : weights;
    if (s->direction == BACKWARD_WEIGHT) weights = DTYPE_F32, reduced = activations;
    arena_reset(arena, ARENA_START);
    Product p = {.ops = ops,
                 .direction = s->direction,
                 .y = bench_operands_2d(ops, arena, activations, s->n, s->m, 1.0),
                 .x = bench_operands_2d(ops, arena, activations, s->n, s->k, 1.0),
                 .w = bench_operands_2d(ops, arena, weights, s->m, s->k, 0.02)};
    BenchTask task = {.context = &p, .work = multiply, .device = ops->device};
    BenchTimes times = bench_timer_run(&task, seconds, 3);
    bench_rows_add(rows, SECTION, bench_rows_flops(reduced), 2.0 * (double)s->n * (double)s->m * (double)s->k,
                   times, "%s %lldx%lldx%lld %s%s", s->name, (long long)s->n, (long long)s->m,
                   (long long)s->k, dtype_name(reduced), reduced != activations ? " weights" : "");
}

/* A CPU takes fp32 activations with bf16 weights as well. */
static void measure_products_cpu(BenchRows *rows, const MachineLimitsParams *params, const Sizes *sizes,
                                 const Ops *ops, Arena *arena)
{
    bool bf16 = machine_limits_has_bf16();
    measure_product(rows, ops, arena, &sizes->large, DTYPE_F32, DTYPE_F32, params->seconds);
    bench_rows_take_limit(rows);
    if (bf16) {
        measure_product(rows, ops, arena, &sizes->large, DTYPE_BF16, DTYPE_BF16, params->seconds);
        bench_rows_take_limit(rows);
        measure_product(rows, ops, arena, &sizes->large, DTYPE_F32, DTYPE_BF16, params->seconds);
    }
    for (size_t i = 0; params->shapes && i < sizes->shape_count; i++) {
        const Shape *shape = &sizes->shapes[i];
        measure_product(rows, ops, arena, shape, DTYPE_F32, DTYPE_F32, params->seconds);
        if (!bf16) continue;
        Dtype activations = shape->direction == BACKWARD_WEIGHT ? DTYPE_BF16 : DTYPE_F32;
        measure_product(rows, ops, arena, shape, activations, DTYPE_BF16, params->seconds);
    }
}

static void measure_products_gpu(BenchRows *rows, const MachineLimitsParams *params, const Sizes *sizes,
                                 const Ops *ops, Arena *arena)
{
    static const Dtype TYPES[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
        measure_product(rows, ops, arena, &sizes->large, TYPES[i], TYPES[i], params->seconds);
        bench_rows_take_limit(rows);
    }
    for (size_t i = 0; params->shapes && i < sizes->shape_count; i++)
        measure_product(rows, ops, arena, &sizes->shapes[i], DTYPE_BF16, DTYPE_BF16, params->seconds);
}

/* --- copies ------------------------------------------------------------------------------------------- */

typedef struct {
    char *to;
    const char *from;
    size_t bytes;
    int threads;
    bool streaming;
} Copy;

/* Stores that pass the caches, where the processor has them; memcpy elsewhere. */
static void copy_streaming(char *to, const char *from, size_t bytes)
{
#ifdef __SSE2__
    __m128i *out = (__m128i *)(void *)to;
    const __m128i *in = (const __m128i *)(const void *)from;
    for (size_t i = 0; i < bytes / sizeof *out; i++)
        _mm_stream_si128(out + i, _mm_load_si128(in + i));
    _mm_sfence();
#else
    memcpy(to, from, bytes);
#endif
}

static void copy_all(void *context)
{
    const Copy *c = context;
    size_t part = c->bytes / (size_t)c->threads / 64 * 64;
#pragma omp parallel for num_threads(c->threads) schedule(static)
    for (int i = 0; i < c->threads; i++) {
        size_t at = (size_t)i * part;
        if (c->streaming)
            copy_streaming(c->to + at, c->from + at, part);
        else
            memcpy(c->to + at, c->from + at, part);
    }
}

static void measure_copies_cpu(BenchRows *rows, const MachineLimitsParams *params, size_t bytes)
{
    char *to = memory_alloc(bytes), *from = memory_alloc(bytes);
    memset(from, 1, bytes);
    for (int all = 1; all >= 0; all--) {
        int threads = all ? params->threads : 1;
        if (!all && (params->threads == 1 || !params->shapes)) break;
        for (int streaming = 0; streaming < 2; streaming++) {
            Copy copy = {to, from, bytes, threads, streaming != 0};
            BenchTask task = {.context = &copy, .work = copy_all};
            BenchTimes times = bench_timer_run(&task, params->seconds, 3);
            size_t part = bytes / (size_t)threads / 64 * 64;
            bench_rows_add(rows, SECTION, BENCH_BYTES, 2.0 * (double)part * threads, times,
                           "copy, %s, %d thread%s", streaming ? "streaming stores" : "memcpy", threads,
                           threads > 1 ? "s" : "");
            bench_rows_take_limit(rows);
        }
    }
    memory_free(to);
    memory_free(from);
}

typedef struct {
    Device *device;
    void *to, *from;
    size_t bytes;
} DeviceCopy;

static void copy_within(void *context)
{
    const DeviceCopy *c = context;
    device_copy(c->device, c->to, c->from, c->bytes);
}

static void copy_over(void *context)
{
    const DeviceCopy *c = context;
    device_upload(c->device, c->to, c->from, c->bytes);
}

/* Within the device's memory; and from the host's, which only says what a batch of pictures costs. */
static void measure_copies_gpu(BenchRows *rows, const MachineLimitsParams *params, size_t bytes,
                               const Ops *ops, Arena *arena)
{
    int64_t n = (int64_t)(bytes / sizeof(float)), over = n / 8;
    arena_reset(arena, ARENA_START);
    DeviceCopy copy = {.device = params->device, .bytes = bytes};
    copy.from = bench_operands_1d(ops, arena, n, 1.0).data;
    copy.to = arena_alloc(arena, bytes);
    BenchTask task = {.context = &copy, .work = copy_within, .device = params->device};
    bench_rows_add(rows, SECTION, BENCH_BYTES, 2.0 * (double)bytes,
                   bench_timer_run(&task, params->seconds, 3), "copy within device memory, %.0f MiB",
                   (double)bytes / 1048576.0);
    bench_rows_take_limit(rows);
    copy.bytes = (size_t)over * sizeof(float);
    copy.from = device_alloc_host(params->device, copy.bytes);
    bench_operands_fill(copy.from, over, 1.0);
    task.work = copy_over;
    bench_rows_add(rows, SECTION, BENCH_BYTES, (double)copy.bytes, bench_timer_run(&task, params->seconds, 3),
                   "upload of host memory, %.0f MiB", (double)copy.bytes / 1048576.0);
    device_free_host(params->device, copy.from);
}

void machine_limits_measure(BenchRows *rows, const MachineLimitsParams *params)
{
    bool gpu = device_kind(params->device) != DEVICE_CPU;
    const Sizes *sizes = params->quick ? &QUICK_SIZES : gpu ? &GPU_SIZES : &CPU_SIZES;
    int64_t large = sizes->large.n;
    OpsLimits limits = {.rows = gpu ? GPU_TOKENS : TOKENS,
                        .width = gpu && large < 4096 ? 4096 : large,
                        .max_seqlen = 1,
                        .head_dim = 64,
                        .heads = 1,
                        .segments = 1,
                        .reduced = gpu || machine_limits_has_bf16()};
    Ops *ops = ops_create(params->device, &limits, &(OpsOptions){.threads = params->threads});
    Arena plan = arena_measuring();
    arena_alloc(&plan, 3 * ((size_t)sizes->largest * sizeof(float) + ARENA_ALIGNMENT) + BENCH_OPERANDS_SPARE);
    Arena arena = device_arena_create(params->device, &plan);
    if (gpu) {
        measure_products_gpu(rows, params, sizes, ops, &arena);
        measure_copies_gpu(rows, params, sizes->copy_bytes, ops, &arena);
    } else {
        measure_products_cpu(rows, params, sizes, ops, &arena);
        measure_copies_cpu(rows, params, sizes->copy_bytes);
    }
    device_arena_destroy(params->device, &arena);
    ops_destroy(ops);
}
