/* golden_device.h - the device that golden tests compute on, and ways between its memory and the file's
 * numbers.
 *
 * TEST_DEVICE=cuda in the environment takes a GPU, for the kinds train, vit and sscd; the rest, and all
 * without it, is the CPU's.
 */
#ifndef DINOBATCH_TESTS_GOLDEN_GOLDEN_DEVICE_H
#define DINOBATCH_TESTS_GOLDEN_GOLDEN_DEVICE_H

#include "golden.h"
#include "ops/ops.h"

/* Operations of the test's device, and both gone again. Skips the test where there is no GPU. */
Ops *golden_device_open(Golden *golden, const OpsLimits *limits);
void golden_device_close(Ops *ops);

/* Host copies of what operations left, which belong to the Golden. */
const float *golden_device_f32(Golden *golden, const Ops *ops, const float *from, int64_t count);
const double *golden_device_f64(Golden *golden, const Ops *ops, const double *from, int64_t count);

/* A tensor like `host` in memory of its own, with its numbers; golden_device_free when it is not needed any
 * more. */
Tensor golden_device_copy(const Ops *ops, Tensor host);
void golden_device_free(const Ops *ops, Tensor t);

#endif
