/* test_vit.c - the backbone: packing, names and units, interpolation, gradients of its inputs, hooks. */
#include "../support/ops_support.h"
#include "../support/ssl_support.h"

#include "base/memory.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A backbone with random weights. */
typedef struct {
    Vit vit;
    ParamTable table;
    float *params, *grads;
    Weights weights;
    Ops *ops;
    Arena arena;
} Net;

static VitConfig tiny(void)
{
    return (VitConfig){.embed_dim = 24,
                       .depth = 3,
                       .num_heads = 3,
                       .patch_size = 4,
                       .img_size = 16,
                       .mlp_ratio = 4,
                       .qkv_bias = true,
                       .proj_bias = true,
                       .ffn_bias = true,
                       .layerscale = 1,
                       .interpolate_offset = 0.1};
}

static Net *net_create(VitConfig config)
{
    Net *net = memory_alloc(sizeof *net);
    param_table_init(&net->table);
    vit_build(&net->vit, &config, &net->table);
    size_t n = (size_t)net->table.flat_count;
    net->params = memory_alloc_array(n, sizeof(float));
    net->grads = memory_alloc_array(n, sizeof(float));
    ssl_support_random_params(&net->table, 3, net->params);
    net->weights = (Weights){.master = param_values_flat(&net->table, net->params)};
    OpsLimits limits = {.rows = 2048, .width = 256, .max_seqlen = 256, .head_dim = 64};
    net->ops = ops_support_open(&limits, 1);
    net->arena = arena_create((size_t)32 << 20);
    return net;
}

static void net_destroy(Net *net)
{
    arena_destroy(&net->arena);
    ops_support_close(net->ops);
    vit_fini(&net->vit);
    param_table_fini(&net->table);
    memory_free(net->params);
    memory_free(net->grads);
    memory_free(net);
}

/* Random pictures, and masks on every third patch where asked. */
static VitCrops random_crops(Net *net, int64_t n, int64_t height, int64_t width, bool masked)
{
    VitCrops crops = {.sequences = n, .height = height, .width = width, .place = {n, 0}};
    Rng rng = rng_at(9, RNG_TEST, (uint64_t)height, (uint64_t)width);
    float *images = arena_alloc(&net->arena, (size_t)(n * 3 * height * width) * sizeof(float));
    for (int64_t i = 0; i < n * 3 * height * width; i++)
        images[i] = (float)rng_normal(&rng);
    crops.images = tensor_view(images, DTYPE_F32, 4, (const int64_t[]){n, 3, height, width});
    if (!masked) return crops;
    int64_t patches = n * vit_patches(&net->vit, height, width);
    uint8_t *masks = arena_alloc(&net->arena, (size_t)patches);
    for (int64_t i = 0; i < patches; i++)
        masks[i] = rng_integer(&rng, 0, 2) == 0;
    crops.masks = tensor_1d(masks, DTYPE_U8, patches);
    return crops;
}

/* Forward of some crops, and with `cotangent` [tokens, D] the backward of sum <x_prenorm, cotangent>. */
static VitPass run(Net *net, const VitInput *input, const float *cotangent, const Tensor *dimages)
{
    VitPass pass = vit_pass(&net->vit, input, &net->arena);
    vit_forward(&net->vit, net->ops, &net->weights, &pass, NULL);
    if (!cotangent) return pass;
    memcpy(pass.dx.data, cotangent, tensor_bytes(pass.dx));
    vit_backward(&net->vit, net->ops, &net->weights, &pass, param_values_flat(&net->table, net->grads),
                 dimages, NULL);
    return pass;
}

enum { VARIANTS = 6 };

static void variants(VitConfig list[VARIANTS])
{
    for (int i = 0; i < VARIANTS; i++)
        list[i] = tiny();
    list[1].swiglu = true, list[1].num_register_tokens = 3;
    list[2].interpolate_antialias = true, list[2].interpolate_offset = 0;
    list[3].qkv_bias = list[3].proj_bias = list[3].ffn_bias = false, list[3].layerscale = 0;
    list[4].block_chunks = 3, list[4].num_heads = 1;
    list[5].num_register_tokens = 1, list[5].patch_size = 8;
}

