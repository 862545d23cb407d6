/* test_cuda_training.c - whole training steps on a GPU beside the same on the CPU, as the design defines
 * "rounding": from the same weights on the same batches, losses within 1e-5 for 5 steps and 1e-4 for 20, and
 * after 10 steps no tensor further off than 1e-3 of its update (the key third of qkv.bias left out: its
 * gradient is rounding alone).
 *
 * On the GPU a step is submitted before the one ahead of it is finished, as the training loop does it.
 */
#include "../support/ssl_support.h"
#include "../support/temp_folder.h"
#include "../support/twin_support.h"

#include "base/memory.h"
#include "ckpt/checkpoint.h"
#include "features/class_attention.h"
#include "features/feature_stream.h"
#include "train/train_state.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LOSSES = 5, STEPS_MAX = 20 };

/* On top of the tiny network of ssl_support.h: everything that training has, and weights that move in a few
 * steps. */
#define RECIPE                                                                             \
    "student.drop_path_rate=0.3 student.layerscale=0.1 train.batch_size_per_gpu=2 "        \
    "train.global_batch_size=4 crops.local_crops_number=2 train.OFFICIAL_EPOCH_LENGTH=10 " \
    "optim.epochs=2 optim.warmup_epochs=1 optim.freeze_last_layer_epochs=0 "               \
    "teacher.momentum_teacher=0.9 teacher.warmup_teacher_temp_epochs=1 "                   \
    "dino.head_n_prototypes=40 dino.head_hidden_dim=24 ibot.head_hidden_dim=24 "

/* What the attention kernels of 16 bits are made for. */
#define HEADS_OF_32 "student.embed_dim=64 student.num_heads=2 "

#define PRECISION(who, type)                                                    \
    "compute_precision." who ".backbone.mixed_precision.param_dtype=" type " "  \
    "compute_precision." who ".dino_head.mixed_precision.param_dtype=" type " " \
    "compute_precision." who ".ibot_head.mixed_precision.param_dtype=" type " "
#define ALL_IN(type) PRECISION("student", type) PRECISION("teacher", type)

/* A run on one process. */
typedef struct {
    Config config;
    Comm *comm;
    Device *device;
    TrainState state;
    Batch batches[TRAIN_SUBMISSIONS];
    float *initial; /* [flat_count] weights before the first step; owned */
    double losses[STEPS_MAX][LOSSES];
    double loss_scales[STEPS_MAX];
    double norms[STEPS_MAX][PARAM_MODULE_COUNT];
} Training;

