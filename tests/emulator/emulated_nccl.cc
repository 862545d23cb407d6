/* emulated_nccl.cc - NCCL between the emulated GPUs of several processes: a collective is work of a stream,
 * and its data travels by MPI when that work runs.
 *
 * As NCCL does, it adds in an order that depends on the element's place (each element's sum starts at another
 * rank, as in a ring), takes fmax and fmin of floating point, refuses two ranks on one GPU, does not make the
 * host wait, and stops what is under way when it is aborted. Beyond that it fails, loudly, if ranks call
 * different things, if memory is not the device's, or if a communicator ends with collectives under way.
 *
 * EMULATED_NCCL=error:R:N: collective N (from 0) of rank R breaks, which only ncclCommGetAsyncError tells.
 * hang:R:N: rank R never joins its collective N. start:R:0: rank R does not get into a communicator.
 */
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"
#include "nccl.h"

#include <algorithm>
#include <atomic>
#include <mpi.h>
#include <stdio.h>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" {
#include "comm/nccl/nccl_library.h"
}

struct ncclComm {
    MPI_Comm members;
    int rank, size;
    int64_t issued, done;
    std::atomic<bool> aborted;
    std::atomic<ncclResult_t> broken;
};

namespace
{

enum { TAG_JOIN = 21, TAG_MEMBERS = 22, TAG_GROUP = 23 };

/* What ranks must have in common. */
struct Call {
    int64_t what, count, type, detail;
};

enum What { ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, BROADCAST };

struct Operation {
    Call call;
    const void *in;
    void *out;
};

size_t bytes_of(ncclDataType_t type)
{
    return type == ncclUint8                                                  ? 1
           : type == ncclFloat16 || type == ncclBfloat16                      ? 2
           : type == ncclInt64 || type == ncclFloat64 /* the rest has four */ ? 8
                                                                              : 4;
}

/* Whether this is the trouble that EMULATED_NCCL asks for. */
bool is_trouble(const char *kind, int rank, int64_t number)
{
    const char *wish = getenv("EMULATED_NCCL");
    std::string here = std::string(kind) + ":" + std::to_string(rank) + ":" + std::to_string(number);
    return wish && here == wish;
}

/* Everyone's bytes in rank order; nothing once the communicator was aborted. What MPI may still use is never
 * freed then. */
std::vector<char> gather(ncclComm *comm, const void *in, size_t bytes)
{
    struct Buffers {
        std::vector<char> sent, received;
    };
    auto *buffers = new Buffers{{(const char *)in, (const char *)in + bytes},
                                std::vector<char>(bytes * (size_t)comm->size)};
    MPI_Request request;
    MPI_Iallgather(buffers->sent.data(), (int)bytes, MPI_BYTE, buffers->received.data(), (int)bytes, MPI_BYTE,
                   comm->members, &request);
    for (int done = 0; !done; done ? 0 : usleep(50)) {
        if (comm->aborted) return {};
        MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    }
    std::vector<char> all = std::move(buffers->received);
    delete buffers;
    return all;
}

template <typename T> T combined(T a, T b, int64_t operation)
{
    using Wide = std::conditional_t<sizeof(T) == 2, float, T>; /* 16 bits: rounded at each step */
    Wide x = a, y = b;
    if (operation == ncclSum) return T(x + y);
    if constexpr (std::is_floating_point_v<Wide>) return T(operation == ncclMax ? fmax(x, y) : fmin(x, y));
    return operation == ncclMax ? std::max(a, b) : std::min(a, b);
}

/* out[i] = over ranks r of all[r * stride + first + i], starting at the rank that a ring would start at. */
template <typename T>
void reduce(const char *all, void *out, int64_t first, int64_t n, int64_t stride, int size, int64_t operation)
{
    const T *in = (const T *)all;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = first + i;
        int start = (int)(place * size / stride) % size;
        T total = in[start * stride + place];
        for (int k = 1; k < size; k++)
            total = combined(total, in[(start + k) % size * stride + place], operation);
        ((T *)out)[i] = total;
    }
}

void reduce_any(const Operation &op, const char *all, int64_t first, int64_t n, int64_t stride, int size)
{
    switch (op.call.type) {
    case ncclFloat32:
        return reduce<float>(all, op.out, first, n, stride, size, op.call.detail);
    case ncclFloat64:
        return reduce<double>(all, op.out, first, n, stride, size, op.call.detail);
    case ncclFloat16:
        return reduce<__half>(all, op.out, first, n, stride, size, op.call.detail);
    case ncclBfloat16:
        return reduce<__nv_bfloat16>(all, op.out, first, n, stride, size, op.call.detail);
    case ncclInt64:
        return reduce<int64_t>(all, op.out, first, n, stride, size, op.call.detail);
    default:
        emulator_fail("nccl: a type that is not reduced here");
    }
}

