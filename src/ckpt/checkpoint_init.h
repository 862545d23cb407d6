/* checkpoint_init.h - the weights of one training as the first ones of another, at another size of pictures,
 * too.
 *
 * Source: paper section 4 ("Adapting the resolution"). Everything but the position embedding must have its
 * shape; that one is resampled to the new network's grid by the bicubic rules of the reference, with the new
 * configuration's student.interpolate_offset and student.interpolate_antialias.
 */
#ifndef DINOBATCH_CKPT_CHECKPOINT_INIT_H
#define DINOBATCH_CKPT_CHECKPOINT_INIT_H

#include "ckpt/checkpoint.h"
#include "nn/vit.h"

typedef struct {
    const Vit *vit; /* of the new network; borrowed */
    bool heads;     /* or the backbone alone */
} CheckpointInit;

/* What a file has to give. */
typedef struct {
    int64_t grid;        /* patches a side of its position embedding */
    int64_t iteration;   /* last finished */
    int64_t has_student; /* 1: beside the moving average; 0: that one alone */
    const char *ema;     /* group of the moving average; static */
} CheckpointSource;

/* STATUS_INPUT: not a checkpoint. Collective over COMM. */
Status checkpoint_init_look(const char *path, CheckpointSource *source, Comm *comm, Error *error);

/* This rank's part of one role's weights into local[map->count]; with `heads` false other modules are left
 * as they are. STATUS_INPUT names file and tensor that does not fit. Collective over COMM. */
Status checkpoint_init_load(const char *path, const CheckpointSource *source, CheckpointRole role,
                            const CheckpointInit *init, const ShardMap *map, float *local, Comm *comm,
                            Error *error);

#endif
