/* fsdp_ranks.h - which rank holds which part of the weights, by the sharding strategies of a configuration.
 *
 * Source: the reference's compute_precision.{student,teacher}.*.sharding_strategy (dinov2/fsdp), Zhao et al.,
 * "PyTorch FSDP", VLDB 2023, section 3. Master weights, moments, gradients and the teacher's weights of a
 * module are cut as the student's strategy says: not at all (NO_SHARD), over all ranks (SHARD_GRAD_OP,
 * FULL_SHARD), over the ranks of a node (HYBRID_SHARD). The strategies of student and teacher then only
 * decide how long full copies live.
 */
#ifndef DINOBATCH_FSDP_FSDP_RANKS_H
#define DINOBATCH_FSDP_FSDP_RANKS_H

#include "base/status.h"
#include "comm/comm.h"
#include "config/config.h"
#include "tensor/param_table.h"

/* How long a network keeps full copies of a unit. */
typedef enum {
    FSDP_ALWAYS, /* NO_SHARD: renewed after every update */
    FSDP_STEP,   /* SHARD_GRAD_OP: from the first use in a step to its end */
    FSDP_USE,    /* FULL_SHARD, HYBRID_SHARD: gathered anew for each pass over the unit */
} FsdpLife;

/* How one module is spread over the ranks. */
typedef struct {
    int shards, shard;     /* parts that each unit is cut into, and this rank's */
    int replicas, replica; /* ranks that hold the same part, and this rank's number among them */
    Comm *parts;           /* the ranks that together hold everything, by shard; NULL: nothing is cut */
    Comm *copies;          /* the ranks that hold the same part, by replica; NULL: no other */
    FsdpLife student, teacher;
} FsdpModule;

typedef struct {
    Comm *world;         /* borrowed */
    Comm *node, *across; /* owned; NULL without HYBRID_SHARD */
    int ranks_per_node;  /* with HYBRID_SHARD */
    FsdpModule modules[PARAM_MODULE_COUNT];
} FsdpRanks;

/* Deals parts. With HYBRID_SHARD a node is compute.ranks_per_node consecutive ranks, or by default the ranks
 * of one host; STATUS_INPUT when nodes have different numbers of ranks. `device` (of this rank) is attached
 * to the communicators made here. `config` has been checked; `world` must outlive the result. Release with
 * fsdp_ranks_fini, also after a failure. Collective over WORLD; the outcome is the same on all ranks. */
Status fsdp_ranks_init(FsdpRanks *ranks, const Config *config, Comm *world, Device *device, Error *error);

/* Fills the modules in from communicators that are there already: `world`, and with HYBRID_SHARD `node`,
 * `across` and ranks_per_node. Not collective. */
void fsdp_ranks_deal(FsdpRanks *ranks, const Config *config);

/* Whether a module of the student has HYBRID_SHARD. */
bool fsdp_ranks_is_hybrid(const Config *config);

/* Collective over WORLD. */
void fsdp_ranks_fini(FsdpRanks *ranks);

/* Parts by module, as param_table_lay_out takes them. */
void fsdp_ranks_shards(const FsdpRanks *ranks, int shards[PARAM_MODULE_COUNT]);

#endif
