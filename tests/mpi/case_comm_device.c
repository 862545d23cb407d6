/* case_comm_device.c - collectives on data in GPU memory, by NCCL or through host memory. Each case takes the
 * transport that it expects as its first argument ("" or nothing: any).
 *
 * As in case_comm.c, values are small integers, so that every order of a sum gives the same bits, in 16 bits,
 * too. Copies to and from the device go through pinned memory, without the host waiting: what stands out of
 * order is found by its poison.
 */
#include "base/memory.h"
#include "base/rng.h"
#include "mpi_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { POISON = 0xff };

/* A GPU with buffers: `device` is made from and goes back to `pinned`. */
typedef struct {
    MpiCase *c;
    Device *gpu;
    size_t bytes;
    char *pinned_in, *pinned_out, *in, *out; /* [bytes] */
} Bench;

/* False, with a line, where there is no GPU. */
static bool bench_init(Bench *b, MpiCase *c, size_t bytes)
{
    *b = (Bench){.c = c, .bytes = bytes};
    if (device_gpu_count() == 0) {
        if (c->rank == 0) printf("skipped: no CUDA device\n");
        return false;
    }
    if (!EXPECT(c, device_open(&b->gpu, DEVICE_CUDA, c->rank, &c->error) == STATUS_OK)) return false;
    b->pinned_in = device_alloc_host(b->gpu, bytes);
    b->pinned_out = device_alloc_host(b->gpu, bytes);
    b->in = device_alloc(b->gpu, bytes);
    b->out = device_alloc(b->gpu, bytes);
    return true;
}

static void bench_fini(Bench *b)
{
    device_free_host(b->gpu, b->pinned_in);
    device_free_host(b->gpu, b->pinned_out);
    device_free(b->gpu, b->in);
    device_free(b->gpu, b->out);
    device_close(b->gpu);
}

static void expect_transport(MpiCase *c, const char *expected)
{
    const char *transport = comm_device_transport(c->comm);
    if (!expected || strncmp(transport, expected, strlen(expected)) == 0) return;
    fprintf(stderr, "rank %d: the transport is '%s', not '%s'\n", c->rank, transport, expected);
    c->failures++;
}

static void attach(Bench *b)
{
    comm_attach_device(b->c->comm, b->gpu, true);
    expect_transport(b->c, b->c->argc > 0 ? b->c->argv[0] : NULL);
}

/* --- numbers --- */

static double value_at(int rank, int64_t i)
{
    return (double)((i * 41 + rank * 97 + (i % 5) * rank) % 81 - 40);
}

static double reduced_at(int size, int64_t i, CommReduce reduce)
{
    double all = value_at(0, i);
    for (int r = 1; r < size; r++) {
        double next = value_at(r, i);
        all = reduce == COMM_SUM ? all + next : reduce == COMM_MAX ? fmax(all, next) : fmin(all, next);
    }
    return all;
}

static void store(void *buffer, Dtype dtype, int64_t i, double value)
{
    if (dtype == DTYPE_F32) ((float *)buffer)[i] = (float)value;
    if (dtype == DTYPE_F64) ((double *)buffer)[i] = value;
    if (dtype == DTYPE_I64) ((int64_t *)buffer)[i] = (int64_t)value;
    if (dtype == DTYPE_BF16) ((uint16_t *)buffer)[i] = dtype_bf16_from_f32((float)value);
    if (dtype == DTYPE_F16) ((uint16_t *)buffer)[i] = dtype_f16_from_f32((float)value);
}

static double load(const void *buffer, Dtype dtype, int64_t i)
{
    if (dtype == DTYPE_F32) return (double)((const float *)buffer)[i];
    if (dtype == DTYPE_F64) return ((const double *)buffer)[i];
    if (dtype == DTYPE_BF16) return (double)dtype_f32_from_bf16(((const uint16_t *)buffer)[i]);
    if (dtype == DTYPE_F16) return (double)dtype_f32_from_f16(((const uint16_t *)buffer)[i]);
    return (double)((const int64_t *)buffer)[i];
}

