/* dense_maps.h - scores of all classifiers of a linear probe for all places of a picture, and the way back.
 *
 * A picture has as many places as it likes; they go through the probe in blocks of its batch.
 */
#ifndef DINOBATCH_EVAL_DENSE_MAPS_H
#define DINOBATCH_EVAL_DENSE_MAPS_H

#include "eval/linear_probe.h"

typedef struct {
    LinearProbe *probe; /* borrowed */
    int64_t channels;   /* its classes */
    int64_t block;      /* its batch_rows */
    int count;          /* classifiers */
    float **map;        /* [count] of [rows, channels]; owned, each too */
    int64_t room;       /* rows */
} DenseMaps;

DenseMaps dense_maps_of(LinearProbe *probe, int64_t channels, int64_t block);
void dense_maps_fini(DenseMaps *maps);

/* map[c][tokens->rows, channels] of every classifier. */
void dense_maps_forward(DenseMaps *maps, const LinearProbeTokens *tokens);

/* The maps hold gradients by now: what they make of the probe's weights is added (linear_probe_add_gradient).
 */
void dense_maps_backward(DenseMaps *maps, const LinearProbeTokens *tokens);

#endif
