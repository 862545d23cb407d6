/* golden_sscd.c - sscd.h5: the copy-detection network, every stage, on weights made by a formula. */
#include "../support/sscd_weights.h"
#include "golden.h"
#include "golden_device.h"

#include "base/memory.h"
#include "nn/resnet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A network of the file with its weights in place. */
typedef struct {
    Resnet resnet;
    ParamTable table;
    float *flat;
    Ops *ops;
    Tensor folded;
} Network;

/* What a picture size is compared with. */
typedef struct {
    Golden *golden;
    const Ops *ops;
    const char *path; /* "TV_RESNET50/64x64" */
} Case;

static bool is_ends_and_sum(const float *values, int64_t count, const double *stored)
{
    double sum = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)values[i];
        size += fabs((double)values[i]);
    }
    return (double)count == stored[0] && (double)values[0] == stored[1] &&
           (double)values[count - 1] == stored[2] && fabs(sum - stored[3]) <= 1e-12 * size;
}

/* The same parameters on both sides, with the same values. */
static void check_weights(Golden *golden, const Network *network, const char *arch)
{
    const char module[] = "backbone.";
    int64_t count;
    const char *const *names = golden_members(golden, &count, "%s/weights_check", arch);
    if (count != network->table.count)
        golden_fail(golden, "%s: %d parameters, stored are %lld", arch, network->table.count,
                    (long long)count);
    for (; *names; names++) {
        int id = strncmp(*names, module, sizeof module - 1) == 0
                     ? param_table_find(&network->table, PARAM_BACKBONE, *names + sizeof module - 1)
                     : -1;
        if (id < 0) {
            golden_fail(golden, "%s: the model has no %s", arch, *names);
            continue;
        }
        const Param *p = &network->table.params[id];
        const double *stored = golden_f64(golden, NULL, "%s/weights_check/%s", arch, *names);
        bool same = is_ends_and_sum(network->flat + p->offset, p->count, stored);
        golden_judge(golden, same ? 0.0 : INFINITY, "%s/weights_check/%s", arch, *names);
    }
}

static void open_network(Golden *golden, Network *network, const char *arch)
{
    ResnetConfig config = {.arch = strcmp(arch, "TV_RESNET18") == 0 ? RESNET_18 : RESNET_50,
                           .dims = (int64_t)golden_attr(golden, "dims", "%s", arch),
                           .gem_p = golden_attr(golden, "pool_param", "%s", arch),
                           .bn_eps = golden_attr(golden, "bn_eps", "%s", arch)};
    param_table_init(&network->table);
    resnet_build(&network->resnet, &config, &network->table);
    network->flat = memory_alloc_array((size_t)network->table.flat_count, sizeof(float));
    sscd_weights_fill(&network->table, (uint64_t)golden_attr(golden, "weight_seed", "%s", arch),
                      network->flat);
    OpsLimits limits = resnet_limits(&network->resnet);
    network->ops = golden_device_open(golden, &limits);
    int64_t count = network->resnet.folded_count;
    float *folded = memory_alloc_array((size_t)count, sizeof *folded);
    resnet_fold(&network->resnet, network->flat, folded);
    network->folded = golden_device_copy(network->ops, tensor_1d(folded, DTYPE_F32, count));
    memory_free(folded);
}

static void close_network(Network *network)
{
    golden_device_free(network->ops, network->folded);
    golden_device_close(network->ops);
    memory_free(network->flat);
    param_table_fini(&network->table);
}

/* [n, h, w, C] as [n, C, h, w], or as the mean over h and w, [n, C]. */
static float *reordered(const float *map, const int64_t *shape, bool mean)
{
    int64_t n = shape[0], pixels = shape[1] * shape[2], channels = shape[3];
    float *out = memory_alloc_array((size_t)(n * channels * (mean ? 1 : pixels)), sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0.0;
            for (int64_t p = 0; p < pixels; p++) {
                float value = map[(i * pixels + p) * channels + c];
                sum += (double)value;
                if (!mean) out[(i * channels + c) * pixels + p] = value;
            }
            if (mean) out[i * channels + c] = (float)(sum / (double)pixels);
        }
    return out;
}

/* A ResnetTap. */
static void compare_stage(void *context, int stage, Tensor map)
{
    const Case *test = context;
    char name[32] = "maxpool";
    if (stage > 0) snprintf(name, sizeof name, "layer%d", stage);
    GoldenShape stored;
    golden_f32(test->golden, &stored, "%s/stage/%s", test->path, name);
    const float *host = golden_device_f32(test->golden, test->ops, tensor_f32(map), tensor_count(map));
    float *mine = reordered(host, map.shape, stored.ndim == 2);
    golden_compare(test->golden, mine, stored.ndim == 2 ? map.shape[0] * map.shape[3] : tensor_count(map),
                   "%s/stage/%s", test->path, name);
    memory_free(mine);
}

static void compare_rows(const Case *test, Tensor rows, const char *name)
{
    golden_compare(test->golden,
                   golden_device_f32(test->golden, test->ops, tensor_f32(rows), tensor_count(rows)),
                   tensor_count(rows), "%s/%s", test->path, name);
}

static void check_case(Golden *golden, const Network *network, const char *path)
{
    GoldenShape shape;
    const float *input = golden_f32(golden, &shape, "%s/input", path);
    Tensor given = tensor_view((void *)(uintptr_t)input, DTYPE_F32, 4, shape.dim);
    ResnetInput images = {.images = golden_device_copy(network->ops, given)};
    Arena plan = arena_measuring();
    resnet_pass(&network->resnet, &images, DTYPE_F32, &plan);
    Arena arena = device_arena_create(network->ops->device, &plan);
    ResnetPass pass = resnet_pass(&network->resnet, &images, DTYPE_F32, &arena);
    ResnetWeights weights = {.exact = network->folded};
    Case test = {golden, network->ops, path};
    resnet_forward(&network->resnet, network->ops, &weights, &pass, compare_stage, &test);
    compare_rows(&test, pass.pooled, "stage/avgpool");
    compare_rows(&test, pass.projected, "stage/fc");
    compare_rows(&test, pass.embedding, "embedding");
    device_arena_destroy(network->ops->device, &arena);
    golden_device_free(network->ops, images.images);
}

void golden_sscd(Golden *golden)
{
    for (const char *const *arch = golden_members(golden, NULL, "/"); *arch; arch++) {
        Network network;
        open_network(golden, &network, *arch);
        check_weights(golden, &network, *arch);
        for (const char *const *size = golden_members(golden, NULL, "%s", *arch); *size; size++) {
            if (strcmp(*size, "weights_check") == 0) continue;
            char path[128];
            snprintf(path, sizeof path, "%s/%s", *arch, *size);
            check_case(golden, &network, path);
        }
        close_network(&network);
    }
}