/* Elements first .. first + n - 1 of this rank's numbers to the device's `in`, everything else poison. */
static void put(Bench *b, Dtype dtype, int64_t first, int64_t n)
{
    device_finish(b->gpu); /* the copies before have left */
    memset(b->pinned_in, POISON, b->bytes);
    device_upload(b->gpu, b->in, b->pinned_in, b->bytes);
    device_upload(b->gpu, b->out, b->pinned_in, b->bytes);
    device_finish(b->gpu);
    for (int64_t i = 0; i < n; i++)
        store(b->pinned_in, dtype, first + i, value_at(b->c->rank, i));
    device_upload(b->gpu, b->in, b->pinned_in, b->bytes);
}

static bool is_poison(const char *bytes, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (bytes[i] != (char)POISON) return false;
    return true;
}

/* The device's memory, and nothing behind `bytes` written. */
static const char *get(Bench *b, const char *from, size_t bytes)
{
    device_download(b->gpu, b->pinned_out, from, b->bytes);
    device_finish(b->gpu);
    EXPECT(b->c, is_poison(b->pinned_out, bytes, b->bytes));
    return b->pinned_out;
}

/* --- each collective --- */

static void all_reduce_is_exact(Bench *b, int64_t count, Dtype dtype, CommReduce reduce)
{
    put(b, dtype, 0, count);
    comm_all_reduce(b->c->comm, b->in, count, dtype, reduce, b->gpu);
    const char *result = get(b, b->in, (size_t)count * dtype_size(dtype));
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += load(result, dtype, i) != reduced_at(b->c->size, i, reduce);
    EXPECT(b->c, wrong == 0);
}

static void reduce_scatter_is_exact(Bench *b, int64_t count, Dtype dtype, bool in_place)
{
    size_t bytes = (size_t)count * dtype_size(dtype), offset = bytes * (size_t)b->c->rank;
    put(b, dtype, 0, count * b->c->size);
    char *out = in_place ? b->in + offset : b->out;
    comm_reduce_scatter(b->c->comm, out, b->in, count, dtype, b->gpu);
    const char *result =
        in_place ? get(b, b->in, bytes * (size_t)b->c->size) + offset : get(b, b->out, bytes);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += load(result, dtype, i) != reduced_at(b->c->size, b->c->rank * count + i, COMM_SUM);
    EXPECT(b->c, wrong == 0);
}

static void all_gather_is_exact(Bench *b, int64_t count, Dtype dtype, bool in_place)
{
    size_t bytes = (size_t)count * dtype_size(dtype);
    put(b, dtype, in_place ? b->c->rank * count : 0, count);
    char *in = in_place ? b->in + bytes * (size_t)b->c->rank : b->in, *out = in_place ? b->in : b->out;
    comm_all_gather(b->c->comm, out, in, count, dtype, b->gpu);
    const char *result = get(b, out, bytes * (size_t)b->c->size);
    int64_t wrong = 0;
    for (int r = 0; r < b->c->size; r++)
        for (int64_t i = 0; i < count; i++)
            wrong += load(result, dtype, r * count + i) != value_at(r, i);
    EXPECT(b->c, wrong == 0);
}

static void broadcast_is_exact(Bench *b, int64_t count, Dtype dtype, int root)
{
    put(b, dtype, 0, count);
    comm_broadcast(b->c->comm, b->in, count, dtype, root, b->gpu);
    const char *result = get(b, b->in, (size_t)count * dtype_size(dtype));
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += load(result, dtype, i) != value_at(root, i);
    EXPECT(b->c, wrong == 0);
}

static void everything_is_exact(Bench *b, int64_t count)
{
    const Dtype dtypes[] = {DTYPE_F32, DTYPE_F64, DTYPE_I64, DTYPE_BF16, DTYPE_F16};
    for (int d = 0; d < 5; d++) {
        for (int in_place = 0; in_place < 2; in_place++) {
            all_gather_is_exact(b, count, dtypes[d], in_place);
            if (dtypes[d] != DTYPE_I64) reduce_scatter_is_exact(b, count, dtypes[d], in_place);
        }
        for (int reduce = COMM_SUM; reduce <= COMM_MIN; reduce++)
            all_reduce_is_exact(b, count, dtypes[d], (CommReduce)reduce);
        broadcast_is_exact(b, count, dtypes[d], (int)(count % b->c->size));
    }
}

