/* descriptor_file.c - see descriptor_file.h; the tensors go the way of a checkpoint's. */
#include "ckpt/descriptor_file.h"

#include "base/memory.h"
#include "ckpt/checkpoint_io.h"
#include "data/pixel_levels.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"
#include "run/version.h"

#include <stdio.h>
#include <string.h>

static const char KIND[] = "descriptor";

static const char *const ARCHS[] = {[RESNET_18] = "sscd_resnet18", [RESNET_50] = "sscd_resnet50"};

const char *descriptor_file_arch(ResnetArch arch)
{
    return ARCHS[arch];
}

static Status parse_arch(const char *path, const char *text, ResnetArch *arch, Error *error)
{
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (strcmp(ARCHS[i], text) == 0) return *arch = (ResnetArch)i, STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: arch is %s, expected %s or %s", path, text, ARCHS[RESNET_50],
                       ARCHS[RESNET_18]);
}

static Status read_texts(const H5File *file, DescriptorMeta *meta, Error *error)
{
    char *text;
    TRY(h5_attribute_read_text(file, "/", "source", &text, error));
    snprintf(meta->source, sizeof meta->source, "%s", text);
    memory_free(text);
    TRY(h5_attribute_read_text(file, "/", "arch", &text, error));
    Status status = parse_arch(file->path, text, &meta->config.arch, error);
    memory_free(text);
    return status;
}

static Status check_meta(const char *path, const DescriptorMeta *meta, Error *error)
{
    const ResnetConfig *c = &meta->config;
    if (c->dims < 1 || c->dims > 1 << 16)
        return status_fail(error, STATUS_INPUT, "%s: dims is %lld, expected 1 to 65536", path,
                           (long long)c->dims);
    if (!(c->gem_p >= 1.0 && c->gem_p <= 64.0))
        return status_fail(error, STATUS_INPUT, "%s: gem_p is %g, expected 1 to 64", path, c->gem_p);
    if (!(c->bn_eps >= 0.0 && c->bn_eps <= 1.0))
        return status_fail(error, STATUS_INPUT, "%s: bn_eps is %g, expected 0 to 1", path, c->bn_eps);
    if (pixel_levels_usable(meta->mean, meta->std)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: mean and std are no normalisation", path);
}

static Status read_meta(const H5File *file, DescriptorMeta *meta, Error *error)
{
    TRY(h5_attribute_read_ints(file, "/", "dims", &meta->config.dims, 1, error));
    TRY(h5_attribute_read_doubles(file, "/", "gem_p", &meta->config.gem_p, 1, error));
    TRY(h5_attribute_read_doubles(file, "/", "bn_eps", &meta->config.bn_eps, 1, error));
    TRY(h5_attribute_read_doubles(file, "/", "mean", meta->mean, 3, error));
    TRY(h5_attribute_read_doubles(file, "/", "std", meta->std, 3, error));
    TRY(read_texts(file, meta, error));
    return check_meta(file->path, meta, error);
}

Status descriptor_file_read_meta(const char *path, DescriptorMeta *meta, Comm *comm, Error *error)
{
    *meta = (DescriptorMeta){0};
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) {
        H5File file;
        status = h5_check_open(&file, path, KIND, error);
        if (status == STATUS_OK) {
            status = read_meta(&file, meta, error);
            h5_file_close(&file, NULL);
        }
    }
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, meta, sizeof *meta, DTYPE_U8, 0, NULL);
    return STATUS_OK;
}

/* A CheckpointMetaWriter. */
static Status write_meta(const H5File *file, const void *of, Error *error)
{
    const DescriptorMeta *meta = of;
    H5Schema schema;
    h5_schema_load(&schema, KIND);
    TRY(h5_schema_stamp(&schema, file, error));
    TRY(h5_attribute_write_text(file, "/", "arch", ARCHS[meta->config.arch], error));
    TRY(h5_attribute_write_int(file, "/", "dims", meta->config.dims, error));
    TRY(h5_attribute_write_double(file, "/", "gem_p", meta->config.gem_p, error));
    TRY(h5_attribute_write_double(file, "/", "bn_eps", meta->config.bn_eps, error));
    TRY(h5_attribute_write_doubles(file, "/", "mean", meta->mean, 3, error));
    TRY(h5_attribute_write_doubles(file, "/", "std", meta->std, 3, error));
    TRY(h5_attribute_write_text(file, "/", "source", meta->source, error));
    return h5_attribute_write_text(file, "/", "version", version_number(), error);
}

Status descriptor_file_load(const char *path, const ParamTable *table, float *flat, Comm *comm, Error *error)
{
    static const char *const roots[] = {"/backbone", NULL};
    ShardMap map;
    CheckpointLayout layout = {0};
    shard_map_init_whole(&map, table, comm);
    checkpoint_layout_add_role(&layout, "", &map, flat, true);
    bool damaged;
    Status status = checkpoint_io_read_tensors(path, KIND, &layout, roots, &damaged, comm, error);
    checkpoint_layout_fini(&layout);
    shard_map_fini(&map);
    return status;
}

Status descriptor_file_save(const char *path, const DescriptorMeta *meta, const ParamTable *table,
                            float *flat, Comm *comm, Error *error)
{
    ShardMap map;
    CheckpointLayout layout = {0};
    shard_map_init_whole(&map, table, comm);
    checkpoint_layout_add_role(&layout, "", &map, flat, true);
    Status status = checkpoint_io_write_tensors(path, &layout, write_meta, meta, comm, error);
    checkpoint_layout_fini(&layout);
    shard_map_fini(&map);
    return status;
}
