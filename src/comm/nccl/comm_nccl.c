/* comm_nccl.c - collectives among GPUs by NCCL: one communicator, one stream, and a record of what is under
 * way.
 *
 * Source: NCCL's user guide and nccl.h (2.28). Each collective is queued by this sequence:
 *
 *     device's stream   ... work | ready            wait done | work ...
 *     own stream                   wait ready | collective | done
 *
 * so it stands in the order of the device's work as every operation does; of one that is only started, the
 * last step comes with its wait. The events of the collectives under way form a ring, which tells the
 * watchdog the oldest one: its name is in the message when it hangs.
 *
 * What is deliberately not here: point-to-point messages, groups, registered buffers, collectives inside of
 * captured graphs (while the runtime captures globally, the watchdog must not ask for events).
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "comm/comm_backend.h"
#include "comm/nccl/nccl_library.h"
#include "device/cuda/device_cuda.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNDER_WAY_MAX = 256 }; /* collectives; more than a step has, so that the host can run ahead */

typedef struct {
    cudaEvent_t done;
    const char *operation; /* a literal */
} Collective;

typedef struct {
    CommLink link; /* first */
    Comm *comm;    /* borrowed */
    const Device *device;
    int gpu; /* the runtime's number */
    NcclLibrary nccl;
    ncclComm_t handle; /* NULL: not started */
    cudaStream_t stream;
    cudaEvent_t ready;
    pthread_mutex_t lock; /* guards what follows: the watchdog's thread reads it */
    Collective ring[UNDER_WAY_MAX];
    int64_t issued, passed; /* collective k is ring[k % UNDER_WAY_MAX]; those from passed on are under way */
    double oldest_since;    /* when collective `passed` became the oldest under way */
} NcclLink;

static const CommLinkBackend nccl_backend;

static NcclLink *self_of(CommLink *link)
{
    return (NcclLink *)(void *)link;
}

/* --- failure --- */

/* A communicator may have been made non-blocking by the environment: then a call goes on in the background.
 */
static void check_nccl(NcclLink *self, const char *operation, ncclResult_t result)
{
    while (result == ncclInProgress && self->handle) {
        sched_yield();
        ncclResult_t asked = self->nccl.CommGetAsyncError(self->handle, &result);
        if (asked != ncclSuccess) result = asked;
    }
    if (result == ncclSuccess) return;
    comm_backend_fail(self->comm, "rank %d: %s by NCCL failed: %s: %s", comm_rank(self->comm), operation,
                      self->nccl.GetErrorString(result), self->nccl.GetLastError(self->handle));
}

/* --- what is under way --- */

/* Forgets the collectives that are done. With the lock held. */
static void forget_passed(NcclLink *self)
{
    while (self->passed < self->issued) {
        cudaError_t state = cudaEventQuery(self->ring[self->passed % UNDER_WAY_MAX].done);
        if (state == cudaErrorNotReady) {
            (void)cudaGetLastError(); /* it counts as an error of this thread */
            return;
        }
        CUDA_CHECK(state);
        self->passed++;
        self->oldest_since = clock_seconds();
    }
}

static void need_place(NcclLink *self)
{
    pthread_mutex_lock(&self->lock);
    if (self->issued - self->passed == UNDER_WAY_MAX) forget_passed(self);
    bool full = self->issued - self->passed == UNDER_WAY_MAX;
    pthread_mutex_unlock(&self->lock);
    if (!full) return;
    /* Nobody else issues, so the place stays the oldest one's. The watchdog may look meanwhile. */
    CUDA_CHECK(cudaEventSynchronize(self->ring[self->issued % UNDER_WAY_MAX].done));
    pthread_mutex_lock(&self->lock);
    forget_passed(self);
    pthread_mutex_unlock(&self->lock);
}

/* The collective to come stands behind the device's work so far. */
static void begin(NcclLink *self)
{
    CUDA_CHECK(cudaSetDevice(self->gpu));
    need_place(self);
    CUDA_CHECK(cudaEventRecord(self->ready, device_cuda_stream(self->device)));
    CUDA_CHECK(cudaStreamWaitEvent(self->stream, self->ready, 0));
}

/* The device's work to come stands behind collective `queued`. Where its event has gone round to a later one,
 * that stands in for it: they end in order. */
