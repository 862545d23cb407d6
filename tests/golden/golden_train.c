/* golden_train.c - train_*.h5: five complete training steps, several ranks as groups of one process. */
#include "golden_device.h"
#include "golden_params.h"

#include "base/memory.h"
#include "optim/adamw_optimizer.h"
#include "optim/param_groups.h"
#include "ssl/ssl_meta_arch.h"
#include "ssl/ssl_step.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Golden *golden;
    Config config;
    int64_t ranks, steps;
    double lr; /* scaled peak */
    SslGroups groups;
    Ops *ops;
    Comm *comm;
    FsdpRanks fsdp;
    SslMetaArch ssl;
    AdamwOptimizer optimizer;
    Batch batch;
} Run;

static double number(const Run *run, const char *name)
{
    return golden_attr(run->golden, name, "/");
}

static int64_t integer(const Run *run, const char *name)
{
    return (int64_t)number(run, name);
}

/* "step3" with one rank, "step3/rank1" with several. */
static const char *rank_path(const Run *run, int64_t step, int64_t rank, char path[64])
{
    if (run->ranks == 1)
        snprintf(path, 64, "step%d", (int)step);
    else
        snprintf(path, 64, "step%d/rank%d", (int)step, (int)rank);
    return path;
}

/* --- settings ---------------------------------------------------------------------------------------------
 */

static void read_model(Run *run)
{
    Config *c = &run->config;
    c->student.arch = CONFIG_ARCH_VIT_CUSTOM;
    c->student.embed_dim = integer(run, "arch_embed_dim");
    c->student.depth = integer(run, "arch_depth");
    c->student.num_heads = integer(run, "arch_num_heads");
    c->student.patch_size = integer(run, "patch_size");
    c->student.num_register_tokens = integer(run, "num_register_tokens");
    c->student.block_chunks = integer(run, "block_chunks");
    c->student.interpolate_antialias = integer(run, "interpolate_antialias") != 0;
    c->student.interpolate_offset = number(run, "interpolate_offset");
    c->student.drop_path_rate = number(run, "drop_path_rate");
    bool swiglu = strncmp(golden_attr_text(run->golden, "ffn_layer", "/"), "swiglu", 6) == 0;
    c->student.ffn_layer = swiglu ? CONFIG_FFN_SWIGLUFUSED : CONFIG_FFN_MLP;
    c->crops.global_crops_size = integer(run, "global_crops_size");
    c->crops.local_crops_size = integer(run, "local_crops_size");
    c->crops.local_crops_number = integer(run, "n_local_crops");
}

/* The files were computed in fp32. FULL_SHARD: one rank has all parts, but a debug build gathers and sums
 * them all the same. */
static void set_precision(Config *c)
{
    ConfigPrecisions *both[] = {&c->compute_precision.student, &c->compute_precision.teacher};
    for (int i = 0; i < 2; i++) {
        ConfigPrecision *parts[] = {&both[i]->backbone, &both[i]->dino_head, &both[i]->ibot_head};
        for (int k = 0; k < 3; k++) {
            parts[k]->mixed_precision.param_dtype = DTYPE_F32;
            parts[k]->sharding_strategy = CONFIG_SHARDING_FULL_SHARD;
        }
    }
}

static void read_losses(Run *run)
{
    Config *c = &run->config;
    c->dino.loss_weight = number(run, "dino_loss_weight");
    c->dino.koleo_loss_weight = number(run, "koleo_loss_weight");
    c->dino.head_n_prototypes = integer(run, "dino_head_n_prototypes");
    c->dino.head_bottleneck_dim = integer(run, "dino_head_bottleneck_dim");
    c->dino.head_hidden_dim = integer(run, "dino_head_hidden_dim");
    c->dino.head_nlayers = integer(run, "head_nlayers");
    c->ibot.loss_weight = number(run, "ibot_loss_weight");
    c->ibot.separate_head = integer(run, "ibot_separate_head") != 0;
    c->ibot.head_n_prototypes = integer(run, "ibot_head_n_prototypes");
    c->ibot.head_bottleneck_dim = integer(run, "ibot_head_bottleneck_dim");
    c->ibot.head_hidden_dim = integer(run, "ibot_head_hidden_dim");
    c->ibot.head_nlayers = integer(run, "head_nlayers");
    c->ibot.mask_sample_probability = 1; /* masks are given: room for any */
    c->ibot.mask_ratio_min_max[0] = 0;
    c->ibot.mask_ratio_min_max[1] = 1;
    bool sinkhorn = strcmp(golden_attr_text(run->golden, "centering", "/"), "sinkhorn_knopp") == 0;
    c->train.centering = sinkhorn ? CONFIG_CENTERING_SINKHORN_KNOPP : CONFIG_CENTERING_CENTERING;
}

