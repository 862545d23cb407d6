/* twin_support.c - operands on both sides, and their differences. */
#include "twin_support.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef _Float16 Half;

bool twin_available(void)
{
    return device_gpu_count() > 0;
}

static Device *open_gpu(void)
{
    Device *device;
    Error error = {0};
    CHECK(device_open(&device, DEVICE_CUDA, 0, &error) == STATUS_OK);
    return device;
}

bool twin_is_emulated(void)
{
    Device *device = open_gpu();
    bool emulated = strstr(device_name(device), "emulated") != NULL;
    device_close(device);
    return emulated;
}

bool twin_offers_sm90(void)
{
    if (twin_is_emulated()) CHECK(setenv("EMULATOR_ARCHITECTURE", "90", 1) == 0);
    Device *device = open_gpu();
    bool offers = device_architecture(device) == 90;
    device_close(device);
    return offers;
}

static OpsLimits complete(const OpsLimits *given)
{
    OpsLimits limits = given ? *given : (OpsLimits){0};
    if (!limits.rows) limits.rows = 4096;
    if (!limits.width) limits.width = 1536;
    if (!limits.max_seqlen) limits.max_seqlen = 1500;
    if (!limits.head_dim) limits.head_dim = 128;
    if (!limits.heads) limits.heads = 8;
    if (!limits.prototypes) limits.prototypes = 1024;
    if (!limits.bottleneck) limits.bottleneck = 256;
    if (!limits.group_rows) limits.group_rows = 256;
    if (!limits.segments) limits.segments = 64;
    if (!limits.conv_columns) limits.conv_columns = 1536;
    limits.reduced = true;
    return limits;
}

Twin *twin_create(const OpsLimits *limits, uint64_t seed)
{
    return twin_create_with(limits, &(OpsOptions){0}, seed);
}

Twin *twin_create_with(const OpsLimits *limits, const OpsOptions *options, uint64_t seed)
{
    Twin *twin = memory_alloc(sizeof *twin);
    twin->host_device = device_open_host();
    twin->cuda_device = open_gpu();
    twin->limits = complete(limits);
    twin->cpu = ops_create(twin->host_device, &twin->limits, options);
    twin->cuda = ops_create(twin->cuda_device, &twin->limits, options);
    twin->comm = comm_self_create();
    twin->rng = rng_at(seed, RNG_TEST, 0, 0);
    twin_poison_scratch(twin);
    return twin;
}

void twin_destroy(Twin *twin)
{
    if (!twin) return;
    device_finish(twin->cuda_device);
    for (int i = 0; i < twin->block_count; i++) {
        memory_free(twin->blocks[i]);
        device_free(twin->cuda_device, twin->device_blocks[i]);
    }
    memory_free(twin->blocks);
    memory_free(twin->device_blocks);
    comm_destroy(twin->comm);
    ops_destroy(twin->cuda);
    ops_destroy(twin->cpu);
    device_close(twin->cuda_device);
    device_close(twin->host_device);
    memory_free(twin);
}

/* One piece from the host, then what is filled is copied behind itself. */
void twin_poison_scratch(Twin *twin)
{
    Arena *scratch = twin->cuda->scratch;
    char block[1 << 12];
    memset(block, 0xff, sizeof block);
    size_t done = scratch->capacity < sizeof block ? scratch->capacity : sizeof block;
    device_upload(twin->cuda_device, scratch->base, block, done);
    while (done < scratch->capacity) {
        size_t left = scratch->capacity - done, bytes = left < done ? left : done;
        device_copy(twin->cuda_device, scratch->base + done, scratch->base, bytes);
        done += bytes;
    }
}

/* --- operands ---------------------------------------------------------------------------------------- */

static void keep(Twin *twin, void *host, void *device)
{
    if (twin->block_count == twin->block_capacity) {
        int capacity = twin->block_capacity ? 2 * twin->block_capacity : 64;
        size_t old_bytes = (size_t)twin->block_count * sizeof(void *);
        size_t new_bytes = (size_t)capacity * sizeof(void *);
        twin->blocks = memory_grow(twin->blocks, old_bytes, new_bytes);
        twin->device_blocks = memory_grow(twin->device_blocks, old_bytes, new_bytes);
        twin->block_capacity = capacity;
    }
    twin->blocks[twin->block_count] = host;
    twin->device_blocks[twin->block_count++] = device;
}