/* --- packing
 * --------------------------------------------------------------------------------------------------- */

Test(vit, a_pack_equals_its_crops_one_by_one)
{
    VitConfig list[VARIANTS];
    variants(list);
    for (int v = 0; v < VARIANTS; v++) {
        Net *net = net_create(list[v]);
        VitInput both = {.set_count = 3,
                         .backward = true,
                         .sets = {random_crops(net, 4, 16, 16, true), random_crops(net, 5, 8, 8, false),
                                  random_crops(net, 2, 24, 8, false)}};
        Arena plan = arena_measuring();
        VitPass sizes = vit_pass(&net->vit, &both, &plan);
        int64_t D = net->vit.config.embed_dim, tokens = sizes.pack.tokens, n = net->table.flat_count;
        float *cotangent = arena_alloc(&net->arena, (size_t)(tokens * D) * sizeof(float));
        Rng rng = rng_at(2, RNG_TEST, 0, 0);
        for (int64_t i = 0; i < tokens * D; i++)
            cotangent[i] = (float)rng_normal(&rng);
        VitPass packed = run(net, &both, cotangent, NULL);
        float *grads = memory_alloc_array((size_t)n, sizeof(float));
        memcpy(grads, net->grads, (size_t)n * sizeof(float));
        memset(net->grads, 0, (size_t)n * sizeof(float));

        for (int set = 0; set < 3; set++) {
            for (int64_t s = 0; s < both.sets[set].sequences; s++) {
                VitCrops one = both.sets[set];
                int64_t pixels = 3 * one.height * one.width, N = packed.patches[set],
                        T = packed.pack.sets[set].tokens_each;
                one.sequences = 1;
                one.images = tensor_view(tensor_f32(one.images) + s * pixels, DTYPE_F32, 4,
                                         (const int64_t[]){1, 3, one.height, one.width});
                if (tensor_given(one.masks)) one.masks = tensor_rows(one.masks, s * N, N);
                VitInput input = {.set_count = 1, .backward = true, .sets = {one}};
                ArenaMark mark = arena_mark(&net->arena);
                int64_t row = vit_row(&packed, set, s);
                VitPass alone = run(net, &input, cotangent + row * D, NULL);
                double error =
                    ssl_support_difference(tensor_f32(packed.x) + row * D, tensor_f32(alone.x), T * D);
                cr_expect(error < 2e-6, "variant %d, set %d, crop %d: off by %g", v, set, (int)s, error);
                arena_reset(&net->arena, mark);
            }
        }
        for (int i = 0; i < net->table.count; i++) {
            const Param *p = &net->table.params[i];
            double error = ssl_support_difference(net->grads + p->offset, grads + p->offset, p->count);
            cr_expect(error < 1e-5, "variant %d: gradient of %s off by %g", v, p->name, error);
        }
        memory_free(grads);
        net_destroy(net);
    }
}

Test(vit, a_pass_without_backward_gives_the_same)
{
    Net *net = net_create(tiny());
    VitInput input = {.set_count = 1, .sets = {random_crops(net, 3, 16, 16, true)}};
    VitPass lean = run(net, &input, NULL, NULL);
    input.backward = true;
    VitPass full = run(net, &input, NULL, NULL);
    cr_expect(memcmp(lean.x.data, full.x.data, tensor_bytes(full.x)) == 0);
    net_destroy(net);
}

Test(vit, the_first_blocks_alone_give_what_they_give_among_all)
{
    VitConfig list[VARIANTS];
    variants(list);
    for (int v = 0; v < VARIANTS; v += 4) { /* without and with chunks */
        Net *net = net_create(list[v]);
        VitInput input = {.set_count = 1, .sets = {random_crops(net, 3, 16, 16, false)}};
        Tensor captures[3];
        for (int i = 0; i < 3; i++)
            captures[i] = tensor_alloc_2d(&net->arena, DTYPE_F32, 3 * 17, net->vit.config.embed_dim);
        input.captures = captures;
        run(net, &input, NULL, NULL);
        input.captures = NULL;
        for (int i = 0; i < 3; i++) {
            input.blocks = i + 1;
            VitPass some = run(net, &input, NULL, NULL);
            cr_expect(memcmp(some.x.data, captures[i].data, tensor_bytes(some.x)) == 0,
                      "variant %d, block %d", v, i);
        }
        cr_expect(memcmp(captures[0].data, captures[1].data, tensor_bytes(captures[0])) != 0);
        net_destroy(net);
    }
}

