/* golden_params.c - matching a golden file's state-dict names with a parameter table. */
#include "golden_params.h"

#include <stdio.h>
#include <string.h>

int golden_params_find(const ParamTable *table, GoldenNames names, const char *name)
{
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        char full[160];
        snprintf(full, sizeof full, "%s%s%s",
                 names == GOLDEN_NAMES_WITH_MODULE ? param_module_name(p->module) : "",
                 names == GOLDEN_NAMES_WITH_MODULE ? "." : "", p->name);
        if (strcmp(full, name) == 0) return i;
    }
    return -1;
}

void golden_params_load(Golden *golden, const ParamTable *table, GoldenNames names, float *flat,
                        const char *group)
{
    int64_t count;
    const char *const *stored = golden_members(golden, &count, "%s", group);
    if (count != table->count)
        golden_fail(golden, "%s: %lld parameters, the model has %d", group, (long long)count, table->count);
    for (; *stored; stored++) {
        GoldenShape shape;
        const float *values = golden_f32(golden, &shape, "%s/%s", group, *stored);
        int id = golden_params_find(table, names, *stored);
        if (id < 0 || table->params[id].count != shape.count) {
            golden_fail(golden, "%s/%s: the model has no such parameter of %lld values", group, *stored,
                        (long long)shape.count);
            continue;
        }
        memcpy(flat + table->params[id].offset, values, (size_t)shape.count * sizeof(float));
    }
}

void golden_params_compare(Golden *golden, const ParamTable *table, GoldenNames names, const float *flat,
                           const char *group)
{
    for (const char *const *stored = golden_members(golden, NULL, "%s", group); *stored; stored++) {
        int id = golden_params_find(table, names, *stored);
        if (id < 0) {
            golden_fail(golden, "%s/%s: the model has no such parameter", group, *stored);
            continue;
        }
        const Param *p = &table->params[id];
        if (golden_has_attr(golden, "tol_abs_qv", "%s/%s", group, *stored))
            golden_compare_qkv_bias(golden, flat + p->offset, p->count, "%s/%s", group, *stored);
        else
            golden_compare(golden, flat + p->offset, p->count, "%s/%s", group, *stored);
    }
}

bool golden_params_any(Golden *golden, const char *group, const char *suffix)
{
    for (const char *const *name = golden_members(golden, NULL, "%s", group); *name; name++) {
        size_t n = strlen(*name), m = strlen(suffix);
        if (n >= m && strcmp(*name + n - m, suffix) == 0) return true;
    }
    return false;
}
