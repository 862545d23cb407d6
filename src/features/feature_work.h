/* feature_work.h - one batch of pictures through an extractor's network: their rows, and their patch tokens.
 *
 * Memory is planned for the largest batch and allocated once. It is what feature_extractor.c and
 * feature_stream.c share; who wants features calls those.
 */
#ifndef DINOBATCH_FEATURES_FEATURE_WORK_H
#define DINOBATCH_FEATURES_FEATURE_WORK_H

#include "features/feature_extractor.h"

typedef struct FeatureWork FeatureWork;

/* For batches of up to feature_work_pictures; both are borrowed. */
FeatureWork *feature_work_create(const FeatureExtractor *extractor, Device *device);

/* NULL is fine. */
void feature_work_destroy(FeatureWork *work);

/* Pictures of one batch, all views of each in it; and patches of one image at most (0: no backbone). */
int64_t feature_work_pictures(const FeatureExtractor *extractor);
int64_t feature_work_patches(const FeatureExtractor *extractor);

/* Patches down and across of an image of a batch. */
EvalSize feature_work_grid(const FeatureExtractor *extractor, EvalSize size);

/* rows[batch->count, columns behind whitening], and with extractor->patches tokens[patches of all images, D],
 * in the batch's order. Allocates nothing. */
void feature_work_run(FeatureWork *work, const Ops *ops, const EvalBatch *batch, float *rows, float *tokens);

/* A loader of pictures [first, last) of the set. */
EvalLoaderParams feature_work_loader(const FeatureExtractor *extractor, int64_t first, int64_t last);

/* Names what earlier passes over the set have not met, and then how many there are. Collective over COMM. */
void feature_work_tell_corrupt(const DataSet *set, Comm *comm, Log *log);

#endif
