/* train_support.c - see train_support.h. */
#include "train_support.h"

#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_dataset.h"
#include "run/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char TRAIN_SUPPORT_CONFIG[] = "train:\n"
                                    "  dataset_path: 'synthetic:classes=10,size=40,count=400,seed=0'\n"
                                    "  batch_size_per_gpu: 4\n"
                                    "  global_batch_size: 48\n"
                                    "  OFFICIAL_EPOCH_LENGTH: 10\n"
                                    "  saveckp_freq: 0\n"
                                    "  num_workers: 0\n"
                                    "  centering: sinkhorn_knopp\n"
                                    "student:\n"
                                    "  arch: vit_custom\n"
                                    "  embed_dim: 32\n"
                                    "  depth: 3\n"
                                    "  num_heads: 4\n"
                                    "  patch_size: 8\n"
                                    "  drop_path_rate: 0.3\n"
                                    "  layerscale: 0.1\n"
                                    "teacher:\n"
                                    "  momentum_teacher: 0.9\n"
                                    "  warmup_teacher_temp_epochs: 1\n"
                                    "dino:\n"
                                    "  head_n_prototypes: 64\n"
                                    "  head_hidden_dim: 64\n"
                                    "  head_bottleneck_dim: 32\n"
                                    "ibot:\n"
                                    "  separate_head: true\n"
                                    "  head_n_prototypes: 64\n"
                                    "  head_hidden_dim: 64\n"
                                    "  head_bottleneck_dim: 32\n"
                                    "crops:\n"
                                    "  global_crops_size: 32\n"
                                    "  local_crops_size: 16\n"
                                    "  local_crops_number: 2\n"
                                    "optim:\n"
                                    "  epochs: 2\n"
                                    "  warmup_epochs: 1\n"
                                    "  freeze_last_layer_epochs: 0\n"
                                    "checkpoint:\n"
                                    "  period: 10\n"
                                    "  keep: 0\n"
                                    "compute:\n"
                                    "  device: cpu\n"
                                    "  threads: 1\n";

static MetricsTable read_metrics(const char *run)
{
    char path[512];
    MetricsTable table;
    Error error = {0};
    snprintf(path, sizeof path, "%s/training_metrics.json", run);
    if (metrics_table_read(&table, path, &error) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
        table = (MetricsTable){0};
    }
    return table;
}

const char *const TRAIN_SUPPORT_LOSS_KEYS[TRAIN_SUPPORT_LOSSES] = {
    "total_loss", "dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss"};

TempFolder train_support_folder(void)
{
    process_end_ranks_at_once();
    TempFolder folder = temp_folder_create();
    temp_folder_write(&folder, "tiny.yaml", TRAIN_SUPPORT_CONFIG);
    return folder;
}

TempPath train_support_checkpoint(const TempFolder *folder, const char *run, long iteration)
{
    return temp_folder_in(folder, "%s/checkpoints/model_%07ld.h5", run, iteration);
}

Process train_support_pretrain(const TempFolder *folder, int ranks, const char *run, const char *const *words)
{
    return train_support_start(folder, "pretrain", ranks, run, words);
}

Process train_support_start(const TempFolder *folder, const char *job, int ranks, const char *run,
                            const char *const *words)
{
    TempPath output = temp_folder_in(folder, "%s", run), config = temp_folder_in(folder, "tiny.yaml");
    const char *all[PROCESS_ARGUMENTS_MAX] = {job, "--config-file", config.text, "--output-dir", output.text};
    for (int count = 5; words && *words; words++) {
        CHECK(count + 1 < PROCESS_ARGUMENTS_MAX);
        all[count++] = *words;
    }
    return process_start_dinobatch(ranks, all);
}

void train_support_flip_bit(const char *path, double part)
{
    struct stat facts;
    unsigned char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &facts) == 0);
    off_t offset = (off_t)(part * (double)facts.st_size);
    CHECK(pread(fd, &byte, 1, offset) == 1);
    byte ^= (unsigned char)(1u << (offset % 8));
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

static double column_differs(const MetricsTable *a, const MetricsTable *b, const char *key, int64_t count,
                             double floor)
{
    const double *x = metrics_table_column(a, key), *y = metrics_table_column(b, key);
    if (a->lines < count || b->lines < count) return -1.0;
    CHECK(x && y);
    double worst = 0.0, least = 1e-12;
    for (int64_t i = 0; i < count; i++)
        least = fmax(least, floor * fabs(x[i]));
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs(x[i] - y[i]) / fmax(fabs(x[i]), least);
        worst = fmax(worst, isnan(difference) ? INFINITY : difference);
    }
    return worst;
}

double train_support_loss_differs(const char *run_a, const char *run_b, const char *key, int64_t count,
                                  double floor)
{
    MetricsTable a = read_metrics(run_a), b = read_metrics(run_b);
    double worst = column_differs(&a, &b, key, count, floor);
    metrics_table_fini(&a);
    metrics_table_fini(&b);
    return worst;
}

