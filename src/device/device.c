/* device.c - the choice of a backend. */
#include "device/device.h"

Status device_choose(DeviceKind requested, DeviceKind *chosen, Error *error)
{
    if (requested == DEVICE_CUDA)
        return status_fail(error, STATUS_INPUT,
                           "compute.device: cuda was asked for, but this program was built without CUDA");
    *chosen = DEVICE_CPU;
    return STATUS_OK;
}
