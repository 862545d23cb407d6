/* eval_model.h - the backbone of a checkpoint, ready to run.
 *
 * Everything about the network comes from the checkpoint: architecture and sizes from the configuration saved
 * in it, the input's normalisation from its attributes. The command line may only change how it is evaluated.
 */
#ifndef DINOBATCH_EVAL_EVAL_MODEL_H
#define DINOBATCH_EVAL_EVAL_MODEL_H

#include "ckpt/checkpoint.h"
#include "config/config.h"
#include "data/pixel_levels.h"
#include "features/feature_extractor.h"
#include "run/options.h"

typedef struct {
    char path[CHECKPOINT_PATH_MAX]; /* of the file; "" for a network without one */
    CheckpointRole role;
    int64_t iteration; /* last finished step; -1 without a file, and of converted weights */
    Config config;     /* the checkpoint's, with what the options changed; owned */
    PixelNorm norm;    /* of the input */
    Vit vit;
    ParamTable table;
    float *flat;       /* [table.flat_count] host; owned */
    Device *device;    /* where the network was placed; borrowed */
    float *placed;     /* [table.flat_count] of the device; owned */
    uint16_t *reduced; /* 16-bit copy there, or NULL; owned */
    Weights weights;
    FeatureBackbone backbone; /* views of the above; its levels are owned */
} EvalModel;

/* "teacher" or "student"; NULL means teacher. */
Status eval_model_role(CheckpointRole *role, const char *word, Error *error);

/* Loads one role's backbone. `path`: a checkpoint file, a run folder or its checkpoints folder (the newest
 * then). `options` overlays configuration files and key=value on the saved configuration. STATUS_INPUT: no
 * such checkpoint, an overlay that would change the network, attributes that contradict the configuration,
 * and what checkpoint_load_backbone refuses. The outcome is agreed. Owned by the caller: eval_model_fini,
 * also after a failure. Collective over COMM. */
Status eval_model_load(EvalModel *model, const char *path, CheckpointRole role, const Options *options,
                       Comm *comm, Log *log, Error *error);

/* The same kind of network at its first step: weights drawn from train.seed as pretraining does, of `config`
 * (which is copied), for pictures normalised as training does. Not collective. */
Status eval_model_untrained(EvalModel *model, const Config *config, Error *error);

/* Puts the weights into the device's memory, in the precision that compute_precision.teacher.backbone asks
 * for where the device has it; before that the backbone must not be run. The device must outlive the model.
 */
void eval_model_place(EvalModel *model, Device *device);

void eval_model_fini(EvalModel *model);

#endif
