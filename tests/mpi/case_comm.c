/* case_comm.c - collectives on several ranks. Values are chosen so that the right answer is exact: small
 * integers whose sums every association rounds alike, so no tolerance is needed. */
#include "base/memory.h"
#include "base/rng.h"
#include "comm/mpi/comm_mpi.h"
#include "mpi_case.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A whole number in [-500, 500] that depends on rank and place. */
static double value_at(int rank, int64_t i)
{
    return (double)((i * 37 + rank * 101 + (i % 7) * rank) % 1001 - 500);
}

static double sum_at(int size, int64_t i)
{
    double sum = 0;
    for (int r = 0; r < size; r++)
        sum += value_at(r, i);
    return sum;
}

static double extreme_at(int size, int64_t i, bool greatest)
{
    double best = value_at(0, i);
    for (int r = 1; r < size; r++)
        best = greatest ? fmax(best, value_at(r, i)) : fmin(best, value_at(r, i));
    return best;
}

/* Element i of a buffer of one of the reducible types. */
static void store(void *buffer, Dtype dtype, int64_t i, double value)
{
    if (dtype == DTYPE_F32) ((float *)buffer)[i] = (float)value;
    if (dtype == DTYPE_F64) ((double *)buffer)[i] = value;
    if (dtype == DTYPE_I64) ((int64_t *)buffer)[i] = (int64_t)value;
}

static double load(const void *buffer, Dtype dtype, int64_t i)
{
    if (dtype == DTYPE_F32) return (double)((const float *)buffer)[i];
    if (dtype == DTYPE_F64) return ((const double *)buffer)[i];
    return (double)((const int64_t *)buffer)[i];
}

static void all_reduce_is_exact(MpiCase *c, int64_t count, Dtype dtype, CommReduce reduce)
{
    void *buffer = memory_alloc_array((size_t)count + 1, dtype_size(dtype));
    for (int64_t i = 0; i < count; i++)
        store(buffer, dtype, i, value_at(c->rank, i));
    store(buffer, dtype, count, -77); /* must stay */
    comm_all_reduce(c->comm, buffer, count, dtype, reduce, NULL);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
        double expected =
            reduce == COMM_SUM ? sum_at(c->size, i) : extreme_at(c->size, i, reduce == COMM_MAX);
        wrong += load(buffer, dtype, i) != expected;
    }
    EXPECT(c, wrong == 0);
    EXPECT(c, load(buffer, dtype, count) == -77);
    memory_free(buffer);
}

static void reduce_scatter_is_exact(MpiCase *c, int64_t count, Dtype dtype, bool in_place)
{
    size_t element = dtype_size(dtype);
    char *in = memory_alloc_array((size_t)(count * c->size) + 1, element);
    void *out =
        in_place ? in + (size_t)(c->rank * count) * element : memory_alloc_array((size_t)count + 1, element);
    for (int64_t i = 0; i < count * c->size; i++)
        store(in, dtype, i, value_at(c->rank, i));
    comm_reduce_scatter(c->comm, out, in, count, dtype, NULL);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += load(out, dtype, i) != sum_at(c->size, c->rank * count + i);
    EXPECT(c, wrong == 0);
    if (!in_place) memory_free(out);
    memory_free(in);
}

static void all_gather_is_exact(MpiCase *c, int64_t count, Dtype dtype, bool in_place)
{
    size_t element = dtype_size(dtype);
    char *out = memory_alloc_array((size_t)(count * c->size) + 1, element);
    void *in =
        in_place ? out + (size_t)(c->rank * count) * element : memory_alloc_array((size_t)count + 1, element);
    for (int64_t i = 0; i < count; i++)
        store(in, dtype, i, value_at(c->rank, i));
    comm_all_gather(c->comm, out, in, count, dtype, NULL);
    int64_t wrong = 0;
    for (int r = 0; r < c->size; r++)
        for (int64_t i = 0; i < count; i++)
            wrong += load(out, dtype, r * count + i) != value_at(r, i);
    EXPECT(c, wrong == 0);
    if (!in_place) memory_free(in);
    memory_free(out);
}

static void broadcast_is_exact(MpiCase *c, int64_t count)
{
    uint8_t *buffer = memory_alloc((size_t)count + 1);
    for (int root = 0; root < c->size; root++) {
        for (int64_t i = 0; i < count; i++)
            buffer[i] = (uint8_t)(c->rank == root ? i * 13 + root : 255);
        comm_broadcast(c->comm, buffer, count, DTYPE_U8, root, NULL);
        int64_t wrong = 0;
        for (int64_t i = 0; i < count; i++)
            wrong += buffer[i] != (uint8_t)(i * 13 + root);
        EXPECT(c, wrong == 0);
    }
    memory_free(buffer);
}

