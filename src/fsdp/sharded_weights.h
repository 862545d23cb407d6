/* sharded_weights.h - one network's full copies: gathered from the ranks' parts when a pass wants them.
 *
 * Source: Zhao et al., "PyTorch FSDP", VLDB 2023, sections 3.2 and 3.3 (sharding strategies, prefetching).
 * The fp32 masters are a local vector (shard_map.h). Before a pass touches a unit, `before` makes sure that
 * its full copy is there, in compute precision (matrices) and fp32 (vectors), and starts to gather the next
 * unit, which then travels while this one computes. Copies live in rooms:
 *
 *     FSDP_ALWAYS   a room for each unit, filled after each update
 *     FSDP_STEP     a room for each unit, filled at its first use in a step
 *     FSDP_USE      two rooms for all units of the backbone: one in use, one being filled
 *
 * Where a module is not cut, the masters themselves are the fp32 copies, and rooms hold 16-bit copies alone.
 * Student and teacher share the backbone's rooms where both live alike: the teacher's pass is over when the
 * student's begins. Heads have rooms of their own, since both networks' prototypes are wanted until the
 * losses are done.
 *
 * nn's hooks (nn/nn_hooks.h) say when; ssl connects the two. What it is not: a cache that moves or splits
 * units; recomputation (nn does that inside of a unit).
 */
#ifndef DINOBATCH_FSDP_SHARDED_WEIGHTS_H
#define DINOBATCH_FSDP_SHARDED_WEIGHTS_H

#include "fsdp/shard_map.h"
#include "ops/ops.h"

typedef struct ShardedWeights ShardedWeights;

/* Memory for the copy of one unit, of the device. */
typedef struct {
    char *memory;          /* owned */
    ShardedWeights *owner; /* whose unit lies there, */
    int unit;              /* and which; owner NULL: none */
    int64_t touched;       /* when it was last used */
} ShardRoom;

/* The rooms of one module's units. */
typedef struct {
    ShardRoom *rooms; /* owned; NULL: the masters suffice */
    int count;        /* one for each unit, or two for all */
    int first, last;  /* units [first, last) */
    int64_t clock;    /* counts uses */
    size_t bytes;     /* of all */
} ShardRooms;

typedef struct {
    ShardRoom *room; /* where its copy is, or NULL */
    bool filling;    /* gathers are under way */
    bool in_use;     /* between before and after */
    CommRequest requests[2];
} ShardedUnit;

struct ShardedWeights {
    const ShardMap *map; /* borrowed */
    const Ops *ops;      /* borrowed */
    float *local;        /* [map->count] masters, of the device; borrowed */
    FsdpLife life[PARAM_MODULE_COUNT];
    Dtype act[PARAM_MODULE_COUNT]; /* precision of matrices */
    bool prefetch;                 /* gather the next unit early; on by default */
    float **full;                  /* [unit_count] what the passes read, NULL while not there; owned */
    uint16_t **reduced;            /* [unit_count], all NULL where act is fp32; owned */
    ShardedUnit *units;            /* [unit_count] owned */
    ShardRooms own[PARAM_MODULE_COUNT];
    ShardRooms *rooms[PARAM_MODULE_COUNT]; /* own, or the other network's */
    double waited;                         /* seconds that the host has waited for gathers */
    size_t received;                       /* bytes that gathers have brought from other ranks */
};

/* `teacher`: with the teacher's strategies. act: fp32, or the 16-bit type that a module computes in. `other`:
 * the network that shares the backbone's rooms, or NULL; it must outlive this one. Reads `local` at
 * sharded_weights_changed. */
void sharded_weights_init(ShardedWeights *weights, const ShardMap *map, const Ops *ops, float *local,
                          bool teacher, const Dtype act[PARAM_MODULE_COUNT], ShardedWeights *other);
void sharded_weights_fini(ShardedWeights *weights);

/* As the layers of a module read them. */
Weights sharded_weights_view(const ShardedWeights *weights, ParamModule module);

/* The unit's full copy is there until the masters change, or, for units of the backbone with FSDP_USE, until
 * another unit takes the room: passes over the backbone say what they touch by hooks. Collective over the
 * unit's parts. */
void sharded_weights_need(ShardedWeights *weights, int unit);

/* The masters have changed: copies are stale, and those that always live are made anew. Not within a pass.
 * Collective over all parts. */
void sharded_weights_changed(ShardedWeights *weights);

/* Around the work on a unit in a pass: sharded_weights_need, and the room is not given away meanwhile. The
 * backbone's unit that comes next, one above in a forward pass and one below in a `backward` one, is gathered
 * beside that work. */
void sharded_weights_before(ShardedWeights *weights, int unit, bool backward);
void sharded_weights_after(ShardedWeights *weights, int unit);

/* Bytes of full copies beside the masters. */
size_t sharded_weights_bytes(const ShardedWeights *weights);

#endif