static void read_optimisation(Run *run)
{
    Config *c = &run->config;
    c->train.OFFICIAL_EPOCH_LENGTH = integer(run, "epoch_length");
    c->train.batch_size_per_gpu = integer(run, "batch_size_per_rank");
    c->train.global_batch_size = c->train.batch_size_per_gpu * run->ranks;
    c->optim.epochs = integer(run, "epochs");
    c->optim.min_lr = number(run, "min_lr");
    c->optim.warmup_epochs = integer(run, "warmup_epochs");
    c->optim.weight_decay = number(run, "weight_decay");
    c->optim.weight_decay_end = number(run, "weight_decay_end");
    c->optim.clip_grad = number(run, "clip_grad");
    c->optim.freeze_last_layer_epochs = integer(run, "freeze_last_layer_epochs");
    c->optim.patch_embed_lr_mult = number(run, "patch_embed_lr_mult");
    c->optim.layerwise_decay = number(run, "layerwise_decay");
    c->optim.adamw_beta1 = number(run, "adamw_beta1");
    c->optim.adamw_beta2 = number(run, "adamw_beta2");
    c->teacher.momentum_teacher = number(run, "momentum_teacher");
    c->teacher.final_momentum_teacher = number(run, "final_momentum_teacher");
    c->teacher.warmup_teacher_temp = number(run, "warmup_teacher_temp");
    c->teacher.teacher_temp = number(run, "teacher_temp");
    c->teacher.warmup_teacher_temp_epochs = integer(run, "warmup_teacher_temp_epochs");
    run->lr = number(run, "lr");
}

/* --- a run ------------------------------------------------------------------------------------------------
 */

/* All parameters of a group of the file into flat, in the device's memory. */
static void load_params(Run *run, float *flat, const char *group)
{
    size_t bytes = (size_t)run->ssl.student.table.flat_count * sizeof *flat;
    float *host = memory_alloc(bytes);
    golden_params_load(run->golden, &run->ssl.student.table, GOLDEN_NAMES_WITH_MODULE, host, group);
    device_upload(run->ops->device, flat, host, bytes);
    memory_free(host);
}

/* The flat buffer's numbers on the host. */
static const float *fetch_flat(Run *run, const float *flat)
{
    return golden_device_f32(run->golden, run->ops, flat, run->ssl.student.table.flat_count);
}

