/* checkpoint_read.c - loading: rank 0 reads the directory, all ranks read the tensors and share the proof. */
#include "base/memory.h"
#include "base/rng.h"
#include "ckpt/checkpoint.h"
#include "ckpt/checkpoint_io.h"
#include "ckpt/retention.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- which file ---------------------------------------------------------------------------------------- */

static Status is_whole(const char *path, Error *error)
{
    return h5_check_files(&path, 1, "checkpoint", error);
}

/* Rank 0: tries the files up to `limit`, newest first; each that is not whole is a warning, and the
 * last of them stands in *last. */
static Status newest_whole(const char *folder, const RetentionList *list, int64_t limit, Log *log, char *path,
                           bool *found, Error *last)
{
    *found = false;
    for (int64_t i = list->count - 1; i >= 0; i--) {
        if (list->numbers[i] > limit) continue;
        TRY(retention_path(folder, list->numbers[i], path, CHECKPOINT_PATH_MAX, last));
        Error why = {0};
        *found = is_whole(path, &why) == STATUS_OK;
        if (*found) return STATUS_OK;
        log_warning(log, "not usable: %s", why.text);
        *last = why;
    }
    return STATUS_OK;
}

/* Rank 0. *found false with STATUS_OK: the folder never had a checkpoint. */
static Status find_latest(const char *folder, Log *log, char *path, bool *found, Error *error)
{
    RetentionList list;
    TRY(retention_list(folder, &list, error));
    int64_t named = retention_read_last(folder);
    bool none_ever = named < 0 && list.count == 0;
    char expected[CHECKPOINT_PATH_MAX] = "";
    Error why = {0};
    status_fail(&why, STATUS_INPUT, "%s: holds no file up to that one", folder);
    Status status = newest_whole(folder, &list, named < 0 ? INT64_MAX : named, log, path, found, &why);
    if (status != STATUS_OK && error) *error = why;
    if (status == STATUS_OK && named >= 0)
        status = retention_path(folder, named, expected, sizeof expected, error);
    if (status == STATUS_OK && *found && strcmp(path, expected) != 0)
        log_warning(log, "%s: last_checkpoint names %s; using %s, the newest whole one", folder,
                    named >= 0 ? expected : "no checkpoint", path);
    retention_list_fini(&list);
    TRY(status);
    if (*found || none_ever) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "no whole checkpoint%s%s: %s", named >= 0 ? " up to " : "",
                       expected, why.text);
}

/* What rank 0 found, to all. Collective over COMM. */
static Status share_found(Comm *comm, Status status, int64_t there, char *path, bool *found, Error *error)
{
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, &there, 1, DTYPE_I64, 0, NULL);
    comm_broadcast(comm, path, CHECKPOINT_PATH_MAX, DTYPE_U8, 0, NULL);
    *found = there != 0;
    return STATUS_OK;
}

Status checkpoint_find_latest(const char *folder, Comm *comm, Log *log, char *path, bool *found, Error *error)
{
    int64_t there = 0;
    Status status = STATUS_OK;
    path[0] = '\0';
    if (comm_rank(comm) == 0) {
        bool whole = false;
        status = find_latest(folder, log, path, &whole, error);
        there = whole;
    }
    return share_found(comm, status, there, path, found, error);
}

/* Rank 0. */
static Status find_before(char *path, Log *log, bool *found, Error *error)
{
    RetentionList list;
    int64_t number = retention_number(path);
    char *folder = memory_strndup(path, (size_t)(strrchr(path, '/') - path));
    Status status = retention_list(folder, &list, error);
    if (status == STATUS_OK) status = newest_whole(folder, &list, number - 1, log, path, found, error);
    if (status == STATUS_OK && *found) log_warning(log, "using %s, the newest whole one below it", path);
    retention_list_fini(&list);
    memory_free(folder);
    return status;
}

Status checkpoint_find_before(char *path, Comm *comm, Log *log, bool *found, Error *error)
{
    int64_t there = 0;
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) {
        bool whole = false;
        status = find_before(path, log, &whole, error);
        there = whole;
    }
    return share_found(comm, status, there, path, found, error);
}

