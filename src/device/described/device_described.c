/* device_described.c - address ranges of the kernel's, and a list of them. */
#include "device/described/device_described.h"

#include "base/check.h"
#include "base/memory.h"
#include "device/device_backend.h"

#include <stdio.h>
#include <sys/mman.h>

typedef struct {
    Device device; /* first */
    DeviceListener listener;
    DeviceBlock *ranges; /* mapped; owned */
    int range_count, range_capacity;
} DescribedDevice;

static DescribedDevice *described(Device *device)
{
    return (DescribedDevice *)device;
}

/* --- address ranges --- */

static void *map_range(DescribedDevice *d, size_t bytes, bool touchable)
{
    if (d->range_count == d->range_capacity) {
        int capacity = d->range_capacity ? 2 * d->range_capacity : 64;
        d->ranges = memory_grow(d->ranges, (size_t)d->range_count * sizeof *d->ranges,
                                (size_t)capacity * sizeof *d->ranges);
        d->range_capacity = capacity;
    }
    size_t length = bytes > 0 ? bytes : 1;
    void *range = mmap(NULL, length, touchable ? PROT_READ | PROT_WRITE : PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(range != MAP_FAILED && "an address range");
    d->ranges[d->range_count++] = (DeviceBlock){range, bytes};
    return range;
}

static void unmap_range(DescribedDevice *d, void *range)
{
    int i = 0;
    while (i < d->range_count && d->ranges[i].memory != range)
        i++;
    CHECK(i < d->range_count);
    munmap(range, d->ranges[i].bytes > 0 ? d->ranges[i].bytes : 1);
    d->ranges[i] = d->ranges[--d->range_count];
}

static void *described_alloc(Device *device, size_t bytes)
{
    return map_range(described(device), bytes, device_kind(device) == DEVICE_CPU);
}

static void described_free(Device *device, void *memory)
{
    unmap_range(described(device), memory);
}

static void *described_alloc_host(Device *device, size_t bytes)
{
    return map_range(described(device), bytes, true);
}

/* --- work --- */

static void tell(Device *device, DeviceMove move, size_t bytes)
{
    const DeviceListener *listener = &described(device)->listener;
    if (listener->moved) listener->moved(listener->context, move, bytes);
}

static void described_zero(Device *device, void *memory, size_t bytes)
{
    (void)memory;
    tell(device, DEVICE_MOVE_ZERO, bytes);
}

static void described_copy(Device *device, void *to, const void *from, size_t bytes)
{
    (void)to, (void)from;
    tell(device, DEVICE_MOVE_COPY, bytes);
}

static void described_upload(Device *device, void *to, const void *from_host, size_t bytes)
{
    (void)to, (void)from_host;
    tell(device, DEVICE_MOVE_UPLOAD, bytes);
}

static void described_download(Device *device, void *to_host, const void *from, size_t bytes)
{
    (void)to_host, (void)from;
    tell(device, DEVICE_MOVE_DOWNLOAD, bytes);
}

static void described_finish(Device *device)
{
    (void)device;
}

static DeviceEvent *described_event_create(Device *device)
{
    DeviceEvent *event = memory_alloc(sizeof *event);
    event->device = device;
    return event;
}

static void described_event_destroy(DeviceEvent *event)
{
    memory_free(event);
}

static void described_event_nothing(DeviceEvent *event)
{
    (void)event;
}

static double described_event_seconds(const DeviceEvent *from, const DeviceEvent *to)
{
    (void)from, (void)to;
    return 0;
}

/* --- life --- */

static void described_close(Device *device)
{
    DescribedDevice *d = described(device);
    while (d->range_count > 0)
        unmap_range(d, d->ranges[d->range_count - 1].memory);
    memory_free(d->ranges);
    memory_free(d);
}

#define DESCRIBED_BACKEND(kind_)                                                                     \
    {                                                                                                \
        .kind = (kind_), .close = described_close, .alloc = described_alloc, .free = described_free, \
        .alloc_host = described_alloc_host, .free_host = described_free, .zero = described_zero,     \
        .copy = described_copy, .upload = described_upload, .download = described_download,          \
        .finish = described_finish, .event_create = described_event_create,                          \
        .event_destroy = described_event_destroy, .event_record = described_event_nothing,           \
        .event_wait = described_event_nothing, .event_seconds = described_event_seconds,             \
    }

Device *device_described_open(DeviceKind kind, const char *name, DeviceListener listener)
{
    static const DeviceBackend CPU = DESCRIBED_BACKEND(DEVICE_CPU), CUDA = DESCRIBED_BACKEND(DEVICE_CUDA);
    CHECK(kind == DEVICE_CPU || kind == DEVICE_CUDA);
    DescribedDevice *d = memory_alloc(sizeof *d);
    d->device.backend = kind == DEVICE_CPU ? &CPU : &CUDA;
    d->listener = listener;
    snprintf(d->device.name, sizeof d->device.name, "%s", name);
    d->device.staged = device_event_create(&d->device);
    return &d->device;
}
