/* ssl_meta_arch.h - student and teacher: one training step's forward and backward over all losses.
 *
 * Source: dinov2/train/ssl_meta_arch.py (SSLMetaArch), paper section 4; golden README traps 14-22. What the
 * reference does per process (KoLeo, mask bounds, the drop-path subset, the iBOT batch centre, loss means) is
 * done here per group of train.batch_size_per_gpu samples, so that the result does not depend on how groups
 * are dealt to ranks.
 *
 * Pass 1 runs the teacher over all micro-batches, keeps its normalised bottleneck rows and makes the targets
 * once (Sinkhorn-Knopp or centering over all ranks). Pass 2 runs the student forward and backward,
 * micro-batch by micro-batch; gradients add up in fp32. micro_batch_size only bounds memory.
 *
 * It owns weights and gradients, in the memory of the device that computes; clipping, AdamW, schedules and
 * files are other folders' business. A step is given to the device and not waited for: its figures are
 * numbers in the device's memory, which ssl_meta_arch_figures makes sense of once somebody has fetched them.
 */
#ifndef DINOBATCH_SSL_SSL_META_ARCH_H
#define DINOBATCH_SSL_SSL_META_ARCH_H

#include "data/batch.h"
#include "data/pixel_levels.h"
#include "fsdp/sharded_gradients.h"
#include "loss/koleo_loss.h"
#include "ssl/ssl_network.h"

/* How the groups of a step are dealt to ranks, in contiguous runs whose lengths differ by at most one. */
typedef struct {
    int64_t group_size;   /* samples */
    int64_t total_groups; /* of all ranks */
    int64_t groups;       /* of this rank */
    int64_t first_group;  /* of this rank */
} SslGroups;

/* STATUS_INPUT if the global batch is not a multiple of the group or there are fewer groups than ranks. */
Status ssl_groups_deal(SslGroups *groups, const Config *config, int rank, int ranks, Error *error);

/* A step's figures, the same on all ranks. Losses as the reference logs them: koleo and ibot are half of what
 * is differentiated; total is what is differentiated. */
typedef struct {
    double dino_local_crops_loss, dino_global_crops_loss, koleo_loss, ibot_loss, total_loss;
    double dino_teacher_entropy, ibot_teacher_entropy; /* nats, mean over targets; 0 where the loss is off */
    double dino_prototypes_used, ibot_prototypes_used; /* share of prototypes that some target favours */
    double feature_std;     /* of L2-normalised teacher class tokens: mean over dimensions of the std over the
                               batch, times sqrt(D) */
    int64_t masked_patches; /* of all ranks */
} SslFigures;

/* Losses of one group alone, in the same conventions. */
typedef struct {
    double dino_local_crops_loss, dino_global_crops_loss, koleo_loss, ibot_loss;
} SslGroupLosses;

/* Where a step's sums lie in SslMetaArch.figures, fp64. G groups of all ranks, D the width. */
typedef struct {
    int64_t dino_local, dino_global, koleo,
        ibot;                           /* [G] each, one after the other: shares of the mean over groups */
    int64_t dino_entropy, ibot_entropy; /* [2]: sum, number of targets */
    int64_t features;                   /* [2, D]: sums of teacher class tokens and of their squares */
    int64_t summed;                     /* everything before is a sum over ranks */
    int64_t dino_used, ibot_used;       /* [1] prototypes that some target favours */
    int64_t discarded;                  /* [1] scratch */
    int64_t count;
} SslFigureLayout;

typedef struct {
    const Config *config;   /* borrowed */
    const Ops *ops;         /* borrowed */
    const FsdpRanks *ranks; /* borrowed */
    SslGroups groups;
    bool do_dino, do_koleo, do_ibot;
    bool distilled;           /* the teacher is frozen, and nothing is masked */
    int64_t micro_samples;    /* samples of a micro-batch, >= 1 */
    int64_t masked_per_group; /* most patches of a group that iBOT is on */
    KoleoLoss koleo;
    SslNetwork student, teacher;
    SslNetwork spare;      /* of a distillation: the student's moving average, which feeds nothing */
    SslNetwork *model_ema; /* the student's moving average: spare, or the teacher itself */
    ShardedGradients gradients;
    float *dino_center, *ibot_center; /* [prototypes] of ops->device; owned; zero unless centering */
    Tensor levels; /* [3, 256] fp32 of ops->device, owned: what grey levels are to both networks; none: their
                      pictures are fp32 */
    NnHooks student_hooks, teacher_hooks;
    SslFigureLayout layout;
    Tensor figures; /* [layout.count] fp64 of ops->device, owned: the last step's sums */
    Tensor control; /* [CONTROL_COUNT] fp64 of ops->device, owned: what decides about updates (ops.h) */
    bool scaled;    /* gradients carry a dynamic loss scale: some of the student computes in fp16 */
    int64_t masked_patches;  /* of the last step, all ranks */
    Arena step;              /* everything that lives for one step */
    struct SslStep *current; /* the step's tensors, valid until the next one; owned */
} SslMetaArch;