static void run_init(Run *run, Golden *golden)
{
    *run = (Run){.golden = golden};
    config_init(&run->config);
    run->ranks = integer(run, "world_size");
    run->steps = integer(run, "steps");
    set_precision(&run->config);
    read_model(run);
    read_losses(run);
    read_optimisation(run);
    Error error = {0};
    if (config_check(&run->config, &error) != STATUS_OK ||
        ssl_groups_deal(&run->groups, &run->config, 0, 1, &error) != STATUS_OK)
        golden_fail(golden, "settings: %s", error.text);
    run->comm = comm_self_create();
    OpsLimits limits = ssl_ops_limits(&run->config, NULL, &run->groups);
    run->ops = golden_device_open(golden, &limits);
    if (fsdp_ranks_init(&run->fsdp, &run->config, run->comm, run->ops->device, &error) != STATUS_OK)
        golden_fail(golden, "strategies: %s", error.text);
    ssl_meta_arch_init(&run->ssl, &run->config, NULL, &run->groups, NULL, run->ops, &run->fsdp);
    load_params(run, run->ssl.student.local, "init/student/params");
    /* a file may say that both networks start alike by leaving the teacher out */
    bool teacher = golden_has(golden, "init/teacher/params");
    load_params(run, run->ssl.teacher.local, teacher ? "init/teacher/params" : "init/student/params");
    ssl_meta_arch_refresh(&run->ssl);
    param_groups_assign(&run->ssl.student.table, run->config.student.depth, run->config.optim.layerwise_decay,
                        run->config.optim.patch_embed_lr_mult);
    adamw_optimizer_init(&run->optimizer, &run->ssl.student.map, run->comm, run->ops->device,
                         run->config.optim.adamw_beta1, run->config.optim.adamw_beta2);
    int64_t side = run->config.crops.global_crops_size / run->config.student.patch_size;
    run->batch = (Batch){.samples = run->groups.groups * run->groups.group_size,
                         .group_size = run->groups.group_size,
                         .groups = run->groups.groups,
                         .local_count = run->config.crops.local_crops_number,
                         .global_size = run->config.crops.global_crops_size,
                         .local_size = run->config.crops.local_crops_size,
                         .patches = side * side,
                         .pixels = DTYPE_F32};
    batch_init(&run->batch, NULL);
}

static void run_fini(Run *run)
{
    batch_fini(&run->batch);
    adamw_optimizer_fini(&run->optimizer);
    ssl_meta_arch_fini(&run->ssl);
    golden_device_close(run->ops);
    fsdp_ranks_fini(&run->fsdp);
    comm_destroy(run->comm);
    config_fini(&run->config);
}

/* The file has crop 0 of every sample, then crop 1 ...; a batch has the crops of sample 0, then of sample 1
 * ... */
static void fill_batch(Run *run, int64_t step)
{
    Batch *b = &run->batch;
    int64_t B = b->group_size, L = b->local_count, N = b->patches;
    int64_t global = 3 * b->global_size * b->global_size, local = 3 * b->local_size * b->local_size;
    float *global_crops = b->global_crops, *local_crops = b->local_crops;
    b->step = step;
    for (int64_t rank = 0; rank < run->ranks; rank++) {
        char path[64];
        rank_path(run, step, rank, path);
        const float *globals = golden_f32(run->golden, NULL, "%s/in/global_crops", path);
        const float *locals = L > 0 ? golden_f32(run->golden, NULL, "%s/in/local_crops", path) : NULL;
        const uint8_t *masks = golden_u8(run->golden, NULL, "%s/in/masks", path);
        b->upperbound[rank] = (int64_t)golden_scalar(run->golden, "%s/in/upperbound", path);
        for (int64_t s = 0; s < B; s++) {
            int64_t sample = rank * B + s;
            for (int64_t c = 0; c < 2; c++) {
                memcpy(global_crops + (2 * sample + c) * global, globals + (c * B + s) * global,
                       (size_t)global * sizeof(float));
                memcpy(b->masks + (2 * sample + c) * N, masks + (c * B + s) * N, (size_t)N);
            }
            for (int64_t c = 0; c < L; c++)
                memcpy(local_crops + (L * sample + c) * local, locals + (c * B + s) * local,
                       (size_t)local * sizeof(float));
        }
    }
}

/* --- comparing one step ------------------------------------------------------------------------------------
 */

static void compare_value(Run *run, double value, int64_t step, const char *name)
{
    if (golden_has(run->golden, "step%d/%s", (int)step, name))
        golden_compare_f64(run->golden, &value, 1, "step%d/%s", (int)step, name);
}

