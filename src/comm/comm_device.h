/* comm_device.h - collectives on data in the memory of a GPU: by NCCL where the device is attached and may,
 * otherwise through host memory. For src/comm only.
 *
 * The functions are those of comm.h, for count > 0 and a device that is not the CPU; comm.c has checked the
 * arguments and entered the collective.
 */
#ifndef DINOBATCH_COMM_COMM_DEVICE_H
#define DINOBATCH_COMM_COMM_DEVICE_H

#include "comm/comm.h"

/* Whether `device` has memory of its own. */
bool comm_device_is_elsewhere(const Device *device);

/* These say in comm->started[place] what is left for comm_wait. */
void comm_device_all_gather_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                  Dtype dtype, Device *device);
void comm_device_reduce_scatter_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                      Dtype dtype, Device *device);
void comm_device_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce,
                            Device *device);
void comm_device_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device);

#endif