Status case_device_exact(MpiCase *c)
{
    Bench b;
    if (!bench_init(&b, c, 5000 * (size_t)c->size * sizeof(double) + 64)) return STATUS_OK;
    attach(&b);
    const int64_t counts[] = {0, 1, 7, 5000};
    for (int k = 0; k < 4; k++) {
        comm_set_checking(c->comm, k == 1);
        everything_is_exact(&b, counts[k]);
    }
    bench_fini(&b); /* before the communicator lets go of it */
    return STATUS_OK;
}

/* --- order --- */

/* Collectives and the device's own work, far more than are kept under way, and no wait in between. */
Status case_device_chain(MpiCase *c)
{
    enum { ROUNDS = 400, COUNT = 6 };
    Bench b;
    if (!bench_init(&b, c, COUNT * sizeof(int64_t))) return STATUS_OK;
    attach(&b);
    put(&b, DTYPE_I64, 0, COUNT);
    int64_t before = memory_allocation_count();
    for (int k = 0; k < ROUNDS; k++) {
        comm_all_reduce(c->comm, b.in, COUNT, DTYPE_I64, k == 0 ? COMM_SUM : COMM_MAX, b.gpu);
        device_copy(b.gpu, b.out, b.in, COUNT * sizeof(int64_t));
        comm_broadcast(c->comm, b.out, COUNT, DTYPE_I64, k % c->size, b.gpu);
        device_zero(b.gpu, b.in, COUNT * sizeof(int64_t));
        device_copy(b.gpu, b.in, b.out, COUNT * sizeof(int64_t));
    }
    if (strncmp(comm_device_transport(c->comm), "nccl", 4) == 0)
        EXPECT(c, memory_allocation_count() == before);
    comm_detach_device(c->comm); /* with all of it under way */
    const char *result = get(&b, b.in, COUNT * sizeof(int64_t));
    for (int64_t i = 0; i < COUNT; i++)
        EXPECT(c, load(result, DTYPE_I64, i) == reduced_at(c->size, i, COMM_SUM));
    bench_fini(&b);
    return STATUS_OK;
}

/* Sums started and waited for later in another order: a hundred of bf16 in turn, three under way at a time,
 * with the device's own work and other collectives between; one beside more collectives than are kept under
 * way; and one that outlives the attachment. `in` is three parts, each of the ranks' shares; `out` what came
 * of them. */
Status case_device_started(MpiCase *c)
{
    enum { SLOTS = 3, ROUNDS = 100, COUNT = 700, LATE = 300 };
    const size_t share = COUNT * sizeof(uint16_t), part = share * (size_t)c->size;
    Bench b;
    CommRequest requests[SLOTS] = {{0}};
    if (!bench_init(&b, c, SLOTS * part + sizeof(int64_t))) return STATUS_OK;
    attach(&b);
    put(&b, DTYPE_BF16, 0, SLOTS * COUNT * c->size);
    device_zero(b.gpu, b.in + SLOTS * part, sizeof(int64_t));
    for (int k = 0; k < ROUNDS; k++) {
        char *in = b.in + (size_t)(k % SLOTS) * part, *out = b.out + (size_t)(k % SLOTS) * part;
        comm_wait(c->comm, &requests[k % SLOTS]);
        device_zero(b.gpu, out, part);
        char *mine = out + share * (size_t)c->rank;
        requests[k % SLOTS] = comm_reduce_scatter_start(c->comm, mine, in, COUNT, DTYPE_BF16, b.gpu);
        comm_all_reduce(c->comm, b.in + SLOTS * part, 1, DTYPE_I64, COMM_MAX, b.gpu);
        if (k == 50)
            for (int i = 0; i < LATE; i++)
                comm_all_reduce(c->comm, b.in + SLOTS * part, 1, DTYPE_I64, COMM_MAX, b.gpu);
    }
    comm_wait(c->comm, &requests[1]);
    for (int s = 0; s < SLOTS; s++) { /* the sums to everybody, in place */
        comm_wait(c->comm, &requests[s]);
        char *all = b.out + (size_t)s * part;
        requests[s] =
            comm_all_gather_start(c->comm, all, all + share * (size_t)c->rank, COUNT, DTYPE_BF16, b.gpu);
    }
    comm_wait(c->comm, &requests[2]); /* the last one: the others are done before it */
    const char *result = get(&b, b.out, SLOTS * part);
    comm_detach_device(c->comm);
    for (int s = 0; s < SLOTS; s++)
        comm_wait(c->comm, &requests[s]);
    int64_t wrong = 0;
    for (int64_t i = 0; i < SLOTS * COUNT * c->size; i++)
        wrong += load(result, DTYPE_BF16, i) != reduced_at(c->size, i, COMM_SUM);
    EXPECT(c, wrong == 0);
    bench_fini(&b);
    return STATUS_OK;
}

