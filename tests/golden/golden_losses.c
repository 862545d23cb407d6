/* golden_losses.c - losses.h5: KoLeo, DINO and iBOT cross-entropies, Sinkhorn-Knopp, centering.
 *
 * The file has plain scores [rows, K]. They go through the shipped operations as rows x of width K against
 * the identity as prototypes: then x . v^T * 1 is the score itself. Teacher probabilities go in as their
 * logarithms at temperature 1.
 */
#include "../support/ops_support.h"
#include "golden.h"

#include "base/memory.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The operations on plain scores over K prototypes. */
typedef struct {
    Golden *golden;
    Ops *ops;
    Comm *comm;
    int64_t K;
    float *identity, *ones, *zeros; /* [K, K], [K], [K] */
} PlainScores;

static float *floats(int64_t count)
{
    return memory_alloc_array((size_t)count, sizeof(float));
}

/* The file's memory as an operand; operations do not write to inputs. */
static Tensor matrix(const float *data, int64_t rows, int64_t columns)
{
    return tensor_2d((void *)(uintptr_t)data, DTYPE_F32, rows, columns);
}

static Tensor vector(const float *data, int64_t n)
{
    return tensor_1d((void *)(uintptr_t)data, DTYPE_F32, n);
}

static PlainScores plain_scores_init(Golden *golden, int64_t rows, int64_t K)
{
    OpsLimits limits = {.rows = rows,
                        .width = K,
                        .max_seqlen = 16,
                        .head_dim = 16,
                        .prototypes = K,
                        .bottleneck = K,
                        .group_rows = rows};
    PlainScores p = {
        .golden = golden, .ops = ops_support_open(&limits, 0), .comm = comm_self_create(), .K = K};
    p.identity = floats(K * K);
    p.ones = floats(K);
    p.zeros = floats(K);
    for (int64_t k = 0; k < K; k++)
        p.identity[k * K + k] = p.ones[k] = 1.0f;
    return p;
}

static void plain_scores_fini(PlainScores *p)
{
    ops_support_close(p->ops);
    comm_destroy(p->comm);
    memory_free(p->identity);
    memory_free(p->ones);
    memory_free(p->zeros);
}

static void check_koleo(Golden *golden)
{
    for (const char *const *name = golden_members(golden, NULL, "koleo"); *name; name++) {
        GoldenShape shape;
        const float *x = golden_f32(golden, &shape, "koleo/%s/input", *name);
        int64_t n = shape.dim[0], D = shape.dim[1];
        OpsLimits limits = {.rows = n, .width = D, .max_seqlen = 16, .head_dim = 16, .group_rows = n};
        Ops *ops = ops_support_open(&limits, 0);
        int32_t *nearest = memory_alloc_array((size_t)n, sizeof *nearest);
        int64_t *wide = memory_alloc_array((size_t)n, sizeof *wide);
        float *dx = floats(n * D);
        double loss = 0.0;
        ops->koleo(ops, tensor_1d(&loss, DTYPE_F64, 1), tensor_1d(nearest, DTYPE_I32, n), matrix(dx, n, D),
                   matrix(x, n, D), 1.0, tensor_none());
        golden_compare_f64(golden, &loss, 1, "koleo/%s/loss", *name);
        for (int64_t i = 0; i < n * D; i++)
            if (!isfinite(dx[i])) golden_fail(golden, "koleo/%s: gradient is not finite", *name);
        for (int64_t i = 0; i < n; i++)
            wide[i] = nearest[i];
        if (golden_has(golden, "koleo/%s/nearest", *name))
            golden_compare_i64(golden, wide, n, "koleo/%s/nearest", *name);
        if (golden_has(golden, "koleo/%s/grad/input", *name))
            golden_compare(golden, dx, n * D, "koleo/%s/grad/input", *name);
        memory_free(nearest);
        memory_free(wide);
        memory_free(dx);
        ops_support_close(ops);
    }
}

/* Student scores [n, K] against teacher probabilities [m, K]: `targets` [n, t] rows, `weight` [n]. Compares
 * PATH/loss = sum weight * loss, and PATH/grad/student. */
