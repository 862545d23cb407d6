/* test_train_state.c - a step that is not finite changes nothing, and only so many are let pass. */
#include "../support/train_support.h"

#include "base/memory.h"
#include "data/data_set.h"
#include "train/train_data.h"
#include "train/train_state.h"

#include <criterion/criterion.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run on one process with its data. */
typedef struct {
    Config config;
    Comm *comm;
    Device *device;
    TrainState state;
    DataSet *set;
    Loader *loader;
} Training;

static void begin(Training *t, const char *const *overrides)
{
    Error error = {0};
    *t = (Training){.comm = comm_self_create(), .device = device_open_host()};
    config_init(&t->config);
    cr_assert_eq(
        config_load_text(&t->config, "tiny", TRAIN_SUPPORT_CONFIG, strlen(TRAIN_SUPPORT_CONFIG), &error),
        STATUS_OK, "%s", error.text);
    for (; *overrides; overrides++)
        cr_assert_eq(config_override(&t->config, *overrides, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(train_state_init(&t->state, &t->config, t->comm, t->device, 1, NULL, &error), STATUS_OK,
                 "%s", error.text);
    cr_assert_eq(data_set_create(&t->set, t->config.train.dataset_path, &error), STATUS_OK, "%s", error.text);
    LoaderParams params = train_data_loader(&t->config, &t->state.groups, t->device, 0);
    cr_assert_eq(loader_create(&t->loader, &params, t->set, &error), STATUS_OK, "%s", error.text);
}

static void end(Training *t)
{
    loader_destroy(t->loader);
    data_set_destroy(t->set);
    train_state_fini(&t->state);
    config_fini(&t->config);
    comm_destroy(t->comm);
    device_close(t->device);
}

/* Continues in place of `t`, which ends, from the checkpoint at `path`. */
static void resume(Training *t, const char *const *overrides, const char *path)
{
    bool damaged;
    Error error = {0};
    end(t);
    begin(t, overrides);
    cr_assert_eq(train_state_resume(&t->state, path, false, &damaged, &error), STATUS_OK, "%s", error.text);
}

/* One step; in a bad one some pixel's grey level is infinite. */
static Status step(Training *t, bool bad, TrainStep *done, Error *error)
{
    Batch *batch;
    cr_assert_eq(loader_next(t->loader, &batch, error), STATUS_OK);
    float *level = tensor_f32(t->state.ssl.levels) + ((const uint8_t *)batch->global_crops)[5], kept = *level;
    if (bad) *level = INFINITY;
    bool ready;
    train_state_submit(&t->state, batch);
    Status status = train_state_finish(&t->state, true, done, &ready, error);
    cr_expect(ready);
    *level = kept;
    loader_release(t->loader, batch);
    return status;
}

/* Everything that a step may change, one after the other, owned. */
static float *everything(Training *t, size_t *count)
{
    CheckpointState s = train_state_checkpoint(&t->state, 0, NULL);
    size_t flat = (size_t)s.map->count, dino = (size_t)s.dino_center_count,
           ibot = (size_t)s.ibot_center_count, at = 0;
    const struct {
        const float *values;
        size_t count;
    } parts[] = {{s.student, flat},    {s.model_ema, flat},   {s.exp_avg, flat},
                 {s.exp_avg_sq, flat}, {s.dino_center, dino}, {s.ibot_center, ibot}};
    *count = 4 * flat + dino + ibot;
    float *all = memory_alloc_array(*count, sizeof *all);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].count) memcpy(all + at, parts[i].values, parts[i].count * sizeof *all);
        at += parts[i].count;
    }
    return all;
}