/* One that is started and hangs. */
Status case_device_started_hangs(MpiCase *c)
{
    Bench b;
    if (!bench_init(&b, c, 64 * (size_t)c->size)) return STATUS_OK;
    comm_set_timeout(c->comm, 0.5);
    attach(&b);
    put(&b, DTYPE_F16, 0, c->size);
    CommRequest request = comm_reduce_scatter_start(c->comm, b.out, b.in, 1, DTYPE_F16, b.gpu);
    comm_wait(c->comm, &request);
    device_finish(b.gpu);
    bench_fini(&b);
    return STATUS_OK;
}

/* Arbitrary floats: the same bits on every rank and each time, whichever way they take; and what a NaN does.
 */
Status case_device_bits(MpiCase *c)
{
    enum { COUNT = 3001 };
    Bench b;
    static float here[COUNT], first[COUNT], again[COUNT];
    if (!bench_init(&b, c, sizeof here)) return STATUS_OK;
    attach(&b);
    Rng rng = rng_at(3, RNG_TEST, 0, (uint64_t)c->rank);
    for (int i = 0; i < COUNT; i++)
        here[i] = (float)(rng_normal(&rng) * pow(10, rng_uniform(&rng, -4, 4)));
    if (c->rank == c->size - 1) here[7] = NAN;
    for (int k = 0; k < 2; k++) {
        device_upload(b.gpu, b.in, here, sizeof here);
        comm_all_reduce(c->comm, b.in, COUNT, DTYPE_F32, COMM_SUM, b.gpu);
        device_download(b.gpu, k == 0 ? first : again, b.in, sizeof here);
    }
    EXPECT(c, memcmp(first, again, sizeof first) == 0);
    EXPECT(c, isnan(first[7]));
    memcpy(again, first, sizeof first);
    comm_broadcast(c->comm, again, COUNT, DTYPE_F32, 0, NULL);
    EXPECT(c, memcmp(first, again, sizeof first) == 0);
    memcpy(again, here, sizeof here);
    comm_all_reduce(c->comm, again, COUNT, DTYPE_F32, COMM_SUM, NULL);
    double worst = 0;
    for (int i = 0; i < COUNT; i++)
        if (i != 7) worst = fmax(worst, fabs((double)first[i] - (double)again[i]) / (1e4 * c->size));
    EXPECT(c, worst < 1e-6);
    bool nccl = strncmp(comm_device_transport(c->comm), "nccl", 4) == 0;
    if (!nccl) EXPECT(c, memcmp(first, again, sizeof first) == 0);

    device_upload(b.gpu, b.in, here, sizeof here);
    comm_all_reduce(c->comm, b.in, COUNT, DTYPE_F32, COMM_MAX, b.gpu);
    device_download(b.gpu, first, b.in, sizeof here);
    EXPECT(c, isnan(first[7]) == !nccl);
    bench_fini(&b);
    return STATUS_OK;
}

/* --- life --- */

