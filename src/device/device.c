/* device.c - the choice of a backend, and what all of them have in common. */
#include "base/check.h"
#include "base/memory.h"
#include "device/device_backend.h"

#include <string.h>

Status device_open(Device **device, DeviceKind requested, int rank_on_node, Error *error)
{
    *device = NULL;
    bool gpu = requested == DEVICE_CUDA || (requested == DEVICE_AUTO && device_cuda_count() > 0);
    if (!gpu) {
        *device = device_open_host();
        return STATUS_OK;
    }
    TRY(device_cuda_open(device, rank_on_node, error));
    (*device)->staged = device_event_create(*device);
    return STATUS_OK;
}

Device *device_open_host(void)
{
    Device *device = device_host_open();
    device->staged = device_event_create(device);
    return device;
}

void device_close(Device *device)
{
    if (!device) return;
    device_event_destroy(device->staged);
    memory_free(device->blocks);
    device->backend->close(device);
}

DeviceKind device_kind(const Device *device)
{
    return device->backend->kind;
}

const char *device_name(const Device *device)
{
    return device->name;
}

int device_architecture(const Device *device)
{
    return device->architecture;
}

int device_gpu_count(void)
{
    return device_cuda_count();
}

void *device_alloc(Device *device, size_t bytes)
{
    if (device->block_count == device->block_capacity) {
        int capacity = device->block_capacity ? 2 * device->block_capacity : 16;
        device->blocks = memory_grow(device->blocks, (size_t)device->block_count * sizeof(DeviceBlock),
                                     (size_t)capacity * sizeof(DeviceBlock));
        device->block_capacity = capacity;
    }
    void *memory = device->backend->alloc(device, bytes);
    device->blocks[device->block_count++] = (DeviceBlock){memory, bytes};
    device->used += bytes;
    if (device->used > device->peak) device->peak = device->used;
    return memory;
}

void device_free(Device *device, void *memory)
{
    if (!memory) return;
    for (int i = 0; i < device->block_count; i++) {
        if (device->blocks[i].memory != memory) continue;
        device->used -= device->blocks[i].bytes;
        device->blocks[i] = device->blocks[--device->block_count];
        device->backend->free(device, memory);
        return;
    }
    CHECK(!"memory of this device");
}

size_t device_memory_used(const Device *device)
{
    return device->used;
}

size_t device_memory_peak(const Device *device)
{
    return device->peak;
}

void *device_alloc_host(Device *device, size_t bytes)
{
    return device->backend->alloc_host(device, bytes);
}

void device_free_host(Device *device, void *memory)
{
    if (memory) device->backend->free_host(device, memory);
}

/* --- arenas -----------------------------------------------------------------------------------------------
 */

Arena device_arena_create(Device *device, const Arena *plan)
{
    CHECK(arena_is_measuring(plan));
    if (device_kind(device) == DEVICE_CPU) {
        size_t capacity = plan->peak + plan->staged.peak;
        return (Arena){.base = device_alloc(device, capacity), .capacity = capacity};
    }
    return (Arena){
        .base = device_alloc(device, plan->peak),
        .capacity = plan->peak,
        .foreign = true,
        .staged = {.base = device_alloc_host(device, plan->staged.peak), .capacity = plan->staged.peak},
        .staged_device = device_alloc(device, plan->staged.peak)};
}

void device_arena_destroy(Device *device, Arena *arena)
{
    if (!arena->base) return;
    device_finish(device);
    device_free(device, arena->staged_device);
    device_free_host(device, arena->staged.base);
    device_free(device, arena->base);
    *arena = (Arena){0};
}

void device_upload_staged(Device *device, const Arena *arena, ArenaMark mark)
{
    if (arena->staged.used == mark.staged) return;
    device_upload(device, arena->staged_device + mark.staged, arena->staged.base + mark.staged,
                  arena->staged.used - mark.staged);
    device_event_record(device->staged);
}

void device_wait_staged(Device *device)
{
    device_event_wait(device->staged);
}

/* --- work -------------------------------------------------------------------------------------------------
 */

void device_zero(Device *device, void *memory, size_t bytes)
{
    if (bytes > 0) device->backend->zero(device, memory, bytes);
}

void device_copy(Device *device, void *to, const void *from, size_t bytes)
{
    if (bytes > 0 && to != from) device->backend->copy(device, to, from, bytes);
}

void device_upload(Device *device, void *to, const void *from_host, size_t bytes)
{
    if (bytes > 0) device->backend->upload(device, to, from_host, bytes);
}

void device_download(Device *device, void *to_host, const void *from, size_t bytes)
{
    if (bytes > 0) device->backend->download(device, to_host, from, bytes);
}

void device_finish(Device *device)
{
    device->backend->finish(device);
}

DeviceEvent *device_event_create(Device *device)
{
    return device->backend->event_create(device);
}

void device_event_destroy(DeviceEvent *event)
{
    if (event) event->device->backend->event_destroy(event);
}

void device_event_record(DeviceEvent *event)
{
    event->device->backend->event_record(event);
}

void device_event_wait(DeviceEvent *event)
{
    event->device->backend->event_wait(event);
}

double device_event_seconds(const DeviceEvent *from, const DeviceEvent *to)
{
    return from->device->backend->event_seconds(from, to);
}
