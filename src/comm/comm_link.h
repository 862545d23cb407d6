/* comm_link.h - what connects GPUs of a communicator, one per rank, without the detour through host memory.
 *
 * For src/comm only. Collectives are queued on a stream of the link, behind the device's work so far; the
 * device's later work stands behind them, or, where one is only started, what comes after its wait. The host
 * waits for none of them: `look`, called from the watchdog's thread, finds those that broke or hang.
 */
#ifndef DINOBATCH_COMM_COMM_LINK_H
#define DINOBATCH_COMM_COMM_LINK_H

#include "comm/comm.h"

typedef struct CommLink CommLink;

/* What tells GPUs apart, all over the world. */
enum { COMM_LINK_GPU_BYTES = 16 };

typedef struct {
    void (*close)(CommLink *link); /* releases what `open` made. Collective once started */
    /* Connects the ranks, whose GPUs are different ones; a failure ends the job. Collective. */
    void (*start)(CommLink *link);
    /* The collectives of comm.h on the device's memory, count > 0. Those that only start give what `wait`
     * needs to let the device's later work stand behind them. */
    int64_t (*all_gather_start)(CommLink *link, void *out, const void *in, int64_t count, Dtype dtype);
    int64_t (*reduce_scatter_start)(CommLink *link, void *out, const void *in, int64_t count, Dtype dtype);
    void (*wait)(CommLink *link, int64_t queued);
    void (*all_reduce)(CommLink *link, void *buffer, int64_t count, Dtype dtype, CommReduce reduce);
    void (*broadcast)(CommLink *link, void *buffer, int64_t count, Dtype dtype, int root);
    /* The host waits until all collectives so far are done. */
    void (*finish)(CommLink *link);
    /* Ends the job if a collective broke, or if the oldest one under way has been that for more than
     * `timeout` seconds (0: for ever). In the watchdog's thread. */
    void (*look)(CommLink *link, double timeout);
    /* Stops what is under way on the GPU, before the job is ended. From any thread. */
    void (*abort)(CommLink *link);
} CommLinkBackend;

/* First member of a backend's own struct. */
struct CommLink {
    const CommLinkBackend *backend;
    char name[32]; /* "nccl 2.28.9" */
    unsigned char gpu[COMM_LINK_GPU_BYTES];
};

/* Finds NCCL for a GPU, or returns NULL and the reason; COMM will carry the id by its host transport.
 * `deterministic`: as comm_attach_device. A build without NCCL has a stand-in that says so. Owned by the
 * caller. Not collective. */
CommLink *comm_nccl_open(Comm *comm, const Device *device, bool deterministic, const char **reason);

#endif