/* --- gradients
 * -------------------------------------------------------------------------------------------------- */

typedef struct {
    Net *net;
    VitInput input;
    const float *cotangent; /* of the final norm's output */
} Probe;

/* sum <norm(x), cotangent>; with grads: backward as well. */
static double probe_loss(const Probe *probe, bool backward, const Tensor *dimages)
{
    Net *net = probe->net;
    ArenaMark mark = arena_mark(&net->arena);
    VitPass pass = vit_pass(&net->vit, &probe->input, &net->arena);
    int64_t tokens = pass.pack.tokens, D = net->vit.config.embed_dim;
    Tensor out = tensor_alloc_2d(&net->arena, DTYPE_F32, tokens, D);
    Tensor stats = tensor_alloc_2d(&net->arena, DTYPE_F32, tokens, 2);
    vit_forward(&net->vit, net->ops, &net->weights, &pass, NULL);
    vit_norm_forward(&net->vit, net->ops, &net->weights, pass.x, tensor_none(), out, stats, NULL);
    double loss = 0;
    for (int64_t i = 0; i < tokens * D; i++)
        loss += (double)tensor_f32(out)[i] * (double)probe->cotangent[i];
    if (backward) {
        Tensor d_out = tensor_2d((void *)(uintptr_t)probe->cotangent, DTYPE_F32, tokens, D);
        memset(pass.dx.data, 0, tensor_bytes(pass.dx));
        vit_norm_backward(&net->vit, net->ops, &net->weights, &pass, tensor_none(), d_out, stats,
                          param_values_flat(&net->table, net->grads), NULL);
        vit_backward(&net->vit, net->ops, &net->weights, &pass, param_values_flat(&net->table, net->grads),
                     dimages, NULL);
    }
    arena_reset(&net->arena, mark);
    return loss;
}

static double forward_only(void *context)
{
    return probe_loss(context, false, NULL);
}

/* Slope along half the gradient, half a random direction, against what the gradient says. */
static void check_slope(Probe *probe, float *values, const float *gradient, int64_t n, const char *what)
{
    float *direction = memory_alloc_array((size_t)n, sizeof(float));
    Rng rng = rng_at(4, RNG_TEST, 0, 0);
    double size = 0, wanted = 0, length = 0;
    for (int64_t i = 0; i < n; i++)
        size += (double)gradient[i] * (double)gradient[i];
    for (int64_t i = 0; i < n; i++) {
        direction[i] = (float)((double)gradient[i] / sqrt(size + 1e-30) + rng_normal(&rng) / sqrt((double)n));
        wanted += (double)gradient[i] * (double)direction[i];
        length += (double)direction[i] * (double)direction[i];
    }
    double slope = ssl_support_slope(forward_only, probe, values, direction, n, 5e-3);
    double error = fabs(slope - wanted) / (sqrt(size * length) + 1e-2);
    cr_expect(error < 2e-4, "%s: slope %.8g, gradient says %.8g (%.2g of its size)", what, slope, wanted,
              error);
    memory_free(direction);
}

