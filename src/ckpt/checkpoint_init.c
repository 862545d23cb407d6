/* checkpoint_init.c - see checkpoint_init.h. */
#include "ckpt/checkpoint_init.h"

#include "base/memory.h"
#include "ckpt/checkpoint_io.h"
#include "h5/h5_check.h"
#include "ops/ops.h"

#include <stdio.h>
#include <string.h>

static Status has_student(const char *path, int64_t *has, Error *error)
{
    H5File file;
    H5Kind kind;
    TRY(h5_check_open(&file, path, "checkpoint", error));
    Status status = h5_file_kind(&file, "/student", &kind, error);
    *has = status == STATUS_OK && kind == H5_KIND_GROUP;
    h5_file_close(&file, NULL);
    return status;
}

Status checkpoint_init_look(const char *path, CheckpointSource *source, Comm *comm, Error *error)
{
    CheckpointMeta meta;
    TRY(checkpoint_read_meta(path, &meta, comm, error));
    *source = (CheckpointSource){.grid = meta.global_crops_size / meta.patch_size,
                                 .iteration = meta.iteration,
                                 .ema = checkpoint_layout_ema(&meta)};
    checkpoint_meta_fini(&meta);
    Status status = comm_rank(comm) == 0 ? has_student(path, &source->has_student, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, &source->has_student, 1, DTYPE_I64, 0, NULL);
    return STATUS_OK;
}

/* local's part of the position embedding = positions[1 + from^2, D], resampled to the network's grid. */
static void resample(const CheckpointInit *init, const ShardMap *map, int64_t from, float *positions,
                     float *local)
{
    const VitConfig *v = &init->vit->config;
    int64_t D = v->embed_dim, grid = init->vit->grid, most = grid > from ? grid : from;
    Device *host = device_open_host();
    Ops *ops = ops_create(host, &(OpsLimits){.width = D, .max_seqlen = 1 + most * most}, &(OpsOptions){0});
    float *resampled = memory_alloc_array((size_t)((1 + grid * grid) * D), sizeof *resampled);
    ops->pos_embed_forward(ops, tensor_2d(resampled, DTYPE_F32, 1 + grid * grid, D),
                           tensor_2d(positions, DTYPE_F32, 1 + from * from, D), grid, grid,
                           v->interpolate_offset, v->interpolate_antialias);
    ShardRange range = shard_map_range(map, init->vit->pos_embed);
    memcpy(local + range.local, resampled + range.start, (size_t)range.count * sizeof *local);
    memory_free(resampled);
    ops_destroy(ops);
    device_close(host);
}

/* The groups of the file that the layout is all of. */
static void name_roots(const ShardMap *map, bool heads, const char *role, char names[PARAM_MODULE_COUNT][64],
                       const char *roots[PARAM_MODULE_COUNT + 1])
{
    int count = 0;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        int64_t first, elements;
        shard_map_module(map, (ParamModule)m, &first, &elements);
        if (elements == 0 || (m != PARAM_BACKBONE && !heads)) continue;
        snprintf(names[m], sizeof names[m], "%s/%s", role, param_module_name((ParamModule)m));
        roots[count++] = names[m];
    }
    roots[count] = NULL;
}

Status checkpoint_init_load(const char *path, const CheckpointSource *source, CheckpointRole role,
                            const CheckpointInit *init, const ShardMap *map, float *local, Comm *comm,
                            Error *error)
{
    const char *group = role == CHECKPOINT_TEACHER ? source->ema : "/student";
    const ParamTable *table = map->table;
    int64_t D = init->vit->config.embed_dim, from = source->grid, shape[] = {1, 1 + from * from, D};
    bool other_grid = from != init->vit->grid, damaged;
    float *positions = memory_alloc_array((size_t)(shape[1] * D), sizeof *positions);
    CheckpointLayout layout = {0};
    for (int id = 0; id < table->count; id++) {
        if (table->params[id].module != PARAM_BACKBONE && !init->heads) continue;
        if (id == init->vit->pos_embed && other_grid) {
            char name[160];
            checkpoint_layout_path(name, sizeof name, group, &table->params[id]);
            checkpoint_layout_add_whole(&layout, name, 3, shape, positions, comm);
        } else {
            checkpoint_layout_add_param(&layout, group, map, local, id);
        }
    }
    char names[PARAM_MODULE_COUNT][64];
    const char *roots[PARAM_MODULE_COUNT + 1];
    name_roots(map, init->heads, group, names, roots);
    Status status = checkpoint_io_read_tensors(path, "checkpoint", &layout, roots, &damaged, comm, error);
    if (status == STATUS_OK && other_grid) resample(init, map, from, positions, local);
    checkpoint_layout_fini(&layout);
    memory_free(positions);
    return status;
}
