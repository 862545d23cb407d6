/* test_shard_map.c - parts of real models: together they are everything, once, and equally large. */
#include "base/memory.h"
#include "fsdp/shard_map.h"
#include "nn/dino_head.h"
#include "nn/vit.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS_MAX = 8 };

typedef struct {
    ParamTable table;
    Vit vit;
    DinoHead dino_head, ibot_head;
} Model;

static Model *make_model(int64_t dim, int64_t depth, int64_t chunks, int64_t prototypes)
{
    Model *m = memory_alloc(sizeof *m);
    VitConfig c = {.embed_dim = dim,
                   .depth = depth,
                   .num_heads = dim / 64,
                   .patch_size = 14,
                   .img_size = 224,
                   .mlp_ratio = 4.0,
                   .qkv_bias = true,
                   .proj_bias = true,
                   .ffn_bias = true,
                   .layerscale = 1e-5,
                   .num_register_tokens = 3,
                   .block_chunks = chunks};
    DinoHeadConfig head = {dim, 2048, 256, prototypes, 3};
    param_table_init(&m->table);
    vit_build(&m->vit, &c, &m->table);
    dino_head_build(&m->dino_head, &head, PARAM_DINO_HEAD, &m->table);
    dino_head_build(&m->ibot_head, &head, PARAM_IBOT_HEAD, &m->table);
    return m;
}

static void destroy_model(Model *m)
{
    vit_fini(&m->vit);
    param_table_fini(&m->table);
    memory_free(m);
}

/* As fsdp_ranks_init would deal them, without communicators: everything over all ranks, but for one module.
 */
static FsdpRanks deal(int rank, int ranks, ParamModule whole)
{
    FsdpRanks r = {0};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        r.modules[m] = m == (int)whole ? (FsdpModule){.shards = 1, .replicas = ranks, .replica = rank}
                                       : (FsdpModule){.shards = ranks, .shard = rank, .replicas = 1};
    return r;
}

static const ParamModule NONE = PARAM_MODULE_COUNT;

/* Each element of each parameter is in the part of one rank, in places that do not overlap. */
static void expect_cover(const Model *m, int ranks, ParamModule whole)
{
    int64_t *next = memory_alloc_array((size_t)m->table.count, sizeof *next);
    for (int rank = 0; rank < ranks; rank++) {
        FsdpRanks r = deal(rank, ranks, whole);
        ShardMap map;
        shard_map_init(&map, &m->table, &r);
        int64_t end = 0;
        for (int s = 0; s < m->table.count; s++) {
            int id = map.order[s];
            const Param *p = &m->table.params[id];
            ShardRange range = shard_map_range(&map, id);
            if (range.count == 0) continue;
            cr_assert(range.local >= end && range.local + range.count <= map.count, "%s", p->name);
            end = range.local + range.count;
            if (p->module == whole) {
                cr_assert(range.start == 0 && range.count == p->count);
                continue;
            }
            cr_assert_eq(range.start, next[id], "%s on rank %d of %d", p->name, rank, ranks);
            next[id] += range.count;
        }
        shard_map_fini(&map);
    }
    for (int id = 0; id < m->table.count; id++)
        if (m->table.params[id].module != whole) cr_assert_eq(next[id], m->table.params[id].count);
    memory_free(next);
}

Test(shard_map, parts_are_everything_once)
{
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        for (int64_t chunks = 0; chunks <= 4; chunks += 4) {
            for (int variant = 0; variant < 2; variant++) {
                ParamModule whole = variant ? PARAM_DINO_HEAD : NONE;
                Model *m = make_model(64, 4, chunks, 1000);
                FsdpRanks r = deal(0, ranks, whole);
                int shards[PARAM_MODULE_COUNT];
                fsdp_ranks_shards(&r, shards);
                param_table_lay_out(&m->table, shards);
                expect_cover(m, ranks, whole);
                destroy_model(m);
            }
        }
    }
}

/* Padding costs less than 5 %. */
Test(shard_map, parts_fall_as_one_over_the_ranks)
{
    static const int64_t dims[] = {384, 768};
    for (int i = 0; i < 2; i++) {
        Model *whole = make_model(dims[i], 12, 0, 65536);
        double all = 0;
        for (int id = 0; id < whole->table.count; id++)
            all += (double)whole->table.params[id].count;
        destroy_model(whole);
        for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
            Model *m = make_model(dims[i], 12, 0, 65536);
            FsdpRanks r = deal(ranks - 1, ranks, NONE);
            int shards[PARAM_MODULE_COUNT];
            ShardMap map;
            fsdp_ranks_shards(&r, shards);
            param_table_lay_out(&m->table, shards);
            shard_map_init(&map, &m->table, &r);
            cr_expect(map.count >= all / ranks && (double)map.count < 1.05 * all / ranks, "%d ranks: %g",
                      ranks, (double)map.count * ranks / all);
            shard_map_fini(&map);
            destroy_model(m);
        }
    }
}

/* The parts of initial weights are those of the whole. */
Test(shard_map, initial_weights_do_not_depend_on_parts)
{
    enum { RANKS = 3 };
    Model *plain = make_model(64, 2, 0, 500), *cut = make_model(64, 2, 0, 500);
    float *flat = memory_alloc_array((size_t)plain->table.flat_count, sizeof *flat);
    param_table_initialise(&plain->table, 7, flat);
    for (int rank = 0; rank < RANKS; rank++) {
        FsdpRanks r = deal(rank, RANKS, NONE);
        int shards[PARAM_MODULE_COUNT];
        ShardMap map;
        fsdp_ranks_shards(&r, shards);
        param_table_lay_out(&cut->table, shards); /* again: nothing moves */
        shard_map_init(&map, &cut->table, &r);
        float *local = memory_alloc_array((size_t)map.count, sizeof *local);
        memset(local, 0xff, (size_t)map.count * sizeof *local);
        shard_map_initialise(&map, 7, local);
        for (int id = 0; id < plain->table.count; id++) {
            ShardRange range = shard_map_range(&map, id);
            const float *expected = flat + plain->table.params[id].offset + range.start;
            cr_expect_eq(memcmp(local + range.local, expected, (size_t)range.count * sizeof *local), 0, "%s",
                         plain->table.params[id].name);
        }
        memory_free(local);
        shard_map_fini(&map);
    }
    memory_free(flat);
    destroy_model(plain);
    destroy_model(cut);
}
