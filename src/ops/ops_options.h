/* ops_options.h - what the configuration says about operations. */
#ifndef DINOBATCH_OPS_OPS_OPTIONS_H
#define DINOBATCH_OPS_OPS_OPTIONS_H

#include "base/status.h"
#include "config/config.h"
#include "ops/ops.h"

/* The options of ops_create for this device: compute.attention, and as many threads as are given.
 * STATUS_INPUT naming the key where the device does not have the attention kernels that it asks for. */
Status ops_options_from(OpsOptions *options, const Config *config, const Device *device, int threads,
                        Error *error);

#endif
