/* nccl_library.h - NCCL's functions, looked up when the program runs.
 *
 * A program that is linked with NCCL does not start where the library is missing, also for a job on the CPU
 * or on one GPU. For src/comm/nccl only.
 */
#ifndef DINOBATCH_COMM_NCCL_NCCL_LIBRARY_H
#define DINOBATCH_COMM_NCCL_NCCL_LIBRARY_H

#include <nccl.h>
#include <stdbool.h>

#define NCCL_LIBRARY_FUNCTIONS(X) \
    X(GetVersion)                 \
    X(GetUniqueId)                \
    X(GetErrorString)             \
    X(GetLastError)               \
    X(CommInitRank)               \
    X(CommGetAsyncError)          \
    X(CommDestroy)                \
    X(CommAbort)                  \
    X(AllGather)                  \
    X(ReduceScatter)              \
    X(AllReduce)                  \
    X(Broadcast)

typedef struct {
#define NCCL_LIBRARY_MEMBER(name) __typeof__(&nccl##name) name;
    NCCL_LIBRARY_FUNCTIONS(NCCL_LIBRARY_MEMBER)
#undef NCCL_LIBRARY_MEMBER
} NcclLibrary;

/* Fills in all of it, or returns false: no libnccl.so.2 or one that lacks a function. The library stays
 * loaded, since its threads may outlive a communicator. */
bool nccl_library_load(NcclLibrary *library);

#endif
