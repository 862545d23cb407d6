/* case_comm_start.c - collectives that are started and waited for later, and sums of 16-bit numbers. Every
 * rank knows all ranks' numbers, so what must come out is computed beside: sums in rank order, to the bit.
 */
#include "base/memory.h"
#include "base/rng.h"
#include "comm/mpi/comm_mpi.h"
#include "mpi_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- numbers --- */

static double load(const void *buffer, Dtype dtype, int64_t i)
{
    if (dtype == DTYPE_F32) return (double)((const float *)buffer)[i];
    if (dtype == DTYPE_BF16) return (double)dtype_f32_from_bf16(((const uint16_t *)buffer)[i]);
    if (dtype == DTYPE_F16) return (double)dtype_f32_from_f16(((const uint16_t *)buffer)[i]);
    return ((const double *)buffer)[i];
}

static void store(void *buffer, Dtype dtype, int64_t i, double value)
{
    if (dtype == DTYPE_F32) ((float *)buffer)[i] = (float)value;
    if (dtype == DTYPE_F64) ((double *)buffer)[i] = value;
    if (dtype == DTYPE_BF16) ((uint16_t *)buffer)[i] = dtype_bf16_from_f32((float)value);
    if (dtype == DTYPE_F16) ((uint16_t *)buffer)[i] = dtype_f16_from_f32((float)value);
}

/* Numbers of all sizes of `rank` in collective `number`; one of them may be a NaN. */
static void fill(void *buffer, Dtype dtype, int64_t count, int rank, int number)
{
    Rng rng = rng_at(11, RNG_TEST, (uint64_t)number, (uint64_t)rank);
    for (int64_t i = 0; i < count; i++)
        store(buffer, dtype, i, rng_normal(&rng) * pow(10, rng_uniform(&rng, -5, 3)));
    if (rank == number % 5 && count > 7) store(buffer, dtype, 7, (double)NAN);
}

/* The sum in rank order of numbers that lie `stride` apart, in fp32 or fp64; *exact: in fp64. */
static double rank_order_sum(const char *all, Dtype dtype, int64_t i, int size, size_t stride, double *exact)
{
    double wide = load(all, dtype, i);
    float narrow = (float)wide;
    for (int r = 1; r < size; r++) {
        double next = load(all + (size_t)r * stride, dtype, i);
        wide += next;
        narrow += (float)next;
    }
    *exact = wide;
    return dtype == DTYPE_F64 ? wide : (double)narrow;
}

/* Whether out[i] has the bits of the rank-order sum, rounded once, and is as near to the exact sum as that
 * allows: half a unit of a 16-bit number, and what fp32 loses. */
static bool is_sum(const char *all, const void *out, int64_t out_i, Dtype dtype, int64_t i, int size,
                   size_t stride)
{
    double exact, expected, result = load(out, dtype, out_i), largest = 0;
    char rounded[8] = {0};
    store(rounded, dtype, 0, rank_order_sum(all, dtype, i, size, stride, &exact));
    expected = load(rounded, dtype, 0);
    if (isnan(exact)) return isnan(result);
    for (int r = 0; r < size; r++)
        largest = fmax(largest, fabs(load(all + (size_t)r * stride, dtype, i)));
    double unit = dtype == DTYPE_BF16 ? 0x1p-9 : dtype == DTYPE_F16 ? 0x1p-12 : 0;
    double tolerance = unit * 2 * fabs(exact) + size * 0x1p-23 * largest + 0x1p-25;
    return result == expected && (isinf(result) || fabs(result - exact) <= tolerance);
}

/* --- one collective --- */

typedef struct {
    MpiCase *c;
    bool sums, in_place;
    int number;
    Dtype dtype;
    int64_t count;
    size_t bytes; /* of one rank's part */
    char *all, *in, *out,
        *origin; /* all: what every rank gives, one rank after the other; owned with origin */
    CommRequest request;
} Started;

static Started started_make(MpiCase *c, int number, bool sums, bool in_place, Dtype dtype, int64_t count)
{
    Started s = {
        .c = c, .sums = sums, .in_place = in_place, .number = number, .dtype = dtype, .count = count};
    size_t size = (size_t)c->size, give = 0;
    s.bytes = (size_t)count * dtype_size(dtype);
    give = sums ? s.bytes * size : s.bytes;
    s.all = memory_alloc(give * size + 8);
    for (int r = 0; r < c->size; r++)
        fill(s.all + (size_t)r * give, dtype, sums ? count * c->size : count, r, number);
    s.origin = memory_alloc(2 * s.bytes * size + 16);
    char *part = s.origin + (size_t)c->rank * s.bytes;
    char *beside = s.origin + s.bytes * size + 8;
    s.in = sums ? s.origin : in_place ? part : beside;
    s.out = !sums ? s.origin : in_place ? part : beside;
    memcpy(s.in, s.all + (size_t)c->rank * give, give);
    return s;
}

