/* sharded_gradients.h - where a backward pass adds gradients, and how the ranks' sums come about.
 *
 * Source: Zhao et al., "PyTorch FSDP", VLDB 2023, section 3.2. A cut unit's gradient is made in full in a
 * room, and as soon as it is complete each rank gets the sum of its run (reduce-scatter) while the next
 * unit's backward goes on; two rooms serve the whole backbone. What is not cut is added up in place and
 * summed over the ranks at the end of the step. Heads are summed once, after the last micro-batch: weight
 * norm's backward wants the whole gradient. Over nodes (HYBRID_SHARD) sums are made at the end as well.
 *
 * Sums travel in the reduce dtype: fp32, or 16 bits, in which every rank's gradient and the sum are rounded.
 */
#ifndef DINOBATCH_FSDP_SHARDED_GRADIENTS_H
#define DINOBATCH_FSDP_SHARDED_GRADIENTS_H

#include "fsdp/shard_map.h"
#include "ops/ops.h"

/* Memory for one unit's full gradient, of the device. */
typedef struct {
    float *full;       /* owned */
    uint16_t *reduced; /* the same in the reduce dtype; owned; NULL for fp32 */
    int unit;          /* whose sum is under way, or -1 */
    CommRequest requests[2];
} GradientRoom;

enum { GRADIENT_ROOMS = 2 };

typedef struct {
    const ShardMap *map; /* borrowed */
    const Ops *ops;      /* borrowed */
    float *local;        /* [map->count] of the device: this rank's part of the step's gradient; owned */
    float **units;       /* [unit_count] where the passes add; NULL: not now; owned */
    GradientRoom *rooms; /* [room_count] owned */
    int room_count;      /* GRADIENT_ROOMS for the backbone, then one for each cut head */
    int next;            /* room of the backbone that is used next */
    Dtype reduce[PARAM_MODULE_COUNT];
    uint16_t *chunk; /* [chunk_count] for 16-bit sums of what is not cut; owned; NULL: none */
    int64_t chunk_count;
    size_t bytes;  /* of rooms and chunk */
    bool overlap;  /* sum a unit beside the next one's backward; on by default */
    double waited; /* seconds that the host has waited for sums */
    size_t sent;   /* bytes that sums have sent to other ranks, at the least that they need */
} ShardedGradients;

void sharded_gradients_init(ShardedGradients *grads, const ShardMap *map, const Ops *ops,
                            const Dtype reduce[PARAM_MODULE_COUNT]);
void sharded_gradients_fini(ShardedGradients *grads);

/* Where layers add: valid for heads and for what is not cut from begin to end, for other units between before
 * and after. */
ParamValues sharded_gradients_view(const ShardedGradients *grads);

/* The step's gradient is 0. */
void sharded_gradients_begin(ShardedGradients *grads);

/* Around a unit's backward. `after` starts the sum of a unit of the backbone. Collective over the unit's
 * parts. */
void sharded_gradients_before(ShardedGradients *grads, int unit);
void sharded_gradients_after(ShardedGradients *grads, int unit);

/* Starts the sum of a head's gradient, which is complete. Nothing happens if it is not cut. Collective over
 * the unit's parts. */
void sharded_gradients_reduce_head(ShardedGradients *grads, int unit);

/* grads->local is this rank's part of the sum over all ranks. Collective over all ranks. */
void sharded_gradients_end(ShardedGradients *grads);

#endif