static void sum_is_right(Bench *b, Comm *comm, int64_t expected)
{
    int64_t mine = b->c->rank + 1, sum = 0;
    device_upload(b->gpu, b->in, &mine, sizeof mine);
    comm_all_reduce(comm, b->in, 1, DTYPE_I64, COMM_SUM, b->gpu);
    device_download(b->gpu, &sum, b->in, sizeof sum);
    EXPECT(b->c, sum == expected);
}

/* Attached twice, detached, attached again to another device; halves of the ranks beside all of them. */
Status case_device_life(MpiCase *c)
{
    Bench b, other;
    int64_t all = (int64_t)c->size * (c->size + 1) / 2, part = 0;
    if (!bench_init(&b, c, 64) || !bench_init(&other, c, 64)) return STATUS_OK;
    for (int r = c->rank % 2; r < c->size; r += 2)
        part += r + 1;
    expect_transport(c, "host");
    sum_is_right(&b, c->comm, all);
    attach(&b);
    sum_is_right(&b, c->comm, all);
    sum_is_right(&other, c->comm, all); /* not attached: through host memory */
    attach(&other);
    sum_is_right(&other, c->comm, all);
    sum_is_right(&b, c->comm, all);
    comm_set_timeout(c->comm, 20);
    sum_is_right(&other, c->comm, all);

    Comm *half = comm_split(c->comm, c->rank % 2);
    sum_is_right(&other, half, part);
    comm_attach_device(half, other.gpu, false);
    EXPECT(c, c->size < 3 || c->rank % 2 || strcmp(comm_device_transport(half), "host") != 0);
    sum_is_right(&other, half, part);
    sum_is_right(&other, c->comm, all);
    comm_destroy(half);

    comm_detach_device(c->comm);
    expect_transport(c, "host");
    sum_is_right(&other, c->comm, all);
    comm_detach_device(c->comm);
    comm_attach_device(c->comm, NULL, true);
    expect_transport(c, "host");
    sum_is_right(&b, c->comm, all);
    bench_fini(&b);
    bench_fini(&other);
    return STATUS_OK;
}

/* Rank 0 computes on its CPU. */
Status case_device_mixed(MpiCase *c)
{
    Bench b;
    if (!bench_init(&b, c, 64)) return STATUS_OK;
    Device *cpu = device_open_host();
    comm_attach_device(c->comm, c->rank == 0 ? cpu : b.gpu, false);
    expect_transport(c, c->rank == 0 ? "host" : "staged: a rank computes on its CPU");
    int64_t value = c->rank + 1;
    if (c->rank == 0)
        comm_all_reduce(c->comm, &value, 1, DTYPE_I64, COMM_SUM, cpu);
    else
        sum_is_right(&b, c->comm, (int64_t)c->size * (c->size + 1) / 2);
    EXPECT(c, c->rank > 0 || value == (int64_t)c->size * (c->size + 1) / 2);
    device_close(cpu);
    bench_fini(&b);
    return STATUS_OK;
}

/* --- trouble --- */

/* Six collectives under a time-out in milliseconds (second argument); the last rank pauses for the third
 * before each. The environment may ask for trouble. */
Status case_device_watched(MpiCase *c)
{
    enum { ROUNDS = 6 };
    Bench b;
    if (!bench_init(&b, c, 64)) return STATUS_OK;
    comm_set_timeout(c->comm, 1e-3 * (double)mpi_case_number(c, 1, 500));
    attach(&b);
    put(&b, DTYPE_I64, 0, 1);
    comm_barrier(c->comm);
    for (int k = 0; k < ROUNDS; k++) {
        comm_all_reduce(c->comm, b.in, 1, DTYPE_I64, COMM_SUM, b.gpu);
        if (c->rank < c->size - 1) continue;
        device_finish(b.gpu);
        usleep((useconds_t)mpi_case_number(c, 2, 0) * 1000);
    }
    device_finish(b.gpu);
    int64_t all = 0;
    for (int r = 0; r < c->size; r++)
        all += (int64_t)value_at(r, 0);
    for (int k = 1; k < ROUNDS; k++)
        all *= c->size;
    EXPECT(c, load(get(&b, b.in, sizeof(int64_t)), DTYPE_I64, 0) == (double)all);
    bench_fini(&b);
    return STATUS_OK;
}
