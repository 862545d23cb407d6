/* gemm.c - oneDNN matmul primitives, cached by shape.
 *
 * Source: oneDNN 2.x C API (dnnl_matmul_desc_init). Creating a primitive generates code (0.2 ms, 60 to 90
 * kB), so the cache holds far more than the shapes of one training step; sizes that differ each step (masked
 * patches) replace each other by age.
 */
#include "ops/cpu/gemm.h"

#include "base/check.h"
#include "base/memory.h"

#include <dnnl.h>
#include <omp.h>
#include <string.h>

typedef struct {
    int64_t m, n, k;
    int32_t flags; /* a_transposed, b_transposed, bf16 operands, bf16 c, bias, accumulate: one bit each */
    int32_t used;  /* 0: the entry is empty */
} GemmKey;

typedef struct {
    GemmKey key;
    uint64_t last_use;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, bias, c; /* without data: each call sets its own */
} GemmEntry;

enum { GEMM_SETS = 64, GEMM_WAYS = 8 };

struct Gemm {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    bool has_bf16;
    uint64_t clock;
    GemmEntry entries[GEMM_SETS][GEMM_WAYS];
};

/* A failure of the library on shapes that we made is our bug. */
static void require(dnnl_status_t status)
{
    CHECK(status == dnnl_success);
}

Gemm *gemm_create(int threads)
{
    Gemm *gemm = memory_alloc(sizeof *gemm);
    gemm->threads = threads;
    require(dnnl_engine_create(&gemm->engine, dnnl_cpu, 0));
    require(dnnl_stream_create(&gemm->stream, gemm->engine, dnnl_stream_default_flags));
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(); /* a set of bits: newer ones contain older ones */
    gemm->has_bf16 = (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
    return gemm;
}

static void entry_clear(GemmEntry *entry)
{
    if (!entry->key.used) return;
    require(dnnl_primitive_destroy(entry->primitive));
    require(dnnl_memory_destroy(entry->a));
    require(dnnl_memory_destroy(entry->b));
    require(dnnl_memory_destroy(entry->c));
    if (entry->bias) require(dnnl_memory_destroy(entry->bias));
    *entry = (GemmEntry){0};
}

void gemm_destroy(Gemm *gemm)
{
    for (int set = 0; set < GEMM_SETS; set++)
        for (int way = 0; way < GEMM_WAYS; way++)
            entry_clear(&gemm->entries[set][way]);
    require(dnnl_stream_destroy(gemm->stream));
    require(dnnl_engine_destroy(gemm->engine));
    memory_free(gemm);
}

bool gemm_has_bf16(const Gemm *gemm)
{
    return gemm->has_bf16;
}

static dnnl_memory_desc_t describe(int64_t rows, int64_t columns, Dtype dtype, bool transposed)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t dims = {rows, columns};
    require(dnnl_memory_desc_init_by_tag(&desc, 2, dims, dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32,
                                         transposed ? dnnl_ba : dnnl_ab));
    return desc;
}

static dnnl_memory_t memory_of(const Gemm *gemm, const dnnl_memory_desc_t *desc)
{
    dnnl_memory_t memory;
    require(dnnl_memory_create(&memory, desc, gemm->engine, DNNL_MEMORY_NONE));
    return memory;
}

