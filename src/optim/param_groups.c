/* param_groups.c - multipliers by name. */
#include "optim/param_groups.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* The block's number: the last number in a row after "blocks." ("blocks.7." or, with chunks, "blocks.1.7.").
 */
static int64_t block_number(const char *name)
{
    char *end;
    int64_t number = strtoll(name + strlen("blocks."), &end, 10);
    if (end[0] == '.' && end[1] >= '0' && end[1] <= '9') number = strtoll(end + 1, &end, 10);
    return number;
}

/* 0 for everything before the blocks, i + 1 for block i, depth + 1 for the final norm and the heads. */
static int64_t layer_of(const Param *p, int64_t depth)
{
    if (p->module != PARAM_BACKBONE) return depth + 1;
    if (starts_with(p->name, "blocks.")) return block_number(p->name) + 1;
    if (starts_with(p->name, "norm.")) return depth + 1;
    return 0;
}

void param_groups_assign(ParamTable *table, int64_t depth, double layerwise_decay, double patch_embed_lr_mult)
{
    for (int i = 0; i < table->count; i++) {
        Param *p = &table->params[i];
        p->lr_multiplier = pow(layerwise_decay, (double)(depth + 1 - layer_of(p, depth)));
        if (strstr(p->name, "patch_embed")) p->lr_multiplier *= patch_embed_lr_mult;
        bool exempt = ends_with(p->name, ".bias") || strstr(p->name, "norm") || strstr(p->name, "gamma");
        p->wd_multiplier = exempt ? 0.0 : 1.0;
        p->is_last_layer = strstr(p->name, "last_layer") != NULL;
    }
}
