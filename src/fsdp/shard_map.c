/* shard_map.c - the arithmetic of runs. */
#include "fsdp/shard_map.h"

#include "base/check.h"
#include "base/memory.h"

#include <string.h>

static void add_section(ShardMap *map, int unit, int64_t first, int64_t end)
{
    const FsdpModule *module = &map->modules[map->table->units[unit].module];
    CHECK((end - first) % module->shards == 0);
    if (end == first) return;
    int64_t share = (end - first) / module->shards;
    map->sections[map->section_count++] = (ShardSection){unit, first, end - first, share, map->count};
    map->count += share;
}

/* Insertion sort of each unit's few parameters, which the table has together. */
static void sort_by_offset(const ParamTable *table, int *order)
{
    for (int i = 0; i < table->count; i++) {
        int at = i;
        for (; at > 0 && table->params[order[at - 1]].offset > table->params[i].offset; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static void build(ShardMap *map)
{
    const ParamTable *t = map->table;
    map->sections = memory_alloc_array(2 * (size_t)t->unit_count, sizeof *map->sections);
    map->unit_sections = memory_alloc_array((size_t)t->unit_count + 1, sizeof *map->unit_sections);
    map->order = memory_alloc_array((size_t)t->count, sizeof *map->order);
    for (int u = 0; u < t->unit_count; u++) {
        const ParamUnit *unit = &t->units[u];
        map->unit_sections[u] = map->section_count;
        add_section(map, u, unit->first, unit->exact_end);
        add_section(map, u, unit->exact_end, unit->end);
    }
    map->unit_sections[t->unit_count] = map->section_count;
    sort_by_offset(t, map->order);
}

void shard_map_init(ShardMap *map, const ParamTable *table, const FsdpRanks *ranks)
{
    *map = (ShardMap){.table = table};
    memcpy(map->modules, ranks->modules, sizeof map->modules);
    build(map);
}

void shard_map_init_whole(ShardMap *map, const ParamTable *table, const Comm *comm)
{
    *map = (ShardMap){.table = table};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        map->modules[m] = (FsdpModule){.shards = 1, .replicas = comm_size(comm), .replica = comm_rank(comm)};
    build(map);
}

void shard_map_fini(ShardMap *map)
{
    memory_free(map->sections);
    memory_free(map->unit_sections);
    memory_free(map->order);
    *map = (ShardMap){0};
}

ShardRange shard_map_range(const ShardMap *map, int id)
{
    const Param *p = &map->table->params[id];
    for (int k = map->unit_sections[p->unit]; k < map->unit_sections[p->unit + 1]; k++) {
        const ShardSection *s = &map->sections[k];
        if (p->offset < s->first || p->offset >= s->first + s->count) continue;
        int64_t run = s->first + map->modules[p->module].shard * s->share, run_end = run + s->share;
        int64_t begin = p->offset > run ? p->offset : run;
        int64_t end = p->offset + p->count < run_end ? p->offset + p->count : run_end;
        if (begin >= end) return (ShardRange){.local = s->local};
        return (ShardRange){begin - p->offset, end - begin, s->local + begin - run};
    }
    CHECK(p->count == 0);
    return (ShardRange){0};
}

void shard_map_module(const ShardMap *map, ParamModule module, int64_t *first, int64_t *count)
{
    *first = *count = 0;
    for (int k = 0; k < map->section_count; k++) {
        const ShardSection *s = &map->sections[k];
        if (map->table->units[s->unit].module != module) continue;
        if (*count == 0) *first = s->local;
        CHECK(*first + *count == s->local); /* a module's units are together */
        *count += s->share;
    }
}

void shard_map_initialise(const ShardMap *map, uint64_t seed, float *local)
{
    memset(local, 0, (size_t)map->count * sizeof *local);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < map->table->count; i++) {
        const Param *p = &map->table->params[i];
        ShardRange range = shard_map_range(map, i);
        if (range.count == 0) continue;
        if (range.count == p->count) {
            param_initialise(p, seed, local + range.local);
            continue;
        }
        float *whole = memory_alloc_array((size_t)p->count, sizeof *whole);
        param_initialise(p, seed, whole);
        memcpy(local + range.local, whole + range.start, (size_t)range.count * sizeof *whole);
        memory_free(whole);
    }
}
