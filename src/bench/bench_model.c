/* bench_model.c - building, stepping. */
#include "bench/bench_model.h"

#include "base/memory.h"
#include "bench/random_batch.h"
#include "ops/ops_options.h"
#include "optim/param_groups.h"

Status bench_model_init(BenchModel *m, const Config *config, Comm *comm, Device *device, int threads,
                        OpsTimed *timed, Error *error)
{
    *m = (BenchModel){.config = config,
                      .device = device,
                      .schedule = {.lr = 1e-4,
                                   .weight_decay = 0.04,
                                   .momentum = 0.994,
                                   .teacher_temp = 0.07,
                                   .last_layer_lr = 1e-4,
                                   .backbone_lr = 1e-4}};
    TRY(ssl_groups_deal(&m->groups, config, comm_rank(comm), comm_size(comm), error));
    TRY(fsdp_ranks_init(&m->ranks, config, comm, device, error));
    OpsLimits limits = ssl_ops_limits(config, NULL, &m->groups);
    OpsOptions options;
    TRY(comm_agree(comm, ops_options_from(&options, config, device, threads, error), error));
    m->ops = ops_create(device, &limits, &options);
    m->ops->moving = m->ranks.modules[PARAM_BACKBONE].parts;
    if (timed) ops_timed_init(timed, m->ops);
    bool through = timed && device_kind(device) == DEVICE_CPU;
    PixelNorm norm = pixel_levels_imagenet();
    ssl_meta_arch_init(&m->ssl, config, NULL, &m->groups, &norm, through ? &timed->ops : m->ops, &m->ranks);
    param_groups_assign(&m->ssl.student.table, m->ssl.student.vit.config.depth, config->optim.layerwise_decay,
                        config->optim.patch_embed_lr_mult);
    ssl_meta_arch_initialise(&m->ssl, (uint64_t)config->train.seed);
    adamw_optimizer_init(&m->optimizer, &m->ssl.student.map, comm, device, config->optim.adamw_beta1,
                         config->optim.adamw_beta2);
    random_batch_init(&m->batch, config, &m->groups, device);
    m->mask_scratch = memory_alloc((size_t)(2 * m->groups.group_size * m->batch.patches));
    return STATUS_OK;
}

void bench_model_fini(BenchModel *m)
{
    if (m->ops) {
        device_finish(m->device);
        memory_free(m->mask_scratch);
        batch_fini(&m->batch);
        adamw_optimizer_fini(&m->optimizer);
        ssl_meta_arch_fini(&m->ssl);
        ops_destroy(m->ops);
    }
    fsdp_ranks_fini(&m->ranks);
    *m = (BenchModel){0};
}

void bench_model_next_batch(BenchModel *m)
{
    random_batch_advance(&m->batch, m->config, m->batches++, m->mask_scratch);
}

void bench_model_gradients(BenchModel *m)
{
    ssl_meta_arch_forward_backward(&m->ssl, &m->batch, m->schedule.teacher_temp);
}

void bench_model_update(BenchModel *m)
{
    SslMetaArch *ssl = &m->ssl;
    AdamwOptimizerStep step = {
        .schedule = m->schedule, .clip_grad = m->config->optim.clip_grad, .scaled = ssl->scaled};
    adamw_optimizer_step(&m->optimizer, ssl->ops, ssl->student.local, ssl->gradients.local, ssl->control,
                         tensor_rows(ssl->figures, 0, ssl->layout.dino_entropy), &step);
}

void bench_model_average(BenchModel *m)
{
    ssl_meta_arch_update_ema(&m->ssl, m->schedule.momentum);
    ssl_meta_arch_refresh(&m->ssl);
}

void bench_model_step(BenchModel *m)
{
    bench_model_gradients(m);
    bench_model_update(m);
    bench_model_average(m);
}
