/* ssl_meta_arch.c - building student and teacher, their precision, their moving average. */
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

VitConfig ssl_vit_config(const Config *config)
{
    static const struct {
        int64_t embed_dim, depth, heads;
    } sizes[] = {[CONFIG_ARCH_VIT_SMALL] = {384, 12, 6},
                 [CONFIG_ARCH_VIT_BASE] = {768, 12, 12},
                 [CONFIG_ARCH_VIT_LARGE] = {1024, 24, 16},
                 [CONFIG_ARCH_VIT_GIANT2] = {1536, 40, 24},
                 [CONFIG_ARCH_VIT_CUSTOM] = {0, 0, 0}};
    VitConfig v = {.embed_dim = config->student.embed_dim,
                   .depth = config->student.depth,
                   .num_heads = config->student.num_heads,
                   .patch_size = config->student.patch_size,
                   .img_size = config->crops.global_crops_size,
                   .num_register_tokens = config->student.num_register_tokens,
                   .mlp_ratio = 4.0,
                   .swiglu = config->student.ffn_layer == CONFIG_FFN_SWIGLUFUSED,
                   .qkv_bias = config->student.qkv_bias,
                   .proj_bias = config->student.proj_bias,
                   .ffn_bias = config->student.ffn_bias,
                   .layerscale = config->student.layerscale,
                   .drop_path_rate = config->student.drop_path_rate,
                   .drop_path_uniform = config->student.drop_path_uniform,
                   .block_chunks = config->student.block_chunks,
                   .interpolate_antialias = config->student.interpolate_antialias,
                   .interpolate_offset = config->student.interpolate_offset};
    if (config->student.arch != CONFIG_ARCH_VIT_CUSTOM) {
        v.embed_dim = sizes[config->student.arch].embed_dim;
        v.depth = sizes[config->student.arch].depth;
        v.num_heads = sizes[config->student.arch].heads;
    }
    return v;
}

