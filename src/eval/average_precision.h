/* average_precision.h - figures of one ranked list, from the places of what should have been found.
 *
 * places[n]: the 0-based places of the n positives in the list, ascending, junk taken out of it before; n
 * >= 1. Sources: Radenovic et al., "Revisiting Oxford and Paris" (CVPR 2018) and its evaluation code
 * (revisitop/python/evaluate.py) for average_precision_trapezoid and average_precision_at; the textbook
 * definition (Manning et al., "Introduction to Information Retrieval", 8.4) for average_precision_mean.
 */
#ifndef DINOBATCH_EVAL_AVERAGE_PRECISION_H
#define DINOBATCH_EVAL_AVERAGE_PRECISION_H

#include <stdint.h>

/* Mean over the positives of the precision at each of them. */
double average_precision_mean(const int64_t *places, int64_t n);

/* Area under precision over recall by trapezoids: mean over the positives of (precision just before it +
 * precision at it) / 2, where the precision before the first place is 1. */
double average_precision_trapezoid(const int64_t *places, int64_t n);

/* Precision among the first k, or among those up to the last positive where that comes earlier: a query with
 * three positives, all of them first, has 1 at k = 10. */
double average_precision_at(const int64_t *places, int64_t n, int64_t k);

#endif
