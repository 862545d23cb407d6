/* evaluation_history.h - the k-NN figures that a training run wrote on its way: eval/training_N/knn.json. */
#ifndef DINOBATCH_REPORT_EVALUATION_HISTORY_H
#define DINOBATCH_REPORT_EVALUATION_HISTORY_H

#include "base/status.h"

#include <stdint.h>

enum { EVALUATION_HISTORY_KS = 8 };

typedef struct {
    int64_t iteration;
    double top1[EVALUATION_HISTORY_KS]; /* percent; NaN where the file lacks that k */
} EvaluationPoint;

typedef struct {
    int k_count;
    int64_t k[EVALUATION_HISTORY_KS]; /* in order of first appearance */
    int64_t count;
    EvaluationPoint *points; /* [count] by iteration; owned */
} EvaluationHistory;

/* Reads FOLDER/eval; no evaluation at all is an empty history. STATUS_INPUT naming a file that is not such
 * JSON. Released by evaluation_history_fini, also after a failure. */
Status evaluation_history_read(EvaluationHistory *history, const char *folder, Error *error);
void evaluation_history_fini(EvaluationHistory *history);

#endif
