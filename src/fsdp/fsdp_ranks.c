/* fsdp_ranks.c - strategies to parts, nodes to communicators. */
#include "fsdp/fsdp_ranks.h"

#include "base/memory.h"
#include "base/rng.h"

#include <unistd.h>

static void strategies_of(const ConfigPrecisions *p, ConfigSharding out[PARAM_MODULE_COUNT])
{
    out[PARAM_BACKBONE] = p->backbone.sharding_strategy;
    out[PARAM_DINO_HEAD] = p->dino_head.sharding_strategy;
    out[PARAM_IBOT_HEAD] = p->ibot_head.sharding_strategy;
}

static FsdpLife life_of(ConfigSharding strategy)
{
    if (strategy == CONFIG_SHARDING_NO_SHARD) return FSDP_ALWAYS;
    return strategy == CONFIG_SHARDING_SHARD_GRAD_OP ? FSDP_STEP : FSDP_USE;
}

/* The lowest rank on this rank's node. Collective over COMM. */
static int node_leader(Comm *comm, int ranks_per_node)
{
    int rank = comm_rank(comm), size = comm_size(comm), leader = 0;
    if (ranks_per_node > 0) return rank / ranks_per_node * ranks_per_node;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    uint64_t mine = rng_hash_name(host), *all = memory_alloc_array((size_t)size, sizeof *all);
    comm_all_gather(comm, all, &mine, 1, DTYPE_I64, NULL);
    while (all[leader] != mine)
        leader++;
    memory_free(all);
    return leader;
}

/* Communicators within a node and between nodes. */
static Status split_nodes(FsdpRanks *ranks, const Config *config, Device *device, Error *error)
{
    Comm *world = ranks->world;
    int64_t asked = config->compute.ranks_per_node;
    ranks->node = comm_split(world, node_leader(world, (int)asked));
    int64_t least = comm_size(ranks->node), most = least;
    comm_all_reduce(world, &least, 1, DTYPE_I64, COMM_MIN, NULL);
    comm_all_reduce(world, &most, 1, DTYPE_I64, COMM_MAX, NULL);
    if (least != most && asked > 0)
        return status_fail(error, STATUS_INPUT,
                           "compute.ranks_per_node: %lld does not divide %d ranks, and HYBRID_SHARD needs "
                           "nodes of equal size",
                           (long long)asked, comm_size(world));
    if (least != most)
        return status_fail(error, STATUS_INPUT,
                           "HYBRID_SHARD needs the same number of ranks on every node; the launcher placed "
                           "%lld to %lld of them (compute.ranks_per_node may name another grouping)",
                           (long long)least, (long long)most);
    ranks->ranks_per_node = (int)most;
    ranks->across = comm_split(world, comm_rank(ranks->node));
    comm_attach_device(ranks->node, device, config->compute.deterministic);
    comm_attach_device(ranks->across, device, config->compute.deterministic);
    return STATUS_OK;
}

static Comm *among_several(Comm *comm)
{
    return comm_size(comm) > 1 ? comm : NULL;
}

/* Debug builds cut units into one part, too, so that one process proves the order of gathers and sums. */
static Comm *parts_of(Comm *comm)
{
#ifdef DINOBATCH_POISON
    return comm;
#else
    return among_several(comm);
#endif
}

static FsdpModule deal(const FsdpRanks *ranks, ConfigSharding student, ConfigSharding teacher)
{
    Comm *world = ranks->world, *parts = world, *copies = NULL;
    if (student == CONFIG_SHARDING_NO_SHARD) {
        parts = NULL;
        copies = world;
    } else if (student == CONFIG_SHARDING_HYBRID_SHARD) {
        parts = ranks->node;
        copies = ranks->across;
    }
    return (FsdpModule){.shards = parts ? comm_size(parts) : 1,
                        .shard = parts ? comm_rank(parts) : 0,
                        .replicas = copies ? comm_size(copies) : 1,
                        .replica = copies ? comm_rank(copies) : 0,
                        .parts = parts ? parts_of(parts) : NULL,
                        .copies = copies ? among_several(copies) : NULL,
                        .student = life_of(student),
                        .teacher = life_of(teacher)};
}

void fsdp_ranks_deal(FsdpRanks *ranks, const Config *config)
{
    ConfigSharding student[PARAM_MODULE_COUNT], teacher[PARAM_MODULE_COUNT];
    strategies_of(&config->compute_precision.student, student);
    strategies_of(&config->compute_precision.teacher, teacher);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        ranks->modules[m] = deal(ranks, student[m], teacher[m]);
}

bool fsdp_ranks_is_hybrid(const Config *config)
{
    ConfigSharding student[PARAM_MODULE_COUNT];
    strategies_of(&config->compute_precision.student, student);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        if (student[m] == CONFIG_SHARDING_HYBRID_SHARD) return true;
    return false;
}

Status fsdp_ranks_init(FsdpRanks *ranks, const Config *config, Comm *world, Device *device, Error *error)
{
    *ranks = (FsdpRanks){.world = world};
    if (fsdp_ranks_is_hybrid(config)) TRY(split_nodes(ranks, config, device, error));
    fsdp_ranks_deal(ranks, config);
    return STATUS_OK;
}

void fsdp_ranks_fini(FsdpRanks *ranks)
{
    comm_destroy(ranks->across);
    comm_destroy(ranks->node);
    *ranks = (FsdpRanks){0};
}

void fsdp_ranks_shards(const FsdpRanks *ranks, int shards[PARAM_MODULE_COUNT])
{
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        shards[m] = ranks->modules[m].shards;
}