static TwinTensor allocate(Twin *twin, Dtype dtype, int ndim, const int64_t *shape)
{
    TwinTensor t;
    t.host = tensor_view(NULL, dtype == DTYPE_F16 ? DTYPE_F32 : dtype, ndim, shape);
    t.device = tensor_view(NULL, dtype, ndim, shape);
    t.host.data = t.device.data = twin; /* given, so that they have a size */
    size_t host_bytes = tensor_bytes(t.host), device_bytes = tensor_bytes(t.device);
    t.host.data = memory_alloc(host_bytes);
    t.device.data = device_alloc(twin->cuda_device, device_bytes);
    keep(twin, t.host.data, t.device.data);
    return t;
}

static TwinTensor allocate_2d(Twin *twin, Dtype dtype, int64_t rows, int64_t columns)
{
    return allocate(twin, dtype, 2, (int64_t[]){rows, columns});
}

static TwinTensor allocate_1d(Twin *twin, Dtype dtype, int64_t n)
{
    return allocate(twin, dtype, 1, &n);
}

static TwinTensor fill_normal(Twin *twin, TwinTensor t, double std)
{
    for (int64_t i = 0; i < tensor_count(t.host); i++)
        twin_set(t, i, std * rng_normal(&twin->rng));
    twin_upload(twin, t);
    return t;
}

static TwinTensor fill_uniform(Twin *twin, TwinTensor t, double low, double high)
{
    for (int64_t i = 0; i < tensor_count(t.host); i++)
        twin_set(t, i, rng_uniform(&twin->rng, low, high));
    twin_upload(twin, t);
    return t;
}

static TwinTensor fill_byte(Twin *twin, TwinTensor t, int byte)
{
    memset(t.host.data, byte, tensor_bytes(t.host));
    twin_upload(twin, t);
    return t;
}

static TwinTensor fill_from(Twin *twin, TwinTensor t, const void *values)
{
    size_t bytes = tensor_bytes(t.host);
    if (bytes > 0) memcpy(t.host.data, values, bytes);
    twin_upload(twin, t);
    return t;
}

TwinTensor twin_normal(Twin *twin, Dtype dtype, int64_t rows, int64_t columns, double std)
{
    return fill_normal(twin, allocate_2d(twin, dtype, rows, columns), std);
}

TwinTensor twin_normal_1d(Twin *twin, Dtype dtype, int64_t n, double std)
{
    return fill_normal(twin, allocate_1d(twin, dtype, n), std);
}

TwinTensor twin_uniform(Twin *twin, Dtype dtype, int64_t rows, int64_t columns, double low, double high)
{
    return fill_uniform(twin, allocate_2d(twin, dtype, rows, columns), low, high);
}

TwinTensor twin_uniform_1d(Twin *twin, Dtype dtype, int64_t n, double low, double high)
{
    return fill_uniform(twin, allocate_1d(twin, dtype, n), low, high);
}

TwinTensor twin_poison(Twin *twin, Dtype dtype, int64_t rows, int64_t columns)
{
    return fill_byte(twin, allocate_2d(twin, dtype, rows, columns), 0xff);
}

TwinTensor twin_poison_1d(Twin *twin, Dtype dtype, int64_t n)
{
    return fill_byte(twin, allocate_1d(twin, dtype, n), 0xff);
}

TwinTensor twin_zeros(Twin *twin, Dtype dtype, int64_t rows, int64_t columns)
{
    return fill_byte(twin, allocate_2d(twin, dtype, rows, columns), 0);
}

TwinTensor twin_zeros_1d(Twin *twin, Dtype dtype, int64_t n)
{
    return fill_byte(twin, allocate_1d(twin, dtype, n), 0);
}

TwinTensor twin_i32(Twin *twin, int64_t n, const int32_t *values)
{
    return fill_from(twin, allocate_1d(twin, DTYPE_I32, n), values);
}

TwinTensor twin_i64(Twin *twin, int64_t rows, int64_t columns, const int64_t *values)
{
    return fill_from(twin, allocate_2d(twin, DTYPE_I64, rows, columns), values);
}

