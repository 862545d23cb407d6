/* accuracy.h - how often the right class has the highest score, or one of the five highest.
 *
 * Source: dinov2/eval/metrics.py (top-1 and top-5, over all images and averaged over classes). Counts are
 * taken batch by batch on each rank and added up once.
 */
#ifndef DINOBATCH_EVAL_ACCURACY_H
#define DINOBATCH_EVAL_ACCURACY_H

#include "comm/comm.h"

#include <stdbool.h>

/* Shares of the queries of all ranks. */
typedef struct {
    double top1, top5;     /* the right class has the highest score, is among the five highest */
    double top1_per_class; /* mean of top1 over the classes that have queries */
    int64_t queries;
} Accuracy;

/* Length of `counts`, which start as zeros. */
int64_t accuracy_cells(int64_t classes);

/* Adds scores[n, classes] against labels[n]. Of equal scores the class with the lower number comes first. A
 * label beyond the classes is never right, nor is one whose score is not above `floor` (a number that is none
 * among them). Not collective. */
void accuracy_add(int64_t *counts, const float *scores, const int64_t *labels, int64_t n, int64_t classes,
                  float floor);

/* The figures of all ranks' counts, which are added up in place. Zero queries give zeros. Collective over
 * COMM. */
void accuracy_reduce(Accuracy *out, Comm *comm, int64_t *counts, int64_t classes);

#endif
