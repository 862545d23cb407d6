/* device.h - which processor computes.
 *
 * `compute.device: auto|cpu|cuda` chooses at run time among the backends that this binary was built with.
 */
#ifndef DINOBATCH_DEVICE_DEVICE_H
#define DINOBATCH_DEVICE_DEVICE_H

#include "base/status.h"

typedef enum { DEVICE_AUTO = 0, DEVICE_CPU, DEVICE_CUDA } DeviceKind;

/* An ordered queue of work on a device; the host has none and passes NULL. */
typedef struct DeviceStream DeviceStream;

/* The device to use for a request: DEVICE_CPU or DEVICE_CUDA. Asking for one that this build or this machine
 * does not have is STATUS_INPUT. */
Status device_choose(DeviceKind requested, DeviceKind *chosen, Error *error);

#endif
