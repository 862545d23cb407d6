/* sscd_weights.c - see sscd_weights.h. A weight depends on its tensor's name, its place and the seed alone.
 */
#include "sscd_weights.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool ends_in(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static uint64_t fnv1a64(const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001B3u;
    return hash;
}

/* In [0, 1). */
static double uniform(uint64_t base, uint64_t i)
{
    uint64_t z = (base + i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z = z ^ (z >> 31);
    return (double)(z >> 40) * 0x1p-24;
}

static double value_of(const Param *p, double u)
{
    if (ends_in(p->name, "running_var")) return 0.5 + u;
    if (ends_in(p->name, "running_mean")) return (u - 0.5) * 0.4;
    if (p->ndim > 1) return (2.0 * u - 1.0) * sqrt(6.0 / (double)(p->count / p->shape[0]));
    if (strcmp(p->name, "fc.bias") == 0) return (u - 0.5) * 0.2;
    return ends_in(p->name, ".weight") ? 0.25 + 0.5 * u : (u - 0.5) * 0.4;
}

void sscd_weights_fill(const ParamTable *table, uint64_t seed, float *flat)
{
    memset(flat, 0, (size_t)table->flat_count * sizeof *flat);
    for (int id = 0; id < table->count; id++) {
        const Param *p = &table->params[id];
        char name[128];
        snprintf(name, sizeof name, "%s.%s", param_module_name(p->module), p->name);
        uint64_t base = fnv1a64(name) + seed;
        for (int64_t i = 0; i < p->count; i++)
            flat[p->offset + i] = (float)value_of(p, uniform(base, (uint64_t)i));
    }
}
