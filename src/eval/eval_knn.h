/* eval_knn.h - the k-NN evaluation of a backbone on a labelled training and validation set.
 *
 * Source: dinov2/eval/knn.py (eval_knn). Features of both sets, then the weighted vote of knn.h for every k
 * of evaluation.knn_k. Data sets are opened and checked once, so that a training run that evaluates itself
 * every so many iterations learns of unusable settings before its first step.
 *
 *     TRY(eval_knn_create(&eval, &params, error));
 *     ...
 *     TRY(eval_knn_run(eval, FEATURE_CLASS_TOKEN, &backbone, &result, error));
 *     char *json = eval_knn_json(&result); ...; memory_free(json);
 *     eval_knn_destroy(eval);
 *
 * It loads no checkpoint and writes no files.
 */
#ifndef DINOBATCH_EVAL_EVAL_KNN_H
#define DINOBATCH_EVAL_EVAL_KNN_H

#include "config/config.h"
#include "eval/knn.h"
#include "features/feature_extractor.h"

/* Figures of one evaluation, the same on all ranks. */
typedef struct {
    int count; /* of k */
    int64_t k[CONFIG_LIST_MAX];
    KnnScore score[CONFIG_LIST_MAX];
    double temperature;
    int64_t train_images, val_images, classes;
    int64_t skipped; /* images that could not be read */
    double seconds;
} EvalKnnResult;

/* What both ways need. All borrowed. */
typedef struct {
    const Config *config; /* evaluation.*, train.num_workers, crops.global_crops_size */
    Comm *comm;
    Log *log;
    Device *device; /* where networks compute, their weights included */
    bool raw_only;  /* no network will be evaluated: the crop may have any size */
    int threads;    /* of this rank, for operations; 0: what OpenMP would use */
} EvalKnnParams;

typedef struct EvalKnn EvalKnn;

/* How the evaluation makes the network's input: evaluation.{resize,crop,batch}_size with their zeros
 * resolved. */
FeatureInput eval_knn_input(const Config *config);

/* A data set as evaluation.limit wants it: of more images than that, every so manieth. Owned by the caller.
 * Not collective. */
Status eval_knn_open_data(DataSet **set, const char *spec, int64_t limit, Error *error);

/* Opens evaluation.{train,val}_dataset_path. STATUS_INPUT, the same on all ranks: a crop that
 * student.patch_size does not divide, a set that cannot be opened, images without labels, classes of the
 * validation set that the training set lacks, fewer training images than the largest k. Collective over COMM.
 */
Status eval_knn_create(EvalKnn **out, const EvalKnnParams *params, Error *error);
void eval_knn_destroy(EvalKnn *eval);

/* One evaluation. `backbone` is not read for FEATURE_RAW_PIXELS, whose rows lose the training set's mean row
 * first. Memory is taken for its duration only. Collective over COMM. */
Status eval_knn_run(EvalKnn *eval, FeatureKind kind, const FeatureBackbone *backbone, EvalKnnResult *result,
                    Error *error);

/* The vote alone, on features from anywhere; both are normalised in place. Labels lie in [0, classes).
 * STATUS_INPUT when columns differ or the bank is smaller than the largest k. Collective over COMM. */
Status eval_knn_vote(const EvalKnnParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
                     EvalKnnResult *result, Error *error);

/* One JSON object: knn_top1_k20 and so on in percent, the settings, the counts. memory_free. */
char *eval_knn_json(const EvalKnnResult *result);

/* "knn_top1_k20" of result->k[i]. */
enum { EVAL_KNN_NAME_BYTES = 48 };
void eval_knn_name(char name[EVAL_KNN_NAME_BYTES], const char *figure, int64_t k);

#endif