void ssl_build_networks(const Config *c, Vit *vit, DinoHead *dino_head, DinoHead *ibot_head,
                        ParamTable *table)
{
    VitConfig v = ssl_vit_config(c);
    DinoHeadConfig dino = {.in_dim = v.embed_dim,
                           .hidden_dim = c->dino.head_hidden_dim,
                           .bottleneck_dim = c->dino.head_bottleneck_dim,
                           .prototypes = c->dino.head_n_prototypes,
                           .nlayers = c->dino.head_nlayers};
    DinoHeadConfig ibot = {.in_dim = v.embed_dim,
                           .hidden_dim = c->ibot.head_hidden_dim,
                           .bottleneck_dim = c->ibot.head_bottleneck_dim,
                           .prototypes = c->ibot.head_n_prototypes,
                           .nlayers = c->ibot.head_nlayers};
    vit_build(vit, &v, table);
    dino_head_build(dino_head, &dino, PARAM_DINO_HEAD, table);
    if (c->ibot.loss_weight > 0 && c->ibot.separate_head)
        dino_head_build(ibot_head, &ibot, PARAM_IBOT_HEAD, table);
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

static Dtype dtype_asked(const ConfigPrecisions *precisions, ParamModule module)
{
    const ConfigPrecision *by_module[PARAM_MODULE_COUNT] = {[PARAM_BACKBONE] = &precisions->backbone,
                                                            [PARAM_DINO_HEAD] = &precisions->dino_head,
                                                            [PARAM_IBOT_HEAD] = &precisions->ibot_head};
    return (Dtype)by_module[module]->mixed_precision.param_dtype;
}

static bool anything_reduced(const Config *config)
{
    bool any = false;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        any = any || dtype_asked(&config->compute_precision.student, (ParamModule)m) != DTYPE_F32 ||
              dtype_asked(&config->compute_precision.teacher, (ParamModule)m) != DTYPE_F32;
    return any;
}

OpsLimits ssl_ops_limits(const Config *config, const SslGroups *groups)
{
    VitConfig v = ssl_vit_config(config);
    int64_t p = v.patch_size, B = micro_samples(config, groups), extra = 1 + v.num_register_tokens;
    int64_t global = (config->crops.global_crops_size / p) * (config->crops.global_crops_size / p) + extra;
    int64_t local = (config->crops.local_crops_size / p) * (config->crops.local_crops_size / p) + extra;
    int64_t widest = max64(8 * v.embed_dim, VIT_IMAGE_CHANNELS * p * p);
    widest = max64(widest, max64(config->dino.head_hidden_dim, config->ibot.head_hidden_dim));
    widest = max64(widest, max64(config->dino.head_bottleneck_dim, config->ibot.head_bottleneck_dim));
    bool global_koleo = config->dino.koleo_scope == CONFIG_KOLEO_GLOBAL;
    return (OpsLimits){.rows = B * (2 * global + config->crops.local_crops_number * local),
                       .width = widest,
                       .max_seqlen = max64(global, local),
                       .head_dim = v.embed_dim / v.num_heads,
                       .heads = v.num_heads,
                       .segments = SEGMENTS_PER_BLOCK * (v.depth + 4),
                       .prototypes = max64(config->dino.head_n_prototypes, config->ibot.head_n_prototypes),
                       .bottleneck =
                           max64(config->dino.head_bottleneck_dim, config->ibot.head_bottleneck_dim),
                       .group_rows = groups->group_size * (global_koleo ? groups->total_groups : 1),
                       .reduced = anything_reduced(config)};
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
        int64_t patches = vit_patches(&ssl->vit, ssl->vit.config.img_size, ssl->vit.config.img_size);
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

/* What a module's matrices are read in: what was asked for where the processor multiplies such numbers, else
 * fp32. */
static Dtype dtype_computed(const Ops *ops, Dtype asked)
{
    bool has = (asked == DTYPE_BF16 && ops->has_bf16) || (asked == DTYPE_F16 && ops->has_fp16);
    return has ? asked : DTYPE_F32;
}

/* What a module's gradients are summed in over ranks: what was asked for where the processor has it.
 * DEVIATION: in fp16 only with a loss scale; small gradients would be lost without. The reference's default
 * is fp16, whatever else is asked for. */
static Dtype dtype_reduced(const SslMetaArch *ssl, ParamModule module)
{
    const ConfigPrecisions *p = &ssl->config->compute_precision.student;
    const ConfigPrecision *by_module[PARAM_MODULE_COUNT] = {[PARAM_BACKBONE] = &p->backbone,
                                                            [PARAM_DINO_HEAD] = &p->dino_head,
                                                            [PARAM_IBOT_HEAD] = &p->ibot_head};
    Dtype asked = (Dtype)by_module[module]->mixed_precision.reduce_dtype;
    if (asked == DTYPE_F16 && !ssl->scaled) return DTYPE_F32;
    return dtype_computed(ssl->ops, asked);
}

static void before_student_unit(void *context, int unit, NnPhase phase)
{
    SslMetaArch *ssl = context;
    sharded_weights_before(&ssl->student_copies, unit, phase == NN_BACKWARD);
    if (phase == NN_BACKWARD) sharded_gradients_before(&ssl->gradients, unit);
}

static void after_student_unit(void *context, int unit, NnPhase phase)
{
    SslMetaArch *ssl = context;
    sharded_weights_after(&ssl->student_copies, unit);
    if (phase == NN_BACKWARD) sharded_gradients_after(&ssl->gradients, unit);
}

static void before_teacher_unit(void *context, int unit, NnPhase phase)
{
    sharded_weights_before(&((SslMetaArch *)context)->teacher_copies, unit, phase == NN_BACKWARD);
}

static void after_teacher_unit(void *context, int unit, NnPhase phase)
{
    (void)phase;
    sharded_weights_after(&((SslMetaArch *)context)->teacher_copies, unit);
}

/* Full copies of both networks, and rooms for gradients. */
static void make_copies(SslMetaArch *ssl)
{
    const Ops *ops = ssl->ops;
    Dtype student[PARAM_MODULE_COUNT], teacher[PARAM_MODULE_COUNT], reduce[PARAM_MODULE_COUNT];
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        student[m] =
            dtype_computed(ops, dtype_asked(&ssl->config->compute_precision.student, (ParamModule)m));
        teacher[m] =
            dtype_computed(ops, dtype_asked(&ssl->config->compute_precision.teacher, (ParamModule)m));
        ssl->scaled = ssl->scaled || student[m] == DTYPE_F16;
    }
    ssl->scaled = ssl->scaled && ssl->config->compute_precision.grad_scaler;
    sharded_weights_init(&ssl->student_copies, &ssl->map, ops, ssl->student, false, student, NULL);
    sharded_weights_init(&ssl->teacher_copies, &ssl->map, ops, ssl->teacher, true, teacher,
                         &ssl->student_copies);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        reduce[m] = dtype_reduced(ssl, (ParamModule)m);
        ssl->student_weights[m] = sharded_weights_view(&ssl->student_copies, (ParamModule)m);
        ssl->teacher_weights[m] = sharded_weights_view(&ssl->teacher_copies, (ParamModule)m);
    }
    sharded_gradients_init(&ssl->gradients, &ssl->map, ops, reduce);
    ssl->student_hooks = (NnHooks){ssl, before_student_unit, after_student_unit};
    ssl->teacher_hooks = (NnHooks){ssl, before_teacher_unit, after_teacher_unit};
}

