/* device_described.h - a device that is not there: it hands out addresses and counts bytes.
 *
 * Whoever asks what a training would take on some GPU builds the real objects on one of these: every
 * device_alloc is an address range without memory behind it, every copy does nothing but tell a listener. The
 * address ranges of a described GPU cannot be touched, as the host cannot touch a GPU's; host memory that it
 * hands out, and all memory of a described CPU, is had by the page when it is written, so that the few arrays
 * that the host fills in cost what they hold.
 *
 * What it is not: a backend that device_open chooses, or one whose events take time.
 */
#ifndef DINOBATCH_DEVICE_DEVICE_DESCRIBED_H
#define DINOBATCH_DEVICE_DEVICE_DESCRIBED_H

#include "device/device.h"

typedef enum {
    DEVICE_MOVE_ZERO,
    DEVICE_MOVE_COPY,     /* within the device's memory */
    DEVICE_MOVE_UPLOAD,   /* from the host */
    DEVICE_MOVE_DOWNLOAD, /* to the host */
} DeviceMove;

/* Is told what would have moved, in the order of the device's work. */
typedef struct {
    void *context;
    void (*moved)(void *context, DeviceMove move, size_t bytes);
} DeviceListener;

/* kind: DEVICE_CPU or DEVICE_CUDA, which decides what device_kind says. Owned by the caller. */
Device *device_described_open(DeviceKind kind, const char *name, DeviceListener listener);

#endif
