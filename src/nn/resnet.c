/* resnet.c - see resnet.h. */
#include "nn/resnet.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEM_OUTPUTS = 64 };

static const double GEM_LEAST = 1e-6; /* what the pooling takes for smaller values */
static const float NORMALIZE_EPS = 1e-12f;

/* --- building ------------------------------------------------------------------------------------------ */

static int64_t round_up(int64_t n)
{
    return (n + PARAM_ALIGNMENT - 1) / PARAM_ALIGNMENT * PARAM_ALIGNMENT;
}

static int add_vector(ParamTable *table, const char *prefix, const char *suffix, int64_t n, double value)
{
    ParamSpec spec = {.module = PARAM_BACKBONE, .init_value = value, .ndim = 1, .shape = {n}};
    return param_table_add(table, &spec, prefix, suffix);
}

/* `conv` and `norm` are names without ".weight". The initial values make a network that runs, no more:
 * nothing trains it here. */
static int add_conv(Resnet *r, ParamTable *table, ResnetConv c, const char *conv, const char *norm)
{
    CHECK(r->conv_count < RESNET_CONVS_MAX);
    c.padding = c.kernel / 2;
    ParamSpec spec = {.module = PARAM_BACKBONE,
                      .init = PARAM_INIT_NORMAL,
                      .init_value = sqrt(2.0 / (double)(c.inputs * c.kernel * c.kernel)),
                      .ndim = 4,
                      .shape = {c.outputs, c.inputs, c.kernel, c.kernel}};
    c.weight = param_table_add(table, &spec, conv, ".weight");
    c.gamma = add_vector(table, norm, ".weight", c.outputs, 1.0);
    c.beta = add_vector(table, norm, ".bias", c.outputs, 0.0);
    c.mean = add_vector(table, norm, ".running_mean", c.outputs, 0.0);
    c.variance = add_vector(table, norm, ".running_var", c.outputs, 1.0);
    c.folded_weight = r->folded_count;
    c.folded_bias = c.folded_weight + round_up(c.outputs * c.inputs * c.kernel * c.kernel);
    r->folded_count = c.folded_bias + round_up(c.outputs);
    r->convs[r->conv_count] = c;
    return r->conv_count++;
}

typedef struct {
    int stage, index; /* of the block, in its stage */
    int64_t inputs, middle, outputs, stride;
} BlockShape;

static int add_block_conv(Resnet *r, ParamTable *table, const BlockShape *b, int number, ResnetConv c)
{
    char conv[64], norm[64];
    snprintf(conv, sizeof conv, "layer%d.%d.conv%d", b->stage, b->index, number);
    snprintf(norm, sizeof norm, "layer%d.%d.bn%d", b->stage, b->index, number);
    return add_conv(r, table, c, conv, norm);
}

static void add_block(Resnet *r, ParamTable *table, const BlockShape *b)
{
    ResnetBlock *block = &r->blocks[r->block_count++];
    *block = (ResnetBlock){.downsample = -1, .stage = b->stage};
    int64_t m = b->middle, s = b->stride;
    if (r->config.arch == RESNET_50) {
        block->first_conv = add_block_conv(
            r, table, b, 1, (ResnetConv){.inputs = b->inputs, .outputs = m, .kernel = 1, .stride = 1});
        add_block_conv(r, table, b, 2, (ResnetConv){.inputs = m, .outputs = m, .kernel = 3, .stride = s});
        add_block_conv(r, table, b, 3,
                       (ResnetConv){.inputs = m, .outputs = b->outputs, .kernel = 1, .stride = 1});
        block->conv_count = 3;
    } else {
        block->first_conv = add_block_conv(
            r, table, b, 1, (ResnetConv){.inputs = b->inputs, .outputs = m, .kernel = 3, .stride = s});
        add_block_conv(r, table, b, 2, (ResnetConv){.inputs = m, .outputs = m, .kernel = 3, .stride = 1});
        block->conv_count = 2;
    }
    if (b->inputs == b->outputs && s == 1) return;
    char conv[64], norm[64];
    snprintf(conv, sizeof conv, "layer%d.%d.downsample.0", b->stage, b->index);
    snprintf(norm, sizeof norm, "layer%d.%d.downsample.1", b->stage, b->index);
    ResnetConv c = {.inputs = b->inputs, .outputs = b->outputs, .kernel = 1, .stride = s};
    block->downsample = add_conv(r, table, c, conv, norm);
}

