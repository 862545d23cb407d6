/* comm_nccl_stub.c - in place of comm/nccl in a build without NCCL. */
#include "comm/comm_link.h"

#include <stddef.h>

CommLink *comm_nccl_open(Comm *comm, const Device *device, bool deterministic, const char **reason)
{
    (void)comm;
    (void)device;
    (void)deterministic;
    *reason = "built without NCCL";
    return NULL;
}
