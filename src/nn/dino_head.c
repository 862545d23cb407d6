/* dino_head.c - the projection MLP and its backward. */
#include "nn/dino_head.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>

static const float NORMALIZE_EPS = 1e-12f;

static int64_t width_in(const DinoHead *head, int64_t layer)
{
    return layer == 0 ? head->config.in_dim : head->config.hidden_dim;
}

static int64_t width_out(const DinoHead *head, int64_t layer)
{
    return layer == head->config.nlayers - 1 ? head->config.bottleneck_dim : head->config.hidden_dim;
}

void dino_head_build(DinoHead *head, const DinoHeadConfig *config, ParamModule module, ParamTable *table)
{
    CHECK(config->nlayers >= 1 && config->nlayers <= DINO_HEAD_MAX_LAYERS);
    *head = (DinoHead){.config = *config, .unit = param_table_begin_unit(table, module)};
    for (int64_t i = 0; i < config->nlayers; i++) {
        char prefix[24] = "mlp."; /* a single product has no index in the reference's names */
        if (config->nlayers > 1) snprintf(prefix, sizeof prefix, "mlp.%lld.", (long long)(2 * i));
        ParamSpec weight = {module,
                            PARAM_INIT_TRUNCATED_NORMAL,
                            0.02,
                            2,
                            {width_out(head, i), width_in(head, i)},
                            PARAM_READ_REDUCED};
        head->weight[i] = param_table_add(table, &weight, prefix, "weight");
        ParamSpec bias = {module, PARAM_INIT_CONSTANT, 0.0, 1, {width_out(head, i)}, PARAM_READ_EXACT};
        head->bias[i] = param_table_add(table, &bias, prefix, "bias");
    }
    ParamSpec g = {module, PARAM_INIT_CONSTANT, 1.0, 2, {config->prototypes, 1}, PARAM_READ_EXACT};
    head->weight_g = param_table_add(table, &g, "last_layer.", "weight_g");
    double bound = 1.0 / sqrt((double)config->bottleneck_dim);
    ParamSpec v = {module,         PARAM_INIT_UNIFORM, bound, 2, {config->prototypes, config->bottleneck_dim},
                   PARAM_READ_BOTH};
    head->weight_v = param_table_add(table, &v, "last_layer.", "weight_v");
}

DinoHeadActivations dino_head_activations(const DinoHead *head, Arena *arena, Dtype act, int64_t n,
                                          bool backward)
{
    DinoHeadActivations a = {.act = act};
    int64_t last = head->config.nlayers - 1, widest = head->config.in_dim;
    if (act != DTYPE_F32) a.in_copy = tensor_alloc_2d(arena, act, n, head->config.in_dim);
    for (int64_t i = 0; i <= last; i++) {
        a.pre[i] = tensor_alloc_2d(arena, act, n, width_out(head, i));
        if (width_out(head, i) > widest) widest = width_out(head, i);
    }
    if (last > 0) a.active = tensor_alloc_2d(arena, act, n, head->config.hidden_dim);
    a.norms = tensor_alloc_1d(arena, DTYPE_F32, n);
    a.bottleneck = tensor_alloc_2d(arena, DTYPE_F32, n, head->config.bottleneck_dim);
    if (backward) {
        a.d_wide = tensor_alloc_1d(arena, act, n * widest);
        a.d_wide2 = tensor_alloc_1d(arena, act, n * widest);
    }
    return a;
}

void dino_head_forward(const DinoHead *head, const Ops *ops, const Weights *weights,
                       DinoHeadActivations *acts, Tensor in, const NnHooks *hooks)
{
    nn_hooks_before(hooks, head->unit, NN_FORWARD);
    acts->in = in;
    if (acts->act != DTYPE_F32) {
        acts->in = acts->in_copy;
        ops->cast(ops, acts->in, in);
    }
    Tensor x = acts->in;
    int64_t last = head->config.nlayers - 1;
    for (int64_t i = 0; i <= last; i++) {
        ops->linear_forward(ops, acts->pre[i], x, weights_matrix(weights, head->weight[i]),
                            weights_vector(weights, head->bias[i]));
        if (i == last) break;
        ops->gelu_forward(ops, acts->active, acts->pre[i]);
        x = acts->active;
    }
    ops->l2_normalize_forward(ops, acts->bottleneck, acts->norms, acts->pre[last], NORMALIZE_EPS);
    nn_hooks_after(hooks, head->unit, NN_FORWARD);
}

void dino_head_backward(const DinoHead *head, const Ops *ops, const Weights *weights,
                        DinoHeadActivations *acts, Tensor din, Tensor d_bottleneck, ParamValues grads,
                        const NnHooks *hooks)
{
    int64_t n = acts->in.shape[0], last = head->config.nlayers - 1;
    nn_hooks_before(hooks, head->unit, NN_BACKWARD);
    Tensor dy = tensor_2d(acts->d_wide.data, acts->act, n, head->config.bottleneck_dim);
    ops->l2_normalize_backward(ops, dy, d_bottleneck, acts->bottleneck, acts->norms, NORMALIZE_EPS);
    void *spare = acts->d_wide2.data;
    for (int64_t i = last; i >= 0; i--) {
        Tensor x = i == 0 ? acts->in : acts->active;
        bool straight = i == 0 && acts->act == DTYPE_F32;
        Tensor dx = straight ? din : tensor_2d(spare, acts->act, n, width_in(head, i));
        ops->linear_backward_input(ops, dx, dy, weights_matrix(weights, head->weight[i]));
        if (i > 0) ops->gelu_backward(ops, dx, x, dx, acts->pre[i - 1]);
        ops->linear_backward_weight(ops, param_matrix_view(grads, head->weight[i]),
                                    param_vector_view(grads, head->bias[i]), dy, x);
        if (i == 0 && !straight) ops->cast(ops, din, dx);
        spare = dy.data;
        dy = dx;
    }
    nn_hooks_after(hooks, head->unit, NN_BACKWARD);
}