Test(train_state, a_skipped_step_changes_nothing_and_the_next_goes_on)
{
    static const char *const centering[] = {"train.centering=centering", "train.skip_bad_steps=2", NULL};
    Training t;
    TrainStep done;
    Error error = {0};
    begin(&t, centering);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(step(&t, false, &done, &error), STATUS_OK);
    size_t count, same;
    float *before = everything(&t, &count);
    double steps = t.state.control[CONTROL_STEPS];

    cr_assert_eq(step(&t, true, &done, &error), STATUS_OK, "%s", error.text);
    float *after = everything(&t, &same);
    cr_expect(done.skipped && !isfinite(done.figures.total_loss));
    cr_expect(same == count && memcmp(before, after, count * sizeof *after) == 0);
    cr_expect_eq(t.state.control[CONTROL_STEPS], steps);
    cr_expect_eq(t.state.iteration, 3, "it counts as an iteration all the same");
    memory_free(after);

    cr_assert_eq(step(&t, false, &done, &error), STATUS_OK, "%s", error.text);
    after = everything(&t, &same);
    cr_expect(!done.skipped && isfinite(done.figures.total_loss));
    cr_expect_neq(memcmp(before, after, count * sizeof *after), 0);
    for (size_t i = 0; i < count; i++)
        cr_assert(isfinite(after[i]));
    memory_free(before);
    memory_free(after);
    end(&t);
}

Test(train_state, bad_steps_in_a_row_are_bounded)
{
    static const char *const two[] = {"train.skip_bad_steps=2", NULL};
    static const bool bad[] = {true, true, false, true, true, true};
    Training t;
    TrainStep done;
    Error error = {0};
    begin(&t, two);
    for (int i = 0; i < 6; i++)
        cr_expect_eq(step(&t, bad[i], &done, &error), i == 5 ? STATUS_FAILED : STATUS_OK, "step %d: %s", i,
                     error.text);
    cr_expect(strstr(error.text, "iteration 5: dino_global_crops_loss is not finite; first bad tensor: "
                                 "gradient of backbone."),
              "%s", error.text);
    end(&t);
}

/* The checkpoint after the last step, as model_<iteration>.h5 in the folder. */
static TempPath save(Training *t, const TempFolder *folder)
{
    Error error = {0};
    int64_t iteration = t->state.iteration - 1;
    char *text = config_dump(&t->config);
    CheckpointState s = train_state_checkpoint(&t->state, iteration, text);
    cr_assert_eq(checkpoint_save(folder->path, &s, 0, 0, t->comm, &error), STATUS_OK, "%s", error.text);
    memory_free(text);
    return temp_folder_in(folder, "model_%07lld.h5", (long long)iteration);
}

Test(train_state, bad_steps_in_a_row_are_counted_across_a_resume)
{
    static const char *const three[] = {"train.skip_bad_steps=3", NULL};
    TempFolder folder = temp_folder_create();
    Training t;
    TrainStep done;
    Error error = {0};
    begin(&t, three);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(step(&t, i > 0, &done, &error), STATUS_OK, "%s", error.text);
    TempPath path = save(&t, &folder);
    resume(&t, three, path.text);
    cr_expect_eq(t.state.bad_steps, 2);
    cr_expect_eq(step(&t, true, &done, &error), STATUS_OK, "the third is still allowed: %s", error.text);
    path = save(&t, &folder);
    resume(&t, three, path.text);
    cr_expect_eq(step(&t, true, &done, &error), STATUS_FAILED);
    cr_expect(strstr(error.text, "iteration 4: "), "%s", error.text);

    /* a finite step begins a new count */
    resume(&t, three, path.text);
    cr_expect_eq(step(&t, false, &done, &error), STATUS_OK);
    path = save(&t, &folder);
    resume(&t, three, path.text);
    cr_expect_eq(t.state.bad_steps, 0);
    end(&t);
    temp_folder_destroy(&folder);
}

