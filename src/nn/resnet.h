/* resnet.h - the copy-detection network of SSCD: ResNet, generalised mean pooling, linear, unit length.
 *
 * Source: sscd/models/model.py (TV_RESNET18, TV_RESNET50) on torchvision's resnet.py: the stride of a
 * bottleneck is in its 3x3 convolution. Parameters carry the names of SSCD's state dict without "backbone.";
 * running_mean and running_var are parameters like the others here, and num_batches_tracked is left out.
 * Evaluation only: batch norm with its running figures is folded into the convolutions, once, by resnet_fold,
 * and nothing is kept for a backward.
 *
 * Pictures and maps are [n, h, w, channels]: 1x1 convolutions, half the work of the larger network, are plain
 * products then, channels are contiguous for pooling, and the host library's fastest forms read it.
 *
 *     resnet_build(&resnet, &config, &table);
 *     ...; resnet_fold(&resnet, flat, folded);      // flat [table.flat_count] -> folded [folded_count]
 *     ResnetPass pass = resnet_pass(&resnet, &input, act, &arena);
 *     resnet_forward(&resnet, ops, &weights, &pass, NULL, NULL);   // pass.embedding [n, dims]
 */
#ifndef DINOBATCH_NN_RESNET_H
#define DINOBATCH_NN_RESNET_H

#include "ops/ops.h"
#include "tensor/param_table.h"

typedef enum { RESNET_18, RESNET_50 } ResnetArch;

typedef struct {
    ResnetArch arch;
    int64_t dims;  /* of the embedding */
    double gem_p;  /* exponent of the pooling */
    double bn_eps; /* of batch norm */
} ResnetConfig;

enum { RESNET_CONVS_MAX = 53, RESNET_BLOCKS_MAX = 16, RESNET_STAGES = 4, RESNET_CHANNELS = 3 };

/* A convolution without bias and the batch norm behind it. */
typedef struct {
    int64_t inputs, outputs, kernel, stride, padding;
    int weight, gamma, beta, mean, variance; /* ids in the table */
    int64_t folded_weight, folded_bias;      /* first elements in the folded weights */
} ResnetConv;

/* conv_count convolutions in a row and, where the shape changes, one beside them (-1: none). */
typedef struct {
    int first_conv, conv_count, downsample;
    int stage; /* 1 .. RESNET_STAGES */
} ResnetBlock;

typedef struct {
    ResnetConfig config;
    const ParamTable *table;            /* borrowed */
    ResnetConv convs[RESNET_CONVS_MAX]; /* convs[0] is the stem's */
    ResnetBlock blocks[RESNET_BLOCKS_MAX];
    int conv_count, block_count;
    int fc_weight, fc_bias; /* ids */
    int64_t width;          /* channels of the last map */
    int64_t folded_fc_weight, folded_fc_bias, folded_count;
} Resnet;

/* The folded weights in the device's memory; borrowed. */
typedef struct {
    Tensor exact;   /* [folded_count] fp32 */
    Tensor reduced; /* the same as bf16 or fp16, for convolutions in that type; or none: fp32 */
} ResnetWeights;

/* Adds the network's parameters to the table, whose module they are the backbone of. The table may grow on;
 * it must outlive the network. */
void resnet_build(Resnet *resnet, const ResnetConfig *config, ParamTable *table);

/* folded[folded_count] from the parameters' values flat[table->flat_count], both on the host: each output's
 * weights times gamma / sqrt(variance + eps), in fp64, as [O, kernel, kernel, C]. */
void resnet_fold(const Resnet *resnet, const float *flat, float *folded);

/* What ops must be made for. */
OpsLimits resnet_limits(const Resnet *resnet);

/* Pictures of one size. */
typedef struct {
    Tensor images; /* [n, 3, h, w] uint8 grey levels, or fp32 as the network reads them */
    Tensor levels; /* [3, 256] fp32: what grey levels are to the network (data/pixel_levels.h); or none */
} ResnetInput;

/* One pass; lives in an arena. */
typedef struct {
    ResnetInput input;
    Dtype act;
    Tensor pixels;               /* [n * h * w, 3] act */
    void *map, *next, *inner[2]; /* maps of any stage */
    Tensor pooled;               /* [n, width] fp32 */
    Tensor projected;            /* [n, dims] fp32 */
    Tensor embedding;            /* [n, dims] fp32, rows of unit length */
    Tensor norms;                /* [n] fp32 */
} ResnetPass;

/* Lays out a pass. On a measuring arena only shapes of the input are read. `act`: the type of the weights
 * that convolutions will use. */
ResnetPass resnet_pass(const Resnet *resnet, const ResnetInput *input, Dtype act, Arena *arena);

/* Sees the map [n, h, w, C] act behind the first pooling (stage 0) and behind each stage. */
typedef void (*ResnetTap)(void *context, int stage, Tensor map);

/* pass->embedding; `tap` may be NULL. */
void resnet_forward(const Resnet *resnet, const Ops *ops, const ResnetWeights *weights, ResnetPass *pass,
                    ResnetTap tap, void *context);

#endif