/* The work itself, when its turn in the stream has come. */
void perform(ncclComm *comm, const Operation &op, int64_t number)
{
    if (is_trouble("error", comm->rank, number)) comm->broken = ncclRemoteError;
    bool joins = comm->broken == ncclSuccess && !is_trouble("hang", comm->rank, number);
    while (!joins && !comm->aborted)
        usleep(1000);
    if (!joins) return;
    std::vector<char> calls = gather(comm, &op.call, sizeof op.call);
    for (size_t at = 0; at < calls.size(); at += sizeof op.call)
        if (memcmp(calls.data() + at, &op.call, sizeof op.call) != 0)
            emulator_fail("nccl: ranks call different things");

    int64_t each = op.call.what == REDUCE_SCATTER ? op.call.count * comm->size : op.call.count;
    size_t bytes = (size_t)each * bytes_of((ncclDataType_t)op.call.type);
    std::vector<char> all = gather(comm, op.in, bytes);
    if (comm->aborted) return;
    if (op.call.what == ALL_GATHER)
        memcpy(op.out, all.data(), all.size());
    else if (op.call.what == BROADCAST)
        memcpy(op.out, all.data() + bytes * (size_t)op.call.detail, bytes);
    else if (op.call.what == ALL_REDUCE)
        reduce_any(op, all.data(), 0, each, each, comm->size);
    else
        reduce_any(op, all.data(), comm->rank * op.call.count, op.call.count, each, comm->size);
    comm->done++;
}

ncclResult_t issue(ncclComm *comm, Operation op, cudaStream_t stream)
{
    size_t bytes = (size_t)op.call.count * bytes_of((ncclDataType_t)op.call.type);
    size_t size = (size_t)comm->size;
    if (!stream) emulator_fail("nccl: the default stream");
    emulator_require_device("nccl, in", op.in, op.call.what == REDUCE_SCATTER ? bytes * size : bytes);
    emulator_require_device("nccl, out", op.out, op.call.what == ALL_GATHER ? bytes * size : bytes);
    int64_t number = comm->issued++;
    emulator_enqueue(stream, "nccl", [=] { perform(comm, op, number); });
    return ncclSuccess;
}

/* --- who takes part ---------------------------------------------------------------------------------- */

/* The root, whose place in the world the id holds, hears from everybody and tells all. */
std::vector<int> members_of(int root, int rank, int size)
{
    int me[2] = {rank, 0};
    MPI_Comm_rank(MPI_COMM_WORLD, &me[1]);
    std::vector<int> members((size_t)size);
    members[(size_t)rank] = me[1];
    if (rank > 0) {
        MPI_Send(me, 2, MPI_INT, root, TAG_JOIN, MPI_COMM_WORLD);
        MPI_Recv(members.data(), size, MPI_INT, root, TAG_MEMBERS, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        return members;
    }
    for (int k = 1; k < size; k++) {
        int other[2];
        MPI_Recv(other, 2, MPI_INT, MPI_ANY_SOURCE, TAG_JOIN, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        members[(size_t)other[0]] = other[1];
    }
    for (int k = 1; k < size; k++)
        MPI_Send(members.data(), size, MPI_INT, members[(size_t)k], TAG_MEMBERS, MPI_COMM_WORLD);
    return members;
}

MPI_Comm connect(const std::vector<int> &members)
{
    MPI_Group world, group;
    MPI_Comm handle;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, (int)members.size(), members.data(), &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, TAG_GROUP, &handle);
    MPI_Group_free(&world);
    MPI_Group_free(&group);
    return handle;
}

bool have_own_gpus(ncclComm *comm)
{
    cudaDeviceProp properties;
    cudaGetDeviceProperties(&properties, 0);
    const size_t bytes = sizeof properties.uuid;
    std::vector<char> all = gather(comm, &properties.uuid, bytes);
    for (size_t a = 0; a < all.size(); a += bytes)
        for (size_t b = 0; b < a; b += bytes)
            if (memcmp(&all[a], &all[b], bytes) == 0) return false;
    return true;
}

} // namespace

/* --- the library's calls ----------------------------------------------------------------------------- */

extern "C" {

bool nccl_library_load(NcclLibrary *library)
{
#define NAMED(name) library->name = nccl##name;
    NCCL_LIBRARY_FUNCTIONS(NAMED)
#undef NAMED
    return !getenv("EMULATED_NCCL_MISSING");
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    int root;
    MPI_Comm_rank(MPI_COMM_WORLD, &root);
    memcpy(id->internal, &root, sizeof root);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclRemoteError ? "remote process exited or there was a network error" : "system error";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "as the test wished";
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    int root;
    memcpy(&root, id.internal, sizeof root);
    if (is_trouble("start", rank, 0)) return ncclSystemError;
    *comm = new ncclComm();
    (*comm)->rank = rank;
    (*comm)->size = size;
    (*comm)->members = connect(members_of(root, rank, size));
    return have_own_gpus(*comm) ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = comm->broken;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (comm->done < comm->issued) emulator_fail("nccl: a communicator ends with collectives under way");
    MPI_Comm_free(&comm->members);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream)
{
    return issue(comm, {{ALL_GATHER, (int64_t)count, type, 0}, in, out}, stream);
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, {{REDUCE_SCATTER, (int64_t)count, type, operation}, in, out}, stream);
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, {{ALL_REDUCE, (int64_t)count, type, operation}, in, out}, stream);
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, {{BROADCAST, (int64_t)count, type, root}, in, out}, stream);
}
}
