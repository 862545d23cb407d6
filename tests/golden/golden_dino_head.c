/* golden_dino_head.c - dino_head.h5: the projection head with its weight-normalised last layer. */
#include "../support/ops_support.h"
#include "golden_params.h"

#include "base/memory.h"
#include "nn/dino_head.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    Golden *golden;
    const Ops *ops;
    const char *name;
    DinoHead head;
    ParamTable table;
    float *params, *grads;
    int64_t n, K, d;
} Case;

static int64_t attr(const Case *c, const char *name)
{
    return (int64_t)golden_attr(c->golden, name, "%s", c->name);
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void check_backward(Case *c, DinoHeadActivations *acts, Tensor scale, const float *cotangent)
{
    Weights weights = {.master = param_values_flat(&c->table, c->params)};
    Tensor v = param_matrix_view(param_values_flat(&c->table, c->params), c->head.weight_v);
    Tensor dv = param_matrix_view(param_values_flat(&c->table, c->grads), c->head.weight_v);
    Tensor d_scores = golden_params_input(cotangent, c->n, c->K);
    float *w = memory_alloc_array((size_t)(c->K * c->d), sizeof(float));
    float *d_bottleneck = memory_alloc_array((size_t)(c->n * c->d), sizeof(float));
    float *d_in = memory_alloc_array((size_t)(c->n * c->head.config.in_dim), sizeof(float));
    for (int64_t i = 0; i < c->K * c->d; i++)
        w[i] = tensor_f32(v)[i] * tensor_f32(scale)[i / c->d];
    Tensor dx = tensor_2d(d_bottleneck, DTYPE_F32, c->n, c->d);
    c->ops->linear_backward_input(c->ops, dx, d_scores, tensor_2d(w, DTYPE_F32, c->K, c->d));
    c->ops->linear_backward_weight(c->ops, dv, tensor_none(), d_scores, acts->bottleneck);
    c->ops->weight_norm_backward(
        c->ops, dv, param_vector_view(param_values_flat(&c->table, c->grads), c->head.weight_g), v,
        param_vector_view(param_values_flat(&c->table, c->params), c->head.weight_g));
    dino_head_backward(&c->head, c->ops, &weights, acts,
                       tensor_2d(d_in, DTYPE_F32, c->n, c->head.config.in_dim), dx,
                       param_values_flat(&c->table, c->grads), NULL);
    char group[128];
    snprintf(group, sizeof group, "%s/grad/params", c->name);
    golden_params_compare(c->golden, &c->table, GOLDEN_NAMES_PLAIN, c->grads, group);
    golden_compare(c->golden, d_in, c->n * c->head.config.in_dim, "%s/grad/input", c->name);
    memory_free(w);
    memory_free(d_bottleneck);
    memory_free(d_in);
}

static void check_case(Case *c)
{
    GoldenShape shape;
    const float *input = golden_f32(c->golden, &shape, "%s/input", c->name);
    DinoHeadConfig config = {.in_dim = attr(c, "in_dim"),
                             .hidden_dim = attr(c, "hidden_dim"),
                             .bottleneck_dim = attr(c, "bottleneck_dim"),
                             .prototypes = attr(c, "out_dim"),
                             .nlayers = attr(c, "nlayers")};
    c->n = shape.dim[0], c->K = config.prototypes, c->d = config.bottleneck_dim;
    param_table_init(&c->table);
    dino_head_build(&c->head, &config, PARAM_DINO_HEAD, &c->table);
    c->params = memory_alloc_array((size_t)c->table.flat_count, sizeof(float));
    c->grads = memory_alloc_array((size_t)c->table.flat_count, sizeof(float));
    char group[128];
    snprintf(group, sizeof group, "%s/params", c->name);
    golden_params_load(c->golden, &c->table, GOLDEN_NAMES_PLAIN, c->params, group);

    Arena plan = arena_measuring();
    dino_head_activations(&c->head, &plan, DTYPE_F32, c->n, true);
    Arena arena = arena_create(plan.peak);
    DinoHeadActivations acts = dino_head_activations(&c->head, &arena, DTYPE_F32, c->n, true);
    Weights weights = {.master = param_values_flat(&c->table, c->params)};
    dino_head_forward(&c->head, c->ops, &weights, &acts, golden_params_input(input, c->n, config.in_dim),
                      NULL);
    float *scores = memory_alloc_array((size_t)(c->n * c->K), sizeof(float));
    float *scale_memory = memory_alloc_array((size_t)c->K, sizeof(float));
    Tensor scale = tensor_1d(scale_memory, DTYPE_F32, c->K);
    Tensor v = param_matrix_view(param_values_flat(&c->table, c->params), c->head.weight_v);
    c->ops->prototype_scale(c->ops, scale, v,
                            param_vector_view(param_values_flat(&c->table, c->params), c->head.weight_g));
    c->ops->prototype_scores(c->ops, tensor_2d(scores, DTYPE_F32, c->n, c->K), acts.bottleneck, v, scale);
    golden_compare(c->golden, scores, c->n * c->K, "%s/out", c->name);
    const float *cotangent = golden_f32(c->golden, &shape, "%s/cotangent", c->name);
    double loss = dot(scores, cotangent, c->n * c->K);
    golden_compare_f64(c->golden, &loss, 1, "%s/loss", c->name);
    check_backward(c, &acts, scale, cotangent);

    memory_free(scores);
    memory_free(scale_memory);
    memory_free(c->params);
    memory_free(c->grads);
    arena_destroy(&arena);
    param_table_fini(&c->table);
}

void golden_dino_head(Golden *golden)
{
    OpsLimits limits = {.rows = 4096, .width = 8192, .prototypes = 8192, .bottleneck = 1024};
    Ops *ops = ops_support_open(&limits, 0);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        Case c = {.golden = golden, .ops = ops, .name = *name};
        check_case(&c);
    }
    ops_support_close(ops);
}