void resnet_build(Resnet *r, const ResnetConfig *config, ParamTable *table)
{
    static const int counts[][RESNET_STAGES] = {[RESNET_18] = {2, 2, 2, 2}, [RESNET_50] = {3, 4, 6, 3}};
    *r = (Resnet){.config = *config, .table = table};
    param_table_begin_unit(table, PARAM_BACKBONE);
    add_conv(r, table,
             (ResnetConv){.inputs = RESNET_CHANNELS, .outputs = STEM_OUTPUTS, .kernel = 7, .stride = 2},
             "conv1", "bn1");
    int64_t inputs = STEM_OUTPUTS, expansion = config->arch == RESNET_50 ? 4 : 1;
    for (int stage = 1; stage <= RESNET_STAGES; stage++)
        for (int i = 0; i < counts[config->arch][stage - 1]; i++) {
            int64_t middle = (int64_t)STEM_OUTPUTS << (stage - 1);
            BlockShape b = {stage, i, inputs, middle, middle * expansion, stage > 1 && i == 0 ? 2 : 1};
            add_block(r, table, &b);
            inputs = b.outputs;
        }
    r->width = inputs;
    ParamSpec fc = {.module = PARAM_BACKBONE,
                    .init = PARAM_INIT_UNIFORM,
                    .init_value = sqrt(6.0 / (double)(config->dims + inputs)),
                    .ndim = 2,
                    .shape = {config->dims, inputs}};
    r->fc_weight = param_table_add(table, &fc, "fc", ".weight");
    r->fc_bias = add_vector(table, "fc", ".bias", config->dims, 0.0);
    r->folded_fc_weight = r->folded_count;
    r->folded_fc_bias = r->folded_fc_weight + round_up(config->dims * inputs);
    r->folded_count = r->folded_fc_bias + round_up(config->dims);
}

/* --- weights ------------------------------------------------------------------------------------------- */

static void fold_conv(const Resnet *r, const ResnetConv *c, const float *flat, float *folded)
{
    const Param *params = r->table->params;
    const float *weight = flat + params[c->weight].offset, *gamma = flat + params[c->gamma].offset;
    const float *beta = flat + params[c->beta].offset, *mean = flat + params[c->mean].offset;
    const float *variance = flat + params[c->variance].offset;
    int64_t taps = c->kernel * c->kernel;
    for (int64_t o = 0; o < c->outputs; o++) {
        double scale = (double)gamma[o] / sqrt((double)variance[o] + r->config.bn_eps);
        const float *from = weight + o * c->inputs * taps;
        float *to = folded + c->folded_weight + o * c->inputs * taps;
        for (int64_t i = 0; i < c->inputs; i++)
            for (int64_t t = 0; t < taps; t++)
                to[t * c->inputs + i] = (float)((double)from[i * taps + t] * scale);
        folded[c->folded_bias + o] = (float)((double)beta[o] - (double)mean[o] * scale);
    }
}

void resnet_fold(const Resnet *r, const float *flat, float *folded)
{
    memset(folded, 0, (size_t)r->folded_count * sizeof *folded);
    for (int i = 0; i < r->conv_count; i++)
        fold_conv(r, &r->convs[i], flat, folded);
    const Param *weight = &r->table->params[r->fc_weight], *bias = &r->table->params[r->fc_bias];
    memcpy(folded + r->folded_fc_weight, flat + weight->offset, (size_t)weight->count * sizeof *folded);
    memcpy(folded + r->folded_fc_bias, flat + bias->offset, (size_t)bias->count * sizeof *folded);
}

