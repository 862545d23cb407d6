/* teacher_targets.h - how teacher scores become target distributions: Sinkhorn-Knopp or centering.
 *
 * Source: dinov2/loss/{dino_clstoken_loss,ibot_patch_loss}.py; golden README traps 20, 21. Both are a bias
 * per prototype: the target of a row is softmax_k(score / temp + bias), so targets are never stored.
 * Centering subtracts an exponential moving average of the scores (bias = -centre / temp); a step uses the
 * centre made of earlier steps only.
 */
#ifndef DINOBATCH_LOSS_TEACHER_TARGETS_H
#define DINOBATCH_LOSS_TEACHER_TARGETS_H

#include "ops/ops.h"

enum { SINKHORN_KNOPP_ITERATIONS = 3 };

/* Rows of the teacher's bottleneck and the last layer that scores them. */
typedef struct {
    Tensor rows;     /* [n, d] fp32 of this rank */
    Tensor v, scale; /* [K, d], [K] fp32 */
} TeacherScores;

/* bias[K] written by Sinkhorn-Knopp over the rows of all ranks (any number per rank). Collective over COMM.
 */
void teacher_targets_sinkhorn(const Ops *ops, Tensor bias, const TeacherScores *scores, double temp,
                              Comm *comm);

/* bias[K] = -center / temp with the centre as it stands, then center[K] = momentum * center + (1 - momentum)
 * * batch centre. The batch centre is the sum over all ranks' rows of row_weight[n] * score: 1 / rows for the
 * class tokens, for patches the mean over groups of each group's mean. sum[K] is scratch. Collective over
 * COMM. */
void teacher_targets_centering(const Ops *ops, Tensor bias, Tensor center, Tensor sum,
                               const TeacherScores *scores, Tensor row_weight, double temp, double momentum,
                               Comm *comm);

#endif
