/* test_adamw_optimizer.c - clipping per sub-module, multipliers, frozen last layers; and which parameter gets
 * what. */
#include "../support/ops_support.h"

#include "optim/adamw_optimizer.h"
#include "optim/param_groups.h"

#include "base/memory.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { COUNT = 20 };

/* Three parameters of 20 values: backbone, dino_head, ibot_head; the second is a last layer. */
typedef struct {
    ParamTable table;
    ShardMap map;
    Comm *comm;
    Ops *ops;
    AdamwOptimizer optimizer;
    float *params, *grads;
    double control[CONTROL_COUNT];
} Fixture;

static Fixture *create(double first_lr_multiplier, double last_wd_multiplier)
{
    Fixture *f = memory_alloc(sizeof *f);
    param_table_init(&f->table);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        param_table_begin_unit(&f->table, (ParamModule)m);
        ParamSpec spec = {.module = (ParamModule)m, .ndim = 2, .shape = {4, COUNT / 4}};
        param_table_add(&f->table, &spec, m == 1 ? "last_layer." : "proj.", "weight");
    }
    param_groups_assign(&f->table, 2, 0.5, 0.2);
    OpsLimits limits = {.rows = 8, .width = 8};
    f->ops = ops_support_open(&limits, 1);
    f->table.params[0].lr_multiplier = first_lr_multiplier;
    f->table.params[2].wd_multiplier = last_wd_multiplier;
    f->comm = comm_self_create();
    shard_map_init_whole(&f->map, &f->table, f->comm);
    adamw_optimizer_init(&f->optimizer, &f->map, f->comm, f->ops->device, 0.9, 0.999);
    f->params = memory_alloc_array((size_t)f->table.flat_count, sizeof(float));
    f->grads = memory_alloc_array((size_t)f->table.flat_count, sizeof(float));
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        for (int i = 0; i < COUNT; i++) {
            f->params[f->table.params[m].offset + i] = (float)(0.1 * i - 0.7);
            f->grads[f->table.params[m].offset + i] = (float)(0.01 * (i - 5) * (m + 1));
        }
    return f;
}

static void destroy(Fixture *f)
{
    adamw_optimizer_fini(&f->optimizer);
    ops_support_close(f->ops);
    shard_map_fini(&f->map);
    comm_destroy(f->comm);
    param_table_fini(&f->table);
    memory_free(f->params);
    memory_free(f->grads);
    memory_free(f);
}

static void step(Fixture *f, TrainScheduleValues values, double clip_grad)
{
    AdamwOptimizerStep update = {.schedule = values, .clip_grad = clip_grad};
    f->control[CONTROL_LOSS_SCALE] = 1;
    adamw_optimizer_step(&f->optimizer, f->ops, f->params, f->grads,
                         tensor_1d(f->control, DTYPE_F64, CONTROL_COUNT), tensor_none(), &update);
}

/* The textbook, in fp64, for one value with a constant gradient. */
static double reference(double p, double g, double lr, double wd, int steps)
{
    double m = 0, v = 0;
    for (int t = 1; t <= steps; t++) {
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p *= 1 - lr * wd;
        p -= lr * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    }
    return p;
}

Test(adamw_optimizer, each_sub_module_is_clipped_by_its_own_norm)
{
    Fixture *f = create(1, 1);
    double square = 0;
    for (int i = 0; i < COUNT; i++)
        square += 1e-4 * (i - 5) * (i - 5);
    double limit = 1.5 * sqrt(square);
    step(f, (TrainScheduleValues){.lr = 0.01, .last_layer_lr = 0.01, .backbone_lr = 0.01}, limit);
    /* the moments show what was taken in: clipped where the norm is above the limit, untouched below */
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        double norm = f->control[CONTROL_NORM + m], factor = fmin(1, limit / (norm + 1e-6));
        int64_t at = f->table.params[m].offset;
        cr_expect_float_eq(norm, (m + 1) * sqrt(square), 1e-6);
        cr_expect_float_eq(f->optimizer.exp_avg[at], 0.1 * factor * f->grads[at], 1e-9);
        cr_expect_float_eq(f->optimizer.exp_avg_sq[at], 0.001 * pow(factor * f->grads[at], 2), 1e-10);
    }
    cr_expect_eq(f->control[CONTROL_STEPS], 1);
    float before = f->params[0];
    f->grads[f->table.params[2].offset] = INFINITY;
    step(f, (TrainScheduleValues){.lr = 0.01}, limit);
    cr_expect(isfinite(f->control[CONTROL_NORM]) && !isfinite(f->control[CONTROL_NORM + 2]));
    cr_expect(f->control[CONTROL_FINITE] == 0 && f->control[CONTROL_STEPS] == 1 && f->params[0] == before);
    destroy(f);
}

