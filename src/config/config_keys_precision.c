/* config_keys_precision.c - rows of MODEL and compute_precision.
 *
 * Names and defaults: dinov2/configs/ssl_default_config.yaml of the reference.
 */
#include "config/config_keys.h"

#include <assert.h>

#define SHARDING "NO_SHARD|SHARD_GRAD_OP|FULL_SHARD|HYBRID_SHARD"
#define DTYPES   "fp32|bf16|fp16"

static_assert(DTYPE_F32 == 0 && DTYPE_BF16 == 1 && DTYPE_F16 == 2,
              "DTYPES lists the names in the order of Dtype");

#define SHARDING_HELP "when full copies of the weights live (sharded data parallelism)"
#define REDUCE_INERT  "the teacher has no gradients"
#define BUFFER_INERT  "the models have no buffers that a dtype could apply to"

/* The four keys of one network part. */
#define PART(part, param, reduce, reduce_inert)                                                             \
    {CONFIG_KEY(compute_precision.part.sharding_strategy, "SHARD_GRAD_OP", SHARDING_HELP),                  \
     .choices = SHARDING, .may_change = true},                                                              \
        {CONFIG_KEY(compute_precision.part.mixed_precision.param_dtype, param,                              \
                    "element type of weights and activations in computation; master weights stay fp32"),    \
         .choices = DTYPES},                                                                                \
        {CONFIG_KEY(compute_precision.part.mixed_precision.reduce_dtype, reduce,                            \
                    "element type in which gradients are summed over the ranks"),                           \
         .choices = DTYPES, .inert = reduce_inert},                                                         \
    {                                                                                                       \
        CONFIG_KEY(compute_precision.part.mixed_precision.buffer_dtype, "fp32", "element type of buffers"), \
            .choices = DTYPES, .inert = BUFFER_INERT                                                        \
    }

const ConfigKey CONFIG_KEYS_PRECISION[] = {
    {CONFIG_KEY(MODEL.WEIGHTS, "", "weights to start from where there is no checkpoint"),
     .inert = "a run starts from train.init_from, or resumes from the checkpoints of its output folder"},
    {CONFIG_KEY(compute_precision.grad_scaler, "true",
                "scale the loss dynamically where gradients are computed in fp16")},
    PART(teacher.backbone, "fp16", "fp16", REDUCE_INERT),
    PART(teacher.dino_head, "fp16", "fp16", REDUCE_INERT),
    PART(teacher.ibot_head, "fp16", "fp16", REDUCE_INERT),
    PART(student.backbone, "fp16", "fp16", NULL),
    PART(student.dino_head, "fp16", "fp32", NULL),
    PART(student.ibot_head, "fp16", "fp32", NULL),
};

const int CONFIG_KEYS_PRECISION_COUNT = sizeof CONFIG_KEYS_PRECISION / sizeof *CONFIG_KEYS_PRECISION;
