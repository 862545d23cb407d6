/* device_cuda_stub.c - in place of device/cuda in a build without CUDA. */
#include "device/device_backend.h"

Status device_cuda_open(Device **device, int rank_on_node, Error *error)
{
    (void)rank_on_node;
    *device = NULL;
    return status_fail(error, STATUS_INPUT,
                       "compute.device: cuda was asked for, but this program was built without CUDA");
}

int device_cuda_count(void)
{
    return 0;
}