static bool is_folder(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

Status checkpoint_resolve(const char *path, char *file, Comm *comm, Log *log, Error *error)
{
    char folder[CHECKPOINT_PATH_MAX];
    int64_t kind = 0; /* a file, a folder of checkpoints, a run folder: rank 0 looks, so that all agree */
    if (snprintf(folder, sizeof folder, "%s/checkpoints", path) >= (int)sizeof folder)
        return status_fail(error, STATUS_INPUT, "%.100s...: the name is too long", path);
    if (comm_rank(comm) == 0) kind = is_folder(folder) ? 2 : is_folder(path) ? 1 : 0;
    comm_broadcast(comm, &kind, 1, DTYPE_I64, 0, NULL);
    if (kind == 0) {
        memcpy(file, path, strlen(path) + 1);
        return STATUS_OK;
    }
    bool found = false;
    TRY(checkpoint_find_latest(kind == 2 ? folder : path, comm, log, file, &found, error));
    return found ? STATUS_OK
                 : status_fail(error, STATUS_INPUT, "%s: there is no complete checkpoint in it", path);
}

/* --- attributes ---------------------------------------------------------------------------------------- */

/* Rank 0's meta to all; each rank owns its config text. */
static void share_meta(CheckpointMeta *meta, Comm *comm)
{
    char *config = meta->config;
    int64_t length = config ? (int64_t)strlen(config) : 0;
    comm_broadcast(comm, &length, 1, DTYPE_I64, 0, NULL);
    comm_broadcast(comm, meta, sizeof *meta, DTYPE_U8, 0, NULL);
    if (comm_rank(comm) != 0) config = memory_alloc((size_t)length + 1);
    if (length) comm_broadcast(comm, config, length, DTYPE_U8, 0, NULL);
    meta->config = config;
}

void checkpoint_meta_fini(CheckpointMeta *meta)
{
    memory_free(meta->config);
    meta->config = NULL;
}

Status checkpoint_read_meta(const char *path, CheckpointMeta *meta, Comm *comm, Error *error)
{
    *meta = (CheckpointMeta){0};
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) {
        H5File file;
        status = h5_check_open(&file, path, "checkpoint", error);
        if (status == STATUS_OK) {
            status = checkpoint_io_read_meta(&file, meta, error);
            h5_file_close(&file, NULL);
        }
    }
    status = comm_agree(comm, status, error);
    if (status != STATUS_OK) {
        checkpoint_meta_fini(meta);
        return status;
    }
    share_meta(meta, comm);
    return STATUS_OK;
}

/* --- tensors ------------------------------------------------------------------------------------------- */

/* The tensors of the file below `group`, counted, and the first that the layout lacks (owned, or NULL). */
static Status count_below(const H5File *file, const char *group, const CheckpointLayout *layout,
                          int64_t *count, char **unexpected, Error *error)
{
    H5Names names;
    Status status = h5_file_list(file, group, &names, error);
    for (int64_t i = 0; i < names.count && status == STATUS_OK; i++) {
        size_t size = strlen(group) + strlen(names.names[i]) + 2;
        char *path = memory_alloc(size);
        snprintf(path, size, "%s/%s", group, names.names[i]);
        H5Kind kind;
        status = h5_file_kind(file, path, &kind, error);
        if (status == STATUS_OK && kind == H5_KIND_GROUP) {
            status = count_below(file, path, layout, count, unexpected, error);
        } else if (status == STATUS_OK) {
            ++*count;
            int64_t t = 0;
            while (t < layout->count && strcmp(layout->tensors[t].path, path) != 0)
                t++;
            if (t == layout->count && !*unexpected) *unexpected = memory_strdup(path);
        }
        memory_free(path);
    }
    h5_names_fini(&names);
    return status;
}

static Status wrong_shape(const H5File *file, const CheckpointTensor *tensor, const H5Info *info,
                          Error *error)
{
    char there[96] = "", here[96] = "";
    for (int d = 0; d < info->ndim; d++)
        snprintf(there + strlen(there), sizeof there - strlen(there), "%s%" PRId64, d ? ", " : "",
                 info->shape[d]);
    for (int d = 0; d < tensor->ndim; d++)
        snprintf(here + strlen(here), sizeof here - strlen(here), "%s%" PRId64, d ? ", " : "",
                 tensor->shape[d]);
    return status_fail(error, STATUS_INPUT, "%s: another architecture: %s is [%s] there, [%s] here",
                       file->path, tensor->path, there, here);
}