OpsLimits resnet_limits(const Resnet *r)
{
    OpsLimits limits = {.width = r->width > r->config.dims ? r->width : r->config.dims};
    for (int i = 0; i < r->conv_count; i++) {
        const ResnetConv *c = &r->convs[i];
        int64_t columns = c->inputs * c->kernel * c->kernel;
        if (columns > limits.conv_columns) limits.conv_columns = columns;
    }
    return limits;
}

/* --- a pass -------------------------------------------------------------------------------------------- */

/* Of one picture. */
typedef struct {
    int64_t h, w, channels;
} MapSize;

static MapSize behind_conv(MapSize in, const ResnetConv *c)
{
    return (MapSize){(in.h + 2 * c->padding - c->kernel) / c->stride + 1,
                     (in.w + 2 * c->padding - c->kernel) / c->stride + 1, c->outputs};
}

/* 3x3, stride 2, padding 1. */
static MapSize behind_pool(MapSize in)
{
    return (MapSize){(in.h - 1) / 2 + 1, (in.w - 1) / 2 + 1, in.channels};
}

static int64_t larger(int64_t most, MapSize size)
{
    int64_t count = size.h * size.w * size.channels;
    return count > most ? count : most;
}

/* Elements of one picture in the largest map that each of the pass's buffers will hold. */
typedef struct {
    int64_t map, inner[2];
} Room;

static Room measure(const Resnet *r, MapSize size)
{
    size = behind_conv(size, &r->convs[0]);
    Room room = {.inner = {larger(0, size)}};
    size = behind_pool(size);
    room.map = larger(0, size);
    for (int i = 0; i < r->block_count; i++) {
        const ResnetBlock *b = &r->blocks[i];
        for (int k = 0; k < b->conv_count; k++) {
            size = behind_conv(size, &r->convs[b->first_conv + k]);
            if (k + 1 < b->conv_count) room.inner[k] = larger(room.inner[k], size);
        }
        room.map = larger(room.map, size);
    }
    return room;
}

ResnetPass resnet_pass(const Resnet *r, const ResnetInput *input, Dtype act, Arena *arena)
{
    CHECK(input->images.ndim == 4 && input->images.shape[1] == RESNET_CHANNELS);
    int64_t n = input->images.shape[0], h = input->images.shape[2], w = input->images.shape[3];
    Room room = measure(r, (MapSize){h, w, RESNET_CHANNELS});
    size_t each = (size_t)n * dtype_size(act);
    ResnetPass pass = {.input = *input, .act = act};
    pass.pixels = tensor_alloc_2d(arena, act, n * h * w, RESNET_CHANNELS);
    pass.map = arena_alloc(arena, (size_t)room.map * each);
    pass.next = arena_alloc(arena, (size_t)room.map * each);
    for (int i = 0; i < 2; i++)
        pass.inner[i] = arena_alloc(arena, (size_t)room.inner[i] * each);
    pass.pooled = tensor_alloc_2d(arena, DTYPE_F32, n, r->width);
    pass.projected = tensor_alloc_2d(arena, DTYPE_F32, n, r->config.dims);
    pass.embedding = tensor_alloc_2d(arena, DTYPE_F32, n, r->config.dims);
    pass.norms = tensor_alloc_1d(arena, DTYPE_F32, n);
    return pass;
}

static Tensor map_view(void *data, const ResnetPass *pass, MapSize size)
{
    int64_t shape[] = {pass->input.images.shape[0], size.h, size.w, size.channels};
    return tensor_view(data, pass->act, 4, shape);
}

typedef struct {
    const Resnet *resnet;
    const Ops *ops;
    const ResnetWeights *weights;
    ResnetPass *pass;
} Walk;

