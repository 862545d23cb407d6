/* shard_map.h - which elements of the flat vector this rank holds, and where in its own memory.
 *
 * A unit is cut in one or two sections (its two ranges of elements that are gathered in different types,
 * param_table_lay_out), each into equal runs of elements, padding included; rank r holds run r. The runs of
 * all sections, one after the other, are the rank's local vector: master weights, moments, gradients and the
 * teacher's weights each are one. A module that is not cut lies in it whole. Plain arithmetic; no
 * communication.
 */
#ifndef DINOBATCH_FSDP_SHARD_MAP_H
#define DINOBATCH_FSDP_SHARD_MAP_H

#include "fsdp/fsdp_ranks.h"

typedef struct {
    int unit;
    int64_t first, count; /* elements of the flat vector */
    int64_t share;        /* elements of one run: count / shards */
    int64_t local;        /* first element of this rank's run in the local vector */
} ShardSection;

typedef struct {
    const ParamTable *table;                /* borrowed */
    FsdpModule modules[PARAM_MODULE_COUNT]; /* communicators borrowed */
    ShardSection *sections;                 /* in the order of the flat vector; owned */
    int section_count;
    int *unit_sections; /* [unit_count + 1] unit u has sections unit_sections[u] .. unit_sections[u + 1] - 1;
                           owned */
    int *order;         /* [table->count] parameters by place in the flat vector; owned */
    int64_t count;      /* elements of the local vector */
} ShardMap;

/* This rank's part of one parameter: its elements [start, start + count), at `local` of the local vector. */
typedef struct {
    int64_t start, count, local;
} ShardRange;

/* The table must have been laid out for these ranks and outlive the map. */
void shard_map_init(ShardMap *map, const ParamTable *table, const FsdpRanks *ranks);

/* Everything on every rank of COMM: local and flat vector are the same. Not collective. */
void shard_map_init_whole(ShardMap *map, const ParamTable *table, const Comm *comm);

void shard_map_fini(ShardMap *map);

/* count 0 where this rank holds nothing of parameter `id`. */
ShardRange shard_map_range(const ShardMap *map, int id);

/* The run of the local vector that belongs to a module; both 0 where the table has none of it. */
void shard_map_module(const ShardMap *map, ParamModule module, int64_t *first, int64_t *count);

/* Copies initial weights (param_initialise) into the host vector local[map->count]; padding is 0. */
void shard_map_initialise(const ShardMap *map, uint64_t seed, float *local);

#endif
