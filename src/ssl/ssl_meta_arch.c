/* ssl_meta_arch.c - building student and teacher, what sums over ranks are made in, the moving average. */
#include "ssl/ssl_meta_arch.h"

#include "base/memory.h"
#include "data/block_mask.h"
#include "ssl/ssl_step.h"

#include <math.h>
#include <string.h>

Status ssl_groups_deal(SslGroups *groups, const Config *config, int rank, int ranks, Error *error)
{
    int64_t B = config->train.batch_size_per_gpu;
    int64_t batch = config->train.global_batch_size ? config->train.global_batch_size : B * ranks;
    if (batch % B != 0)
        return status_fail(error, STATUS_INPUT,
                           "train.global_batch_size: %lld is not a multiple of train.batch_size_per_gpu %lld",
                           (long long)batch, (long long)B);
    int64_t total = batch / B;
    if (total < ranks)
        return status_fail(error, STATUS_INPUT,
                           "%d ranks, but a global batch of %lld in groups of %lld gives only %lld groups: "
                           "use fewer ranks, a larger "
                           "train.global_batch_size or a smaller train.batch_size_per_gpu",
                           ranks, (long long)batch, (long long)B, (long long)total);
    int64_t base = total / ranks, longer = total % ranks;
    *groups = (SslGroups){.group_size = B,
                          .total_groups = total,
                          .groups = base + (rank < longer),
                          .first_group = rank * base + (rank < longer ? rank : longer)};
    return STATUS_OK;
}

enum { SEGMENTS_PER_BLOCK = 16 }; /* parameters of a block, and no fewer than a quarter of all others */

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t micro_samples(const Config *config, const SslGroups *groups)
{
    int64_t all = groups->groups * groups->group_size, asked = config->train.micro_batch_size;
    return asked > 0 && asked < all ? asked : all;
}

static bool any_reduced(const ConfigPrecisions *p)
{
    return p->backbone.mixed_precision.param_dtype != DTYPE_F32 ||
           p->dino_head.mixed_precision.param_dtype != DTYPE_F32 ||
           p->ibot_head.mixed_precision.param_dtype != DTYPE_F32;
}

/* What the networks of one shape ask for, in passes over `samples` samples at a time. */
static OpsLimits network_limits(const Config *shape, const Config *crops, int64_t samples)
{
    VitConfig v = ssl_vit_config(shape);
    int64_t p = v.patch_size, extra = 1 + v.num_register_tokens;
    int64_t global = crops->crops.global_crops_size / p, local = crops->crops.local_crops_size / p;
    int64_t global_tokens = global * global + extra, local_tokens = local * local + extra;
    int64_t widest = max64(8 * v.embed_dim, VIT_IMAGE_CHANNELS * p * p);
    widest = max64(widest, max64(shape->dino.head_hidden_dim, shape->ibot.head_hidden_dim));
    int64_t bottleneck = max64(shape->dino.head_bottleneck_dim, shape->ibot.head_bottleneck_dim);
    return (OpsLimits){.rows = samples * (2 * global_tokens + crops->crops.local_crops_number * local_tokens),
                       .width = max64(widest, bottleneck),
                       .max_seqlen = max64(global_tokens, local_tokens),
                       .head_dim = v.embed_dim / v.num_heads,
                       .heads = v.num_heads,
                       .segments = SEGMENTS_PER_BLOCK * (v.depth + 4),
                       .prototypes = max64(shape->dino.head_n_prototypes, shape->ibot.head_n_prototypes),
                       .bottleneck = bottleneck};
}