Test(train_state, files_without_a_count_of_bad_steps_are_read)
{
    static const char *const none[] = {NULL};
    TempFolder folder = temp_folder_create();
    Training t;
    TrainStep done;
    Error error = {0};
    begin(&t, none);
    cr_assert_eq(step(&t, false, &done, &error), STATUS_OK);
    TempPath path = save(&t, &folder);
    hid_t file = H5Fopen(path.text, H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(file >= 0 && H5Adelete(file, "bad_steps") >= 0 && H5Fclose(file) >= 0);
    resume(&t, none, path.text);
    cr_expect(t.state.iteration == 1 && t.state.bad_steps == 0);
    end(&t);
    temp_folder_destroy(&folder);
}

/* Whether a tensor of `module` only is the same in two flat arrays. */
static bool same_module(const ParamTable *table, ParamModule module, const float *a, const float *b)
{
    bool same = true;
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        if (p->module == module)
            same = same && memcmp(a + p->offset, b + p->offset, (size_t)p->count * sizeof *a) == 0;
    }
    return same;
}

Test(train_state, pretrained_backbones_go_into_student_and_teacher)
{
    static const char *const centering[] = {"train.centering=centering", NULL};
    static const char *const others[] = {"train.seed=5", "dino.head_n_prototypes=48", NULL};
    TempFolder folder = temp_folder_create();
    Training t, fresh;
    TrainStep done;
    Error error = {0};
    begin(&t, centering);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(step(&t, false, &done, &error), STATUS_OK, "%s", error.text);
    TempPath path = save(&t, &folder);
    begin(&fresh, others);
    const ParamTable *table = &fresh.state.ssl.student.table;
    size_t bytes = (size_t)table->flat_count * sizeof(float);
    float *initial = memory_alloc(bytes);
    memcpy(initial, fresh.state.ssl.student.local, bytes);
    cr_assert_eq(train_state_load_pretrained(&fresh.state, path.text, &error), STATUS_OK, "%s", error.text);

    const float *student = fresh.state.ssl.student.local, *teacher = fresh.state.ssl.teacher.local;
    cr_expect(same_module(table, PARAM_BACKBONE, student, t.state.ssl.teacher.local));
    cr_expect_not(same_module(table, PARAM_BACKBONE, student, t.state.ssl.student.local),
                  "the teacher's, not the student's");
    cr_expect_not(same_module(table, PARAM_BACKBONE, student, initial));
    cr_expect(same_module(table, PARAM_DINO_HEAD, student, initial) &&
              same_module(table, PARAM_IBOT_HEAD, student, initial));
    cr_expect_eq(memcmp(student, teacher, bytes), 0);
    cr_expect(fresh.state.iteration == 0 && fresh.state.control[CONTROL_STEPS] == 0);
    cr_expect_eq(step(&fresh, false, &done, &error), STATUS_OK, "%s", error.text);
    memory_free(initial);
    end(&fresh);
    end(&t);
    temp_folder_destroy(&folder);
}

/* Whether to[] has the tensors of from[] in every module (or the backbone alone), and a position embedding
 * that is that of from[] resampled. */
static void expect_adapted(const SslNetwork *from_shape, const float *from, const SslNetwork *to_shape,
                           const float *to, bool heads, const char *what)
{
    const Vit *a = &from_shape->vit, *b = &to_shape->vit;
    int64_t D = a->config.embed_dim, M = a->grid * a->grid + 1, N = b->grid * b->grid + 1;
    for (int i = 0; i < from_shape->table.count; i++) {
        const Param *p = &from_shape->table.params[i], *q = &to_shape->table.params[i];
        if (i == a->pos_embed || (p->module != PARAM_BACKBONE && !heads)) continue;
        cr_expect(p->count == q->count &&
                      memcmp(from + p->offset, to + q->offset, (size_t)p->count * sizeof *from) == 0,
                  "%s: %s", what, p->name);
    }
    const float *positions = to + to_shape->table.params[b->pos_embed].offset;
    float *wanted = memory_alloc_array((size_t)(N * D), sizeof *wanted);
    Device *host = device_open_host();
    Ops *ops = ops_create(host, &(OpsLimits){.width = D, .max_seqlen = M + N}, &(OpsOptions){0});
    Tensor source =
        tensor_2d((void *)(uintptr_t)(from + from_shape->table.params[a->pos_embed].offset), DTYPE_F32, M, D);
    ops->pos_embed_forward(ops, tensor_2d(wanted, DTYPE_F32, N, D), source, b->grid, b->grid,
                           b->config.interpolate_offset, b->config.interpolate_antialias);
    cr_expect_eq(memcmp(wanted, positions, (size_t)(N * D) * sizeof *wanted), 0, "%s: pos_embed", what);
    ops_destroy(ops);
    device_close(host);
    memory_free(wanted);
}

