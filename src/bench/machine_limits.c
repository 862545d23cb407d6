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

enum { LARGE = 2048, TOKENS = 4096, LARGEST = TOKENS * LARGE };

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
    if (s->direction == BACKWARD_WEIGHT) weights = DTYPE_F32;
    bool bf16 = activations == DTYPE_BF16 || weights == DTYPE_BF16;
    arena_reset(arena, ARENA_START);
    Product p = {.ops = ops,
                 .direction = s->direction,
                 .y = bench_operands_2d(arena, activations, s->n, s->m, 1.0),
                 .x = bench_operands_2d(arena, activations, s->n, s->k, 1.0),
                 .w = bench_operands_2d(arena, weights, s->m, s->k, 0.02)};
    BenchTask task = {.context = &p, .work = multiply};
    BenchTimes times = bench_timer_run(&task, seconds, 3);
    const char *types = !bf16 ? "fp32" : activations == DTYPE_BF16 ? "bf16" : "bf16 weights";
    bench_rows_add(rows, SECTION, bf16 ? BENCH_FLOPS_BF16 : BENCH_FLOPS_FP32,
                   2.0 * (double)s->n * (double)s->m * (double)s->k, times, "%s %lldx%lldx%lld %s", s->name,
                   (long long)s->n, (long long)s->m, (long long)s->k, types);
}

static void measure_products(BenchRows *rows, const MachineLimitsParams *params, const Ops *ops)
{
    static const Shape large = {"product", FORWARD, LARGE, LARGE, LARGE};
    static const Shape shapes[] = {{"ViT-S qkv", FORWARD, TOKENS, 1152, 384},
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
    Arena arena = arena_create(3 * (size_t)LARGEST * sizeof(float));
    bool bf16 = machine_limits_has_bf16();
    measure_product(rows, ops, &arena, &large, DTYPE_F32, DTYPE_F32, params->seconds);
    bench_rows_take_limit(rows);
    if (bf16) {
        measure_product(rows, ops, &arena, &large, DTYPE_BF16, DTYPE_BF16, params->seconds);
        bench_rows_take_limit(rows);
        measure_product(rows, ops, &arena, &large, DTYPE_F32, DTYPE_BF16, params->seconds);
    }
    for (size_t i = 0; params->shapes && i < sizeof shapes / sizeof *shapes; i++) {
        measure_product(rows, ops, &arena, &shapes[i], DTYPE_F32, DTYPE_F32, params->seconds);
        if (!bf16) continue;
        Dtype activations = shapes[i].direction == BACKWARD_WEIGHT ? DTYPE_BF16 : DTYPE_F32;
        measure_product(rows, ops, &arena, &shapes[i], activations, DTYPE_BF16, params->seconds);
    }
    arena_destroy(&arena);
}

/* --- copies ------------------------------------------------------------------------------------------- */

enum { COPY_BYTES = 64 << 20 }; /* each way: twice what the caches hold */

typedef struct {
    char *to;
    const char *from;
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
    size_t part = COPY_BYTES / (size_t)c->threads / 64 * 64;
#pragma omp parallel for num_threads(c->threads) schedule(static)
    for (int i = 0; i < c->threads; i++) {
        size_t at = (size_t)i * part;
        if (c->streaming)
            copy_streaming(c->to + at, c->from + at, part);
        else
            memcpy(c->to + at, c->from + at, part);
    }
}

static void measure_copies(BenchRows *rows, const MachineLimitsParams *params)
{
    char *to = memory_alloc(COPY_BYTES), *from = memory_alloc(COPY_BYTES);
    memset(from, 1, COPY_BYTES);
    for (int all = 1; all >= 0; all--) {
        int threads = all ? params->threads : 1;
        if (!all && (params->threads == 1 || !params->shapes)) break;
        for (int streaming = 0; streaming < 2; streaming++) {
            Copy copy = {to, from, threads, streaming != 0};
            BenchTask task = {.context = &copy, .work = copy_all};
            BenchTimes times = bench_timer_run(&task, params->seconds, 3);
            size_t part = COPY_BYTES / (size_t)threads / 64 * 64;
            bench_rows_add(rows, SECTION, BENCH_BYTES, 2.0 * (double)part * threads, times,
                           "copy, %s, %d thread%s", streaming ? "streaming stores" : "memcpy", threads,
                           threads > 1 ? "s" : "");
            bench_rows_take_limit(rows);
        }
    }
    memory_free(to);
    memory_free(from);
}

void machine_limits_measure(BenchRows *rows, const MachineLimitsParams *params)
{
    OpsLimits limits = {.rows = TOKENS,
                        .width = LARGE,
                        .max_seqlen = 1,
                        .head_dim = 64,
                        .reduced = machine_limits_has_bf16()};
    Device *device = device_open_host();
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = params->threads});
    measure_products(rows, params, ops);
    measure_copies(rows, params);
    ops_destroy(ops);
    device_close(device);
}