OpsLimits ssl_ops_limits(const Config *config, const Config *teacher, const SslGroups *groups)
{
    int64_t samples = micro_samples(config, groups);
    OpsLimits limits = network_limits(config, config, samples);
    if (teacher) {
        OpsLimits other = network_limits(teacher, config, samples);
        int64_t *mine[] = {&limits.rows,  &limits.width,      &limits.max_seqlen, &limits.head_dim,
                           &limits.heads, &limits.prototypes, &limits.bottleneck};
        const int64_t theirs[] = {other.rows,  other.width,      other.max_seqlen, other.head_dim,
                                  other.heads, other.prototypes, other.bottleneck};
        for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
            *mine[i] = max64(*mine[i], theirs[i]);
    }
    bool global_koleo = config->dino.koleo_scope == CONFIG_KOLEO_GLOBAL;
    limits.group_rows = groups->group_size * (global_koleo ? groups->total_groups : 1);
    limits.reduced =
        any_reduced(&config->compute_precision.student) || any_reduced(&config->compute_precision.teacher);
    return limits;
}

/* Runs the layouts of the largest possible step on a measuring arena. */
static Arena plan_step(SslMetaArch *ssl)
{
    Arena plan = arena_measuring();
    int64_t samples = ssl->groups.groups * ssl->groups.group_size;
    int64_t masked = ssl->do_ibot ? ssl->groups.groups * ssl->masked_per_group : 0;
    SslStep step = ssl_step_layout(ssl, &plan, NULL, samples, masked);
    ArenaMark mark = arena_mark(&plan);
    for (int64_t first = 0; first < samples; first += ssl->micro_samples) {
        int64_t count = samples - first < ssl->micro_samples ? samples - first : ssl->micro_samples;
        int64_t patches = vit_patches(&ssl->student.vit, ssl->student.vit.config.img_size,
                                      ssl->student.vit.config.img_size);
        int64_t bound = masked < 2 * count * patches ? masked : 2 * count * patches;
        SslMicroBatch micro = {.first = first, .samples = count, .masked = bound};
        ssl_teacher_forward(ssl, &step, &micro, &plan);
        arena_reset(&plan, mark);
        ssl_student_class_tokens(ssl, &step, &micro, &plan);
        arena_reset(&plan, mark);
        ssl_student_forward_backward(ssl, &step, &micro, &plan);
        arena_reset(&plan, mark);
    }
    return plan;
}

/* What gradients of each module are summed in over ranks: what was asked for where the processor has it.
 * DEVIATION: in fp16 only with a loss scale; small gradients would be lost without. The reference's default
 * is fp16, whatever else is asked for. */
static void reduce_precision(const SslMetaArch *ssl, Dtype reduce[PARAM_MODULE_COUNT])
{
    const ConfigPrecisions *p = &ssl->config->compute_precision.student;
    const ConfigPrecision *by_module[PARAM_MODULE_COUNT] = {[PARAM_BACKBONE] = &p->backbone,
                                                            [PARAM_DINO_HEAD] = &p->dino_head,
                                                            [PARAM_IBOT_HEAD] = &p->ibot_head};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        Dtype asked = (Dtype)by_module[m]->mixed_precision.reduce_dtype;
        bool has = (asked == DTYPE_BF16 && ssl->ops->has_bf16) ||
                   (asked == DTYPE_F16 && ssl->ops->has_fp16 && ssl->scaled);
        reduce[m] = has ? asked : DTYPE_F32;
    }
}

static void before_student_unit(void *context, int unit, NnPhase phase)
{
    SslMetaArch *ssl = context;
    sharded_weights_before(&ssl->student.copies, unit, phase == NN_BACKWARD);
    if (phase == NN_BACKWARD) sharded_gradients_before(&ssl->gradients, unit);
}

static void after_student_unit(void *context, int unit, NnPhase phase)
{
    SslMetaArch *ssl = context;
    sharded_weights_after(&ssl->student.copies, unit);
    if (phase == NN_BACKWARD) sharded_gradients_after(&ssl->gradients, unit);
}