TwinTensor twin_u8(Twin *twin, int64_t n, const uint8_t *values)
{
    return fill_from(twin, allocate_1d(twin, DTYPE_U8, n), values);
}

TwinTensor twin_f64(Twin *twin, int64_t n, const double *values)
{
    return fill_from(twin, allocate_1d(twin, DTYPE_F64, n), values);
}

TwinTensor twin_f32(Twin *twin, int64_t n, const float *values)
{
    return fill_from(twin, allocate_1d(twin, DTYPE_F32, n), values);
}

TwinTensor twin_distinct(Twin *twin, int64_t n, int64_t total)
{
    CHECK(n <= total);
    int32_t *all = memory_alloc_array((size_t)total, sizeof *all);
    rng_permutation(&twin->rng, all, total);
    TwinTensor t = twin_i32(twin, n, all);
    memory_free(all);
    return t;
}

TwinTensor twin_integers(Twin *twin, int64_t n, int64_t low, int64_t high)
{
    TwinTensor t = allocate_1d(twin, DTYPE_I32, n);
    for (int64_t i = 0; i < n; i++)
        tensor_i32(t.host)[i] = (int32_t)rng_integer(&twin->rng, low, high);
    twin_upload(twin, t);
    return t;
}

TwinTensor twin_cast(Twin *twin, TwinTensor source, Dtype dtype)
{
    TwinTensor t = allocate(twin, dtype, source.host.ndim, source.host.shape);
    if (t.host.dtype == source.host.dtype && dtype == source.device.dtype)
        memcpy(t.host.data, source.host.data, tensor_bytes(source.host));
    else
        for (int64_t i = 0; i < tensor_count(source.host); i++)
            twin_set(t, i, twin_get(source, i));
    twin_upload(twin, t);
    return t;
}

TwinTensor twin_copy(Twin *twin, TwinTensor source)
{
    return twin_cast(twin, source, source.device.dtype);
}

TwinTensor twin_shaped(TwinTensor t, int ndim, const int64_t *shape)
{
    TwinTensor shaped;
    shaped.host = tensor_view(t.host.data, t.host.dtype, ndim, shape);
    shaped.device = tensor_view(t.device.data, t.device.dtype, ndim, shape);
    CHECK(tensor_count(shaped.host) == tensor_count(t.host));
    return shaped;
}

TwinTensor twin_rows(TwinTensor t, int64_t first, int64_t rows)
{
    return (TwinTensor){.host = tensor_rows(t.host, first, rows),
                        .device = tensor_rows(t.device, first, rows)};
}

/* --- values ------------------------------------------------------------------------------------------ */

static double get(const void *data, Dtype dtype, int64_t index)
{
    switch (dtype) {
    case DTYPE_F32:
        return ((const float *)data)[index];
    case DTYPE_BF16:
        return dtype_f32_from_bf16(((const uint16_t *)data)[index]);
    case DTYPE_F16:
        return (double)((const Half *)data)[index];
    case DTYPE_F64:
        return ((const double *)data)[index];
    case DTYPE_I32:
        return ((const int32_t *)data)[index];
    case DTYPE_I64:
        return (double)((const int64_t *)data)[index];
    case DTYPE_U8:
        return ((const uint8_t *)data)[index];
    default:
        CHECK(!"an element type");
        return NAN;
    }
}

double twin_get(TwinTensor t, int64_t index)
{
    return get(t.host.data, t.host.dtype, index);
}

void twin_set(TwinTensor t, int64_t index, double value)
{
    switch (t.device.dtype) {
    case DTYPE_F32:
        ((float *)t.host.data)[index] = (float)value;
        return;
    case DTYPE_BF16:
        ((uint16_t *)t.host.data)[index] = dtype_bf16_from_f32((float)value);
        return;
    case DTYPE_F16:
        ((float *)t.host.data)[index] = (float)(Half)(float)value;
        return;
    case DTYPE_F64:
        ((double *)t.host.data)[index] = value;
        return;
    case DTYPE_I32:
        ((int32_t *)t.host.data)[index] = (int32_t)value;
        return;
    default:
        CHECK(!"an element type that twin_set knows");
    }
}