/* Rank 0: where each tensor lies and its checksum; the first difference between file and layout is the error.
 */
static Status locate(const H5File *file, CheckpointLayout *layout, const char *const *roots, uint32_t *crcs,
                     Error *error)
{
    int64_t there = 0;
    char *unexpected = NULL;
    for (; *roots; roots++) {
        H5Kind kind;
        TRY(h5_file_kind(file, *roots, &kind, error));
        if (kind == H5_KIND_ABSENT)
            return status_fail(error, STATUS_INPUT, "%s: %s is missing", file->path, *roots);
        Status status = count_below(file, *roots, layout, &there, &unexpected, error);
        if (status == STATUS_OK && unexpected)
            status = status_fail(error, STATUS_INPUT, "%s: another architecture: %s is there, but not here",
                                 file->path, unexpected);
        memory_free(unexpected);
        unexpected = NULL;
        TRY(status);
    }
    for (int64_t t = 0; t < layout->count; t++) {
        CheckpointTensor *tensor = &layout->tensors[t];
        H5Kind kind;
        TRY(h5_file_kind(file, tensor->path, &kind, error));
        if (kind != H5_KIND_DATASET)
            return status_fail(error, STATUS_INPUT,
                               "%s: another architecture: %s is not there (%" PRId64
                               " tensors there, %" PRId64 " here)",
                               file->path, tensor->path, there, layout->count);
        H5Info info;
        TRY(h5_dataset_info(file, tensor->path, &info, error));
        if (info.ndim != tensor->ndim ||
            memcmp(info.shape, tensor->shape, (size_t)info.ndim * sizeof *info.shape) != 0)
            return wrong_shape(file, tensor, &info, error);
        tensor->offset = info.offset;
        TRY(h5_attribute_read_u32(file, tensor->path, "crc32", &crcs[t], error));
    }
    return STATUS_OK;
}

/* Rank 0: opens and locates. */
static Status read_directory(const char *path, const char *kind, CheckpointLayout *layout,
                             const char *const *roots, uint32_t *crcs, Error *error)
{
    H5File file;
    TRY(h5_check_open(&file, path, kind, error));
    Status status = locate(&file, layout, roots, crcs, error);
    h5_file_close(&file, NULL);
    return status;
}

/* Offsets and checksums of rank 0 to all. */
static void share_directory(CheckpointLayout *layout, uint32_t *crcs, Comm *comm)
{
    int64_t *both = memory_alloc_array(2 * (size_t)layout->count + 1, sizeof *both);
    for (int64_t t = 0; t < layout->count; t++) {
        both[2 * t] = layout->tensors[t].offset;
        both[2 * t + 1] = crcs[t];
    }
    comm_broadcast(comm, both, 2 * layout->count, DTYPE_I64, 0, NULL);
    for (int64_t t = 0; t < layout->count; t++) {
        layout->tensors[t].offset = both[2 * t];
        crcs[t] = (uint32_t)both[2 * t + 1];
    }
    memory_free(both);
}

/* Compares the tensors in memory with the file's checksums, each rank its share. Collective over COMM; all
 * ranks come to the same outcome by themselves. */
static Status verify(const char *path, const CheckpointLayout *layout, const uint32_t *expected, Comm *comm,
                     Error *error)
{
    CheckpointPieces pieces = checkpoint_layout_deal(layout, CHECKPOINT_SHARE);
    uint32_t *found = memory_alloc_array((size_t)layout->count + 1, sizeof *found);
    checkpoint_io_checksum(&pieces);
    checkpoint_layout_combine(layout, &pieces, found, comm);
    Status status = STATUS_OK;
    for (int64_t t = 0; t < layout->count && status == STATUS_OK; t++)
        if (found[t] != expected[t])
            status = status_fail(error, STATUS_INPUT, "%s: %s: damaged: crc32 is %08x, expected %08x", path,
                                 layout->tensors[t].path, found[t], expected[t]);
    memory_free(found);
    checkpoint_layout_pieces_fini(&pieces);
    return status;
}