/* Builds the networks (weights zero until ssl_meta_arch_initialise or a checkpoint fills them) and plans the
 * step's memory. The configuration has been checked. `config`, `ops`, `ranks` must outlive it. `teacher`: the
 * configuration of a frozen teacher to distil from, which suits the student's (ssl_distillation_check); NULL:
 * the teacher is the student's moving average. `norm`: how the grey levels of its batches are normalised;
 * NULL: they are fp32 and normalised already. Collective over all ranks. */
void ssl_meta_arch_init(SslMetaArch *ssl, const Config *config, const Config *teacher,
                        const SslGroups *groups, const PixelNorm *norm, const Ops *ops,
                        const FsdpRanks *ranks);
void ssl_meta_arch_fini(SslMetaArch *ssl);

/* The limits that operations stay within; `teacher` as in ssl_meta_arch_init. */
OpsLimits ssl_ops_limits(const Config *config, const Config *teacher, const SslGroups *groups);

/* Student from the seed; its moving average equals it. */
void ssl_meta_arch_initialise(SslMetaArch *ssl, uint64_t seed);

/* Elements of the centres that are in use: prototypes of the heads whose teacher is centred, 0 elsewhere. */
void ssl_meta_arch_center_counts(const SslMetaArch *ssl, int64_t *dino, int64_t *ibot);

/* Makes copies of weights stale, and anew where they always live, after the fp32 weights of the student and
 * its moving average changed. A frozen teacher's stay. Collective over all ranks. */
void ssl_meta_arch_refresh(SslMetaArch *ssl);

/* The same for the weights of a frozen teacher, once they have been loaded. Collective over all ranks. */
void ssl_meta_arch_teacher_changed(SslMetaArch *ssl);

/* model_ema = momentum * model_ema + (1 - momentum) * student. */
void ssl_meta_arch_update_ema(SslMetaArch *ssl, double momentum);

/* What a training is for, and what is evaluated: the moving average, its copies as they now are. Borrowed.
 * Collective over all ranks. */
const SslNetwork *ssl_meta_arch_model(SslMetaArch *ssl);

/* Losses of the batch in ssl->figures and, in ssl->gradients.local (overwritten), this rank's part of their
 * gradient averaged over all groups of all ranks, times the loss scale. The step number places the draws of
 * stochastic depth. The batch must stay as it is until the device has done the step. Collective over COMM. */
void ssl_meta_arch_forward_backward(SslMetaArch *ssl, const Batch *batch, double teacher_temp);

/* Figures from a host copy of a step's sums [layout.count]; masked_patches is that step's. */
SslFigures ssl_meta_arch_figures(const SslMetaArch *ssl, const double *sums, int64_t masked_patches);

/* The same for the last step: fetches the sums and waits for them. Allocates. */
SslFigures ssl_meta_arch_last_figures(const SslMetaArch *ssl);

/* A step's losses of group `group` (0-based, of all ranks) from its sums: what the reference's process of
 * that number logs. The figures are their mean over all groups. */
SslGroupLosses ssl_meta_arch_group_losses(const SslMetaArch *ssl, const double *sums, int64_t group);

/* The teacher's targets of the last step in plain form, for tests: softmax of scores / temp + bias of this
 * rank's rows, dino [samples * 2, K] (row 2 s + c: crop c of sample s), ibot [masked patches, K_ibot].
 * Pointers may be NULL. Valid until the next step. */
void ssl_meta_arch_teacher_targets(const SslMetaArch *ssl, double teacher_temp, float *dino, float *ibot);

#endif
