/* ssl_step.h - the parts of one training step, shared by the files of this folder.
 *
 * Every layout function runs on a measuring arena too: that is how the step's memory is planned.
 */
#ifndef DINOBATCH_SSL_SSL_STEP_H
#define DINOBATCH_SSL_SSL_STEP_H

#include "loss/dino_clstoken_loss.h"
#include "loss/ibot_patch_loss.h"
#include "ssl/ssl_meta_arch.h"

/* What lives for the whole step. */
typedef struct SslStep {
    const Batch *batch; /* NULL while measuring */
    double teacher_temp;
    int64_t samples;                               /* of this rank */
    int64_t masked;                                /* masked patches of this rank; a bound while measuring */
    Tensor teacher_dino;                           /* [samples * 2, d] fp32: row 2 s + c; none without DINO */
    Tensor teacher_ibot;                           /* [masked, d_ibot] fp32; none without iBOT */
    Tensor dino_bias, ibot_bias;                   /* [K] fp32: targets are softmax(score / temp + bias) */
    Tensor dino_usage, ibot_usage;                 /* [K] fp32: targets that favour each prototype */
    Tensor teacher_dino_scale, teacher_ibot_scale; /* [K] fp32: weight_g / |weight_v| */
    Tensor student_dino_scale, student_ibot_scale;
    Tensor center_sum;             /* [largest K] fp32 scratch of centering */
    Tensor dino_center_weight;     /* [samples * 2] fp32: weight of each row in the batch centre */
    Tensor ibot_center_weight;     /* [masked] fp32 */
    Tensor koleo_cls, koleo_d_cls; /* [samples * 2, D] fp32; none without KoLeo */
    KoleoLossScratch koleo_scratch;
    bool koleo_ready; /* koleo_d_cls holds this step's gradient */
} SslStep;

/* A run of samples that goes through the networks together. */
typedef struct {
    int64_t first, samples;
    int64_t masked;       /* masked patches in it; a bound while measuring */
    int64_t first_masked; /* masked patches of the samples before it */
} SslMicroBatch;

/* Lays out what lives for the whole step. */
SslStep ssl_step_layout(const SslMetaArch *ssl, Arena *arena, const Batch *batch, int64_t samples,
                        int64_t masked);

/* Crop set of the batch's global crops (set 0) or local crops (set 1) of a micro-batch, for either network.
 * `masked`: with the iBOT masks. */
VitCrops ssl_step_crops(const SslMetaArch *ssl, const Batch *batch, const SslMicroBatch *micro, int set,
                        bool masked, Arena *arena);

/* `count` of the step's sums, from index `first`. */
Tensor ssl_step_figures(const SslMetaArch *ssl, int64_t first, int64_t count);

/* weight_v of the last layer that scores class tokens, or patches, as the prototype operations take it: in 16
 * bits where the device does that and the head computes so (the precision of a head that is asked for
 * patches is the iBOT head's, unless it is shared). */
Tensor ssl_step_prototypes(const SslMetaArch *ssl, const SslNetwork *network, bool patches);

/* The masked patches of a micro-batch's global crops; loss_weight 1 for the teacher, who only asks where they
 * are. */
IbotPatchLoss ssl_step_ibot(const SslMetaArch *ssl, const SslStep *step, const SslMicroBatch *micro,
                            double loss_weight, Arena *arena);

/* KoLeo of the step's class tokens, value and gradient. Collective over COMM with its scope global. */
void ssl_step_koleo(const SslMetaArch *ssl, SslStep *step);

/* Student rows whose final norm is read, per sample: 2 + L with DINO, 2 with KoLeo alone, 0 otherwise. */
int64_t ssl_step_cls_rows(const SslMetaArch *ssl);

/* Teacher forward of one micro-batch into step->teacher_*. On a measuring arena: sizes only. */
void ssl_teacher_forward(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena);

/* Targets from all teacher rows. Collective over COMM. */
void ssl_teacher_targets(SslMetaArch *ssl, SslStep *step);

/* Class tokens of the student's masked global crops, without gradients, into step->koleo_cls. Measures as
 * well. */
void ssl_student_class_tokens(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena);

/* Student forward, losses, backward of one micro-batch; gradients are added to ssl->gradients. Measures as
 * well. With KoLeo the gradient on class tokens is step->koleo_d_cls, made here first unless
 * step->koleo_ready. */
void ssl_student_forward_backward(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena);

#endif
