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
    memory_free(table->units);
    *table = (ParamTable){0};
}

const char *param_module_name(ParamModule module)
{
    static const char *const names[PARAM_MODULE_COUNT] = {"backbone", "dino_head", "ibot_head"};
    CHECK((unsigned)module < PARAM_MODULE_COUNT);
    return names[module];
}

int param_table_begin_unit(ParamTable *table, ParamModule module)
{
    size_t size = sizeof *table->units, count = (size_t)table->unit_count;
    table->units = memory_grow(table->units, count * size, (count + 1) * size);
    int64_t at = table->flat_count;
    table->units[count] =
        (ParamUnit){.module = module, .first = at, .reduced_first = at, .exact_end = at, .end = at};
    return table->unit_count++;
}

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

int param_table_add(ParamTable *table, const ParamSpec *spec, const char *prefix, const char *suffix)
{
    CHECK(table->unit_count > 0 && table->units[table->unit_count - 1].module == spec->module);
    if (table->count == table->capacity) {
        int capacity = table->capacity ? 2 * table->capacity : 64;
        table->params = memory_grow(table->params, (size_t)table->count * sizeof(Param),
                                    (size_t)capacity * sizeof(Param));
        table->capacity = capacity;
    }
    Param *p = &table->params[table->count];
    *p = (Param){.module = spec->module,
                 .unit = table->unit_count - 1,
                 .read = spec->read,
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
    table->flat_count = round_up(table->flat_count + p->count, PARAM_ALIGNMENT);
    ParamUnit *unit = &table->units[p->unit];
    unit->exact_end = unit->end = table->flat_count;
    return table->count++;
}

/* Gives the parameters of a unit that will be cut their places from `first` on; returns the unit's end. */
static int64_t place_unit(ParamTable *table, int number, int64_t first, int64_t step)
{
    ParamUnit *unit = &table->units[number];
    int64_t size = 0, begins[PARAM_READ_COUNT];
    for (int read = 0; read < PARAM_READ_COUNT; read++) {
        if (read == PARAM_READ_REDUCED) size = round_up(size, step);
        begins[read] = first + size;
        for (int i = 0; i < table->count; i++) {
            Param *p = &table->params[i];
            if (p->unit != number || (int)p->read != read) continue;
            p->offset = first + size;
            size = round_up(size + p->count, PARAM_ALIGNMENT);
        }
    }
    unit->first = begins[PARAM_READ_EXACT];
    unit->reduced_first = begins[PARAM_READ_BOTH];
    unit->exact_end = begins[PARAM_READ_REDUCED];
    return unit->end = first + round_up(size, step);
}

/* Moves one unit as it is. */
static int64_t shift_unit(ParamTable *table, int number, int64_t at)
{
    ParamUnit *unit = &table->units[number];
    int64_t by = at - unit->first;
    for (int i = 0; i < table->count; i++)
        if (table->params[i].unit == number) table->params[i].offset += by;
    *unit = (ParamUnit){unit->module, unit->first + by, unit->reduced_first + by, unit->exact_end + by,
                        unit->end + by};
    return unit->end;
}

void param_table_lay_out(ParamTable *table, const int shards[PARAM_MODULE_COUNT])
{
    int64_t at = 0;
    for (int u = 0; u < table->unit_count; u++) {
        int parts = shards[table->units[u].module];
        at =
            parts > 1 ? place_unit(table, u, at, (int64_t)parts * PARAM_ALIGNMENT) : shift_unit(table, u, at);
    }
    table->flat_count = at;
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

void param_initialise(const Param *p, uint64_t seed, float *values)
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
        param_initialise(&table->params[i], seed, flat + table->params[i].offset);
}

static float *values_of(ParamValues values, const Param *p)
{
    if (values.flat) return values.flat + p->offset;
    CHECK(values.units[p->unit]);
    return values.units[p->unit] + (p->offset - values.table->units[p->unit].first);
}

Tensor param_matrix_view(ParamValues values, int id)
{
    if (id < 0) return tensor_none();
    const Param *p = &values.table->params[id];
    return tensor_2d(values_of(values, p), DTYPE_F32, p->shape[0], p->count / p->shape[0]);
}

Tensor param_vector_view(ParamValues values, int id)
{
    if (id < 0) return tensor_none();
    const Param *p = &values.table->params[id];
    return tensor_1d(values_of(values, p), DTYPE_F32, p->count);
}

Tensor weights_matrix(const Weights *weights, int id)
{
    if (id < 0 || weights_act(weights) == DTYPE_F32) return param_matrix_view(weights->master, id);
    const ParamTable *table = weights->master.table;
    const Param *p = &table->params[id];
    uint16_t *values;
    if (weights->reduced) {
        values = weights->reduced + p->offset;
    } else {
        CHECK(weights->reduced_units[p->unit]);
        values = weights->reduced_units[p->unit] + (p->offset - table->units[p->unit].reduced_first);
    }
    return tensor_2d(values, weights->reduced_dtype, p->shape[0], p->count / p->shape[0]);
}

Tensor weights_vector(const Weights *weights, int id)
{
    return param_vector_view(weights->master, id);
}