Test(vit, gradients_of_parameters_and_pictures)
{
    VitConfig list[VARIANTS];
    variants(list);
    for (int v = 0; v < 2 * VARIANTS; v++) {
        VitConfig config = list[v / 2];
        config.drop_path_rate = 0.4;
        config.drop_path_uniform = v % 4 == 1;
        Net *net = net_create(config);
        Probe probe = {.net = net};
        probe.input =
            (VitInput){.set_count = 2,
                       .backward = true,
                       .drop_path = v % 2 == 1,
                       .seed = 3,
                       .step = v,
                       .sets = {random_crops(net, 4, 16, 16, true), random_crops(net, 5, 24, 8, false)}};
        Arena plan = arena_measuring();
        int64_t cells = vit_pass(&net->vit, &probe.input, &plan).pack.tokens * config.embed_dim;
        float *cotangent = arena_alloc(&net->arena, (size_t)cells * sizeof(float));
        Rng rng = rng_at(6, RNG_TEST, 0, (uint64_t)v);
        for (int64_t i = 0; i < cells; i++)
            cotangent[i] = (float)(rng_normal(&rng) / 10);
        probe.cotangent = cotangent;
        Tensor dimages[PACKED_MAX_SETS] = {{0}};
        for (int set = 0; set < 2; set++) {
            Tensor images = probe.input.sets[set].images;
            dimages[set] =
                tensor_view(arena_alloc(&net->arena, tensor_bytes(images)), DTYPE_F32, 4, images.shape);
        }
        probe_loss(&probe, true, dimages);
        char what[64];
        snprintf(what, sizeof what, "variant %d%s: parameters", v / 2, v % 2 ? ", dropping" : "");
        check_slope(&probe, net->params, net->grads, net->table.flat_count, what);
        for (int set = 0; set < 2; set++) {
            snprintf(what, sizeof what, "variant %d: pictures %d", v / 2, set);
            Tensor images = probe.input.sets[set].images;
            check_slope(&probe, tensor_f32(images), tensor_f32(dimages[set]), tensor_count(images), what);
        }
        net_destroy(net);
    }
}

/* --- names, units, hooks
 * --------------------------------------------------------------------------------------- */

Test(vit, chunks_change_names_and_units_only)
{
    VitConfig config = tiny();
    config.depth = 6;
    Net *plain = net_create(config);
    config.block_chunks = 3;
    Net *chunked = net_create(config);
    cr_expect_eq(plain->table.unit_count, 8);
    cr_expect_eq(chunked->table.unit_count, 5);
    cr_expect_eq(plain->table.flat_count, chunked->table.flat_count);
    cr_expect(param_table_find(&plain->table, PARAM_BACKBONE, "blocks.3.mlp.fc1.weight") >= 0);
    cr_expect(param_table_find(&chunked->table, PARAM_BACKBONE, "blocks.1.3.mlp.fc1.weight") >= 0);
    cr_expect(param_table_find(&chunked->table, PARAM_BACKBONE, "blocks.1.1.mlp.fc1.weight") < 0);
    net_destroy(plain);
    net_destroy(chunked);
}

Test(vit, width_of_the_feed_forward)
{
    VitBlockSpec spec = {.embed_dim = 384, .mlp_ratio = 4, .swiglu = true};
    cr_expect_eq(vit_block_hidden(&spec), 1024);
    spec.embed_dim = 1536;
    cr_expect_eq(vit_block_hidden(&spec), 4096);
    spec.embed_dim = 100;
    cr_expect_eq(vit_block_hidden(&spec), 272); /* int(400 * 2 / 3) = 266, up to a multiple of 8 */
    spec.swiglu = false;
    cr_expect_eq(vit_block_hidden(&spec), 400);
}

/* What decides how large a batch fits: of each token and branch the input, and the outputs of its products.
 */
Test(vit, bytes_that_a_block_keeps_for_a_token)
{
    enum { D = 64, HEADS = 4, TOKENS = 1000, FLOATS = HEADS + 4 }; /* lse, mean and rstd twice */
    static const struct {
        bool swiglu;
        Dtype act;
        int64_t numbers; /* x, qkv, attended, out; x, hidden_in, out */
    } cases[] = {{false, DTYPE_BF16, 6 * D + 6 * D},
                 {false, DTYPE_F32, 6 * D + 6 * D},
                 {true, DTYPE_BF16, 6 * D + 2 * D + 2 * 176}};
    for (int i = 0; i < 3; i++) {
        VitBlockSpec spec = {.embed_dim = D, .heads = HEADS, .mlp_ratio = 4, .swiglu = cases[i].swiglu};
        ParamTable table;
        param_table_init(&table);
        param_table_begin_unit(&table, PARAM_BACKBONE);
        VitBlock block = vit_block_build(&table, PARAM_BACKBONE, &spec, "");
        Arena plan = arena_measuring();
        TokenSubset all = {.tokens = TOKENS};
        vit_block_activations(&block, &plan, cases[i].act, all, all);
        size_t each = (size_t)cases[i].numbers * dtype_size(cases[i].act) + FLOATS * sizeof(float);
        cr_expect(plan.peak >= TOKENS * each && plan.peak <= TOKENS * each + 10 * ARENA_ALIGNMENT,
                  "case %d: %zu bytes, not %zu", i, plan.peak / TOKENS, each);
        param_table_fini(&table);
    }
}