static void started_begin(Started *s)
{
    s->request = s->sums ? comm_reduce_scatter_start(s->c->comm, s->out, s->in, s->count, s->dtype, NULL)
                         : comm_all_gather_start(s->c->comm, s->out, s->in, s->count, s->dtype, NULL);
    EXPECT(s->c, s->request.number != 0);
}

static void started_end(Started *s)
{
    MpiCase *c = s->c;
    size_t size = (size_t)c->size, stride = s->bytes * size;
    comm_wait(c->comm, &s->request);
    EXPECT(c, s->request.number == 0);
    comm_wait(c->comm, &s->request);
    int64_t wrong = 0;
    for (int64_t i = 0; s->sums && i < s->count; i++)
        wrong += !is_sum(s->all, s->out, i, s->dtype, c->rank * s->count + i, c->size, stride);
    if (!s->sums) wrong = memcmp(s->out, s->all, stride) != 0;
    EXPECT(c, wrong == 0);
    /* What it only read is as it was. */
    if (s->sums && !s->in_place) EXPECT(c, memcmp(s->in, s->all + (size_t)c->rank * stride, stride) == 0);
    memory_free(s->all);
    memory_free(s->origin);
}

/* --- many of them --- */

static void all_reduce_between(MpiCase *c)
{
    int64_t sum = c->rank + 1;
    comm_all_reduce(c->comm, &sum, 1, DTYPE_I64, COMM_SUM, NULL);
    EXPECT(c, sum == (int64_t)c->size * (c->size + 1) / 2);
}

/* Eight under way, of sizes from nothing to `most`, with other collectives between; waited for in `order`
 * steps. */
static void many_under_way(MpiCase *c, int64_t most, int order)
{
    enum { MANY = 8 };
    const Dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F64, DTYPE_F16};
    const int64_t counts[MANY] = {most, 1, most / 3, 0, 33, most / 2 + 1, 3, most};
    Started s[MANY];
    for (int k = 0; k < MANY; k++) {
        s[k] = started_make(c, k + order, k % 3 != 1, (k + order) % 2, dtypes[(k + order) % 4], counts[k]);
        started_begin(&s[k]);
        if (k == 2) all_reduce_between(c);
        if (k == 5) comm_barrier(c->comm);
        comm_progress(c->comm);
    }
    Started blocking = started_make(c, 50, true, false, DTYPE_F32, most);
    started_begin(&blocking);
    started_end(&blocking);
    for (int k = 0; k < MANY; k++) {
        started_end(&s[(k * order + MANY - 1) % MANY]);
        if (k == 3) all_reduce_between(c);
    }
}

Status case_comm_start(MpiCase *c)
{
    comm_set_checking(c->comm, true);
    for (int order = 1; order < 8; order += 2)
        many_under_way(c, 1003, order);
    comm_mpi_set_piece(c->comm, 264);
    for (int order = 1; order < 8; order += 2)
        many_under_way(c, 2001, order);
    comm_set_checking(c->comm, false);
    comm_mpi_set_piece(c->comm, 100000);
    many_under_way(c, 150001, 5);
    return STATUS_OK;
}

/* As many as may be, twice, after room for them was made: nothing is allocated. */
Status case_comm_start_most(MpiCase *c)
{
    enum { COUNT = 5001, SUMS = 3 };
    float *memory = memory_alloc_array((size_t)COMM_UNDER_WAY_MAX * COUNT * (size_t)c->size, sizeof *memory);
    float *out = memory_alloc_array((size_t)SUMS * COUNT, sizeof *out);
    CommRequest requests[COMM_UNDER_WAY_MAX];
    comm_set_checking(c->comm, false);
    comm_mpi_set_piece(c->comm, 8000);
    comm_reserve(c->comm, COUNT * sizeof *memory * (size_t)c->size, SUMS);
    int64_t before = memory_allocation_count();
    for (int round = 0; round < 2; round++) {
        for (int k = 0; k < COMM_UNDER_WAY_MAX; k++) {
            float *all = memory + (int64_t)k * COUNT * c->size, *mine = all + c->rank * COUNT;
            bool sums = k % 11 == 5;
            for (int64_t i = 0; i < COUNT * (sums ? c->size : 1); i++)
                (sums ? all : mine)[i] = (float)(k + c->rank + round);
            requests[k] =
                sums ? comm_reduce_scatter_start(c->comm, out + k / 11 * COUNT, all, COUNT, DTYPE_F32, NULL)
                     : comm_all_gather_start(c->comm, all, mine, COUNT, DTYPE_F32, NULL);
        }
        for (int k = COMM_UNDER_WAY_MAX - 1; k >= 0; k--)
            comm_wait(c->comm, &requests[k]);
        for (int k = 0; k < COMM_UNDER_WAY_MAX; k++) {
            const float *all = memory + (int64_t)k * COUNT * c->size;
            int last = c->size - 1, total = c->size * (k + round) + c->size * last / 2;
            if (k % 11 == 5)
                EXPECT(c, out[(k / 11 + 1) * COUNT - 1] == (float)total);
            else
                EXPECT(c, all[last * COUNT + 7] == (float)(k + last + round));
        }
    }
    EXPECT(c, memory_allocation_count() == before);
    memory_free(memory);
    memory_free(out);
    return STATUS_OK;
}