static void check_cross_entropy(Golden *golden, const char *path, double student_temp, int64_t n, int64_t m,
                                int64_t t, int64_t K, int32_t *targets, const float *weight)
{
    PlainScores p = plain_scores_init(golden, n > m ? n : m, K);
    const float *student = golden_f32(golden, NULL, "%s/student", path);
    const double *teacher = golden_f64(golden, NULL, "%s/teacher", path);
    float *logarithms = floats(m * K), *losses = floats(n), *d_student = floats(n * K);
    float *d_w = floats(K * K);
    double entropy[2] = {0};
    for (int64_t i = 0; i < m * K; i++)
        logarithms[i] = (float)log(fmax(teacher[i], 1e-30));
    PrototypeCrossEntropy args = {.student = matrix(student, n, K),
                                  .student_v = matrix(p.identity, K, K),
                                  .student_scale = vector(p.ones, K),
                                  .student_temp = (float)student_temp,
                                  .teacher = matrix(logarithms, m, K),
                                  .teacher_v = matrix(p.identity, K, K),
                                  .teacher_scale = vector(p.ones, K),
                                  .teacher_temp = 1.0f,
                                  .teacher_bias = vector(p.zeros, K),
                                  .targets = tensor_2d(targets, DTYPE_I32, n, t),
                                  .row_weight = vector(weight, n),
                                  .loss = vector(losses, n),
                                  .entropy = tensor_1d(entropy, DTYPE_F64, 2),
                                  .d_student = matrix(d_student, n, K),
                                  .d_student_w = matrix(d_w, K, K)};
    p.ops->prototype_cross_entropy(p.ops, &args);
    double loss = 0.0;
    for (int64_t i = 0; i < n; i++)
        loss += (double)weight[i] * (double)losses[i];
    golden_compare_f64(golden, &loss, 1, "%s/loss", path);
    golden_compare(golden, d_student, n * K, "%s/grad/student", path);
    memory_free(logarithms);
    memory_free(losses);
    memory_free(d_student);
    memory_free(d_w);
    plain_scores_fini(&p);
}

/* Every chunk of student rows against every chunk of teacher rows, mean over the rows of a chunk. */
static void check_dino(Golden *golden, const char *group)
{
    GoldenShape student, teacher;
    golden_f32(golden, &student, "%s/student", group);
    golden_f32(golden, &teacher, "%s/teacher", group);
    int64_t rows = student.dim[1], n = student.dim[0] * rows, t = teacher.dim[0];
    int32_t *targets = memory_alloc_array((size_t)(n * t), sizeof *targets);
    float *weight = floats(n);
    for (int64_t i = 0; i < n; i++) {
        weight[i] = 1.0f / (float)rows;
        for (int64_t c = 0; c < t; c++)
            targets[i * t + c] = (int32_t)(c * rows + i % rows);
    }
    check_cross_entropy(golden, group, golden_attr(golden, "student_temp", "%s", group), n, t * rows, t,
                        student.dim[2], targets, weight);
    memory_free(targets);
    memory_free(weight);
}

/* The masked rows alone, and all patches with weight 0 where there is no mask. */
static void check_ibot(Golden *golden)
{
    GoldenShape mask_shape, rows;
    const uint8_t *masks = golden_u8(golden, &mask_shape, "ibot_masked/masks");
    const float *masks_weight = golden_f32(golden, &rows, "ibot_masked/masks_weight");
    golden_f32(golden, &rows, "ibot_masked/student");
    double temp = golden_attr(golden, "student_temp", "ibot_masked");
    int64_t images = mask_shape.dim[0], patches = mask_shape.dim[1], total = images * patches;
    int64_t n = rows.dim[0], K = rows.dim[1];
    int32_t *same = memory_alloc_array((size_t)total, sizeof *same);
    float *weight = floats(total);
    for (int64_t i = 0; i < total; i++)
        same[i] = (int32_t)i;
    for (int64_t i = 0; i < n; i++)
        weight[i] = masks_weight[i] / (float)images;
    check_cross_entropy(golden, "ibot_masked", temp, n, n, 1, K, same, weight);

    for (int64_t b = 0; b < images; b++) {
        int64_t count = 0;
        for (int64_t i = b * patches; i < (b + 1) * patches; i++)
            count += masks[i] != 0;
        for (int64_t i = b * patches; i < (b + 1) * patches; i++)
            weight[i] = masks[i] ? 1.0f / (float)(count * images) : 0.0f;
    }
    check_cross_entropy(golden, "ibot_masked/dense", temp, total, total, 1, K, same, weight);
    memory_free(same);
    memory_free(weight);
}

/* probs[n, K] = softmax(scores / temp + bias) in fp64, stored in fp32. */
static float *targets_of(const float *scores, const float *bias, int64_t n, int64_t K, double temp)
{
    float *probs = floats(n * K);
    for (int64_t i = 0; i < n; i++) {
        double maximum = -INFINITY, sum = 0.0;
        for (int64_t k = 0; k < K; k++)
            maximum = fmax(maximum, (double)scores[i * K + k] / temp + (double)bias[k]);
        for (int64_t k = 0; k < K; k++)
            sum += exp((double)scores[i * K + k] / temp + (double)bias[k] - maximum);
        for (int64_t k = 0; k < K; k++)
            probs[i * K + k] =
                (float)(exp((double)scores[i * K + k] / temp + (double)bias[k] - maximum) / sum);
    }
    return probs;
}