typedef struct {
    int open[32], opened[32][2], failures;
} Heard;

static void on_before(void *context, int unit, NnPhase phase)
{
    Heard *heard = context;
    heard->failures += heard->open[unit]++ != 0;
    heard->opened[unit][phase]++;
}

static void on_after(void *context, int unit, NnPhase phase)
{
    Heard *heard = context;
    (void)phase;
    heard->failures += --heard->open[unit] != 0;
}

Test(vit, hooks_open_and_close_every_unit_once)
{
    VitConfig config = tiny();
    config.depth = 6;
    config.block_chunks = 3;
    Net *net = net_create(config);
    Heard heard = {.failures = 0};
    NnHooks hooks = {&heard, on_before, on_after};
    VitInput input = {.set_count = 1, .backward = true, .sets = {random_crops(net, 2, 16, 16, false)}};
    VitPass pass = vit_pass(&net->vit, &input, &net->arena);
    vit_forward(&net->vit, net->ops, &net->weights, &pass, &hooks);
    memset(pass.dx.data, 0, tensor_bytes(pass.dx));
    vit_backward(&net->vit, net->ops, &net->weights, &pass, param_values_flat(&net->table, net->grads), NULL,
                 &hooks);
    cr_expect_eq(heard.failures, 0);
    for (int unit = 0; unit < net->vit.norm_unit; unit++)
        cr_expect(heard.opened[unit][NN_FORWARD] == 1 && heard.opened[unit][NN_BACKWARD] == 1, "unit %d",
                  unit);
    net_destroy(net);
}

/* --- initial weights
 * ---------------------------------------------------------------------------------------------- */

static double std_of(const Net *net, const char *name, double *mean)
{
    int id = param_table_find(&net->table, PARAM_BACKBONE, name);
    cr_assert(id >= 0, "%s", name);
    const Param *p = &net->table.params[id];
    double sum = 0, square = 0, n = (double)p->count;
    for (int64_t i = 0; i < p->count; i++) {
        sum += net->params[p->offset + i];
        square += (double)net->params[p->offset + i] * net->params[p->offset + i];
    }
    *mean = sum / n;
    return sqrt(fmax(square / n - sum / n * sum / n, 0));
}

Test(vit, initial_weights)
{
    VitConfig config = tiny();
    config.embed_dim = 96;
    config.num_register_tokens = 4;
    config.layerscale = 1e-5;
    Net *net = net_create(config);
    param_table_initialise(&net->table, 1, net->params);
    double mean, bound = 1 / sqrt(3.0 * 16);
    cr_expect_float_eq(std_of(net, "blocks.1.attn.qkv.weight", &mean), 0.02, 4e-4);
    cr_expect_float_eq(std_of(net, "pos_embed", &mean), 0.02, 2e-3);
    cr_expect_float_eq(std_of(net, "patch_embed.proj.weight", &mean), bound / sqrt(3), 3e-3);
    cr_expect_float_eq(std_of(net, "patch_embed.proj.bias", &mean), bound / sqrt(3), 2e-2);
    cr_expect_float_eq(std_of(net, "cls_token", &mean), 1e-6, 3e-7);
    cr_expect_float_eq(std_of(net, "register_tokens", &mean), 1e-6, 2e-7);
    static const struct {
        const char *name;
        double value;
    } constants[] = {{"mask_token", 0},
                     {"blocks.0.norm1.weight", 1},
                     {"blocks.0.norm1.bias", 0},
                     {"blocks.2.ls2.gamma", 1e-5},
                     {"blocks.2.mlp.fc1.bias", 0},
                     {"norm.weight", 1}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        cr_expect(std_of(net, constants[i].name, &mean) < 1e-9, "%s", constants[i].name);
        cr_expect_float_eq(mean, constants[i].value, 1e-8, "%s", constants[i].name);
    }
    net_destroy(net);
}