/* The high-resolution finish: weights of both roles, other crops, everything else new. */
Test(train_state, another_training_is_gone_on_from_at_another_size)
{
    static const char *const plain[] = {NULL};
    static const char *const larger[] = {"crops.global_crops_size=48", "crops.local_crops_size=24",
                                         "train.seed=9", NULL};
    static const char *const fresh_heads[] = {"crops.global_crops_size=48", "train.init_heads=fresh",
                                              "dino.head_n_prototypes=48", "train.seed=9", NULL};
    static const char *const deeper[] = {"student.depth=4", NULL};
    TempFolder folder = temp_folder_create();
    Training t, high, fresh, other;
    TrainStep done;
    Error error = {0};
    Log log = {.silent = true};
    begin(&t, plain);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(step(&t, false, &done, &error), STATUS_OK, "%s", error.text);
    TempPath path = save(&t, &folder);

    begin(&high, larger);
    cr_assert_eq(train_state_init_from(&high.state, path.text, &log, &error), STATUS_OK, "%s", error.text);
    const SslMetaArch *a = &t.state.ssl, *b = &high.state.ssl;
    expect_adapted(&a->student, a->student.local, &b->student, b->student.local, true, "student");
    expect_adapted(&a->teacher, a->teacher.local, &b->teacher, b->teacher.local, true, "teacher");
    cr_expect(high.state.iteration == 0 && high.state.control[CONTROL_STEPS] == 0 &&
              high.state.optimizer.exp_avg[7] == 0);
    cr_expect_eq(step(&high, false, &done, &error), STATUS_OK, "%s", error.text);
    end(&high);

    begin(&fresh, fresh_heads);
    cr_assert_eq(train_state_init_from(&fresh.state, path.text, &log, &error), STATUS_OK, "%s", error.text);
    b = &fresh.state.ssl;
    expect_adapted(&a->student, a->student.local, &b->student, b->student.local, false, "backbone alone");
    end(&fresh);

    begin(&other, deeper);
    cr_expect_eq(train_state_init_from(&other.state, path.text, &log, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "train.init_from: ") && strstr(error.text, "another architecture"), "%s",
              error.text);
    end(&other);
    end(&t);
    temp_folder_destroy(&folder);
}

Test(train_state, a_rank_takes_no_more_threads_than_it_was_given)
{
    Config config;
    config_init(&config);
    unsetenv("SLURM_CPUS_PER_TASK");
    unsetenv("OMP_NUM_THREADS");
    int all = train_state_threads(&config, 1);
    cr_expect_eq(train_state_threads(&config, 2 * all), 1);
    setenv("SLURM_CPUS_PER_TASK", "1", 1);
    cr_expect_eq(train_state_threads(&config, 1), 1);
    setenv("SLURM_CPUS_PER_TASK", "4096", 1);
    setenv("OMP_NUM_THREADS", "", 1);
    cr_expect_eq(train_state_threads(&config, 1), all);
    setenv("OMP_NUM_THREADS", "1,8", 1);
    cr_expect_eq(train_state_threads(&config, 1), 1);
    config.compute.threads = 3;
    cr_expect_eq(train_state_threads(&config, 1), 3, "the key is more than a guess");
    config_fini(&config);
}
