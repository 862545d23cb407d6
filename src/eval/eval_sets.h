/* eval_sets.h - the labelled data sets of an evaluation, and their features.
 *
 * Training and validation set are opened and checked at once, so that unusable settings are told before any
 * network runs. A class is what its name says: sets may number theirs differently, and every label that
 * leaves here is the training set's number.
 */
#ifndef DINOBATCH_EVAL_EVAL_SETS_H
#define DINOBATCH_EVAL_EVAL_SETS_H

#include "config/config.h"
#include "features/feature_extractor.h"

/* What every evaluation needs. All borrowed. */
typedef struct {
    const Config *config; /* evaluation.*, train.num_workers, crops.global_crops_size */
    Comm *comm;
    Log *log;
    Device *device; /* where networks compute, their weights included */
    bool raw_only;  /* no network will be evaluated: the crop may have any size */
    int threads;    /* of this rank, for operations; 0: what OpenMP would use */
} EvalParams;

typedef struct EvalSets EvalSets;

/* How an evaluation makes the network's input: evaluation.{resize,crop,batch}_size with their zeros
 * resolved. DEVIATION: a network whose crops were all grey (crops.grayscale_probability 1) is shown grey
 * pictures; to the reference, which has no such network, colours would be something that it has never seen.
 */
FeatureInput eval_sets_input(const Config *config);

/* A data set as evaluation.limit wants it: of more images than that, every so manieth. Owned by the caller.
 * Not collective. */
Status eval_sets_open_data(DataSet **set, const char *spec, int64_t limit, Error *error);

/* Opens evaluation.{train,val}_dataset_path for `what` ("k-NN", for messages; borrowed). STATUS_INPUT, the
 * same on all ranks: a crop that student.patch_size does not divide, a set that cannot be opened, images
 * without labels, classes of the validation set that the training set lacks. Collective over COMM. */
Status eval_sets_open(EvalSets **out, const EvalParams *params, const char *what, Error *error);
void eval_sets_close(EvalSets *sets);

const DataSet *eval_sets_train(const EvalSets *sets);
int64_t eval_sets_classes(const EvalSets *sets);

/* Opens one more set, checked as the validation set is; `name` stands for it in messages. *classes [of the
 * set] = the training set's numbers. Both owned by the caller (data_set_destroy, memory_free). Not
 * collective. */
Status eval_sets_open_other(const EvalSets *sets, const char *spec, const char *name, DataSet **set,
                            int64_t **classes, Error *error);

/* Features of both sets, this rank's parts. feature_rows_fini, also after failure. The outcome is agreed.
 * Collective over COMM. */
Status eval_sets_extract(const EvalSets *sets, FeatureKind kind, const FeatureBackbone *backbone,
                         FeatureRows *train, FeatureRows *val, Error *error);

#endif
