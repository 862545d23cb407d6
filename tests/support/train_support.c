/* train_support.c - see train_support.h. */
#include "train_support.h"

#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_dataset.h"
#include "run/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

double train_support_losses_differ(const char *run_a, const char *run_b, int64_t count)
{
    static const char *const keys[] = {"total_loss", "dino_local_crops_loss", "dino_global_crops_loss",
                                       "koleo_loss", "ibot_loss"};
    MetricsTable a = read_metrics(run_a), b = read_metrics(run_b);
    double worst = a.lines >= count && b.lines >= count ? 0.0 : -1.0;
    for (size_t k = 0; k < sizeof keys / sizeof *keys && worst >= 0; k++) {
        const double *x = metrics_table_column(&a, keys[k]), *y = metrics_table_column(&b, keys[k]);
        CHECK(x && y);
        for (int64_t i = 0; i < count; i++) {
            double difference = fabs(x[i] - y[i]) / fmax(fabs(x[i]), 1e-12);
            if (!(difference <= worst)) worst = difference; /* NaN counts as worse */
        }
    }
    metrics_table_fini(&a);
    metrics_table_fini(&b);
    return worst;
}

typedef struct {
    H5File a, b, initial;
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
    float *a = read_tensor(&c->a, path, &info), *b = read_tensor(&c->b, path, &other);
    CHECK(info.count == other.count);
    c->difference.tensors++;
    c->difference.differing_bits += memcmp(a, b, (size_t)info.count * sizeof *a) != 0;
    bool is_weight = strncmp(path, "/student/", 9) == 0 || strncmp(path, "/teacher/", 9) == 0;
    if (c->has_initial && is_weight) {
        float *initial = read_tensor(&c->initial, path, &other);
        bool is_qkv_bias = strstr(path, "qkv/bias") != NULL;
        double apart = distance(a, b, info.count, is_qkv_bias);
        double share = apart > 0 ? apart / distance(a, initial, info.count, is_qkv_bias) : 0.0;
        if (!(share <= c->difference.worst)) {
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
    Comparison c = {.has_initial = initial != NULL};
    must(h5_file_open(&c.a, a, &error), &error);
    must(h5_file_open(&c.b, b, &error), &error);
    if (initial) must(h5_file_open(&c.initial, initial, &error), &error);
    compare_below(&c, "/");
    h5_file_close(&c.a, NULL);
    h5_file_close(&c.b, NULL);
    if (initial) h5_file_close(&c.initial, NULL);
    return c.difference;
}