static void compare_losses(Run *run, int64_t step, const SslFigures *f)
{
    compare_value(run, f->dino_local_crops_loss, step, "loss/dino_local_crops_loss");
    compare_value(run, f->dino_global_crops_loss, step, "loss/dino_global_crops_loss");
    compare_value(run, f->koleo_loss, step, "loss/koleo_loss");
    compare_value(run, f->ibot_loss, step, "loss/ibot_loss");
    compare_value(run, f->total_loss, step, "loss/total");
    const double *sums =
        golden_device_f64(run->golden, run->ops, tensor_f64(run->ssl.figures), run->ssl.layout.count);
    for (int64_t rank = 0; run->ranks > 1 && rank < run->ranks; rank++) {
        SslGroupLosses g = ssl_meta_arch_group_losses(&run->ssl, sums, rank);
        const struct {
            const char *name;
            double value;
        } losses[] = {{"dino_local_crops_loss", g.dino_local_crops_loss},
                      {"dino_global_crops_loss", g.dino_global_crops_loss},
                      {"koleo_loss", g.koleo_loss},
                      {"ibot_loss", g.ibot_loss}};
        for (int i = 0; i < 4; i++) {
            char name[64];
            snprintf(name, sizeof name, "rank%d/loss/%s", (int)rank, losses[i].name);
            compare_value(run, losses[i].value, step, name);
        }
    }
}

/* Rows of a group's class tokens: crop-major with the second global crops first, ours are sample-major. */
static void compare_dino_targets(Run *run, const char *path, int64_t rank, const float *targets)
{
    if (!golden_has(run->golden, "%s/teacher_dino", path)) return;
    int64_t B = run->groups.group_size, K = run->config.dino.head_n_prototypes;
    float *mine = memory_alloc_array((size_t)(2 * B * K), sizeof(float));
    for (int64_t s = 0; s < B; s++)
        for (int64_t c = 0; c < 2; c++)
            memcpy(mine + ((1 - c) * B + s) * K, targets + (2 * (rank * B + s) + c) * K,
                   (size_t)K * sizeof(float));
    golden_compare(run->golden, mine, 2 * B * K, "%s/teacher_dino", path);
    memory_free(mine);
}

/* Rows of a group's masked patches: the reference's crops are crop-major. `first` is the group's first row in
 * `targets`; returns the number of its rows. */
static int64_t compare_ibot_targets(Run *run, const char *path, int64_t rank, int64_t first,
                                    const float *targets)
{
    const Batch *b = &run->batch;
    int64_t B = b->group_size, N = b->patches;
    int64_t K = run->config.ibot.separate_head ? run->config.ibot.head_n_prototypes
                                               : run->config.dino.head_n_prototypes;
    int64_t *start = memory_alloc_array((size_t)(2 * B + 1), sizeof *start), count = 0;
    for (int64_t crop = 0; crop < 2 * B; crop++) { /* ours: 2 s + c */
        start[crop] = count;
        for (int64_t i = 0; i < N; i++)
            count += b->masks[(2 * B * rank + crop) * N + i];
    }
    start[2 * B] = count;
    float *mine = memory_alloc_array((size_t)(count * K), sizeof(float));
    int64_t at = 0;
    for (int64_t c = 0; c < 2; c++)
        for (int64_t s = 0; s < B; s++) {
            int64_t rows = start[2 * s + c + 1] - start[2 * s + c];
            memcpy(mine + at * K, targets + (first + start[2 * s + c]) * K,
                   (size_t)(rows * K) * sizeof(float));
            at += rows;
        }
    if (golden_has(run->golden, "%s/teacher_ibot", path))
        golden_compare(run->golden, mine, count * K, "%s/teacher_ibot", path);
    memory_free(mine);
    memory_free(start);
    return count;
}

static void compare_targets(Run *run, int64_t step, double temp)
{
    int64_t samples = run->batch.samples, K = run->config.dino.head_n_prototypes;
    int64_t most = K > run->config.ibot.head_n_prototypes ? K : run->config.ibot.head_n_prototypes;
    float *dino = memory_alloc_array((size_t)(2 * samples * K), sizeof(float));
    float *ibot = memory_alloc_array((size_t)(2 * samples * run->batch.patches * most), sizeof(float));
    ssl_meta_arch_teacher_targets(&run->ssl, temp, run->ssl.do_dino ? dino : NULL,
                                  run->ssl.do_ibot ? ibot : NULL);
    int64_t first = 0;
    for (int64_t rank = 0; rank < run->ranks; rank++) {
        char path[64];
        rank_path(run, step, rank, path);
        if (run->ssl.do_dino) compare_dino_targets(run, path, rank, dino);
        if (run->ssl.do_ibot) first += compare_ibot_targets(run, path, rank, first, ibot);
    }
    memory_free(dino);
    memory_free(ibot);
}

