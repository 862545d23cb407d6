/* device_facts_stub.c - in place of device/cuda/device_facts.cu in a build without CUDA. */
#include "device/device_facts.h"

int device_facts(DeviceFact facts[DEVICE_FACTS_MAX])
{
    facts[0] = (DeviceFact){"build", "without CUDA (no nccl, no cublas)"};
    facts[1] = (DeviceFact){"compute.device: auto", "cpu"};
    return 2;
}