static void everything_is_exact(MpiCase *c, const int64_t *counts, int count_count)
{
    const Dtype dtypes[] = {DTYPE_F32, DTYPE_F64, DTYPE_I64};
    for (int k = 0; k < count_count; k++) {
        for (int d = 0; d < 3; d++) {
            all_reduce_is_exact(c, counts[k], dtypes[d], COMM_SUM);
            all_reduce_is_exact(c, counts[k], dtypes[d], COMM_MAX);
            all_reduce_is_exact(c, counts[k], dtypes[d], COMM_MIN);
            for (int in_place = 0; in_place < 2; in_place++) {
                all_gather_is_exact(c, counts[k], dtypes[d], in_place);
                if (dtypes[d] != DTYPE_I64) reduce_scatter_is_exact(c, counts[k], dtypes[d], in_place);
            }
        }
        broadcast_is_exact(c, counts[k]);
    }
}

/* Counts around nothing, one element, fewer than ranks, the border of "small" (64 KiB), and well over it. */
Status case_comm_exact(MpiCase *c)
{
    const int64_t counts[] = {0, 1, 2, 3, 100, 8192, 16384, 16385, 100003};
    everything_is_exact(c, counts, 9);
    for (int i = 0; i < 3; i++)
        comm_barrier(c->comm);
    comm_progress(c->comm);
    return STATUS_OK;
}

/* The same in many pieces: messages of 256 bytes, then the default limits with several 64 MiB chunks' worth.
 */
Status case_comm_pieces(MpiCase *c)
{
    const int64_t counts[] = {1, 31, 32, 33, 64, 65, 1000, 1003};
    comm_mpi_set_piece(c->comm, 256);
    comm_set_checking(c->comm, true);
    everything_is_exact(c, counts, 8);
    comm_mpi_set_piece(c->comm, 1 << 20);
    comm_set_checking(c->comm, false);
    const int64_t large = 3000001;
    all_reduce_is_exact(c, large, DTYPE_F32, COMM_SUM);
    reduce_scatter_is_exact(c, large / c->size, DTYPE_F32, false);
    all_gather_is_exact(c, large / c->size, DTYPE_F32, true);
    return STATUS_OK;
}

/* Sums of arbitrary floats: the rank-order sum, the same bits on all ranks, whatever the message sizes. NaN
 * wins. */
Status case_comm_bits(MpiCase *c)
{
    enum { COUNT = 50021 };
    float *expected = memory_alloc_array(COUNT, sizeof *expected);
    float *mine = memory_alloc_array(COUNT, sizeof *mine), *sum = memory_alloc_array(COUNT, sizeof *sum);
    for (int r = 0; r < c->size; r++) {
        Rng rng = rng_at(5, RNG_TEST, 0, (uint64_t)r);
        for (int64_t i = 0; i < COUNT; i++) {
            float value = (float)(rng_normal(&rng) * pow(10, rng_uniform(&rng, -6, 6)));
            expected[i] = r == 0 ? value : expected[i] + value;
            if (r == c->rank) mine[i] = value;
        }
    }
    const size_t piece_sizes[] = {16 << 20, 1000, 8};
    for (int k = 0; k < 3; k++) {
        comm_mpi_set_piece(c->comm, piece_sizes[k]);
        int64_t n = piece_sizes[k] == 8 ? 503 : COUNT;
        memcpy(sum, mine, COUNT * sizeof *sum);
        comm_all_reduce(c->comm, sum, n, DTYPE_F32, COMM_SUM, NULL);
        EXPECT(c, memcmp(sum, expected, (size_t)n * sizeof *sum) == 0);
    }
    double rank = c->rank,
           one[3] = {c->rank == c->size - 1 ? (double)NAN : rank, c->rank == 0 ? (double)NAN : rank, rank};
    double two[3] = {one[0], one[1], one[2]};
    comm_all_reduce(c->comm, one, 3, DTYPE_F64, COMM_MAX, NULL);
    comm_all_reduce(c->comm, two, 3, DTYPE_F64, COMM_MIN, NULL);
    EXPECT(c, isnan(one[0]) && isnan(one[1]) && one[2] == c->size - 1);
    EXPECT(c, isnan(two[0]) && isnan(two[1]) && two[2] == 0);
    memory_free(expected);
    memory_free(mine);
    memory_free(sum);
    return STATUS_OK;
}

