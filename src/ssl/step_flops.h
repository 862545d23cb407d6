/* step_flops.h - the multiplications and additions that a training step needs, by formula.
 *
 * Counted: the products of matrices (a multiply and an add are two), once each, as the recipe needs them:
 *   patch embedding     2 . patches . 3 p^2 . D; again for the weight gradient
 *   a block             per token 2 (4 D^2 + products of the feed-forward); per sequence of n tokens 4 n^2 D
 *   a head              per row 2 (in . hidden + (layers - 2) hidden^2 + hidden . bottleneck)
 *   prototypes          per row 2 bottleneck . K
 *   KoLeo               per group of B rows 2 B^2 D, for each global crop
 * The backward costs twice the forward. Stochastic depth counts the sequences that it keeps; the teacher
 * keeps all and has no backward. Not counted: what is computed again (scores in the backward of attention,
 * teacher scores in the losses, rounds of Sinkhorn-Knopp), norms, activations, the optimiser.
 */
#ifndef DINOBATCH_SSL_STEP_FLOPS_H
#define DINOBATCH_SSL_STEP_FLOPS_H

#include "ssl/ssl_meta_arch.h"

/* Parts of a step, in its order. */
typedef enum {
    STEP_TEACHER_EMBED,
    STEP_TEACHER_BLOCKS,
    STEP_TEACHER_HEADS,
    STEP_TARGETS,
    STEP_STUDENT_EMBED,
    STEP_STUDENT_BLOCKS,
    STEP_STUDENT_HEADS,
    STEP_LOSSES,
    STEP_BACKWARD_HEADS,
    STEP_BACKWARD_BLOCKS,
    STEP_BACKWARD_EMBED,
    STEP_NORMS, /* the final ones, of all passes */
    STEP_OPTIMIZER,
    STEP_AVERAGE, /* of the teacher, and copies of reduced precision */
    STEP_OTHER,
    STEP_PART_COUNT
} StepPart;

/* "teacher blocks", .. */
const char *step_flops_part_name(StepPart part);

/* Of this rank's groups with `masked` masked patches in all. Returns the sum. */
double step_flops_count(const SslMetaArch *ssl, double masked, double flops[STEP_PART_COUNT]);

#endif