static void nccl_wait(CommLink *link, int64_t queued)
{
    NcclLink *self = self_of(link);
    CHECK(queued >= 0 && queued < self->issued);
    CUDA_CHECK(cudaSetDevice(self->gpu));
    CUDA_CHECK(
        cudaStreamWaitEvent(device_cuda_stream(self->device), self->ring[queued % UNDER_WAY_MAX].done, 0));
}

/* Records the collective, and returns its number. */
static int64_t queue(NcclLink *self, const char *operation, ncclResult_t result)
{
    check_nccl(self, operation, result);
    Collective *collective = &self->ring[self->issued % UNDER_WAY_MAX];
    CUDA_CHECK(cudaEventRecord(collective->done, self->stream));
    pthread_mutex_lock(&self->lock);
    CHECK(self->issued - self->passed < UNDER_WAY_MAX);
    collective->operation = operation;
    if (self->issued == self->passed) self->oldest_since = clock_seconds();
    int64_t queued = self->issued++;
    pthread_mutex_unlock(&self->lock);
    return queued;
}

/* --- collectives --- */

static ncclDataType_t type_of(Dtype dtype)
{
    static const ncclDataType_t types[DTYPE_COUNT] = {
        [DTYPE_F32] = ncclFloat32, [DTYPE_BF16] = ncclBfloat16, [DTYPE_F16] = ncclFloat16,
        [DTYPE_F64] = ncclFloat64, [DTYPE_I32] = ncclInt32,     [DTYPE_I64] = ncclInt64,
        [DTYPE_U8] = ncclUint8};
    return types[dtype];
}

static int64_t nccl_all_gather_start(CommLink *link, void *out, const void *in, int64_t count, Dtype dtype)
{
    NcclLink *self = self_of(link);
    begin(self);
    return queue(self, "all_gather",
                 self->nccl.AllGather(in, out, (size_t)count, type_of(dtype), self->handle, self->stream));
}

static int64_t nccl_reduce_scatter_start(CommLink *link, void *out, const void *in, int64_t count,
                                         Dtype dtype)
{
    NcclLink *self = self_of(link);
    begin(self);
    return queue(self, "reduce_scatter",
                 self->nccl.ReduceScatter(in, out, (size_t)count, type_of(dtype), ncclSum, self->handle,
                                          self->stream));
}

static void nccl_all_reduce(CommLink *link, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    NcclLink *self = self_of(link);
    ncclRedOp_t operation = reduce == COMM_SUM ? ncclSum : reduce == COMM_MAX ? ncclMax : ncclMin;
    begin(self);
    nccl_wait(link, queue(self, "all_reduce",
                          self->nccl.AllReduce(buffer, buffer, (size_t)count, type_of(dtype), operation,
                                               self->handle, self->stream)));
}

static void nccl_broadcast(CommLink *link, void *buffer, int64_t count, Dtype dtype, int root)
{
    NcclLink *self = self_of(link);
    begin(self);
    nccl_wait(link, queue(self, "broadcast",
                          self->nccl.Broadcast(buffer, buffer, (size_t)count, type_of(dtype), root,
                                               self->handle, self->stream)));
}

/* --- the watch --- */

static void nccl_finish(CommLink *link)
{
    NcclLink *self = self_of(link);
    CUDA_CHECK(cudaSetDevice(self->gpu));
    CUDA_CHECK(cudaStreamSynchronize(self->stream));
}

static void nccl_look(CommLink *link, double timeout)
{
    NcclLink *self = self_of(link);
    int rank = comm_rank(self->comm);
    CUDA_CHECK(cudaSetDevice(self->gpu)); /* this thread's */
    pthread_mutex_lock(&self->lock);
    forget_passed(self);
    bool busy = self->passed < self->issued;
    const char *oldest = busy ? self->ring[self->passed % UNDER_WAY_MAX].operation : "no collective";
    double seconds = busy ? clock_seconds() - self->oldest_since : 0;
    pthread_mutex_unlock(&self->lock);

    ncclResult_t broken = ncclSuccess, asked = self->nccl.CommGetAsyncError(self->handle, &broken);
    if (asked != ncclSuccess) broken = asked;
    if (broken != ncclSuccess && broken != ncclInProgress)
        comm_backend_fail(self->comm, "rank %d: NCCL broke in %s: %s: %s; the job ends here", rank, oldest,
                          self->nccl.GetErrorString(broken), self->nccl.GetLastError(self->handle));
    if (timeout > 0 && seconds > timeout)
        comm_backend_fail(self->comm,
                          "rank %d's GPU has waited %.1f s in %s, which is over the time-out; the job ends "
                          "here",
                          rank, seconds, oldest);
}