static void check_sinkhorn(Golden *golden, const char *group)
{
    GoldenShape shape;
    const float *scores = golden_f32(golden, &shape, "%s/teacher_output", group);
    int iterations = (int)golden_attr(golden, "n_iterations", "%s", group);
    int64_t n = shape.dim[0], K = shape.dim[1];
    PlainScores p = plain_scores_init(golden, n, K);
    float *bias = floats(K);
    for (const char *const *name = golden_members(golden, NULL, "%s", group); *name; name++) {
        if (strncmp(*name, "q_temp", 6) != 0) continue;
        double temp = strtod(*name + 6, NULL);
        p.ops->prototype_sinkhorn(p.ops, vector(bias, K), matrix(scores, n, K), matrix(p.identity, K, K),
                                  vector(p.ones, K), (float)temp, iterations, p.comm);
        float *q = targets_of(scores, bias, n, K, temp);
        golden_compare(golden, q, n * K, "%s/%s", group, *name);
        memory_free(q);
    }
    memory_free(bias);
    plain_scores_fini(&p);
}

/* batch[K] += this rank's part of the new centre: the mean of its scores over the number of ranks. */
static void add_rank_center(PlainScores *p, double *batch, const float *scores, int64_t n, int64_t ranks)
{
    float *weight = floats(n), *sum = floats(p->K);
    for (int64_t i = 0; i < n; i++)
        weight[i] = 1.0f / (float)(n * ranks);
    p->ops->prototype_center(p->ops, vector(sum, p->K), matrix(scores, n, p->K),
                             matrix(p->identity, p->K, p->K), vector(p->ones, p->K), vector(weight, n));
    for (int64_t k = 0; k < p->K; k++)
        batch[k] += (double)sum[k];
    memory_free(weight);
    memory_free(sum);
}

static void check_centering(Golden *golden, const char *group)
{
    int64_t steps;
    double momentum = golden_attr(golden, "center_momentum", "%s", group);
    const double *temps = golden_attr_array(golden, "teacher_temps", &steps, "%s", group);
    GoldenShape shape;
    golden_f32(golden, &shape, "%s/center_final", group);
    PlainScores p = plain_scores_init(golden, 1024, shape.count);
    float *center = floats(p.K), *bias = floats(p.K);
    double *batch = memory_alloc_array((size_t)p.K, sizeof *batch);
    for (int step = 0; step < (int)steps; step++) {
        golden_compare(golden, center, p.K, "%s/step%d/center_used", group, step);
        int ranks = 0;
        while (golden_has(golden, "%s/step%d/rank%d_teacher_output", group, step, ranks))
            ranks++;
        memset(batch, 0, (size_t)p.K * sizeof *batch);
        for (int64_t k = 0; k < p.K; k++)
            bias[k] = (float)(-(double)center[k] / temps[step]);
        for (int rank = 0; rank < ranks; rank++) {
            const float *scores =
                golden_f32(golden, &shape, "%s/step%d/rank%d_teacher_output", group, step, rank);
            float *probs = targets_of(scores, bias, shape.dim[0], p.K, temps[step]);
            golden_compare(golden, probs, shape.count, "%s/step%d/rank%d_probs", group, step, rank);
            memory_free(probs);
            add_rank_center(&p, batch, scores, shape.dim[0], ranks);
        }
        for (int64_t k = 0; k < p.K; k++)
            center[k] = (float)((double)center[k] * momentum + batch[k] * (1.0 - momentum));
    }
    golden_compare(golden, center, p.K, "%s/center_final", group);
    memory_free(center);
    memory_free(bias);
    memory_free(batch);
    plain_scores_fini(&p);
}

void golden_losses(Golden *golden)
{
    for (const char *const *group = golden_members(golden, NULL, "/"); *group; group++) {
        if (strcmp(*group, "koleo") == 0)
            check_koleo(golden);
        else if (strncmp(*group, "dino_ce", 7) == 0)
            check_dino(golden, *group);
        else if (strcmp(*group, "ibot_masked") == 0)
            check_ibot(golden);
        else if (strncmp(*group, "sinkhorn", 8) == 0)
            check_sinkhorn(golden, *group);
        else if (strncmp(*group, "centering", 9) == 0)
            check_centering(golden, *group);
        else
            golden_fail(golden, "%s: nothing checks this group", *group);
    }
}