/* Full copies of both networks, and rooms for gradients. */
static void make_copies(SslMetaArch *ssl)
{
    const Ops *ops = ssl->ops;
    const ConfigPrecisions *asked = &ssl->config->compute_precision.student;
    Dtype student[PARAM_MODULE_COUNT], teacher[PARAM_MODULE_COUNT], reduce[PARAM_MODULE_COUNT];
    ssl_network_precision(asked, ops, student);
    ssl_network_precision(&ssl->config->compute_precision.teacher, ops, teacher);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        ssl->scaled = ssl->scaled || student[m] == DTYPE_F16;
    ssl->scaled = ssl->scaled && ssl->config->compute_precision.grad_scaler;
    reduce_precision(ssl, reduce);
    ssl_network_make_copies(&ssl->student, ops, false, student, NULL);
    ssl_network_make_copies(&ssl->teacher, ops, true, teacher, ssl->distilled ? NULL : &ssl->student.copies);
    if (ssl->distilled) ssl_network_make_copies(&ssl->spare, ops, true, teacher, &ssl->student.copies);
    sharded_gradients_init(&ssl->gradients, &ssl->student.map, ops, reduce);
    ssl->student.hooks = (NnHooks){ssl, before_student_unit, after_student_unit};
}

static void make_networks(SslMetaArch *ssl, const Config *teacher)
{
    static const double FIRST_LOSS_SCALE = 65536; /* of the reference's scaler */
    Device *device = ssl->ops->device;
    ssl->distilled = teacher != NULL;
    ssl_network_init(&ssl->student, ssl->config, ssl->ranks, device);
    ssl_network_init(&ssl->teacher, teacher ? teacher : ssl->config, ssl->ranks, device);
    if (ssl->distilled) ssl_network_init(&ssl->spare, ssl->config, ssl->ranks, device);
    ssl->model_ema = ssl->distilled ? &ssl->spare : &ssl->teacher;
    make_copies(ssl);

    double control[CONTROL_COUNT] = {
        [CONTROL_LOSS_SCALE] = ssl->scaled ? FIRST_LOSS_SCALE : 1.0, [CONTROL_FINITE] = 1.0};
    ssl->control = tensor_1d(device_alloc(device, sizeof control), DTYPE_F64, CONTROL_COUNT);
    device_upload(device, ssl->control.data, control, sizeof control);
}

static SslFigureLayout figure_layout(int64_t groups, int64_t D)
{
    SslFigureLayout f = {.dino_global = groups, .koleo = 2 * groups, .ibot = 3 * groups};
    f.dino_entropy = 4 * groups;
    f.ibot_entropy = f.dino_entropy + 2;
    f.features = f.ibot_entropy + 2;
    f.summed = f.features + 2 * D;
    f.dino_used = f.summed;
    f.ibot_used = f.dino_used + 1;
    f.discarded = f.ibot_used + 1;
    f.count = f.discarded + 1;
    return f;
}

/* Most patches that a group's iBOT loss is on. */
static int64_t masked_per_group(const SslMetaArch *ssl)
{
    const Config *c = ssl->config;
    const VitConfig *v = &ssl->student.vit.config;
    BlockMaskGrid grid = block_mask_grid(v->img_size, v->patch_size);
    int64_t crops = 2 * ssl->groups.group_size;
    if (ssl->distilled) return crops * grid.height * grid.width;
    return block_mask_upperbound(&grid, crops, c->ibot.mask_sample_probability, c->ibot.mask_ratio_min_max[0],
                                 c->ibot.mask_ratio_min_max[1]);
}

static KoleoLoss koleo_of(const SslMetaArch *ssl)
{
    const SslGroups *g = &ssl->groups;
    int rank_count = comm_size(ssl->ranks->world);
    return (KoleoLoss){.embed_dim = ssl->student.vit.config.embed_dim,
                       .group_size = g->group_size,
                       .groups = g->groups,
                       .first_group = g->first_group,
                       .total_groups = g->total_groups,
                       .most_groups = (g->total_groups + rank_count - 1) / rank_count,
                       .global_scope = ssl->config->dino.koleo_scope == CONFIG_KOLEO_GLOBAL,
                       .loss_weight = ssl->config->dino.koleo_loss_weight};
}

