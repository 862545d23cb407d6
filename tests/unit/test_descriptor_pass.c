/* test_descriptor_pass.c - a batch of pictures of mixed sizes gives each the embedding that it has alone. */
#include "../support/sscd_weights.h"
#include "base/memory.h"
#include "data/pixel_levels.h"
#include "features/descriptor_pass.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { DIMS = 24, EDGE = 32, BATCH = 21 };

/* A network of formula weights on the CPU. */
typedef struct {
    Device *device;
    Ops *ops;
    ParamTable table;
    Resnet resnet;
    FeatureDescriptor descriptor;
    float *folded;
    float levels[3 * PATCHIFY_LEVELS];
} Network;

static void begin(Network *network, ResnetArch arch)
{
    ResnetConfig config = {.arch = arch, .dims = DIMS, .gem_p = 3.0, .bn_eps = 1e-5};
    param_table_init(&network->table);
    resnet_build(&network->resnet, &config, &network->table);
    float *flat = memory_alloc_array((size_t)network->table.flat_count, sizeof *flat);
    sscd_weights_fill(&network->table, 5, flat);
    network->folded = memory_alloc_array((size_t)network->resnet.folded_count, sizeof(float));
    resnet_fold(&network->resnet, flat, network->folded);
    memory_free(flat);
    PixelNorm norm = pixel_levels_imagenet();
    pixel_levels_fill(network->levels, &norm);
    network->device = device_open_host();
    OpsLimits limits = resnet_limits(&network->resnet);
    network->ops = ops_create(network->device, &limits, &(OpsOptions){.threads = 1});
    network->descriptor = (FeatureDescriptor){
        .resnet = &network->resnet,
        .weights = {.exact = tensor_1d(network->folded, DTYPE_F32, network->resnet.folded_count)},
        .levels = tensor_2d(network->levels, DTYPE_F32, 3, PATCHIFY_LEVELS)};
}

static void end(Network *network)
{
    ops_destroy(network->ops);
    device_close(network->device);
    memory_free(network->folded);
    param_table_fini(&network->table);
}

/* `count` pictures of noise; of several sizes where they are mixed. */
typedef struct {
    EvalBatch batch;
    EvalSize sizes[BATCH];
    uint8_t *images;
} Pictures;

static void draw(Pictures *p, int64_t count, bool mixed)
{
    const EvalSize shapes[] = {{EDGE, EDGE}, {EDGE, 2 * EDGE - 5}, {EVAL_LONGEST * EDGE, EDGE}};
    size_t bytes = 3 * EDGE * EDGE * (mixed ? EVAL_LONGEST : 1);
    p->images = memory_alloc_array((size_t)count, bytes);
    Rng rng = rng_at(11, RNG_TEST, 70, mixed);
    for (size_t i = 0; i < (size_t)count * bytes; i++)
        p->images[i] = (uint8_t)rng_integer(&rng, 0, 255);
    for (int64_t i = 0; i < count; i++)
        p->sizes[i] = shapes[mixed ? rng_integer(&rng, 0, 2) : 0];
    p->batch = (EvalBatch){.count = count, .images = p->images, .image_bytes = bytes, .sizes = p->sizes};
}

static void check_alone(Network *network, EvalTransform transform)
{
    Pictures p;
    draw(&p, BATCH, transform == EVAL_SHORTER);
    DescriptorPass *all =
        descriptor_pass_create(&network->descriptor, network->device, transform, EDGE, BATCH);
    DescriptorPass *one = descriptor_pass_create(&network->descriptor, network->device, transform, EDGE, 1);
    float out[BATCH * DIMS], alone[DIMS];
    descriptor_pass_run(all, network->ops, &p.batch, out);
    memset(out, 255, sizeof out);
    int64_t allocations = memory_allocation_count();
    descriptor_pass_run(all, network->ops, &p.batch, out);
    cr_expect_eq(memory_allocation_count(), allocations);
    for (int64_t i = 0; i < BATCH; i++) {
        EvalBatch single = {.count = 1,
                            .images = p.images + (size_t)i * p.batch.image_bytes,
                            .image_bytes = p.batch.image_bytes,
                            .sizes = &p.sizes[i]};
        descriptor_pass_run(one, network->ops, &single, alone);
        double squares = 0.0;
        for (int j = 0; j < DIMS; j++) {
            cr_assert_float_eq(out[i * DIMS + j], alone[j], 1e-5, "picture %lld", (long long)i);
            squares += (double)alone[j] * (double)alone[j];
        }
        cr_assert_float_eq(squares, 1.0, 1e-5);
    }
    descriptor_pass_destroy(all);
    descriptor_pass_destroy(one);
    memory_free(p.images);
}

Test(descriptor_pass, every_picture_has_its_own_embedding)
{
    Network network;
    begin(&network, RESNET_18);
    check_alone(&network, EVAL_SQUARE);
    check_alone(&network, EVAL_SHORTER);
    end(&network);
}

/* bf16 convolutions: directions move by little. */
Test(descriptor_pass, bf16_is_close)
{
    Network network;
    begin(&network, RESNET_50);
    if (!network.ops->has_bf16) cr_skip_test("this processor multiplies no bf16 numbers\n");
    Pictures p;
    draw(&p, 4, false);
    float exact[4 * DIMS], reduced[4 * DIMS];
    DescriptorPass *pass = descriptor_pass_create(&network.descriptor, network.device, EVAL_SQUARE, EDGE, 4);
    descriptor_pass_run(pass, network.ops, &p.batch, exact);
    descriptor_pass_destroy(pass);
    int64_t n = network.resnet.folded_count;
    uint16_t *weights = memory_alloc_array((size_t)n, sizeof *weights);
    network.descriptor.weights.reduced = tensor_1d(weights, DTYPE_BF16, n);
    network.ops->cast(network.ops, network.descriptor.weights.reduced, network.descriptor.weights.exact);
    pass = descriptor_pass_create(&network.descriptor, network.device, EVAL_SQUARE, EDGE, 4);
    descriptor_pass_run(pass, network.ops, &p.batch, reduced);
    descriptor_pass_destroy(pass);
    for (int i = 0; i < 4; i++) {
        double cosine = 0.0;
        for (int j = 0; j < DIMS; j++)
            cosine += (double)exact[i * DIMS + j] * (double)reduced[i * DIMS + j];
        cr_expect(cosine > 0.999 && cosine < 1.0 - 1e-9, "cosine %g", cosine);
    }
    memory_free(weights);
    memory_free(p.images);
    end(&network);
}
