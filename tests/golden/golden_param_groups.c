/* golden_param_groups.c - param_groups.h5: multipliers of learning rate and weight decay, parameter by
 * parameter. */
#include "golden_params.h"

#include "nn/dino_head.h"
#include "nn/vit.h"
#include "optim/param_groups.h"

#include <math.h>
#include <string.h>

static bool anything(const char *path)
{
    (void)path;
    return true;
}

static int64_t attr(Golden *golden, const char *config, const char *name)
{
    return (int64_t)golden_attr(golden, name, "%s", config);
}

/* Products of a head: mlp.0, mlp.2, ... */
static int64_t head_layers(Golden *golden, const char *config)
{
    int64_t n = 0;
    while (golden_has(golden, "%s/dino_head/mlp.%d.weight", config, (int)(2 * n)))
        n++;
    return n;
}

/* Distinct triples among a module's parameters: what the reference fuses into one group of the optimiser. */
static int64_t distinct_triples(const ParamTable *table, ParamModule module)
{
    int64_t count = 0;
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        bool seen = p->module != module;
        for (int j = 0; j < i && !seen; j++) {
            const Param *q = &table->params[j];
            seen = q->module == module && q->lr_multiplier == p->lr_multiplier &&
                   q->wd_multiplier == p->wd_multiplier && q->is_last_layer == p->is_last_layer;
        }
        count += !seen;
    }
    return count;
}

static void check_module(Golden *golden, const ParamTable *table, const char *config, ParamModule module)
{
    const char *const *names = golden_members(golden, NULL, "%s/%s", config, param_module_name(module));
    int64_t found = 0;
    for (; *names; names++) {
        int id = param_table_find(table, module, *names);
        if (id < 0) {
            golden_fail(golden, "%s/%s/%s: the model has no such parameter", config,
                        param_module_name(module), *names);
            continue;
        }
        found++;
        const Param *p = &table->params[id];
        const double *stored =
            golden_f64(golden, NULL, "%s/%s/%s", config, param_module_name(module), *names);
        double share = fabs(p->lr_multiplier - stored[0]) / (1e-14 * stored[0]);
        if (p->wd_multiplier != stored[1] || (double)p->is_last_layer != stored[2]) share = INFINITY;
        golden_judge(golden, share, "%s/%s/%s", config, param_module_name(module), *names);
    }
    for (int i = 0; i < table->count; i++)
        found -= table->params[i].module == module;
    if (found != 0) golden_fail(golden, "%s: the model has %lld parameters more", config, (long long)-found);
    int64_t fused =
        (int64_t)golden_attr(golden, "n_fused_groups", "%s/%s", config, param_module_name(module));
    if (distinct_triples(table, module) != fused)
        golden_fail(golden, "%s: %lld different triples, stored %lld", config,
                    (long long)distinct_triples(table, module), (long long)fused);
}

void golden_param_groups(Golden *golden)
{
    golden_require(golden, anything);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        VitConfig config = {.embed_dim = 8,
                            .depth = attr(golden, *name, "depth"),
                            .num_heads = 1,
                            .patch_size = 2,
                            .img_size = 4,
                            .num_register_tokens = attr(golden, *name, "num_register_tokens"),
                            .mlp_ratio = 4,
                            .swiglu =
                                strncmp(golden_attr_text(golden, "ffn_layer", "%s", *name), "swiglu", 6) == 0,
                            .qkv_bias = true,
                            .proj_bias = true,
                            .ffn_bias = true,
                            .layerscale = 1,
                            .block_chunks = attr(golden, *name, "block_chunks")};
        DinoHeadConfig head_config = {8, 8, 4, 8, head_layers(golden, *name)};
        Vit vit;
        DinoHead head;
        ParamTable table;
        param_table_init(&table);
        vit_build(&vit, &config, &table);
        dino_head_build(&head, &head_config, PARAM_DINO_HEAD, &table);
        param_groups_assign(&table, config.depth, golden_attr(golden, "layerwise_decay", "%s", *name),
                            golden_attr(golden, "patch_embed_lr_mult", "%s", *name));
        check_module(golden, &table, *name, PARAM_BACKBONE);
        check_module(golden, &table, *name, PARAM_DINO_HEAD);
        vit_fini(&vit);
        param_table_fini(&table);
    }
}