static void make_weights(SslMetaArch *ssl)
{
    static const double FIRST_LOSS_SCALE = 65536; /* of the reference's scaler */
    Device *device = ssl->ops->device;
    int shards[PARAM_MODULE_COUNT];
    fsdp_ranks_shards(ssl->ranks, shards);
    param_table_lay_out(&ssl->table, shards);
    shard_map_init(&ssl->map, &ssl->table, ssl->ranks);
    ssl->student = device_alloc(device, (size_t)ssl->map.count * sizeof(float));
    ssl->teacher = device_alloc(device, (size_t)ssl->map.count * sizeof(float));
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

void ssl_meta_arch_init(SslMetaArch *ssl, const Config *config, const SslGroups *groups,
                        const PixelNorm *norm, const Ops *ops, const FsdpRanks *ranks)
{
    *ssl = (SslMetaArch){.config = config, .ops = ops, .ranks = ranks, .groups = *groups};
    ssl->do_dino = config->dino.loss_weight > 0;
    ssl->do_koleo = config->dino.koleo_loss_weight > 0;
    ssl->do_ibot = config->ibot.loss_weight > 0;
    ssl->shared_head = !config->ibot.separate_head;
    ssl->micro_samples = micro_samples(config, groups);

    param_table_init(&ssl->table);
    ssl_build_networks(config, &ssl->vit, &ssl->dino_head, &ssl->ibot_head, &ssl->table);
    const VitConfig *v = &ssl->vit.config;
    make_weights(ssl);
    Device *device = ops->device;
    if (norm) ssl->levels = pixel_levels_create(device, norm);
    int64_t dino_prototypes = config->dino.head_n_prototypes;
    int64_t ibot_prototypes = ssl->shared_head ? dino_prototypes : config->ibot.head_n_prototypes;
    ssl->dino_center = device_alloc(device, (size_t)dino_prototypes * sizeof(float));
    ssl->ibot_center = device_alloc(device, (size_t)ibot_prototypes * sizeof(float));
    ssl->layout = figure_layout(groups->total_groups, v->embed_dim);
    ssl->figures = tensor_1d(device_alloc(device, (size_t)ssl->layout.count * sizeof(double)), DTYPE_F64,
                             ssl->layout.count);

    BlockMaskGrid grid = block_mask_grid(v->img_size, v->patch_size);
    ssl->masked_per_group =
        block_mask_upperbound(&grid, 2 * groups->group_size, config->ibot.mask_sample_probability,
                              config->ibot.mask_ratio_min_max[0], config->ibot.mask_ratio_min_max[1]);
    int rank_count = comm_size(ranks->world);
    ssl->koleo = (KoleoLoss){.embed_dim = v->embed_dim,
                             .group_size = groups->group_size,
                             .groups = groups->groups,
                             .first_group = groups->first_group,
                             .total_groups = groups->total_groups,
                             .most_groups = (groups->total_groups + rank_count - 1) / rank_count,
                             .global_scope = config->dino.koleo_scope == CONFIG_KOLEO_GLOBAL,
                             .loss_weight = config->dino.koleo_loss_weight};
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
    vit_fini(&ssl->vit);
    sharded_gradients_fini(&ssl->gradients);
    sharded_weights_fini(&ssl->teacher_copies);
    sharded_weights_fini(&ssl->student_copies);
    shard_map_fini(&ssl->map);
    param_table_fini(&ssl->table);
    void *owned[] = {ssl->student,      ssl->teacher,      ssl->dino_center, ssl->ibot_center,
                     ssl->figures.data, ssl->control.data, ssl->levels.data};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        device_free(device, owned[i]);
    *ssl = (SslMetaArch){0};
}

void ssl_meta_arch_initialise(SslMetaArch *ssl, uint64_t seed)
{
    Device *device = ssl->ops->device;
    size_t bytes = (size_t)ssl->map.count * sizeof(float);
    float *values = memory_alloc(bytes);
    shard_map_initialise(&ssl->map, seed, values);
    device_upload(device, ssl->student, values, bytes);
    device_copy(device, ssl->teacher, ssl->student, bytes);
    memory_free(values);
    ssl_meta_arch_refresh(ssl);
}

void ssl_meta_arch_refresh(SslMetaArch *ssl)
{
    sharded_weights_changed(&ssl->student_copies);
    sharded_weights_changed(&ssl->teacher_copies);
}

void ssl_meta_arch_update_teacher(SslMetaArch *ssl, double momentum)
{
    int64_t n = ssl->map.count;
    ssl->ops->ema(ssl->ops, tensor_1d(ssl->teacher, DTYPE_F32, n), tensor_1d(ssl->student, DTYPE_F32, n),
                  momentum, ssl->control);
}
