/* ssl_network.c - shape, weights and copies of a network. */
#include "ssl/ssl_network.h"

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

void ssl_build_heads(const Config *c, int64_t width, DinoHead *dino_head, DinoHead *ibot_head,
                     ParamTable *table)
{
    DinoHeadConfig dino = {.in_dim = width,
                           .hidden_dim = c->dino.head_hidden_dim,
                           .bottleneck_dim = c->dino.head_bottleneck_dim,
                           .prototypes = c->dino.head_n_prototypes,
                           .nlayers = c->dino.head_nlayers};
    DinoHeadConfig ibot = {.in_dim = width,
                           .hidden_dim = c->ibot.head_hidden_dim,
                           .bottleneck_dim = c->ibot.head_bottleneck_dim,
                           .prototypes = c->ibot.head_n_prototypes,
                           .nlayers = c->ibot.head_nlayers};
    dino_head_build(dino_head, &dino, PARAM_DINO_HEAD, table);
    if (c->ibot.loss_weight > 0 && c->ibot.separate_head)
        dino_head_build(ibot_head, &ibot, PARAM_IBOT_HEAD, table);
}

void ssl_build_networks(const Config *c, Vit *vit, DinoHead *dino_head, DinoHead *ibot_head,
                        ParamTable *table)
{
    VitConfig v = ssl_vit_config(c);
    vit_build(vit, &v, table);
    ssl_build_heads(c, v.embed_dim, dino_head, ibot_head, table);
}

void ssl_network_precision(const ConfigPrecisions *asked, const Ops *ops, Dtype act[PARAM_MODULE_COUNT])
{
    const ConfigPrecision *by_module[PARAM_MODULE_COUNT] = {[PARAM_BACKBONE] = &asked->backbone,
                                                            [PARAM_DINO_HEAD] = &asked->dino_head,
                                                            [PARAM_IBOT_HEAD] = &asked->ibot_head};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        Dtype dtype = (Dtype)by_module[m]->mixed_precision.param_dtype;
        bool has = (dtype == DTYPE_BF16 && ops->has_bf16) || (dtype == DTYPE_F16 && ops->has_fp16);
        act[m] = has ? dtype : DTYPE_F32;
    }
}

void ssl_network_init(SslNetwork *n, const Config *config, const FsdpRanks *ranks, Device *device)
{
    *n = (SslNetwork){.shared_head = !config->ibot.separate_head};
    param_table_init(&n->table);
    ssl_build_networks(config, &n->vit, &n->dino_head, &n->ibot_head, &n->table);
    int shards[PARAM_MODULE_COUNT];
    fsdp_ranks_shards(ranks, shards);
    param_table_lay_out(&n->table, shards);
    shard_map_init(&n->map, &n->table, ranks);
    n->local = device_alloc(device, (size_t)n->map.count * sizeof(float));
}

static void before_unit(void *context, int unit, NnPhase phase)
{
    sharded_weights_before(context, unit, phase == NN_BACKWARD);
}

static void after_unit(void *context, int unit, NnPhase phase)
{
    (void)phase;
    sharded_weights_after(context, unit);
}

void ssl_network_make_copies(SslNetwork *n, const Ops *ops, bool teacher, const Dtype act[PARAM_MODULE_COUNT],
                             ShardedWeights *other)
{
    sharded_weights_init(&n->copies, &n->map, ops, n->local, teacher, act, other);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        n->weights[m] = sharded_weights_view(&n->copies, (ParamModule)m);
    n->hooks = (NnHooks){&n->copies, before_unit, after_unit};
}

void ssl_network_fini(SslNetwork *n, Device *device)
{
    vit_fini(&n->vit);
    sharded_weights_fini(&n->copies);
    shard_map_fini(&n->map);
    param_table_fini(&n->table);
    device_free(device, n->local);
    *n = (SslNetwork){0};
}

const DinoHead *ssl_network_patch_head(const SslNetwork *n)
{
    return n->shared_head ? &n->dino_head : &n->ibot_head;
}
