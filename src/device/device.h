/* device.h - the processor that computes: its memory, and the order of its work.
 *
 * `compute.device: auto|cpu|cuda` chooses at run time among the backends that this binary was built with:
 * device/host (the CPU: memory is host memory, everything is done when a call returns) and device/cuda (a
 * GPU: work is queued in order on one stream, and the host runs ahead of it). What holds for both: operations
 * and copies given to one device happen in the order in which they were given; host memory that a copy reads
 * or writes must stay as it is until an event recorded behind the copy has passed, or device_finish.
 *
 * A device that breaks (out of memory, an illegal access) ends the process with one line that names it: there
 * is nothing a caller could do. Functions that can fail because of what the user asked for return a Status.
 * One thread at a time, but for device_name and device_kind.
 */
#ifndef DINOBATCH_DEVICE_DEVICE_H
#define DINOBATCH_DEVICE_DEVICE_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { DEVICE_AUTO = 0, DEVICE_CPU, DEVICE_CUDA } DeviceKind;

typedef struct Device Device;

/* Opens a device for a request. DEVICE_AUTO: a GPU where build and machine have one, the CPU otherwise.
 * DEVICE_CUDA where this build or machine has none is STATUS_INPUT. rank_on_node spreads ranks over the
 * node's GPUs, round robin; ranks may share one. Owned by the caller. */
Status device_open(Device **device, DeviceKind requested, int rank_on_node, Error *error);

/* The CPU, as device_open(DEVICE_CPU): never fails. Owned by the caller. */
Device *device_open_host(void);

/* NULL is fine. */
void device_close(Device *device);

/* DEVICE_CPU or DEVICE_CUDA. */
DeviceKind device_kind(const Device *device);

/* "cpu", "NVIDIA H100 80GB HBM3 (GPU 0)": for logs. Lives as long as the device. */
const char *device_name(const Device *device);

/* Compute capability of a GPU, as 80 or 90; 0 of a CPU. */
int device_architecture(const Device *device);

/* GPUs that device_open could use; 0 without a driver, a GPU or CUDA in this build. */
int device_gpu_count(void);

/* --- memory
 * ------------------------------------------------------------------------------------------------- */

/* `bytes` of the device's memory, zeroed, aligned to 256 bytes; never NULL. Slow: at the start of a run. */
void *device_alloc(Device *device, size_t bytes);
void device_free(Device *device, void *memory);

/* Bytes that device_alloc has out now, and the most it ever had. */
size_t device_memory_used(const Device *device);
size_t device_memory_peak(const Device *device);

/* Host memory that the device copies from and to at full speed while both work on; zeroed. */
void *device_alloc_host(Device *device, size_t bytes);
void device_free_host(Device *device, void *memory);

/* An arena of the device's memory as large as a measured plan, staged region included. */
Arena device_arena_create(Device *device, const Arena *plan);
void device_arena_destroy(Device *device, Arena *arena);

/* --- work, in order
 * ----------------------------------------------------------------------------------------- */

void device_zero(Device *device, void *memory, size_t bytes);

/* Within the device's memory. The ranges do not overlap. */
void device_copy(Device *device, void *to, const void *from, size_t bytes);

/* From host memory, and to it. Without waiting where the host memory is of device_alloc_host; otherwise the
 * call returns when the bytes have left (upload) or arrived (download). */
void device_upload(Device *device, void *to, const void *from_host, size_t bytes);
void device_download(Device *device, void *to_host, const void *from, size_t bytes);

/* What was staged in the arena since `mark` goes to where the device reads it. Once per fill. */
void device_upload_staged(Device *device, const Arena *arena, ArenaMark mark);

/* Before the host writes staged memory again: waits until the last device_upload_staged of this device has
 * read it. */
void device_wait_staged(Device *device);

/* Waits for all work so far. */
void device_finish(Device *device);

/* A point in the order of work. */
typedef struct DeviceEvent DeviceEvent;
DeviceEvent *device_event_create(Device *device);
void device_event_destroy(DeviceEvent *event);
void device_event_record(DeviceEvent *event);
/* Waits until the work before the last record is done; at once if there was none. */
void device_event_wait(DeviceEvent *event);
/* Seconds between two recorded and passed events, by the device's clock. */
double device_event_seconds(const DeviceEvent *from, const DeviceEvent *to);

#endif
