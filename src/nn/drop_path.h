/* drop_path.h - efficient stochastic depth: which sequences a residual branch computes.
 *
 * Source: paper section 5 ("efficient stochastic depth"), dinov2/layers/block.py
 * drop_add_residual_stochastic_depth. Of the B sequences of one crop set of one group, max(int(B * (1 -
 * rate)), 1) are kept, whatever the rate as long as it is above 0, and their residual is scaled by B / kept.
 * Each branch of each block draws afresh. A pack may hold several groups, or a part of one (micro-batches):
 * the draw belongs to the group, so the choice does not depend on the cut.
 */
#ifndef DINOBATCH_NN_DROP_PATH_H
#define DINOBATCH_NN_DROP_PATH_H

#include "nn/packed_sequence.h"

#include <stdint.h>

typedef enum { DROP_PATH_ATTENTION = 0, DROP_PATH_FFN = 1 } DropPathBranch;

/* Where the sequences of a crop set stand among those of all groups. */
typedef struct {
    int64_t group_sequences; /* sequences of this crop set in a whole group */
    int64_t first_sequence;  /* number of the pack's first sequence of this set, counted over all groups */
} DropPathSet;

typedef struct {
    double rate; /* 0: nothing is dropped */
    uint64_t seed;
    int64_t step, block;
    DropPathBranch branch;
    DropPathSet sets[PACKED_MAX_SETS];
} DropPathDraw;

/* Sequences kept out of `sequences`; computed in double as the reference does. */
int64_t drop_path_kept(int64_t sequences, double rate);

/* Draws a branch's subset; its arrays come from the arena. On a measuring arena the subset has the largest
 * size that any draw can give. */
TokenSubset drop_path_subset(const PackedSequence *pack, Arena *arena, const DropPathDraw *draw);

#endif
