/* ops_support.c - random and poisoned tensors, fp64 copies, errors. */
#include "ops_support.h"

#include "base/check.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

/* Room for tensors, taken from the system page by page as they are used: a fixture costs little. */
static const size_t ROOM = (size_t)1 << 30;

Ops *ops_support_open(const OpsLimits *limits, int threads)
{
    return ops_create(device_open_host(), limits, &(OpsOptions){.threads = threads});
}

void ops_support_close(Ops *ops)
{
    Device *device = ops->device;
    ops_destroy(ops);
    device_close(device);
}

OpsFixture ops_support_create(int threads, uint64_t seed)
{
    OpsLimits limits = {.rows = 4096,
                        .width = 4096,
                        .max_seqlen = 1500,
                        .head_dim = 256,
                        .prototypes = 4096,
                        .bottleneck = 256,
                        .group_rows = 256,
                        .reduced = true};
    void *room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
    return (OpsFixture){.ops = ops_support_open(&limits, threads),
                        .arena = {.base = room, .capacity = ROOM},
                        .rng = rng_at(seed, RNG_TEST, 0, 0)};
}

void ops_support_destroy(OpsFixture *fixture)
{
    ops_support_close(fixture->ops);
    munmap(fixture->arena.base, ROOM);
    *fixture = (OpsFixture){0};
}

static Tensor allocate(OpsFixture *fixture, Dtype dtype, int ndim, int64_t rows, int64_t columns)
{
    if (ndim == 1) return tensor_alloc_1d(&fixture->arena, dtype, rows);
    return tensor_alloc_2d(&fixture->arena, dtype, rows, columns);
}

static Tensor fill_normal(OpsFixture *fixture, Tensor t, double std)
{
    for (int64_t i = 0; i < tensor_count(t); i++)
        ops_support_set(t, i, std * rng_normal(&fixture->rng));
    return t;
}

Tensor ops_support_normal(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns, double std)
{
    return fill_normal(fixture, allocate(fixture, dtype, 2, rows, columns), std);
}

Tensor ops_support_normal_1d(OpsFixture *fixture, Dtype dtype, int64_t n, double std)
{
    return fill_normal(fixture, allocate(fixture, dtype, 1, n, 0), std);
}

static Tensor fill_byte(Tensor t, int byte)
{
    memset(t.data, byte, tensor_bytes(t));
    return t;
}

Tensor ops_support_poison(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns)
{
    return fill_byte(allocate(fixture, dtype, 2, rows, columns), 0xff);
}

Tensor ops_support_poison_1d(OpsFixture *fixture, Dtype dtype, int64_t n)
{
    return fill_byte(allocate(fixture, dtype, 1, n, 0), 0xff);
}

Tensor ops_support_zeros(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns)
{
    return fill_byte(allocate(fixture, dtype, 2, rows, columns), 0);
}

Tensor ops_support_copy(OpsFixture *fixture, Tensor source, Dtype dtype)
{
    Tensor copy = source;
    copy.dtype = dtype;
    copy.data = arena_alloc(&fixture->arena, tensor_bytes(copy));
    if (dtype == source.dtype) {
        memcpy(copy.data, source.data, tensor_bytes(source));
        return copy;
    }
    for (int64_t i = 0; i < tensor_count(source); i++)
        ops_support_set(copy, i, ops_support_get(source, i));
    return copy;
}

Tensor ops_support_i32(OpsFixture *fixture, int64_t n, const int32_t *values)
{
    Tensor t = allocate(fixture, DTYPE_I32, 1, n, 0);
    if (n > 0) memcpy(t.data, values, tensor_bytes(t));
    return t;
}

Tensor ops_support_distinct(OpsFixture *fixture, int64_t n, int64_t total)
{
    CHECK(n <= total);
    Tensor t = allocate(fixture, DTYPE_I32, 1, total, 0);
    rng_permutation(&fixture->rng, tensor_i32(t), total);
    t.shape[0] = n;
    return t;
}

double *ops_support_f64_zeros(OpsFixture *fixture, int64_t n)
{
    double *out = arena_alloc(&fixture->arena, (size_t)n * sizeof *out);
    memset(out, 0, (size_t)n * sizeof *out);
    return out;
}

double *ops_support_f64(OpsFixture *fixture, Tensor source)
{
    double *out = ops_support_f64_zeros(fixture, tensor_count(source));
    for (int64_t i = 0; i < tensor_count(source); i++)
        out[i] = ops_support_get(source, i);
    return out;
}

double ops_support_get(Tensor t, int64_t index)
{
    switch (t.dtype) {
    case DTYPE_F32:
        return ((const float *)t.data)[index];
    case DTYPE_BF16:
        return dtype_f32_from_bf16(((const uint16_t *)t.data)[index]);
    case DTYPE_I32:
        return ((const int32_t *)t.data)[index];
    case DTYPE_U8:
        return ((const uint8_t *)t.data)[index];
    default:
        CHECK(!"an element type that operations use");
        return NAN;
    }
}

void ops_support_set(Tensor t, int64_t index, double value)
{
    CHECK(t.dtype == DTYPE_F32 || t.dtype == DTYPE_BF16);
    if (t.dtype == DTYPE_F32)
        ((float *)t.data)[index] = (float)value;
    else
        ((uint16_t *)t.data)[index] = dtype_bf16_from_f32((float)value);
}

double ops_support_error(Tensor got, const double *want)
{
    double worst = 0.0, largest = 0.0;
    for (int64_t i = 0; i < tensor_count(got); i++) {
        double difference = fabs(ops_support_get(got, i) - want[i]);
        if (!(difference <= 1e300)) return INFINITY;
        worst = fmax(worst, difference);
        largest = fmax(largest, fabs(want[i]));
    }
    return largest > 0.0 ? worst / largest : worst;
}

double ops_support_dot(Tensor a, const double *b)
{
    double sum = 0.0;
    for (int64_t i = 0; i < tensor_count(a); i++)
        sum += ops_support_get(a, i) * b[i];
    return sum;
}

bool ops_support_equal(Tensor a, Tensor b)
{
    return a.dtype == b.dtype && tensor_count(a) == tensor_count(b) &&
           memcmp(a.data, b.data, tensor_bytes(a)) == 0;
}