/* Every set of failing ranks: the lowest one's status and words reach everybody. */
Status case_comm_agree(MpiCase *c)
{
    for (unsigned failing = 0; failing < 1u << c->size; failing++) {
        Error error = {0};
        Status local = STATUS_OK;
        if (failing >> c->rank & 1)
            local =
                status_fail(&error, c->rank % 2 ? STATUS_INPUT : STATUS_FAILED, "disk %d is full", c->rank);
        Status agreed = comm_agree(c->comm, local, &error);
        if (!failing) {
            EXPECT(c, agreed == STATUS_OK);
            continue;
        }
        int lowest = __builtin_ctz(failing);
        char words[64];
        snprintf(words, sizeof words, lowest == c->rank ? "disk %d is full" : "rank %d: disk %d is full",
                 lowest, lowest);
        EXPECT(c, agreed == (lowest % 2 ? STATUS_INPUT : STATUS_FAILED));
        EXPECT(c, strcmp(error.text, words) == 0);
    }
    EXPECT(c, comm_agree(c->comm, c->rank == 0 ? STATUS_REQUEUE : STATUS_OK, NULL) == STATUS_REQUEUE);
    return STATUS_OK;
}

/* Odd and even ranks apart, each half sums for itself, and a half of a half. */
Status case_comm_split(MpiCase *c)
{
    Comm *half = comm_split(c->comm, c->rank % 2);
    int expected_size = c->size / 2 + (c->rank % 2 == 0 ? c->size % 2 : 0);
    EXPECT(c, comm_size(half) == expected_size && comm_rank(half) == c->rank / 2);
    int64_t sum = c->rank, expected = 0;
    comm_all_reduce(half, &sum, 1, DTYPE_I64, COMM_SUM, NULL);
    for (int r = c->rank % 2; r < c->size; r += 2)
        expected += r;
    EXPECT(c, sum == expected);
    Comm *single = comm_split(half, comm_rank(half));
    EXPECT(c, comm_size(single) == 1 && comm_rank(single) == 0);
    comm_destroy(single);
    comm_destroy(half);
    return STATUS_OK;
}

/* After comm_reserve no collective of that size allocates. */
Status case_comm_allocates_nothing(MpiCase *c)
{
    enum { COUNT = 200003 };
    comm_set_checking(c->comm, false);
    float *data = memory_alloc_array((size_t)COUNT * (size_t)c->size, sizeof *data);
    comm_reserve(c->comm, (size_t)COUNT * (size_t)c->size * sizeof *data, 1);
    int64_t before = memory_allocation_count();
    for (int64_t n = 1; n <= COUNT; n = n * 3 + 1) {
        comm_all_reduce(c->comm, data, n, DTYPE_F32, COMM_SUM, NULL);
        comm_reduce_scatter(c->comm, data, data, 0, DTYPE_F32, NULL);
        comm_reduce_scatter(c->comm, data + c->rank * n, data, n, DTYPE_F32, NULL);
        comm_all_gather(c->comm, data, data + c->rank * n, n, DTYPE_F32, NULL);
        comm_broadcast(c->comm, data, n, DTYPE_F32, 0, NULL);
        EXPECT(c, comm_agree(c->comm, STATUS_OK, NULL) == STATUS_OK);
    }
    EXPECT(c, memory_allocation_count() == before);
    memory_free(data);
    return STATUS_OK;
}

/* The last rank calls with another count: the cross-check must end the job instead of mixing data up. */
Status case_comm_mismatch(MpiCase *c)
{
    float data[4] = {0};
    comm_set_checking(c->comm, true);
    comm_all_reduce(c->comm, data, c->rank == c->size - 1 ? 3 : 4, DTYPE_F32, COMM_SUM, NULL);
    return STATUS_OK;
}

/* A rank dies without a word while the others wait for it. */
Status case_comm_killed(MpiCase *c)
{
    comm_barrier(c->comm);
    if (c->rank == c->size - 1) raise(SIGKILL);
    comm_barrier(c->comm);
    return STATUS_OK;
}

/* A rank stays away from a collective for longer than the time-out. */
Status case_comm_timeout(MpiCase *c)
{
    comm_set_timeout(c->comm, 1);
    comm_barrier(c->comm);
    if (c->rank == c->size - 1) sleep(30);
    comm_barrier(c->comm);
    return STATUS_OK;
}

Status case_comm_abort(MpiCase *c)
{
    if (c->rank == c->size - 1) comm_abort(c->comm, (int)mpi_case_number(c, 0, 1));
    comm_barrier(c->comm);
    return STATUS_OK;
}