static void entry_make(const Gemm *gemm, GemmEntry *entry, const GemmProduct *p)
{
    dnnl_memory_desc_t a = describe(p->m, p->k, p->dtype, p->a_transposed);
    dnnl_memory_desc_t b = describe(p->k, p->n, p->dtype, p->b_transposed);
    dnnl_memory_desc_t c = describe(p->m, p->n, p->c_dtype, false);
    dnnl_memory_desc_t bias = describe(1, p->n, DTYPE_F32, false);

    dnnl_matmul_desc_t matmul;
    require(dnnl_matmul_desc_init(&matmul, &a, &b, p->bias ? &bias : NULL, &c));
    dnnl_post_ops_t post_ops;
    dnnl_primitive_attr_t attributes;
    require(dnnl_post_ops_create(&post_ops));
    require(dnnl_primitive_attr_create(&attributes));
    if (p->accumulate) require(dnnl_post_ops_append_sum(post_ops, 1.0f));
    require(dnnl_primitive_attr_set_post_ops(attributes, post_ops));

    dnnl_primitive_desc_t primitive;
    require(dnnl_primitive_desc_create(&primitive, &matmul, attributes, gemm->engine, NULL));
    require(dnnl_primitive_create(&entry->primitive, primitive));
    require(dnnl_primitive_desc_destroy(primitive));
    require(dnnl_primitive_attr_destroy(attributes));
    require(dnnl_post_ops_destroy(post_ops));

    entry->a = memory_of(gemm, &a);
    entry->b = memory_of(gemm, &b);
    entry->c = memory_of(gemm, &c);
    if (p->bias) entry->bias = memory_of(gemm, &bias);
}

static GemmKey key_of(const GemmProduct *p)
{
    int32_t flags = p->a_transposed | p->b_transposed << 1 | (p->dtype == DTYPE_BF16) << 2 |
                    (p->c_dtype == DTYPE_BF16) << 3 | (p->bias != NULL) << 4 | p->accumulate << 5;
    return (GemmKey){.m = p->m, .n = p->n, .k = p->k, .flags = flags, .used = 1};
}

/* The entry of this shape, made where it is missing in place of the one unused for longest. */
static GemmEntry *entry_find(Gemm *gemm, const GemmProduct *p)
{
    GemmKey key = key_of(p);
    uint64_t hash = (uint64_t)key.m * 0x9e3779b97f4a7c15u ^ (uint64_t)key.n * 0xc2b2ae3d27d4eb4fu ^
                    (uint64_t)key.k * 0x165667b19e3779f9u ^ (uint64_t)key.flags * 0xd6e8feb86659fd93u;
    GemmEntry *set = gemm->entries[(hash >> 32) % GEMM_SETS];
    GemmEntry *oldest = &set[0];
    gemm->clock++;
    for (int way = 0; way < GEMM_WAYS; way++) {
        if (memcmp(&set[way].key, &key, sizeof key) == 0) {
            set[way].last_use = gemm->clock;
            return &set[way];
        }
        if (set[way].last_use < oldest->last_use) oldest = &set[way];
    }
    entry_clear(oldest);
    entry_make(gemm, oldest, p);
    oldest->key = key;
    oldest->last_use = gemm->clock;
    return oldest;
}

/* The library takes its inputs as non-const but does not write them. */
static void point_at(dnnl_memory_t memory, const void *data)
{
    void *address;
    memcpy(&address, &data, sizeof address);
    require(dnnl_memory_set_data_handle(memory, address));
}

void gemm_run(Gemm *gemm, const GemmProduct *product)
{
    CHECK(product->dtype == DTYPE_F32 || (product->dtype == DTYPE_BF16 && gemm->has_bf16));
    CHECK(!product->accumulate || (product->c_dtype == DTYPE_F32 && !product->bias));
    if (product->m == 0 || product->n == 0) return;
    if (product->k == 0 && product->accumulate) return;
    CHECK(product->k > 0);

    /* The OpenMP setting belongs to the calling thread, which need not be the one that made `gemm`. */
    if (omp_get_max_threads() != gemm->threads) omp_set_num_threads(gemm->threads);
    GemmEntry *entry = entry_find(gemm, product);
    point_at(entry->a, product->a);
    point_at(entry->b, product->b);
    point_at(entry->c, product->c);
    dnnl_exec_arg_t arguments[4] = {
        {DNNL_ARG_SRC, entry->a}, {DNNL_ARG_WEIGHTS, entry->b}, {DNNL_ARG_DST, entry->c}};
    int count = 3;
    if (product->bias) {
        point_at(entry->bias, product->bias);
        arguments[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, entry->bias};
    }
    require(dnnl_primitive_execute(entry->primitive, gemm->stream, count, arguments));
}