double train_support_losses_differ(const char *run_a, const char *run_b, int64_t count)
{
    double worst = 0.0;
    for (int k = 0; k < TRAIN_SUPPORT_LOSSES; k++) {
        double one = train_support_loss_differs(run_a, run_b, TRAIN_SUPPORT_LOSS_KEYS[k], count, 0.0);
        if (one < 0.0) return one;
        worst = fmax(worst, one);
    }
    return worst;
}

typedef struct {
    H5File a, b, initial;
    const char *group_a, *group_b; /* what stands below the one in `a` is below the other in `b` */
    bool has_initial;
    TrainDifference difference;
} Comparison;

static void must(Status status, const Error *error)
{
    if (status == STATUS_OK) return;
    fprintf(stderr, "%s\n", error->text);
    CHECK(0 && "the file can be read");
}

/* A whole tensor, owned. */
static float *read_tensor(const H5File *file, const char *path, H5Info *info)
{
    Error error = {0};
    must(h5_dataset_info(file, path, info, &error), &error);
    float *values = memory_alloc_array((size_t)info->count + 1, sizeof *values);
    must(h5_dataset_read_rows(file, path, H5_TYPE_F32, 0, info->shape[0], values, &error), &error);
    return values;
}

static double distance(const float *a, const float *b, int64_t count, bool is_qkv_bias)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double delta = (double)a[i] - (double)b[i];
        if (!is_qkv_bias || i < count / 3 || i >= 2 * (count / 3)) sum += delta * delta;
    }
    return sqrt(sum);
}

static void compare_tensor(Comparison *c, const char *path)
{
    H5Info info, other;
    char path_b[256];
    snprintf(path_b, sizeof path_b, "%s%s", c->group_b, path + strlen(c->group_a));
    float *a = read_tensor(&c->a, path, &info), *b = read_tensor(&c->b, path_b, &other);
    CHECK(info.count == other.count);
    c->difference.tensors++;
    c->difference.differing_bits += memcmp(a, b, (size_t)info.count * sizeof *a) != 0;
    bool is_weight = strncmp(path, "/student/", 9) == 0 || strncmp(path, "/teacher/", 9) == 0;
    if (c->has_initial && is_weight) {
        float *initial = read_tensor(&c->initial, path, &other);
        bool is_qkv_bias = strstr(path, "qkv/bias") != NULL;
        double apart = distance(a, b, info.count, is_qkv_bias);
        double share = apart > 0 ? apart / distance(a, initial, info.count, is_qkv_bias) : 0.0;
        if (isnan(share)) share = INFINITY;
        if (share > c->difference.worst) {
            c->difference.worst = share;
            snprintf(c->difference.tensor, sizeof c->difference.tensor, "%s", path);
        }
        memory_free(initial);
    }
    memory_free(a);
    memory_free(b);
}

static void compare_below(Comparison *c, const char *group)
{
    Error error = {0};
    H5Names names;
    must(h5_file_list(&c->a, group, &names, &error), &error);
    for (int64_t i = 0; i < names.count; i++) {
        char path[256];
        H5Kind kind;
        snprintf(path, sizeof path, "%s/%s", strcmp(group, "/") == 0 ? "" : group, names.names[i]);
        must(h5_file_kind(&c->a, path, &kind, &error), &error);
        if (kind == H5_KIND_GROUP)
            compare_below(c, path);
        else
            compare_tensor(c, path);
    }
    h5_names_fini(&names);
}

TrainDifference train_support_checkpoints_differ(const char *a, const char *b, const char *initial)
{
    Error error = {0};
    Comparison c = {.group_a = "", .group_b = "", .has_initial = initial != NULL};
    must(h5_file_open(&c.a, a, &error), &error);
    must(h5_file_open(&c.b, b, &error), &error);
    if (initial) must(h5_file_open(&c.initial, initial, &error), &error);
    compare_below(&c, "/");
    h5_file_close(&c.a, NULL);
    h5_file_close(&c.b, NULL);
    if (initial) h5_file_close(&c.initial, NULL);
    return c.difference;
}

TrainDifference train_support_groups_differ(const char *a, const char *group_a, const char *b,
                                            const char *group_b)
{
    Error error = {0};
    Comparison c = {.group_a = group_a, .group_b = group_b};
    must(h5_file_open(&c.a, a, &error), &error);
    must(h5_file_open(&c.b, b, &error), &error);
    compare_below(&c, group_a);
    h5_file_close(&c.a, NULL);
    h5_file_close(&c.b, NULL);
    return c.difference;
}

TrainDifference train_support_runs_differ(const TempFolder *folder, const char *run_a, const char *run_b,
                                          long iteration)
{
    TempPath a = train_support_checkpoint(folder, run_a, iteration),
             b = train_support_checkpoint(folder, run_b, iteration);
    return train_support_checkpoints_differ(a.text, b.text, NULL);
}