void twin_upload(Twin *twin, TwinTensor t)
{
    if (t.device.dtype != DTYPE_F16) {
        device_upload(twin->cuda_device, t.device.data, t.host.data, tensor_bytes(t.device));
        return;
    }
    int64_t n = tensor_count(t.device);
    Half *halves = memory_alloc_array((size_t)n, sizeof *halves);
    uint32_t poison = UINT32_MAX;
    for (int64_t i = 0; i < n; i++) {
        halves[i] = (Half)((const float *)t.host.data)[i];
        if (memcmp((const float *)t.host.data + i, &poison, sizeof poison) == 0)
            memset(&halves[i], 0xff, sizeof halves[i]);
    }
    device_upload(twin->cuda_device, t.device.data, halves, (size_t)n * sizeof *halves);
    device_finish(twin->cuda_device);
    memory_free(halves);
}

static void *download(Twin *twin, Tensor t)
{
    void *bytes = memory_alloc(tensor_bytes(t));
    device_download(twin->cuda_device, bytes, t.data, tensor_bytes(t));
    device_finish(twin->cuda_device);
    return bytes;
}

double *twin_values(Twin *twin, TwinTensor t, TwinSide side)
{
    int64_t n = tensor_count(t.on[side]);
    double *values = memory_alloc_array((size_t)n, sizeof *values);
    void *bytes = side == TWIN_DEVICE ? download(twin, t.device) : t.host.data;
    for (int64_t i = 0; i < n; i++)
        values[i] = get(bytes, t.on[side].dtype, i);
    if (side == TWIN_DEVICE) memory_free(bytes);
    keep(twin, values, NULL);
    return values;
}

/* --- comparing --------------------------------------------------------------------------------------- */

/* True if two numbers are the same where one of them is not finite. */
static bool both_unusual(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static double largest_error(const double *got, const double *want, int64_t n)
{
    double worst = 0.0, largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i])) {
            if (!both_unusual(got[i], want[i])) return INFINITY;
            continue;
        }
        worst = fmax(worst, fabs(got[i] - want[i]));
        largest = fmax(largest, fabs(want[i]));
    }
    return largest > 0.0 ? worst / largest : worst;
}

double twin_error(Twin *twin, TwinTensor got)
{
    return twin_error_to(twin, got, twin_values(twin, got, TWIN_HOST));
}

double twin_error_to(Twin *twin, TwinTensor got, const double *want)
{
    return largest_error(twin_values(twin, got, TWIN_DEVICE), want, tensor_count(got.device));
}

double twin_rms_error(Twin *twin, TwinTensor got)
{
    const double *device = twin_values(twin, got, TWIN_DEVICE), *host = twin_values(twin, got, TWIN_HOST);
    double difference = 0.0, square = 0.0;
    for (int64_t i = 0; i < tensor_count(got.device); i++) {
        if (!isfinite(device[i]) || !isfinite(host[i])) {
            if (!both_unusual(device[i], host[i])) return INFINITY;
            continue;
        }
        difference += (device[i] - host[i]) * (device[i] - host[i]);
        square += host[i] * host[i];
    }
    return square > 0.0 ? sqrt(difference / square) : sqrt(difference);
}

bool twin_written(Twin *twin, TwinTensor got)
{
    const double *values = twin_values(twin, got, TWIN_DEVICE);
    bool whole = got.device.dtype == DTYPE_I32 || got.device.dtype == DTYPE_I64;
    for (int64_t i = 0; i < tensor_count(got.device); i++)
        if (isnan(values[i]) || (whole && values[i] == -1.0)) return false;
    return true;
}

bool twin_same_bits(Twin *twin, TwinTensor a, TwinTensor b)
{
    if (a.device.dtype != b.device.dtype || tensor_count(a.device) != tensor_count(b.device)) return false;
    void *first = download(twin, a.device), *second = download(twin, b.device);
    bool same = memcmp(first, second, tensor_bytes(a.device)) == 0;
    memory_free(first);
    memory_free(second);
    return same;
}

bool twin_equal(Twin *twin, TwinTensor t)
{
    if (t.host.dtype != t.device.dtype) return twin_error(twin, t) == 0.0;
    void *device = download(twin, t.device);
    bool same = memcmp(device, t.host.data, tensor_bytes(t.device)) == 0;
    memory_free(device);
    return same;
}
