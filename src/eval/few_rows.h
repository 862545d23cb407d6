/* few_rows.h - so many rows of each class, drawn at random.
 *
 * Source: dinov2/eval/knn.py (filter_train): of each class the first n of a permutation. What is drawn
 * depends on the labels in their order and on the seed alone, not on how rows are dealt to ranks.
 */
#ifndef DINOBATCH_EVAL_FEW_ROWS_H
#define DINOBATCH_EVAL_FEW_ROWS_H

#include "features/feature_rows.h"

/* The labels [rows->total] of all ranks' rows, in order; memory_free. Collective over COMM. */
int64_t *few_rows_labels(const FeatureRows *rows, Comm *comm);

/* picked[n] = 1 for `per_class` rows of each class, or for all where a class has fewer; else 0. labels[n] lie
 * in [0, classes). Not collective. */
void few_rows_pick(uint8_t *picked, const int64_t *labels, int64_t n, int64_t classes, int64_t per_class,
                   uint64_t seed);

#endif
