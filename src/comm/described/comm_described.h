/* comm_described.h - a communicator of ranks that are not there: it tells a listener what would travel.
 *
 * The collectives of comm.h on the memory of `device` come to the listener with their order of starts and
 * waits; nothing moves, and buffers stay as they are. Host-only collectives (agreement, counts) do nothing.
 * It takes the place of mpi and nccl alike: of a described GPU, collectives go straight between devices.
 */
#ifndef DINOBATCH_COMM_COMM_DESCRIBED_H
#define DINOBATCH_COMM_COMM_DESCRIBED_H

#include "comm/comm.h"

typedef enum {
    COMM_MOVE_ALL_GATHER,
    COMM_MOVE_REDUCE_SCATTER,
    COMM_MOVE_ALL_REDUCE,
    COMM_MOVE_BROADCAST,
} CommMove;

typedef struct {
    void *context;
    /* buffer: the whole `out` of an all_gather, the whole `in` of a reduce_scatter, else what is reduced or
     * sent; `bytes` of it. Numbers are the communicator's, from 1. */
    void (*started)(void *context, int64_t number, CommMove move, const void *buffer, size_t bytes);
    /* What comes after needs the result. */
    void (*waited)(void *context, int64_t number);
} CommListener;

/* Rank `rank` of `size`. `device` is borrowed and outlives it. Owned by the caller; it cannot be split. */
Comm *comm_described_create(int rank, int size, Device *device, CommListener listener);

#endif