/* --- 16-bit sums of everybody --- */

static void all_reduce_16_bits(MpiCase *c, Dtype dtype, int64_t count, int number)
{
    size_t bytes = (size_t)count * 2, size = (size_t)c->size;
    char *all = memory_alloc(bytes * size + 2), *mine = memory_alloc(bytes + 2),
         *first = memory_alloc(bytes + 2);
    for (int r = 0; r < c->size; r++)
        fill(all + (size_t)r * bytes, dtype, count, r, number);
    memcpy(mine, all + (size_t)c->rank * bytes, bytes);
    comm_all_reduce(c->comm, mine, count, dtype, COMM_SUM, NULL);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += !is_sum(all, mine, i, dtype, i, c->size, bytes);
    EXPECT(c, wrong == 0);
    memcpy(first, mine, bytes);
    comm_broadcast(c->comm, first, count, dtype, 0, NULL);
    EXPECT(c, memcmp(first, mine, bytes) == 0);

    memcpy(mine, all + (size_t)c->rank * bytes, bytes);
    comm_all_reduce(c->comm, mine, count, dtype, COMM_MAX, NULL);
    for (int64_t i = 0, r = 0; i < count; i++) {
        double greatest = load(all, dtype, i);
        for (r = 1; r < c->size; r++) {
            double next = load(all + (size_t)r * bytes, dtype, i);
            greatest = next > greatest || isnan(next) ? next : greatest;
        }
        wrong += isnan(greatest) ? !isnan(load(mine, dtype, i)) : load(mine, dtype, i) != greatest;
    }
    EXPECT(c, wrong == 0);
    memory_free(all);
    memory_free(mine);
    memory_free(first);
}

/* Small ones, in which every rank sums all, and large ones, of which every rank sums a slice. */
Status case_comm_16_bits(MpiCase *c)
{
    const Dtype dtypes[] = {DTYPE_BF16, DTYPE_F16};
    const int64_t counts[] = {0, 1, 5, 1001, 40003};
    for (int d = 0; d < 2; d++) {
        comm_mpi_set_piece(c->comm, 16 << 20);
        for (int k = 0; k < 5; k++)
            all_reduce_16_bits(c, dtypes[d], counts[k], k);
        comm_mpi_set_piece(c->comm, 256);
        for (int k = 0; k < 4; k++)
            all_reduce_16_bits(c, dtypes[d], counts[k], k);
    }
    /* Over the greatest number of fp16, and a sum that 16-bit steps would lose. */
    uint16_t large[2] = {dtype_f16_from_f32(60000), dtype_f16_from_f32(c->rank == 0 ? 2048 : 1)};
    comm_all_reduce(c->comm, large, 2, DTYPE_F16, COMM_SUM, NULL);
    EXPECT(c, isinf(dtype_f32_from_f16(large[0])) == (c->size > 1));
    /* 2049 and 2051 lie between two numbers: to the even one. */
    const float sums[] = {2048, 2048, 2050, 2052, 2052};
    EXPECT(c, c->size > 5 || dtype_f32_from_f16(large[1]) == sums[c->size - 1]);
    return STATUS_OK;
}

/* --- trouble --- */

/* The last rank does not answer what the others started. */
Status case_comm_start_timeout(MpiCase *c)
{
    float *data = memory_alloc_array(100000 * (size_t)c->size, sizeof *data);
    comm_set_checking(c->comm, false);
    comm_set_timeout(c->comm, 1);
    comm_barrier(c->comm);
    if (c->rank == c->size - 1) sleep(30);
    CommRequest request =
        comm_all_gather_start(c->comm, data, data + c->rank * 100000, 100000, DTYPE_F32, NULL);
    comm_wait(c->comm, &request);
    memory_free(data);
    return STATUS_OK;
}

/* The last rank waits for another one than the others. */
Status case_comm_start_mismatch(MpiCase *c)
{
    float data[2][8] = {{0}};
    CommRequest requests[2];
    comm_set_checking(c->comm, true);
    for (int k = 0; k < 2; k++)
        requests[k] = comm_all_gather_start(c->comm, data[k], data[k] + c->rank, 1, DTYPE_F32, NULL);
    comm_wait(c->comm, &requests[c->rank == c->size - 1]);
    return STATUS_OK;
}
