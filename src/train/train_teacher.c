/* train_teacher.c - see train_teacher.h. */
#include "train/train_teacher.h"

#include "base/memory.h"
#include "data/pixel_levels.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char key[] = "distillation.checkpoint_path";

/* Prototypes that score patches. */
static int64_t patch_prototypes(const Config *c)
{
    return c->ibot.separate_head ? c->ibot.head_n_prototypes : c->dino.head_n_prototypes;
}

static Status check_equal(const char *name, int64_t student, int64_t teacher, const char *path, Error *error)
{
    if (student == teacher) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: %" PRId64 ", but the teacher %s has %" PRId64, name, student,
                       path, teacher);
}

/* Whether every target of the teacher has its counterpart in the student. */
static Status check_suits(const Config *student, const Config *teacher, const char *path, Error *error)
{
    TRY(check_equal("student.patch_size", student->student.patch_size, teacher->student.patch_size, path,
                    error));
    if (student->dino.loss_weight > 0)
        TRY(check_equal("dino.head_n_prototypes", student->dino.head_n_prototypes,
                        teacher->dino.head_n_prototypes, path, error));
    if (student->ibot.loss_weight <= 0) return STATUS_OK;
    if (teacher->ibot.loss_weight <= 0)
        return status_fail(error, STATUS_INPUT,
                           "ibot.loss_weight: %g, but the teacher %s was trained without iBOT: set it to 0",
                           student->ibot.loss_weight, path);
    return check_equal(student->ibot.separate_head ? "ibot.head_n_prototypes" : "dino.head_n_prototypes",
                       patch_prototypes(student), patch_prototypes(teacher), path, error);
}

/* Student and teacher see the same pictures. */
static Status check_norm(const CheckpointMeta *meta, const char *path, Error *error)
{
    PixelNorm ours = pixel_levels_imagenet(), theirs = pixel_levels_norm(meta->mean, meta->std);
    if (pixel_levels_equal(&ours, &theirs)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "%s: the pictures of the teacher %s were normalised otherwise than here", key, path);
}

Status train_teacher_open(TrainTeacher *teacher, const Config *config, Comm *comm, Log *log, Error *error)
{
    *teacher = (TrainTeacher){0};
    config_init(&teacher->config);
    Status status = checkpoint_resolve(config->distillation.checkpoint_path, teacher->path, comm, log, error);
    if (status != STATUS_OK) return status_prefix(error, status, "%s", key);
    CheckpointMeta meta = {0};
    status = checkpoint_read_meta(teacher->path, &meta, comm, error);
    if (status != STATUS_OK) return status_prefix(error, status, "%s", key);
    status = config_load_text(&teacher->config, teacher->path, meta.config, strlen(meta.config), error);
    if (status == STATUS_OK) status = check_norm(&meta, teacher->path, error);
    checkpoint_meta_fini(&meta);
    if (status == STATUS_OK) status = check_suits(config, &teacher->config, teacher->path, error);
    return comm_agree(comm, status, error);
}

void train_teacher_fini(TrainTeacher *teacher)
{
    config_fini(&teacher->config);
}

Status train_teacher_load(TrainTeacher *teacher, SslMetaArch *ssl, Comm *comm, Error *error)
{
    Device *device = ssl->ops->device;
    const ShardMap *map = &ssl->teacher.map;
    size_t bytes = (size_t)map->count * sizeof(float);
    float *values = memory_alloc(bytes);
    uint64_t digest = 0;
    Status status =
        checkpoint_load_network(teacher->path, CHECKPOINT_TEACHER, map, values, &digest, comm, error);
    if (status == STATUS_OK) {
        device_upload(device, ssl->teacher.local, values, bytes);
        device_finish(device);
        ssl_meta_arch_teacher_changed(ssl);
        snprintf(teacher->digest, sizeof teacher->digest, "%016" PRIx64, digest);
    }
    memory_free(values);
    return status == STATUS_OK ? STATUS_OK : status_prefix(error, status, "%s", key);
}
