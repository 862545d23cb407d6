/* feature_stream.h - features of a data set, handed on in its order while they are made: for what does not
 * fit into memory, and for files.
 *
 * Batches are dealt to the ranks in turn, and rank 0 gets those of each turn one after the other while the
 * others go on. What is in a batch does not depend on how many ranks there are, so neither does a bit of the
 * result.
 */
#ifndef DINOBATCH_FEATURES_FEATURE_STREAM_H
#define DINOBATCH_FEATURES_FEATURE_STREAM_H

#include "features/feature_extractor.h"

/* Rows [first, first + count) of all readable images. */
typedef struct {
    int64_t first, count;
    const float *values;    /* [count, columns behind whitening] */
    const float *tokens;    /* [sum of patches, D]; with FeatureExtractor.patches */
    const int64_t *grids;   /* [count, 2] patches down and across; so */
    const int64_t *labels;  /* [count] class or -1 */
    const int64_t *indices; /* [count] in the data set, ascending, the same for views of a picture */
} FeaturePiece;

typedef Status (*FeatureSink)(void *context, const FeaturePiece *piece, Error *error);

typedef struct {
    int64_t rows;    /* of all ranks */
    int64_t skipped; /* pictures that could not be read */
    double seconds;
} FeatureStreamResult;

/* Rows and patch tokens of all readable images of `set`, in order and in pieces, to `sink` on rank 0. The
 * backbone has no hooks. Memory is planned for a batch of each rank, and at rank 0 for one more.
 * STATUS_INPUT when not one image is readable. The outcome is agreed. Collective over COMM. */
Status feature_stream_run(const FeatureExtractor *extractor, const Ops *ops, Comm *comm, const DataSet *set,
                          FeatureSink sink, void *context, FeatureStreamResult *result, Error *error);

#endif
