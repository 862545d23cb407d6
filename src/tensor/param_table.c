/* param_table.c - building, finding, viewing and initialising parameters. */
#include "tensor/param_table.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

void param_table_init(ParamTable *table)
{
    *table = (ParamTable){0};
}

void param_table_fini(ParamTable *table)
{
    memory_free(table->params);
    *table = (ParamTable){0};
}

const char *param_module_name(ParamModule module)
{
    static const char *const names[PARAM_MODULE_COUNT] = {"backbone", "dino_head", "ibot_head"};
    CHECK((unsigned)module < PARAM_MODULE_COUNT);
    return names[module];
}

int param_table_begin_unit(ParamTable *table)
{
    return table->unit_count++;
}

int param_table_add(ParamTable *table, const ParamSpec *spec, const char *prefix, const char *suffix)
{
    CHECK(table->unit_count > 0);
    if (table->count == table->capacity) {
        int capacity = table->capacity ? 2 * table->capacity : 64;
        table->params = memory_grow(table->params, (size_t)table->count * sizeof(Param),
                                    (size_t)capacity * sizeof(Param));
        table->capacity = capacity;
    }
    Param *p = &table->params[table->count];
    *p = (Param){.module = spec->module,
                 .unit = table->unit_count - 1,
                 .ndim = spec->ndim,
                 .count = 1,
                 .offset = table->flat_count,
                 .init = spec->init,
                 .init_value = spec->init_value,
                 .lr_multiplier = 1.0,
                 .wd_multiplier = 1.0};
    int length = snprintf(p->name, sizeof p->name, "%s%s", prefix, suffix);
    CHECK(length > 0 && length < (int)sizeof p->name);
    for (int d = 0; d < spec->ndim; d++) {
        p->shape[d] = spec->shape[d];
        p->count *= spec->shape[d];
    }
    table->flat_count += (p->count + PARAM_ALIGNMENT - 1) / PARAM_ALIGNMENT * PARAM_ALIGNMENT;
    return table->count++;
}

int param_table_find(const ParamTable *table, ParamModule module, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (table->params[i].module == module && strcmp(table->params[i].name, name) == 0) return i;
    return -1;
}

Tensor param_view(const ParamTable *table, int id, float *flat)
{
    const Param *p = &table->params[id];
    return tensor_view(flat + p->offset, DTYPE_F32, p->ndim, p->shape);
}

static void initialise_one(const Param *p, uint64_t seed, float *values)
{
    char full_name[128];
    snprintf(full_name, sizeof full_name, "%s.%s", param_module_name(p->module), p->name);
    Rng rng = rng_at(seed, RNG_INIT, 0, rng_hash_name(full_name));
    for (int64_t i = 0; i < p->count; i++) {
        switch (p->init) {
        case PARAM_INIT_CONSTANT:
            values[i] = (float)p->init_value;
            break;
        case PARAM_INIT_NORMAL:
            values[i] = (float)(p->init_value * rng_normal(&rng));
            break;
        case PARAM_INIT_TRUNCATED_NORMAL:
            values[i] = (float)rng_truncated_normal(&rng, p->init_value, -2.0, 2.0);
            break;
        case PARAM_INIT_UNIFORM:
            values[i] = (float)rng_uniform(&rng, -p->init_value, p->init_value);
            break;
        }
    }
}

void param_table_initialise(const ParamTable *table, uint64_t seed, float *flat)
{
    memset(flat, 0, (size_t)table->flat_count * sizeof *flat);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < table->count; i++)
        initialise_one(&table->params[i], seed, flat + table->params[i].offset);
}

Tensor param_matrix_view(const ParamTable *table, int id, float *flat)
{
    if (id < 0) return tensor_none();
    const Param *p = &table->params[id];
    return tensor_2d(flat + p->offset, DTYPE_F32, p->shape[0], p->count / p->shape[0]);
}

Tensor param_vector_view(const ParamTable *table, int id, float *flat)
{
    if (id < 0) return tensor_none();
    const Param *p = &table->params[id];
    return tensor_1d(flat + p->offset, DTYPE_F32, p->count);
}

Tensor weights_matrix(const Weights *weights, int id)
{
    if (id < 0) return tensor_none();
    if (!weights->reduced) return param_matrix_view(weights->table, id, weights->master);
    const Param *p = &weights->table->params[id];
    return tensor_2d(weights->reduced + p->offset, weights->reduced_dtype, p->shape[0],
                     p->count / p->shape[0]);
}

Tensor weights_vector(const Weights *weights, int id)
{
    return param_vector_view(weights->table, id, weights->master);
}