/* The nearest neighbour of each of x[n, D], in host memory. */
static void nearest_of(Run *run, Tensor x, int32_t *nearest)
{
    const Ops *ops = run->ops;
    double zero = 0;
    Tensor rows = golden_device_copy(ops, x), loss = golden_device_copy(ops, tensor_1d(&zero, DTYPE_F64, 1));
    Tensor indices = golden_device_copy(ops, tensor_1d(nearest, DTYPE_I32, x.shape[0]));
    ops->koleo(ops, loss, indices, tensor_none(), rows, 1, tensor_none());
    device_download(ops->device, nearest, indices.data, tensor_bytes(indices));
    device_finish(ops->device);
    golden_device_free(ops, rows);
    golden_device_free(ops, loss);
    golden_device_free(ops, indices);
}

/* Which rows KoLeo pushes apart, from the class tokens that the step left behind. */
static void compare_nearest(Run *run, int64_t step)
{
    if (!run->ssl.do_koleo) return;
    int64_t B = run->groups.group_size, D = run->config.student.embed_dim;
    float *rows = memory_alloc_array((size_t)(B * D), sizeof(float));
    int64_t *mine = memory_alloc_array((size_t)(2 * B), sizeof *mine);
    int32_t *nearest = memory_alloc_array((size_t)B, sizeof *nearest);
    const float *cls = golden_device_f32(run->golden, run->ops, tensor_f32(run->ssl.current->koleo_cls),
                                         2 * run->batch.samples * D);
    for (int64_t rank = 0; rank < run->ranks; rank++) {
        char path[64];
        if (!golden_has(run->golden, "%s/koleo_nearest", rank_path(run, step, rank, path))) continue;
        for (int64_t c = 0; c < 2; c++) {
            for (int64_t s = 0; s < B; s++)
                memcpy(rows + s * D, cls + (2 * (rank * B + s) + c) * D, (size_t)D * sizeof(float));
            nearest_of(run, tensor_2d(rows, DTYPE_F32, B, D), nearest);
            for (int64_t s = 0; s < B; s++)
                mine[c * B + s] = nearest[s];
        }
        golden_compare_i64(run->golden, mine, 2 * B, "%s/koleo_nearest", path);
    }
    memory_free(rows);
    memory_free(mine);
    memory_free(nearest);
}

static TrainScheduleValues compare_schedules(Run *run, const TrainSchedules *schedules, int64_t step)
{
    TrainScheduleValues v = train_schedules_at(schedules, step);
    compare_value(run, v.lr, step, "sched/lr");
    compare_value(run, v.weight_decay, step, "sched/wd");
    compare_value(run, v.momentum, step, "sched/momentum");
    compare_value(run, v.teacher_temp, step, "sched/teacher_temp");
    compare_value(run, v.last_layer_lr, step, "sched/last_layer_lr");
    return v;
}

/* --- the whole run -----------------------------------------------------------------------------------------
 */

static void compare_center(Run *run, const float *center, int64_t count, const char *name, const char *suffix)
{
    if (golden_has(run->golden, "final/%s%s", name, suffix))
        golden_compare(run->golden, golden_device_f32(run->golden, run->ops, center, count), count,
                       "final/%s%s", name, suffix);
}

static void compare_centers(Run *run, const char *suffix)
{
    int64_t K = run->config.dino.head_n_prototypes;
    int64_t K_ibot = run->config.ibot.separate_head ? run->config.ibot.head_n_prototypes : K;
    compare_center(run, run->ssl.dino_center, K, "center_dino", suffix);
    compare_center(run, run->ssl.ibot_center, K_ibot, "center_ibot", suffix);
}

