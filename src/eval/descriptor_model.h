/* descriptor_model.h - a copy-detection network of a file, ready to run.
 *
 * As eval_model.h for the networks that are trained here; everything about the network comes from its file.
 */
#ifndef DINOBATCH_EVAL_DESCRIPTOR_MODEL_H
#define DINOBATCH_EVAL_DESCRIPTOR_MODEL_H

#include "ckpt/descriptor_file.h"
#include "features/descriptor_pass.h"

typedef struct {
    DescriptorMeta meta;
    Resnet resnet;
    ParamTable table;
    float *folded;                /* [resnet.folded_count] host; owned */
    Device *device;               /* where the network was placed; borrowed */
    float *placed;                /* [resnet.folded_count] of the device; owned */
    void *reduced;                /* 16-bit copy there, or NULL; owned */
    FeatureDescriptor descriptor; /* views of the above; its levels are owned */
} DescriptorModel;

/* Loads and folds the weights. STATUS_INPUT: what descriptor_file.h refuses, and weights that are not finite
 * when folded. The outcome is agreed. Owned by the caller: descriptor_model_fini, also after a failure.
 * Collective over COMM. */
Status descriptor_model_load(DescriptorModel *model, const char *path, Comm *comm, Error *error);

/* Puts the weights into the device's memory, convolutions in `wanted` where the device has it, else in fp32.
 * The device must outlive the model. */
void descriptor_model_place(DescriptorModel *model, Device *device, Dtype wanted);

void descriptor_model_fini(DescriptorModel *model);

#endif