Test(adamw_optimizer, follows_the_textbook_with_multipliers)
{
    enum { STEPS = 7 };
    Fixture *f = create(0.3, 0);
    for (int t = 0; t < STEPS; t++)
        step(f,
             (TrainScheduleValues){
                 .lr = 0.02, .last_layer_lr = 0.01, .backbone_lr = 0.02, .weight_decay = 0.4},
             0);
    const double lr[] = {0.02 * 0.3, 0.01, 0.02}, wd[] = {0.4, 0.4, 0};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        for (int i = 0; i < COUNT; i++) {
            double p =
                reference((float)(0.1 * i - 0.7), (float)(0.01 * (i - 5) * (m + 1)), lr[m], wd[m], STEPS);
            cr_expect_float_eq(f->params[f->table.params[m].offset + i], p, 1e-6, "module %d, value %d", m,
                               i);
        }
    destroy(f);
}

/* Parameters 0, 1, 2: of the backbone, a last layer, of another head. */
Test(adamw_optimizer, what_is_frozen_stays_while_its_moments_move)
{
    static const TrainScheduleValues cases[] = {{.lr = 0.02, .backbone_lr = 0.02, .weight_decay = 0.4},
                                                {.lr = 0.02, .last_layer_lr = 0.02, .weight_decay = 0.4}};
    static const int frozen[] = {1, 0};
    for (int c = 0; c < 2; c++) {
        Fixture *f = create(1, 1);
        int64_t at = f->table.params[frozen[c]].offset, other = f->table.params[1 - frozen[c]].offset;
        float before[COUNT], moves = f->params[other];
        memcpy(before, f->params + at, sizeof before);
        step(f, cases[c], 0);
        cr_expect(memcmp(before, f->params + at, sizeof before) == 0);
        cr_expect(f->optimizer.exp_avg[at] != 0 && f->control[CONTROL_STEPS] == 1);
        cr_expect(f->params[other] != moves);
        destroy(f);
    }
}

Test(param_groups, by_name)
{
    static const struct {
        ParamModule module;
        const char *name;
        double lr, wd;
        bool last;
    } cases[] = {
        {PARAM_BACKBONE, "cls_token", 0.0625, 1, false},
        {PARAM_BACKBONE, "register_tokens", 0.0625, 1, false},
        {PARAM_BACKBONE, "pos_embed", 0.0625, 1, false},
        {PARAM_BACKBONE, "patch_embed.proj.weight", 0.0625 * 0.2, 1, false},
        {PARAM_BACKBONE, "patch_embed.proj.bias", 0.0625 * 0.2, 0, false},
        {PARAM_BACKBONE, "blocks.0.attn.qkv.weight", 0.125, 1, false},
        {PARAM_BACKBONE, "blocks.1.2.norm1.weight", 0.5, 0, false}, /* the second number counts */
        {PARAM_BACKBONE, "blocks.2.ls1.gamma", 0.5, 0, false},
        {PARAM_BACKBONE, "norm.weight", 1, 0, false},
        {PARAM_DINO_HEAD, "mlp.0.weight", 1, 1, false},
        {PARAM_DINO_HEAD, "mlp.0.bias", 1, 0, false},
        {PARAM_IBOT_HEAD, "last_layer.weight_g", 1, 1, true},
    };
    ParamTable table;
    param_table_init(&table);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (i == 0 || cases[i].module != cases[i - 1].module) param_table_begin_unit(&table, cases[i].module);
        ParamSpec spec = {.module = cases[i].module, .ndim = 1, .shape = {4}};
        param_table_add(&table, &spec, cases[i].name, "");
    }
    param_groups_assign(&table, 3, 0.5, 0.2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Param *p = &table.params[i];
        cr_expect_float_eq(p->lr_multiplier, cases[i].lr, 1e-15, "%s: %g", p->name, p->lr_multiplier);
        cr_expect(p->wd_multiplier == cases[i].wd && p->is_last_layer == cases[i].last, "%s", p->name);
    }
    param_table_fini(&table);
}