static void train_step(Run *run, const TrainSchedules *schedules, int64_t step)
{
    TrainScheduleValues values = compare_schedules(run, schedules, step);
    fill_batch(run, step);
    /* The reference applies an update of the centres at their next use, so after the last step its buffers
     * hold what ours hold before it. */
    if (step == run->steps - 1) compare_centers(run, "_before_pending_update");
    ssl_meta_arch_forward_backward(&run->ssl, &run->batch, values.teacher_temp);
    SslFigures figures = ssl_meta_arch_last_figures(&run->ssl);
    compare_losses(run, step, &figures);
    compare_targets(run, step, values.teacher_temp);
    compare_nearest(run, step);
    char group[64];
    snprintf(group, sizeof group, "step%d/grad/params", (int)step);
    if (golden_has(run->golden, "%s", group))
        golden_params_compare(run->golden, &run->ssl.student.table, GOLDEN_NAMES_WITH_MODULE,
                              fetch_flat(run, run->ssl.gradients.local), group);
    AdamwOptimizerStep update = {.schedule = values, .clip_grad = run->config.optim.clip_grad};
    adamw_optimizer_step(&run->optimizer, run->ops, run->ssl.student.local, run->ssl.gradients.local,
                         run->ssl.control, run->ssl.figures, &update);
    const double *control =
        golden_device_f64(run->golden, run->ops, tensor_f64(run->ssl.control), CONTROL_COUNT);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        snprintf(group, sizeof group, "grad_norm/%s", param_module_name((ParamModule)m));
        compare_value(run, control[CONTROL_NORM + m], step, group);
    }
    ssl_meta_arch_update_ema(&run->ssl, values.momentum);
    ssl_meta_arch_refresh(&run->ssl);
    if (golden_has(run->golden, "step%d/student_dino_head_last_layer_weight_g", (int)step))
        golden_compare(run->golden,
                       fetch_flat(run, run->ssl.student.local) +
                           run->ssl.student.table.params[run->ssl.student.dino_head.weight_g].offset,
                       run->config.dino.head_n_prototypes, "step%d/student_dino_head_last_layer_weight_g",
                       (int)step);
}

/* |mine - stored| over all tensors but the qkv biases, as a share of |stored - initial|. */
static double update_error(Run *run, const float *flat, const char *group)
{
    double error = 0, update = 0;
    for (const char *const *name = golden_members(run->golden, NULL, "%s", group); *name; name++) {
        int id = golden_params_find(&run->ssl.student.table, GOLDEN_NAMES_WITH_MODULE, *name);
        if (id < 0 || strstr(*name, "attn.qkv.bias")) continue;
        const Param *p = &run->ssl.student.table.params[id];
        const float *stored = golden_f32(run->golden, NULL, "%s/%s", group, *name);
        double norm = golden_attr(run->golden, "update_norm", "%s/%s", group, *name);
        for (int64_t i = 0; i < p->count; i++)
            error += pow((double)flat[p->offset + i] - (double)stored[i], 2);
        update += norm * norm;
    }
    return sqrt(error / update);
}

static void compare_final(Run *run, const float *flat, const char *role)
{
    char group[64];
    snprintf(group, sizeof group, "final/%s/params", role);
    golden_params_compare(run->golden, &run->ssl.student.table, GOLDEN_NAMES_WITH_MODULE, flat, group);
    double limit = fmax(1e-3, 4 * golden_attr(run->golden, "fp32_update_error_all", "final/%s", role));
    double error = update_error(run, flat, group);
    if (!(error <= limit))
        golden_fail(run->golden, "%s: off by %.3g of its update, limit %.3g", group, error, limit);
}

static bool is_nearest(const char *path)
{
    return strstr(path, "koleo_nearest") != NULL;
}

void golden_train(Golden *golden)
{
    Run run;
    golden_require(golden, is_nearest);
    run_init(&run, golden);
    TrainSchedules schedules = train_schedules(&run.config, run.lr);
    for (int64_t step = 0; step < run.steps; step++)
        train_step(&run, &schedules, step);
    compare_centers(&run, "");
    compare_final(&run, fetch_flat(&run, run.ssl.student.local), "student");
    compare_final(&run, fetch_flat(&run, run.ssl.teacher.local), "teacher");
    run_fini(&run);
}
