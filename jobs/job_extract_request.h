/* job_extract_request.h - what an extract command line asks for. */
#ifndef DINOBATCH_JOBS_JOB_EXTRACT_REQUEST_H
#define DINOBATCH_JOBS_JOB_EXTRACT_REQUEST_H

#include "data/image_views.h"
#include "eval/eval_model.h"
#include "features/feature_extractor.h"
#include "features/whitening.h"
#include "run/options.h"

typedef enum { EXTRACT_CHECKPOINT, EXTRACT_UNTRAINED, EXTRACT_PIXELS, EXTRACT_SSCD } ExtractSubject;

enum { EXTRACT_SIZE_TEXT = 64 };

typedef struct {
    const char *model, *data;
    ExtractSubject subject;
    CheckpointRole role;
    FeatureKind kind;
    FeatureGrid grid;
    bool patches;
    char layer[FEATURE_LAYER];
    EvalTransform transform;
    EvalSize size;                     /* of EVAL_WHOLE */
    int64_t most_patches;              /* of EVAL_NATIVE */
    char size_text[EXTRACT_SIZE_TEXT]; /* of these, in one spelling; else "" */
    bool half;
    WhiteningOptions whitening;
    const char *whitening_file;
    ImageViews views;
    bool upside_down;
    char output[CHECKPOINT_PATH_MAX]; /* the file */
} ExtractRequest;

/* Borrows from the options. STATUS_INPUT names the option that is wrong. */
Status job_extract_request_parse(ExtractRequest *request, const Options *options, Error *error);

#endif
