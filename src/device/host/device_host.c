/* device_host.c - the CPU as a device: host memory, and every call done when it returns. */
#include "base/clock.h"
#include "base/memory.h"
#include "device/device_backend.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    DeviceEvent event; /* first */
    double time;
} HostEvent;

static void *host_alloc(Device *device, size_t bytes)
{
    (void)device;
    return memory_alloc(bytes);
}

static void host_free(Device *device, void *memory)
{
    (void)device;
    memory_free(memory);
}

static void host_zero(Device *device, void *memory, size_t bytes)
{
    (void)device;
    memset(memory, 0, bytes);
}

static void host_copy(Device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (to != from) memcpy(to, from, bytes);
}

static void host_finish(Device *device)
{
    (void)device;
}

static DeviceEvent *host_event_create(Device *device)
{
    HostEvent *event = memory_alloc(sizeof *event);
    event->event.device = device;
    return &event->event;
}

static void host_event_destroy(DeviceEvent *event)
{
    memory_free(event);
}

static void host_event_record(DeviceEvent *event)
{
    ((HostEvent *)event)->time = clock_seconds();
}

static void host_event_wait(DeviceEvent *event)
{
    (void)event;
}

static double host_event_seconds(const DeviceEvent *from, const DeviceEvent *to)
{
    return ((const HostEvent *)to)->time - ((const HostEvent *)from)->time;
}

static void host_close(Device *device)
{
    memory_free(device);
}

Device *device_host_open(void)
{
    static const DeviceBackend BACKEND = {.kind = DEVICE_CPU,
                                          .close = host_close,
                                          .alloc = host_alloc,
                                          .free = host_free,
                                          .alloc_host = host_alloc,
                                          .free_host = host_free,
                                          .zero = host_zero,
                                          .copy = host_copy,
                                          .upload = host_copy,
                                          .download = host_copy,
                                          .finish = host_finish,
                                          .event_create = host_event_create,
                                          .event_destroy = host_event_destroy,
                                          .event_record = host_event_record,
                                          .event_wait = host_event_wait,
                                          .event_seconds = host_event_seconds};
    Device *device = memory_alloc(sizeof *device);
    device->backend = &BACKEND;
    snprintf(device->name, sizeof device->name, "cpu");
    return device;
}
