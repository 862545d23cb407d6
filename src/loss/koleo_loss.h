/* koleo_loss.h - the spreading regulariser on class tokens, per group or over the whole batch.
 *
 * Source: dinov2/loss/koleo_loss.py, paper section 4; golden README trap 19. It reads the class tokens of the
 * two global crops before the head, each crop index on its own: tokens of one image are never pushed apart.
 */
#ifndef DINOBATCH_LOSS_KOLEO_LOSS_H
#define DINOBATCH_LOSS_KOLEO_LOSS_H

#include "ops/ops.h"

typedef struct {
    int64_t embed_dim;
    int64_t group_size;   /* samples of a group */
    int64_t groups;       /* of this rank */
    int64_t first_group;  /* of this rank, among all */
    int64_t total_groups; /* of all ranks */
    int64_t most_groups;  /* of the rank that has most */
    bool global_scope;    /* neighbours are sought in the batch of all ranks (dino.koleo_scope: global) */
    double loss_weight;
} KoleoLoss;

/* Temporary memory, from an arena, with the row numbers filled in. */
typedef struct {
    Tensor rows, d_rows; /* [largest group or batch, D] fp32 */
    Tensor nearest;      /* [largest group or batch] int32 */
    Tensor own[2];       /* [samples of this rank] int32: rows of a crop among this rank's */
    Tensor all[2];       /* [samples of all ranks] int32: rows of a crop in `gathered`; with global_scope */
    int64_t first_own;   /* place of this rank's samples among all */
    Tensor gathered;     /* [ranks, most_groups * B * 2, D] fp32 with global_scope */
} KoleoLossScratch;

KoleoLossScratch koleo_loss_scratch(const KoleoLoss *loss, Arena *arena, const Comm *comm);

typedef struct {
    Tensor cls;        /* [samples * 2, D] fp32: class token of crop c of sample s at row 2 s + c */
    Tensor d_cls;      /* alike, written: loss_scale times the gradient of loss_weight * (mean over groups of
                          KoLeo(crop 0) + KoLeo(crop 1)) */
    Tensor by_group;   /* [groups of all ranks] fp64 +=: each group's share of that value; with global_scope,
                          where   it is no sum over groups, all of it to group 0 */
    Tensor discarded;  /* [1] fp64 scratch */
    Tensor loss_scale; /* [1] fp64 or none: 1 */
} KoleoLossTensors;

/* Collective over COMM with global_scope. */
void koleo_loss_forward_backward(const KoleoLoss *loss, const Ops *ops, const KoleoLossTensors *tensors,
                                 const KoleoLossScratch *scratch, Comm *comm);

#endif