/* Also tells whether wrong bytes made it fail: *damaged as in CheckpointState. */
Status checkpoint_io_read_tensors(const char *path, const char *kind, CheckpointLayout *layout,
                                  const char *const *roots, bool *damaged, Comm *comm, Error *error)
{
    uint32_t *crcs = memory_alloc_array((size_t)layout->count + 1, sizeof *crcs);
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) status = read_directory(path, kind, layout, roots, crcs, error);
    status = comm_agree(comm, status, error);
    *damaged = false;
    if (status == STATUS_OK) {
        share_directory(layout, crcs, comm);
        status = comm_agree(comm, checkpoint_io_read(path, layout, error), error);
        if (status == STATUS_OK) status = verify(path, layout, crcs, comm, error);
        *damaged = status != STATUS_OK;
        for (int64_t t = 0; t < layout->count; t++)
            layout->tensors[t].crc = crcs[t];
    }
    memory_free(crcs);
    return status;
}

Status checkpoint_load(const char *path, CheckpointState *state, Comm *comm, Error *error)
{
    const char *const roots[] = {"/student", checkpoint_layout_ema(&state->meta), "/optimizer/exp_avg",
                                 "/optimizer/exp_avg_sq", NULL};
    size_t bytes = (size_t)state->map->count * sizeof(float);
    float *const flats[] = {state->student, state->model_ema, state->exp_avg, state->exp_avg_sq};
    for (int i = 0; i < 4; i++)
        memset(flats[i], 0, bytes); /* the padding */
    CheckpointLayout layout = {0};
    checkpoint_layout_add_state(&layout, state, comm);
    Status status =
        checkpoint_io_read_tensors(path, "checkpoint", &layout, roots, &state->damaged, comm, error);
    if (status == STATUS_OK) status = checkpoint_read_meta(path, &state->meta, comm, error);
    checkpoint_layout_fini(&layout);
    return status;
}

/* The tensors of one role, with their checksums in layout->tensors. */
static Status load_role(const char *path, CheckpointRole role, bool backbone_only, const ShardMap *map,
                        float *local, CheckpointLayout *layout, Comm *comm, Error *error)
{
    CheckpointMeta meta;
    TRY(checkpoint_read_meta(path, &meta, comm, error));
    const char *name = role == CHECKPOINT_TEACHER ? checkpoint_layout_ema(&meta) : "/student";
    checkpoint_meta_fini(&meta);
    char root[64];
    snprintf(root, sizeof root, "%s%s", name, backbone_only ? "/backbone" : "");
    const char *const roots[] = {root, NULL};
    bool damaged;
    checkpoint_layout_add_role(layout, name, map, local, backbone_only);
    return checkpoint_io_read_tensors(path, "checkpoint", layout, roots, &damaged, comm, error);
}

Status checkpoint_load_backbone(const char *path, CheckpointRole role, const ShardMap *map, float *local,
                                Comm *comm, Error *error)
{
    CheckpointLayout layout = {0};
    Status status = load_role(path, role, true, map, local, &layout, comm, error);
    checkpoint_layout_fini(&layout);
    return status;
}

/* Of names below the role, shapes and checksums. */
static uint64_t digest_of(const CheckpointLayout *layout)
{
    uint64_t digest = RNG_HASH_START;
    for (int64_t t = 0; t < layout->count; t++) {
        const CheckpointTensor *tensor = &layout->tensors[t];
        const char *name = strchr(tensor->path + 1, '/');
        digest = rng_hash_bytes(digest, name, strlen(name));
        digest = rng_hash_bytes(digest, tensor->shape, (size_t)tensor->ndim * sizeof *tensor->shape);
        digest = rng_hash_bytes(digest, &tensor->crc, sizeof tensor->crc);
    }
    return digest;
}

Status checkpoint_load_network(const char *path, CheckpointRole role, const ShardMap *map, float *local,
                               uint64_t *digest, Comm *comm, Error *error)
{
    CheckpointLayout layout = {0};
    Status status = load_role(path, role, false, map, local, &layout, comm, error);
    if (status == STATUS_OK) *digest = digest_of(&layout);
    checkpoint_layout_fini(&layout);
    return status;
}
