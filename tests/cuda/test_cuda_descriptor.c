/* test_cuda_descriptor.c - the copy-detection network on a GPU beside the CPU, on a batch of mixed sizes. */
#include "../support/sscd_weights.h"
#include "../support/twin_support.h"

#include "base/memory.h"
#include "data/pixel_levels.h"
#include "features/descriptor_pass.h"

#include <criterion/criterion.h>
#include <math.h>

enum { DIMS = 40, EDGE = 20, BATCH = 5 };

/* out[BATCH, DIMS]: embeddings by one device, convolutions in `act`. */
static void embed(const Resnet *resnet, Twin *twin, TwinSide side, TwinTensor folded, Dtype act,
                  const EvalBatch *batch, float *out)
{
    Device *device = side == TWIN_HOST ? twin->host_device : twin->cuda_device;
    const Ops *ops = twin_ops(twin, side);
    PixelNorm norm = pixel_levels_imagenet();
    FeatureDescriptor descriptor = {.resnet = resnet,
                                    .weights = {.exact = folded.on[side]},
                                    .levels = pixel_levels_create(device, &norm)};
    void *reduced = NULL;
    if (act != DTYPE_F32) {
        reduced = device_alloc(device, (size_t)resnet->folded_count * dtype_size(act));
        descriptor.weights.reduced = tensor_1d(reduced, act, resnet->folded_count);
        ops->cast(ops, descriptor.weights.reduced, descriptor.weights.exact);
    }
    DescriptorPass *pass = descriptor_pass_create(&descriptor, device, EVAL_SHORTER, EDGE, BATCH);
    descriptor_pass_run(pass, ops, batch, out);
    descriptor_pass_destroy(pass);
    device_free(device, reduced);
    device_free(device, descriptor.levels.data);
}

static double worst(const float *a, const float *b)
{
    double most = 0.0;
    for (int i = 0; i < BATCH * DIMS; i++)
        most = fmax(most, isfinite(a[i]) ? fabs((double)a[i] - (double)b[i]) : INFINITY);
    return most;
}

Test(cuda_descriptor, embeddings_are_the_cpus)
{
    TWIN_REQUIRE();
    ResnetConfig config = {.arch = RESNET_18, .dims = DIMS, .gem_p = 3.0, .bn_eps = 1e-5};
    ParamTable table;
    Resnet resnet;
    param_table_init(&table);
    resnet_build(&resnet, &config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    float *folded = memory_alloc_array((size_t)resnet.folded_count, sizeof *folded);
    sscd_weights_fill(&table, 4, flat);
    resnet_fold(&resnet, flat, folded);
    OpsLimits limits = resnet_limits(&resnet);
    Twin *twin = twin_create(&limits, 53);
    TwinTensor weights = twin_f32(twin, resnet.folded_count, folded);

    EvalSize sizes[BATCH] = {{EDGE, EDGE}, {EDGE, 33}, {EDGE, EDGE}, {70, EDGE}, {EDGE, 33}};
    size_t bytes = 3 * EDGE * EDGE * EVAL_LONGEST;
    uint8_t *images = memory_alloc(BATCH * bytes);
    for (size_t i = 0; i < BATCH * bytes; i++)
        images[i] = (uint8_t)rng_integer(&twin->rng, 0, 255);
    EvalBatch batch = {.count = BATCH, .images = images, .image_bytes = bytes, .sizes = sizes};
    float host[BATCH * DIMS], device[BATCH * DIMS], again[BATCH * DIMS];
    embed(&resnet, twin, TWIN_HOST, weights, DTYPE_F32, &batch, host);
    embed(&resnet, twin, TWIN_DEVICE, weights, DTYPE_F32, &batch, device);
    cr_expect_leq(worst(device, host), 2e-6, "fp32: off by %g", worst(device, host));
    embed(&resnet, twin, TWIN_DEVICE, weights, DTYPE_F32, &batch, again);
    cr_expect_eq(worst(again, device), 0.0);
    embed(&resnet, twin, TWIN_DEVICE, weights, DTYPE_F16, &batch, again);
    cr_expect_leq(worst(again, host), 2e-3, "fp16: off by %g", worst(again, host));
    embed(&resnet, twin, TWIN_DEVICE, weights, DTYPE_BF16, &batch, again);
    cr_expect_leq(worst(again, host), 1.5e-2, "bf16: off by %g", worst(again, host));

    twin_destroy(twin);
    memory_free(images);
    memory_free(folded);
    memory_free(flat);
    param_table_fini(&table);
}