/* NCCL allows this while another thread is inside of one of its calls. */
static void nccl_abort(CommLink *link)
{
    NcclLink *self = self_of(link);
    (void)cudaSetDevice(self->gpu);
    if (self->handle) (void)self->nccl.CommAbort(self->handle);
}

/* --- life --- */

static void nccl_start(CommLink *link)
{
    NcclLink *self = self_of(link);
    Comm *comm = self->comm;
    ncclUniqueId id = {0};
    CUDA_CHECK(cudaSetDevice(self->gpu));
    CUDA_CHECK(cudaStreamCreateWithFlags(&self->stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&self->ready, cudaEventDisableTiming));
    for (int i = 0; i < UNDER_WAY_MAX; i++)
        CUDA_CHECK(cudaEventCreateWithFlags(&self->ring[i].done, cudaEventDisableTiming));
    if (comm->rank == 0) check_nccl(self, "the start", self->nccl.GetUniqueId(&id));
    comm->backend->broadcast(comm, &id, sizeof id, 0);
    check_nccl(self, "the start", self->nccl.CommInitRank(&self->handle, comm->size, id, comm->rank));
}

static void nccl_close(CommLink *link)
{
    NcclLink *self = self_of(link);
    if (self->handle) {
        /* Not of the device: it may have been closed before. */
        CUDA_CHECK(cudaSetDevice(self->gpu));
        ncclResult_t result = self->nccl.CommDestroy(self->handle);
        self->handle = NULL;
        if (result != ncclInProgress) check_nccl(self, "the end", result);
        for (int i = 0; i < UNDER_WAY_MAX; i++)
            CUDA_CHECK(cudaEventDestroy(self->ring[i].done));
        CUDA_CHECK(cudaEventDestroy(self->ready));
        CUDA_CHECK(cudaStreamDestroy(self->stream));
    }
    pthread_mutex_destroy(&self->lock);
    memory_free(self);
}

static const CommLinkBackend nccl_backend = {
    .close = nccl_close,
    .start = nccl_start,
    .all_gather_start = nccl_all_gather_start,
    .reduce_scatter_start = nccl_reduce_scatter_start,
    .wait = nccl_wait,
    .all_reduce = nccl_all_reduce,
    .broadcast = nccl_broadcast,
    .finish = nccl_finish,
    .look = nccl_look,
    .abort = nccl_abort,
};

/* Sums inside of switches (NVLS, SHARP) come in another order each time; rings and trees do not. NCCL reads
 * this once, when it is used for the first time, and has no other way to say it. */
static void forbid_switches(void)
{
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    setenv("NCCL_COLLNET_ENABLE", "0", 1);
}

CommLink *comm_nccl_open(Comm *comm, const Device *device, bool deterministic, const char **reason)
{
    NcclLibrary library = {0};
    int version = 0, gpu = device_cuda_index(device);
    if (deterministic) forbid_switches();
    if (!nccl_library_load(&library) || library.GetVersion(&version) != ncclSuccess) {
        *reason = "libnccl.so.2 cannot be loaded";
        return NULL;
    }
    struct cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, gpu));
    NcclLink *self = memory_alloc(sizeof *self);
    self->link.backend = &nccl_backend;
    self->comm = comm;
    self->device = device;
    self->gpu = gpu;
    self->nccl = library;
    pthread_mutex_init(&self->lock, NULL);
    _Static_assert(sizeof properties.uuid.bytes == COMM_LINK_GPU_BYTES, "a UUID");
    memcpy(self->link.gpu, properties.uuid.bytes, COMM_LINK_GPU_BYTES);
    snprintf(self->link.name, sizeof self->link.name, "nccl %d.%d.%d", version / 10000, version / 100 % 100,
             version % 100);
    return &self->link;
}
