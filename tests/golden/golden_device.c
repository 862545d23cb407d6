/* golden_device.c - see golden_device.h. */
#include "golden_device.h"

#include "golden_support.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Ops *golden_device_open(Golden *golden, const OpsLimits *limits)
{
    const char *asked = getenv("TEST_DEVICE");
    bool cuda = asked && strcmp(asked, "cuda") == 0;
    Device *device = NULL;
    Error error = {0};
    if (cuda && device_gpu_count() == 0) cr_skip_test("no CUDA device\n");
    if (device_open(&device, cuda ? DEVICE_CUDA : DEVICE_CPU, 0, &error) != STATUS_OK)
        golden_stop(golden, "TEST_DEVICE=%s: %s", asked, error.text);
    return ops_create(device, limits, &(OpsOptions){0});
}

void golden_device_close(Ops *ops)
{
    Device *device = ops->device;
    ops_destroy(ops);
    device_close(device);
}

static void *fetch(Golden *golden, const Ops *ops, const void *from, int64_t count, size_t each)
{
    void *host = golden_keep(golden, count, (int64_t)each);
    device_download(ops->device, host, from, (size_t)count * each);
    device_finish(ops->device);
    return host;
}

const float *golden_device_f32(Golden *golden, const Ops *ops, const float *from, int64_t count)
{
    return fetch(golden, ops, from, count, sizeof *from);
}

const double *golden_device_f64(Golden *golden, const Ops *ops, const double *from, int64_t count)
{
    return fetch(golden, ops, from, count, sizeof *from);
}

Tensor golden_device_copy(const Ops *ops, Tensor host)
{
    Tensor copy = host;
    copy.data = device_alloc(ops->device, tensor_bytes(host));
    device_upload(ops->device, copy.data, host.data, tensor_bytes(host));
    return copy;
}

void golden_device_free(const Ops *ops, Tensor t)
{
    device_free(ops->device, t.data);
}
