/* eval_knn.h - the k-NN evaluation of a backbone on a labelled training and validation set.
 *
 * Source: dinov2/eval/knn.py (eval_knn). Features of both sets, then the weighted vote of knn.h for every k
 * of evaluation.knn_k, with all training rows (-1 in evaluation.n_per_class_list) or so many of each class.
 * DEVIATION: which rows the tries of the latter draw is decided by our generator. Data sets are opened and
 * checked once, so that a training run that evaluates itself every so many iterations learns of unusable
 * settings before its first step.
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

#include "eval/eval_sets.h"
#include "eval/knn.h"

/* The vote of a bank of so many rows of each class, over evaluation.n_tries drawings. */
typedef struct {
    int64_t per_class;
    int count;                      /* of k: those of evaluation.knn_k that are not larger, and per_class */
    int64_t k[CONFIG_LIST_MAX + 1]; /* rising */
    KnnScore mean[CONFIG_LIST_MAX + 1];
    KnnScore spread[CONFIG_LIST_MAX + 1]; /* standard deviation over the tries; 0 for one */
} EvalKnnFew;

/* Figures of one evaluation, the same on all ranks. */
typedef struct {
    int count; /* of k, with the whole bank; 0: not asked for */
    int64_t k[CONFIG_LIST_MAX];
    KnnScore score[CONFIG_LIST_MAX];
    int few_count;
    EvalKnnFew few[CONFIG_LIST_MAX];
    int64_t tries;
    double temperature;
    int64_t train_images, val_images, classes;
    int64_t skipped; /* images that could not be read */
    double seconds;
} EvalKnnResult;

typedef struct EvalKnn EvalKnn;

/* Opens evaluation.{train,val}_dataset_path. STATUS_INPUT, the same on all ranks: a crop that
 * student.patch_size does not divide, a set that cannot be opened, images without labels, classes of the
 * validation set that the training set lacks, fewer training images than the largest k. Collective over COMM.
 */
Status eval_knn_create(EvalKnn **out, const EvalParams *params, Error *error);
void eval_knn_destroy(EvalKnn *eval);

/* One evaluation. `backbone` is not read for FEATURE_RAW_PIXELS, whose rows lose the training set's mean row
 * first. Memory is taken for its duration only. Collective over COMM. */
Status eval_knn_run(EvalKnn *eval, FeatureKind kind, const FeatureBackbone *backbone, EvalKnnResult *result,
                    Error *error);

/* The vote alone, on features from anywhere; both are normalised in place. Labels lie in [0, classes).
 * STATUS_INPUT when columns differ or a bank is smaller than its
 * largest k. Collective over COMM. */
Status eval_knn_vote(const EvalParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
                     EvalKnnResult *result, Error *error);

/* One JSON object: knn_top1_k20 and so on in percent, the settings, the counts. memory_free. */
char *eval_knn_json(const EvalKnnResult *result);

enum {
    EVAL_KNN_NAME_BYTES = 64,
    EVAL_KNN_FIGURES_MAX = 3 * CONFIG_LIST_MAX + 6 * CONFIG_LIST_MAX * (CONFIG_LIST_MAX + 1)
};

/* In percent. "knn_top1_k20"; of few rows of a class "knn_top1_k5_of_10_per_class" and the same with
 * "_spread". */
typedef struct {
    char name[EVAL_KNN_NAME_BYTES];
    double value;
} EvalKnnFigure;

/* All figures into figures[EVAL_KNN_FIGURES_MAX]; returns their number. */
int eval_knn_figures(const EvalKnnResult *result, EvalKnnFigure *figures);

#endif
