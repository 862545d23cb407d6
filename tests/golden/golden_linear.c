/* golden_linear.c - linear.h5: the grid of linear classifiers, its inputs and a few steps of its training.
 *
 * Sizes, rates and the numbers of blocks come from the file; classifiers are found by their names.
 */
#include "../support/ops_support.h"
#include "golden.h"

#include "base/memory.h"
#include "eval/linear_probe.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCKS = 64 };

typedef struct {
    Golden *golden;
    LinearProbeSpec spec;
    int64_t last_blocks[MAX_BLOCKS];
    int64_t blocks; /* whose tokens the file has */
    const float *class_tokens[MAX_BLOCKS];
    LinearProbe *probe;
} LinearCase;

/* The different n of features/n<n>_avgpool<a>, ascending. */
static void read_last_blocks(LinearCase *c)
{
    for (const char *const *name = golden_members(c->golden, NULL, "features"); *name; name++) {
        int64_t n = strtoll(*name + 1, NULL, 10);
        int at = 0;
        while (at < c->spec.last_blocks_count && c->last_blocks[at] < n)
            at++;
        if (at < c->spec.last_blocks_count && c->last_blocks[at] == n) continue;
        cr_assert(n > 0 && c->spec.last_blocks_count < MAX_BLOCKS, "features/%s", *name);
        memmove(c->last_blocks + at + 1, c->last_blocks + at,
                (size_t)(c->spec.last_blocks_count++ - at) * sizeof *c->last_blocks);
        c->last_blocks[at] = n;
    }
    c->spec.last_blocks = c->last_blocks;
}

static void read_spec(LinearCase *c)
{
    Golden *golden = c->golden;
    GoldenShape shape;
    golden_f32(golden, &shape, "step0/in/class_0");
    int64_t rates;
    c->spec.embed_dim = shape.dim[1];
    c->spec.classes = (int64_t)golden_attr(golden, "num_classes", "/");
    c->spec.batch_rows = (int64_t)golden_attr(golden, "batch_size", "/");
    c->spec.max_iterations = (int64_t)golden_attr(golden, "max_iter", "/");
    c->spec.momentum = golden_attr(golden, "momentum", "/");
    c->spec.learning_rates = golden_attr_array(golden, "learning_rates", &rates, "/");
    c->spec.learning_rate_count = (int)rates;
    if (golden_attr(golden, "weight_decay", "/") != 0.0)
        golden_fail(golden, "a weight decay, which the linear evaluation does not have");
    read_last_blocks(c);
    while (c->blocks < MAX_BLOCKS && golden_has(golden, "step0/in/class_%d", (int)c->blocks))
        c->blocks++;
}

static LinearProbeTokens read_tokens(LinearCase *c, int step)
{
    for (int64_t i = 0; i < c->blocks; i++)
        c->class_tokens[i] = golden_f32(c->golden, NULL, "step%d/in/class_%d", step, (int)i);
    GoldenShape shape;
    const float *patches = golden_f32(c->golden, &shape, "step%d/in/patch_%d", step, (int)c->blocks - 1);
    return (LinearProbeTokens){.rows = shape.dim[0],
                               .blocks = c->blocks,
                               .patches = shape.dim[1],
                               .class_tokens = c->class_tokens,
                               .patch_tokens = patches};
}

static void compare_features(LinearCase *c)
{
    LinearProbeTokens tokens = read_tokens(c, 0);
    for (int i = 0; i < 2 * c->spec.last_blocks_count; i++) {
        int64_t n = c->last_blocks[i / 2];
        bool avgpool = i % 2 == 1;
        int64_t count = tokens.rows * linear_probe_columns(c->spec.embed_dim, n, avgpool);
        float *rows = memory_alloc_array((size_t)count, sizeof *rows);
        linear_probe_input(rows, &tokens, c->spec.embed_dim, n, avgpool);
        golden_compare(c->golden, rows, count, "features/n%d_avgpool%d", (int)n, avgpool);
        memory_free(rows);
    }
}

static void load_weights(LinearCase *c)
{
    for (int i = 0; i < linear_probe_count(c->probe); i++) {
        const LinearClassifier *classifier = linear_probe_classifier(c->probe, i);
        GoldenShape weight, bias;
        const float *w = golden_f32(c->golden, &weight, "init/params/%s.linear.weight", classifier->name);
        const float *b = golden_f32(c->golden, &bias, "init/params/%s.linear.bias", classifier->name);
        cr_assert(weight.count == c->spec.classes * classifier->columns && bias.count == c->spec.classes,
                  "%s", classifier->name);
        memcpy(classifier->weight, w, (size_t)weight.count * sizeof *w);
        memcpy(classifier->bias, b, (size_t)bias.count * sizeof *b);
    }
}

static void take_step(LinearCase *c, int step)
{
    int count = linear_probe_count(c->probe);
    double *losses = memory_alloc_array((size_t)count, sizeof *losses);
    double *rates = memory_alloc_array((size_t)count, sizeof *rates);
    for (int i = 0; i < count; i++)
        rates[i] = linear_probe_lr(c->probe, i);
    golden_compare_f64(c->golden, rates, count, "step%d/lr", step);
    LinearProbeTokens tokens = read_tokens(c, step);
    Error error = {0};
    Status status = linear_probe_step(c->probe, &tokens,
                                      golden_i64(c->golden, NULL, "step%d/in/labels", step), losses, &error);
    cr_assert(status == STATUS_OK, "%s", error.text);
    for (int i = 0; i < count; i++)
        golden_compare_f64(c->golden, &losses[i], 1, "step%d/loss/%s", step,
                           linear_probe_classifier(c->probe, i)->name);
    memory_free(losses);
    memory_free(rates);
}

void golden_linear(Golden *golden)
{
    LinearCase c = {.golden = golden};
    read_spec(&c);
    compare_features(&c);
    OpsLimits limits = linear_probe_limits(&c.spec);
    Ops *ops = ops_support_open(&limits, 1);
    Comm *comm = comm_self_create();
    c.probe = linear_probe_create(&c.spec, ops, comm);
    load_weights(&c);
    for (int step = 0; golden_has(golden, "step%d", step); step++)
        take_step(&c, step);
    for (int i = 0; i < linear_probe_count(c.probe); i++) {
        const LinearClassifier *classifier = linear_probe_classifier(c.probe, i);
        golden_compare(golden, classifier->weight, c.spec.classes * classifier->columns,
                       "final/params/%s.linear.weight", classifier->name);
        golden_compare(golden, classifier->bias, c.spec.classes, "final/params/%s.linear.bias",
                       classifier->name);
    }
    linear_probe_destroy(c.probe);
    comm_destroy(comm);
    ops_support_close(ops);
}