static Tensor part(Tensor all, int64_t first, int64_t rows, int64_t columns)
{
    char *data = (char *)all.data + (size_t)first * dtype_size(all.dtype);
    return columns ? tensor_2d(data, all.dtype, rows, columns) : tensor_1d(data, all.dtype, rows);
}

/* The map behind a convolution, in the memory at `to`. */
static Tensor convolve(const Walk *walk, int number, Tensor x, void *to, bool accumulate, bool relu)
{
    const ResnetConv *c = &walk->resnet->convs[number];
    const ResnetWeights *weights = walk->weights;
    Tensor all = tensor_given(weights->reduced) ? weights->reduced : weights->exact;
    MapSize size = behind_conv((MapSize){x.shape[1], x.shape[2], x.shape[3]}, c);
    Conv2d conv = {.y = map_view(to, walk->pass, size),
                   .x = x,
                   .w = part(all, c->folded_weight, c->outputs, c->inputs * c->kernel * c->kernel),
                   .b = part(weights->exact, c->folded_bias, c->outputs, 0),
                   .kernel = c->kernel,
                   .stride = c->stride,
                   .padding = c->padding,
                   .accumulate = accumulate,
                   .relu = relu};
    walk->ops->conv2d_forward(walk->ops, &conv);
    return conv.y;
}

/* The last convolution of a block adds to what goes around it, where that lies: the block's input, which
 * nobody needs any more, or the downsampled one. */
static Tensor run_block(const Walk *walk, const ResnetBlock *block, Tensor x)
{
    ResnetPass *pass = walk->pass;
    Tensor inside = x;
    if (block->downsample >= 0) {
        convolve(walk, block->downsample, x, pass->next, false, false);
        void *input = pass->map;
        pass->map = pass->next;
        pass->next = input;
    }
    int last = block->conv_count - 1;
    for (int k = 0; k < last; k++)
        inside = convolve(walk, block->first_conv + k, inside, pass->inner[k], false, true);
    return convolve(walk, block->first_conv + last, inside, pass->map, true, true);
}

static Tensor run_stem(const Walk *walk)
{
    const ResnetPass *pass = walk->pass;
    const Ops *ops = walk->ops;
    const Tensor images = pass->input.images;
    ops->patchify_forward(ops, pass->pixels, images, pass->input.levels, 1);
    MapSize size = {images.shape[2], images.shape[3], RESNET_CHANNELS};
    Tensor x = convolve(walk, 0, map_view(pass->pixels.data, pass, size), pass->inner[0], false, true);
    size = behind_pool((MapSize){x.shape[1], x.shape[2], x.shape[3]});
    Tensor y = map_view(pass->map, pass, size);
    ops->max_pool_forward(ops, y, x, 3, 2, 1);
    return y;
}

void resnet_forward(const Resnet *r, const Ops *ops, const ResnetWeights *weights, ResnetPass *pass,
                    ResnetTap tap, void *context)
{
    Walk walk = {r, ops, weights, pass};
    Tensor x = run_stem(&walk);
    if (tap) tap(context, 0, x);
    for (int i = 0; i < r->block_count; i++) {
        x = run_block(&walk, &r->blocks[i], x);
        bool ends = i + 1 == r->block_count || r->blocks[i + 1].stage != r->blocks[i].stage;
        if (tap && ends) tap(context, r->blocks[i].stage, x);
    }
    ops->gem_pool_forward(ops, pass->pooled, x, r->config.gem_p, GEM_LEAST);
    ops->linear_forward(ops, pass->projected, pass->pooled,
                        part(weights->exact, r->folded_fc_weight, r->config.dims, r->width),
                        part(weights->exact, r->folded_fc_bias, r->config.dims, 0));
    ops->l2_normalize_forward(ops, pass->embedding, pass->norms, pass->projected, NORMALIZE_EPS);
}