static void begin(Training *t, DeviceKind kind, const char *overrides)
{
    char words[2048];
    Error error = {0};
    snprintf(words, sizeof words, "%s%s", RECIPE, overrides);
    *t = (Training){.comm = comm_self_create()};
    ssl_support_config(&t->config, words);
    cr_assert_eq(device_open(&t->device, kind, 0, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(train_state_init(&t->state, &t->config, t->comm, t->device, 1, NULL, &error), STATUS_OK,
                 "%s", error.text);
    for (int i = 0; i < TRAIN_SUBMISSIONS; i++)
        t->batches[i] = ssl_support_batch(&t->config, &t->state.groups, DTYPE_U8, t->device);
    int64_t n = t->state.ssl.student.table.flat_count;
    t->initial = memory_alloc_array((size_t)n, sizeof *t->initial);
    memcpy(t->initial, train_state_checkpoint(&t->state, 0, NULL).student, (size_t)n * sizeof *t->initial);
}

static void end(Training *t)
{
    for (int i = 0; i < TRAIN_SUBMISSIONS; i++)
        batch_fini(&t->batches[i]);
    memory_free(t->initial);
    train_state_fini(&t->state);
    device_close(t->device);
    comm_destroy(t->comm);
    config_fini(&t->config);
}

/* Takes the next finished step, if one is ready. */
static bool finish(Training *t, bool all, TrainStep *step)
{
    bool ready;
    Error error = {0};
    cr_assert_eq(train_state_finish(&t->state, all, step, &ready, &error), STATUS_OK, "%s", error.text);
    if (!ready) return false;
    const SslFigures *f = &step->figures;
    const double losses[LOSSES] = {f->total_loss, f->dino_local_crops_loss, f->dino_global_crops_loss,
                                   f->koleo_loss, f->ibot_loss};
    memcpy(t->losses[step->iteration], losses, sizeof losses);
    memcpy(t->norms[step->iteration], step->grad_norm, sizeof step->grad_norm);
    t->loss_scales[step->iteration] = step->loss_scale;
    return true;
}

/* Goes on until `count` steps are done in all; the last one's numbers in *last. */
static void train(Training *t, int64_t count, TrainStep *last)
{
    cr_assert(count <= STEPS_MAX);
    while (t->state.iteration < count) {
        Batch *batch = &t->batches[t->state.iteration % TRAIN_SUBMISSIONS];
        ssl_support_fill(batch, &t->config, 5, t->state.iteration);
        train_state_submit(&t->state, batch);
        finish(t, false, last);
    }
    while (finish(t, true, last)) {
    }
}

/* fp16 begins at 65536. So narrow a head makes bottleneck rows so short that gradients overflow long before.
 */
static const double LOSS_SCALE = 16;

static void set_loss_scale(Training *t, double scale)
{
    t->state.control[CONTROL_LOSS_SCALE] = scale;
    device_upload(t->device, t->state.ssl.control.data, t->state.control, sizeof t->state.control);
}

/* --- comparing ------------------------------------------------------------------------------------------ */

/* KoLeo is a logarithm and passes through zero. */
static const double KOLEO_FLOOR = 0.3;

/* The largest difference of any loss in steps [first, last), as a share of it. */
static double losses_differ(const Training *a, const Training *b, int64_t first, int64_t last)
{
    double worst = 0;
    for (int64_t i = first; i < last; i++)
        for (int k = 0; k < LOSSES; k++) {
            double least = k == 3 ? KOLEO_FLOOR : 0.0;
            double apart = fabs(a->losses[i][k] - b->losses[i][k]) / fmax(fabs(a->losses[i][k]), least);
            worst = fmax(worst, apart <= 1e300 ? apart : INFINITY);
        }
    return worst;
}

static double distance(const float *a, const float *b, const Param *p)
{
    bool is_qkv_bias = strstr(p->name, "qkv.bias") != NULL;
    double sum = 0;
    for (int64_t i = 0; i < p->count; i++) {
        double apart = (double)a[p->offset + i] - (double)b[p->offset + i];
        if (!is_qkv_bias || i < p->count / 3 || i >= 2 * (p->count / 3)) sum += apart * apart;
    }
    return sqrt(sum);
}

/* Over tensors of weights: |a - b| / |a - initial|; where in name[160]. */
static double weights_differ(Training *a, Training *b, char name[160])
{
    CheckpointState x = train_state_checkpoint(&a->state, a->state.iteration - 1, NULL),
                    y = train_state_checkpoint(&b->state, b->state.iteration - 1, NULL);
    const struct {
        const char *role;
        const float *a, *b;
    } roles[] = {{"student", x.student, y.student}, {"teacher", x.model_ema, y.model_ema}};
    double worst = 0;
    cr_assert_eq(memcmp(a->initial, b->initial, (size_t)x.map->count * sizeof(float)), 0);
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < x.map->table->count; i++) {
            const Param *p = &x.map->table->params[i];
            double apart = distance(roles[r].a, roles[r].b, p), update = distance(roles[r].a, a->initial, p);
            double share = apart > 0 ? apart / update : 0.0;
            if (!(share <= worst)) {
                worst = share <= 1e300 ? share : INFINITY;
                snprintf(name, 160, "%s %s.%s", roles[r].role, param_module_name(p->module), p->name);
            }
        }
    return worst;
}

static double vectors_differ(const float *a, const float *b, int64_t n)
{
    return n > 0 ? ssl_support_difference(b, a, n) : 0.0;
}

/* What a checkpoint holds beside the weights. */
static void expect_same_rest(Training *a, Training *b)
{
    static const double MOMENTS = 1e-3, CENTERS = 1e-4;
    CheckpointState x = train_state_checkpoint(&a->state, 9, NULL),
                    y = train_state_checkpoint(&b->state, 9, NULL);
    int64_t n = x.map->count;
    cr_expect_lt(vectors_differ(x.exp_avg, y.exp_avg, n), MOMENTS);
    cr_expect_lt(vectors_differ(x.exp_avg_sq, y.exp_avg_sq, n), MOMENTS);
    cr_assert(x.dino_center_count == y.dino_center_count && x.ibot_center_count == y.ibot_center_count);
    cr_expect_lt(vectors_differ(x.dino_center, y.dino_center, x.dino_center_count), CENTERS);
    cr_expect_lt(vectors_differ(x.ibot_center, y.ibot_center, x.ibot_center_count), CENTERS);
    cr_expect(x.meta.iteration == y.meta.iteration && x.meta.optimizer_step == y.meta.optimizer_step &&
              x.meta.loss_scale == y.meta.loss_scale && x.meta.bad_steps == y.meta.bad_steps &&
              x.meta.loss_scale_good_steps == y.meta.loss_scale_good_steps &&
              x.meta.samples_seen == y.meta.samples_seen && x.meta.seed == y.meta.seed);
}

/* Everything that a step may change is the same bit for bit. */
static bool same_bits(Training *a, Training *b)
{
    CheckpointState x = train_state_checkpoint(&a->state, 0, NULL),
                    y = train_state_checkpoint(&b->state, 0, NULL);
    size_t flat = (size_t)x.map->count, dino = (size_t)x.dino_center_count,
           ibot = (size_t)x.ibot_center_count;
    const struct {
        const float *a, *b;
        size_t count;
    } parts[] = {{x.student, y.student, flat},         {x.model_ema, y.model_ema, flat},
                 {x.exp_avg, y.exp_avg, flat},         {x.exp_avg_sq, y.exp_avg_sq, flat},
                 {x.dino_center, y.dino_center, dino}, {x.ibot_center, y.ibot_center, ibot}};
    bool same = a->state.control[CONTROL_STEPS] == b->state.control[CONTROL_STEPS];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        same = same &&
               (parts[i].count == 0 || memcmp(parts[i].a, parts[i].b, parts[i].count * sizeof(float)) == 0);
    return same;
}

/* `words` on both devices for that many steps; `what` names them in messages. */
static void expect_equal_within_rounding(const char *what, const char *words, int64_t steps)
{
    TWIN_REQUIRE();
    Training cpu, cuda;
    TrainStep last;
    char name[160] = "";
    begin(&cpu, DEVICE_CPU, words);
    begin(&cuda, DEVICE_CUDA, words);
    for (int64_t at = steps < 10 ? steps : 10; at <= steps; at += 10) {
        train(&cpu, at, &last);
        train(&cuda, at, &last);
        double five = losses_differ(&cpu, &cuda, 0, at < 5 ? at : 5), all = losses_differ(&cpu, &cuda, 0, at);
        double tensors = weights_differ(&cpu, &cuda, name);
        fprintf(
            stderr,
            "cuda_training: %s, %d steps: losses differ by %.2g, at first %.2g; %s by %.2g of its update\n",
            what, (int)at, all, five, name, tensors);
        cr_expect(five < 1e-5, "%s: losses differ by %g in 5 steps", what, five);
        cr_expect(all < 1e-4, "%s: losses differ by %g in %d steps", what, all, (int)at);
        cr_expect(tensors < 1e-3, "%s: after %d steps %s differs by %g of its update", what, (int)at, name,
                  tensors);
        for (int m = 0; m < PARAM_MODULE_COUNT; m++)
            cr_expect(fabs(cuda.norms[0][m] / fmax(cpu.norms[0][m], 1e-30) - 1) < 1e-4 ||
                          cpu.norms[0][m] == 0,
                      "gradient norm of %s: %g, not %g", param_module_name((ParamModule)m), cuda.norms[0][m],
                      cpu.norms[0][m]);
    }
    expect_same_rest(&cpu, &cuda);
    end(&cuda);
    end(&cpu);
}

/* --- fp32 -------------------------------------------------------------------------------------------------
 */

Test(cuda_training, sinkhorn_with_separate_heads_trains_as_on_the_cpu)
{
    expect_equal_within_rounding("Sinkhorn-Knopp", "", 20);
}

Test(cuda_training, centering_with_a_shared_head_trains_as_on_the_cpu)
{
    expect_equal_within_rounding("centering, shared head",
                                 "train.centering=centering ibot.separate_head=false", 10);
}

Test(cuda_training, micro_batches_and_recomputed_blocks_train_as_on_the_cpu)
{
    expect_equal_within_rounding("micro-batches, recomputed blocks, global KoLeo, SwiGLU, registers",
                                 "train.micro_batch_size=3 train.checkpoint_activations=block "
                                 "dino.koleo_scope=global student.num_register_tokens=2 "
                                 "student.ffn_layer=swiglufused student.interpolate_antialias=true",
                                 10);
}

Test(cuda_training, a_head_dimension_of_32_without_drop_path_trains_as_on_the_cpu)
{
    expect_equal_within_rounding(
        "heads of 32, no drop path",
        "student.embed_dim=64 student.num_heads=2 student.drop_path_rate=0 student.depth=2", 5);
}

/* --- 16 bits ----------------------------------------------------------------------------------------------
 */

static void expect_losses_within_two_percent(const char *type, const char *words)
{
    enum { COUNT = 8 };
    static const double LIMIT = 0.02, ROUNDING = 1e-5;
    TWIN_REQUIRE();
    Training cpu, cuda;
    TrainStep last;
    begin(&cpu, DEVICE_CPU, HEADS_OF_32);
    begin(&cuda, DEVICE_CUDA, words);
    if (cuda.state.ssl.scaled) set_loss_scale(&cuda, LOSS_SCALE);
    train(&cpu, COUNT, &last);
    train(&cuda, COUNT, &last);
    double worst = losses_differ(&cpu, &cuda, 0, COUNT);
    fprintf(stderr, "cuda_training: %s, %d steps: losses differ by %.2g\n", type, COUNT, worst);
    cr_expect(worst < LIMIT, "%s: losses differ by %g", type, worst);
    cr_expect(worst > ROUNDING, "%s: was computed in fp32", type);
    cr_expect_eq(cuda.state.control[CONTROL_STEPS], COUNT, "no step was skipped");
    end(&cuda);
    end(&cpu);
}

Test(cuda_training, bf16_stays_within_two_percent_of_fp32)
{
    expect_losses_within_two_percent("bf16", HEADS_OF_32 ALL_IN("bf16"));
}

/* The same by the other attention kernels: the key reaches them. */
Test(cuda_training, bf16_with_sm90_attention_stays_within_two_percent_of_fp32)
{
    TWIN_REQUIRE_SM90();
    expect_losses_within_two_percent("bf16 sm90", HEADS_OF_32 "compute.attention=sm90 " ALL_IN("bf16"));
}

Test(cuda_training, attention_kernels_that_the_device_lacks_are_refused)
{
    TWIN_REQUIRE();
    static const DeviceKind kinds[] = {DEVICE_CPU, DEVICE_CUDA};
    for (int i = 0; i < 2; i++) {
        Training t = {.comm = comm_self_create()};
        Error error = {0};
        ssl_support_config(&t.config, RECIPE "compute.attention=sm90");
        cr_assert_eq(device_open(&t.device, kinds[i], 0, &error), STATUS_OK, "%s", error.text);
        int architecture = device_architecture(t.device);
        bool works = architecture == 0 || architecture == 90;
        Status status = train_state_init(&t.state, &t.config, t.comm, t.device, 1, NULL, &error);
        cr_expect_eq(status, works ? STATUS_OK : STATUS_INPUT, "%s", error.text);
        cr_expect(works || strstr(error.text, "compute.attention: sm90 needs"), "%s", error.text);
        train_state_fini(&t.state);
        device_close(t.device);
        comm_destroy(t.comm);
        config_fini(&t.config);
    }
}

Test(cuda_training, fp16_stays_within_two_percent_of_fp32)
{
    expect_losses_within_two_percent("fp16", HEADS_OF_32 ALL_IN("fp16"));
}

Test(cuda_training, an_overflow_halves_the_loss_scale_and_changes_nothing_else)
{
    TWIN_REQUIRE();
    static const double HUGE_SCALE = 0x1p60;
    Training t, same;
    TrainStep last;
    const char *words = "train.centering=centering train.skip_bad_steps=0 " ALL_IN("fp16");
    begin(&t, DEVICE_CUDA, words);
    begin(&same, DEVICE_CUDA, words);
    set_loss_scale(&t, LOSS_SCALE);
    set_loss_scale(&same, LOSS_SCALE);
    train(&t, 2, &last);
    train(&same, 2, &last);
    set_loss_scale(&t, HUGE_SCALE);
    train(&t, 3, &last);
    cr_expect(last.skipped && last.loss_scale == HUGE_SCALE && isfinite(last.figures.total_loss));
    cr_expect_eq(t.state.control[CONTROL_LOSS_SCALE], HUGE_SCALE / 2);
    cr_expect_eq(t.state.control[CONTROL_GROWTH], 0);
    cr_expect(t.state.iteration == 3 && t.state.bad_steps == 0,
              "lowering the scale is the answer, not a count");
    cr_expect(same_bits(&t, &same) && t.state.control[CONTROL_STEPS] == 2);

    set_loss_scale(&t, LOSS_SCALE);
    train(&t, 4, &last);
    cr_expect(!last.skipped && !same_bits(&t, &same));
    end(&same);
    end(&t);
}

Test(cuda_training, a_bad_picture_ends_the_run_and_names_the_tensor)
{
    TWIN_REQUIRE();
    Training t, same;
    TrainStep last;
    bool ready;
    Error error = {0};
    begin(&t, DEVICE_CUDA, "train.centering=centering");
    begin(&same, DEVICE_CUDA, "train.centering=centering");
    train(&t, 1, &last);
    train(&same, 1, &last);
    ssl_support_fill(&t.batches[1], &t.config, 5, 1);
    const float bad = INFINITY;
    float *level = tensor_f32(t.state.ssl.levels) + ((const uint8_t *)t.batches[1].global_crops)[5];
    device_upload(t.device, level, &bad, sizeof bad);
    train_state_submit(&t.state, &t.batches[1]);
    cr_assert_eq(train_state_finish(&t.state, true, &last, &ready, &error), STATUS_FAILED);
    cr_expect(strstr(error.text, "iteration 1: dino_global_crops_loss is not finite; first bad tensor: "
                                 "gradient of backbone."),
              "%s", error.text);
    cr_expect(same_bits(&t, &same), "weights, moments and centres stay as they were");
    end(&same);
    end(&t);
}

/* --- checkpoints
 * -------------------------------------------------------------------------------------------- */

static void resume(Training *t, const char *path)
{
    bool damaged;
    Error error = {0};
    cr_assert_eq(train_state_resume(&t->state, path, true, &damaged, &error), STATUS_OK, "%s", error.text);
}

/* From a file of the GPU the same GPU goes on bit for bit, and the CPU within rounding. */
Test(cuda_training, checkpoints_of_a_gpu_go_on)
{
    TWIN_REQUIRE();
    const char *words = "train.centering=centering " ALL_IN("fp16");
    Training whole, half, cpu;
    TrainStep last;
    Error error = {0};
    TempFolder folder = temp_folder_create();
    begin(&whole, DEVICE_CUDA, words);
    begin(&half, DEVICE_CUDA, words);
    begin(&cpu, DEVICE_CPU, "train.centering=centering");
    set_loss_scale(&whole, LOSS_SCALE);
    train(&whole, 3, &last);
    char *text = config_dump(&whole.config);
    CheckpointState saved = train_state_checkpoint(&whole.state, 2, text);
    cr_assert_eq(checkpoint_save(folder.path, &saved, 0, 0, whole.comm, &error), STATUS_OK, "%s", error.text);
    TempPath path = temp_folder_in(&folder, "model_0000002.h5");
    resume(&half, path.text);
    resume(&cpu, path.text);
    cr_expect(half.state.iteration == 3 && same_bits(&whole, &half));
    for (int i = CONTROL_LOSS_SCALE; i <= CONTROL_STEPS; i++)
        cr_expect_eq(half.state.control[i], whole.state.control[i]);

    train(&whole, 5, &last);
    train(&half, 5, &last);
    train(&cpu, 5, &last);
    cr_expect(same_bits(&whole, &half) &&
              memcmp(half.state.control, whole.state.control, sizeof half.state.control) == 0);
    cr_expect_eq(losses_differ(&whole, &half, 3, 5), 0.0);
    cr_expect_lt(losses_differ(&whole, &cpu, 3, 5), 0.02);
    memory_free(text);
    end(&whole);
    end(&half);
    end(&cpu);
    temp_folder_destroy(&folder);
}

/* --- features
 * ----------------------------------------------------------------------------------------------- */

/* Rows of all pictures by the teacher's backbone. */
static FeatureRows features(Training *t, const DataSet *set, FeatureKind kind)
{
    Error error = {0};
    Log log = log_create(1);
    FeatureBackbone backbone = {.vit = &t->state.ssl.student.vit,
                                .weights = &t->state.ssl.teacher.weights[PARAM_BACKBONE],
                                .levels = t->state.ssl.levels};
    FeatureExtractor extractor = {.kind = kind,
                                  .grid = {.blocks = 1, .side = 2},
                                  .input = {.resize_size = 28, .crop_size = 28, .batch_size = 4},
                                  .backbone = &backbone,
                                  .log = &log,
                                  .what = "features"};
    OpsLimits limits = feature_extractor_limits(&extractor);
    Ops *ops = ops_create(t->device, &limits, &(OpsOptions){.threads = 1});
    FeatureRows rows;
    cr_assert_eq(feature_extractor_run(&extractor, ops, t->comm, set, &rows, &error), STATUS_OK, "%s",
                 error.text);
    ops_destroy(ops);
    return rows;
}

/* Patch tokens of pictures and of a part of each, at their own sizes; memory_free. */
typedef struct {
    float *tokens;
    int64_t count, width;
} Tokens;

static Status take_tokens(void *context, const FeaturePiece *piece, Error *error)
{
    Tokens *all = context;
    int64_t count = 0;
    (void)error;
    for (int64_t i = 0; i < piece->count; i++)
        count += piece->grids[2 * i] * piece->grids[2 * i + 1];
    size_t before = (size_t)(all->count * all->width) * sizeof *all->tokens;
    size_t more = (size_t)(count * all->width) * sizeof *all->tokens;
    all->tokens = memory_grow(all->tokens, before, before + more);
    memcpy((char *)all->tokens + before, piece->tokens, more);
    all->count += count;
    return STATUS_OK;
}

static Tokens patch_tokens(Training *t, const DataSet *set)
{
    Error error = {0};
    Log log = log_create(1);
    ImageViews views;
    FeatureStreamResult result;
    cr_assert_eq(image_views_parse(&views, "crop:0.6:1", &error), STATUS_OK);
    FeatureBackbone backbone = {.vit = &t->state.ssl.student.vit,
                                .weights = &t->state.ssl.teacher.weights[PARAM_BACKBONE],
                                .levels = t->state.ssl.levels};
    FeatureExtractor extractor = {.kind = FEATURE_PATCHES,
                                  .patches = true,
                                  .views = &views,
                                  .input = {.transform = EVAL_NATIVE, .most_patches = 64, .batch_size = 6},
                                  .backbone = &backbone,
                                  .log = &log,
                                  .what = "patch tokens"};
    Tokens all = {.width = t->state.ssl.student.vit.config.embed_dim};
    OpsLimits limits = feature_extractor_limits(&extractor);
    Ops *ops = ops_create(t->device, &limits, &(OpsOptions){.threads = 1});
    cr_assert_eq(feature_stream_run(&extractor, ops, t->comm, set, take_tokens, &all, &result, &error),
                 STATUS_OK, "%s", error.text);
    cr_assert_eq(result.rows, 12);
    ops_destroy(ops);
    return all;
}

enum { LOOKED_AT = 256 };

/* What the class token of a drawn picture, two patches high, looks at; returns the numbers in out[LOOKED_AT].
 */
static int64_t attention(Training *t, float *out)
{
    FeatureBackbone backbone = {.vit = &t->state.ssl.student.vit,
                                .weights = &t->state.ssl.teacher.weights[PARAM_BACKBONE],
                                .levels = t->state.ssl.levels};
    const VitConfig *config = &t->state.ssl.student.vit.config;
    int64_t height = 2 * config->patch_size, width = 3 * config->patch_size;
    int64_t n = config->num_heads * (1 + config->num_register_tokens + 6);
    uint8_t *image = memory_alloc((size_t)(3 * height * width));
    for (int64_t i = 0; i < 3 * height * width; i++)
        image[i] = (uint8_t)(37 * i % 251);
    OpsLimits limits = backbone_pass_limits(&backbone, 1, height, width);
    Ops *ops = ops_create(t->device, &limits, &(OpsOptions){.threads = 1});
    cr_assert_leq(n, LOOKED_AT);
    class_attention_compute(&backbone, ops, image, height, width, config->depth - 1, out);
    ops_destroy(ops);
    memory_free(image);
    return n;
}

Test(cuda_training, features_are_those_of_the_cpu)
{
    TWIN_REQUIRE();
    static const double LIMIT = 1e-5;
    Training cpu, cuda;
    Error error = {0};
    DataSet *set = NULL;
    begin(&cpu, DEVICE_CPU, "");
    begin(&cuda, DEVICE_CUDA, "");
    cr_assert_eq(data_set_create(&set, "synthetic:classes=3,size=32,count=6,seed=3", &error), STATUS_OK);
    static const FeatureKind kinds[] = {FEATURE_CLASS_TOKEN, FEATURE_MEAN_PATCH, FEATURE_PATCH_GRID};
    for (int i = 0; i < 3; i++) {
        FeatureRows x = features(&cpu, set, kinds[i]), y = features(&cuda, set, kinds[i]);
        cr_assert(x.count == 6 && y.count == 6 && x.d == y.d);
        double apart = ssl_support_difference(y.values, x.values, x.count * x.d);
        cr_expect(apart < LIMIT, "kind %d: differ by %g", (int)kinds[i], apart);
        feature_rows_fini(&x);
        feature_rows_fini(&y);
    }
    Tokens x = patch_tokens(&cpu, set), y = patch_tokens(&cuda, set);
    cr_assert(x.count == y.count && x.count > 12);
    double apart = ssl_support_difference(y.tokens, x.tokens, x.count * x.width);
    cr_expect(apart < LIMIT, "patch tokens: differ by %g", apart);
    memory_free(x.tokens);
    memory_free(y.tokens);
    data_set_destroy(set);
    float of_cpu[LOOKED_AT], of_cuda[LOOKED_AT];
    int64_t n = attention(&cpu, of_cpu);
    cr_expect_eq(attention(&cuda, of_cuda), n);
    apart = ssl_support_difference(of_cuda, of_cpu, n);
    cr_expect(apart < LIMIT, "attention: differs by %g", apart);
    end(&cuda);
    end(&cpu);
}
