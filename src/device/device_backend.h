/* device_backend.h - what a kind of device implements. For src/device only; everyone else includes device.h.
 */
#ifndef DINOBATCH_DEVICE_DEVICE_BACKEND_H
#define DINOBATCH_DEVICE_DEVICE_BACKEND_H

#include "device/device.h"

/* One entry per function of device.h, with the same meaning; `memory` and sizes have been checked. */
typedef struct {
    DeviceKind kind;
    void (*close)(Device *device); /* releases what `open` made, the Device too */
    void *(*alloc)(Device *device, size_t bytes);
    void (*free)(Device *device, void *memory);
    void *(*alloc_host)(Device *device, size_t bytes);
    void (*free_host)(Device *device, void *memory);
    void (*zero)(Device *device, void *memory, size_t bytes);
    void (*copy)(Device *device, void *to, const void *from, size_t bytes);
    void (*upload)(Device *device, void *to, const void *from_host, size_t bytes);
    void (*download)(Device *device, void *to_host, const void *from, size_t bytes);
    void (*finish)(Device *device);
    DeviceEvent *(*event_create)(Device *device); /* fills `device` */
    void (*event_destroy)(DeviceEvent *event);
    void (*event_record)(DeviceEvent *event);
    void (*event_wait)(DeviceEvent *event);
    double (*event_seconds)(const DeviceEvent *from, const DeviceEvent *to);
} DeviceBackend;

/* Sizes of live allocations, to be able to say how much memory is in use. */
typedef struct {
    void *memory;
    size_t bytes;
} DeviceBlock;

/* First member of a backend's own struct. */
struct Device {
    const DeviceBackend *backend;
    char name[128];
    int architecture;    /* see device_architecture */
    DeviceBlock *blocks; /* owned */
    int block_count, block_capacity;
    size_t used, peak;   /* bytes of device_alloc */
    DeviceEvent *staged; /* behind the last device_upload_staged; owned */
};

struct DeviceEvent {
    Device *device;
};

/* The CPU. Never fails. */
Device *device_host_open(void);

/* A GPU; STATUS_INPUT where there is none, with the reason. In a build without CUDA a stand-in says so. */
Status device_cuda_open(Device **device, int rank_on_node, Error *error);
int device_cuda_count(void);

#endif
