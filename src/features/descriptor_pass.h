/* descriptor_pass.h - a copy-detection network over a batch of pictures of any sizes.
 *
 * The network takes pictures of any size, but those of one pass have one: a batch is dealt into passes of
 * equal sizes, each of so many pixels as memory was planned for: a pass needs 220 bytes of maps for each
 * pixel of its pictures (fp32).
 *
 * It loads no weights and no pictures.
 */
#ifndef DINOBATCH_FEATURES_DESCRIPTOR_PASS_H
#define DINOBATCH_FEATURES_DESCRIPTOR_PASS_H

#include "data/eval_loader.h"
#include "nn/resnet.h"

/* A network whose weights are in place, in the memory of the device that computes. All borrowed. */
typedef struct {
    const Resnet *resnet;
    ResnetWeights weights;
    Tensor levels; /* [3, 256] fp32 (data/pixel_levels.h) */
} FeatureDescriptor;

typedef struct DescriptorPass DescriptorPass;

/* Plans and allocates for batches of `batch_size` pictures as `transform` makes them with crop_size. The
 * descriptor and the device are borrowed. Owned by the caller. */
DescriptorPass *descriptor_pass_create(const FeatureDescriptor *descriptor, Device *device,
                                       EvalTransform transform, int64_t crop_size, int64_t batch_size);

/* NULL is fine. */
void descriptor_pass_destroy(DescriptorPass *pass);

/* out[batch->count, dims], host memory: the embeddings, in the batch's order. `ops` belongs to the device and
 * was made for resnet_limits. Allocates nothing. */
void descriptor_pass_run(DescriptorPass *pass, const Ops *ops, const EvalBatch *batch, float *out);

#endif