void ssl_meta_arch_init(SslMetaArch *ssl, const Config *config, const Config *teacher,
                        const SslGroups *groups, const PixelNorm *norm, const Ops *ops,
                        const FsdpRanks *ranks)
{
    *ssl = (SslMetaArch){.config = config, .ops = ops, .ranks = ranks, .groups = *groups};
    ssl->do_dino = config->dino.loss_weight > 0;
    ssl->do_koleo = config->dino.koleo_loss_weight > 0;
    ssl->do_ibot = config->ibot.loss_weight > 0;
    ssl->micro_samples = micro_samples(config, groups);

    make_networks(ssl, teacher);
    Device *device = ops->device;
    if (norm) ssl->levels = pixel_levels_create(device, norm);
    int64_t dino_prototypes = config->dino.head_n_prototypes;
    int64_t ibot_prototypes = ssl->student.shared_head ? dino_prototypes : config->ibot.head_n_prototypes;
    ssl->dino_center = device_alloc(device, (size_t)dino_prototypes * sizeof(float));
    ssl->ibot_center = device_alloc(device, (size_t)ibot_prototypes * sizeof(float));
    ssl->layout = figure_layout(groups->total_groups, ssl->teacher.vit.config.embed_dim);
    ssl->figures = tensor_1d(device_alloc(device, (size_t)ssl->layout.count * sizeof(double)), DTYPE_F64,
                             ssl->layout.count);
    ssl->masked_per_group = masked_per_group(ssl);
    ssl->koleo = koleo_of(ssl);
    ssl->current = memory_alloc(sizeof *ssl->current);
    Arena plan = plan_step(ssl);
    ssl->step = device_arena_create(device, &plan);
}

void ssl_meta_arch_fini(SslMetaArch *ssl)
{
    if (!ssl->ops) return;
    Device *device = ssl->ops->device;
    device_arena_destroy(device, &ssl->step);
    memory_free(ssl->current);
    sharded_gradients_fini(&ssl->gradients);
    ssl_network_fini(&ssl->spare, device);
    ssl_network_fini(&ssl->teacher, device);
    ssl_network_fini(&ssl->student, device);
    void *owned[] = {ssl->dino_center, ssl->ibot_center, ssl->figures.data, ssl->control.data,
                     ssl->levels.data};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        device_free(device, owned[i]);
    *ssl = (SslMetaArch){0};
}

void ssl_meta_arch_initialise(SslMetaArch *ssl, uint64_t seed)
{
    Device *device = ssl->ops->device;
    size_t bytes = (size_t)ssl->student.map.count * sizeof(float);
    float *values = memory_alloc(bytes);
    shard_map_initialise(&ssl->student.map, seed, values);
    device_upload(device, ssl->student.local, values, bytes);
    device_copy(device, ssl->model_ema->local, ssl->student.local, bytes);
    memory_free(values);
    ssl_meta_arch_refresh(ssl);
}

void ssl_meta_arch_center_counts(const SslMetaArch *ssl, int64_t *dino, int64_t *ibot)
{
    bool centering = ssl->config->train.centering == CONFIG_CENTERING_CENTERING;
    *dino = centering && ssl->do_dino ? ssl->student.dino_head.config.prototypes : 0;
    *ibot = centering && ssl->do_ibot ? ssl_network_patch_head(&ssl->student)->config.prototypes : 0;
}

void ssl_meta_arch_refresh(SslMetaArch *ssl)
{
    sharded_weights_changed(&ssl->student.copies);
    if (!ssl->distilled) sharded_weights_changed(&ssl->teacher.copies);
}

void ssl_meta_arch_teacher_changed(SslMetaArch *ssl)
{
    sharded_weights_changed(&ssl->teacher.copies);
}

const SslNetwork *ssl_meta_arch_model(SslMetaArch *ssl)
{
    if (ssl->distilled) sharded_weights_changed(&ssl->spare.copies);
    return ssl->model_ema;
}

void ssl_meta_arch_update_ema(SslMetaArch *ssl, double momentum)
{
    int64_t n = ssl->student.map.count;
    ssl->ops->ema(ssl->ops, tensor_1d(ssl->model_ema->local, DTYPE_F32, n),
                  tensor_1d(ssl->student.local, DTYPE_F32, n), momentum, ssl->control);
}
