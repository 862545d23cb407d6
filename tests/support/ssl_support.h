/* ssl_support.h - what the tests of a training step share: a tiny configuration, random networks and batches.
 */
#ifndef DINOBATCH_TESTS_SUPPORT_SSL_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_SSL_SUPPORT_H

#include "ssl/ssl_meta_arch.h"

/* One process that holds `groups` of a run. */
typedef struct {
    Config config, teacher; /* `teacher`: of a distillation */
    bool distilled;
    SslGroups groups;
    FsdpRanks ranks;
    Device *device;
    Ops *ops;
    Comm *comm;
    SslMetaArch ssl;
    Batch batch;
} SslFixture;

/* A ViT of 3 blocks, width 24, on 28 and 14 pixels with patches of 7; 3 local crops; separate heads with 32
 * and 24 prototypes; all losses on, KoLeo at full weight, iBOT at 0.7; groups of 4 samples, 3 groups; no drop
 * path. `overrides`: "key=value key=value" on top, or NULL. config_check must accept it. */
void ssl_support_config(Config *config, const char *overrides);

/* Everything on one process. Owned by the caller. Weights of student and teacher are random and different,
 * and far from their initial values, so that every gradient is of a size worth testing. The batch is random
 * as well, normal numbers in fp32. */
SslFixture *ssl_support_create(const char *overrides, uint64_t seed);

/* The same for a run of groups: those of SslGroups, whose samples and masks are the same wherever they lie.
 */
SslFixture *ssl_support_create_groups(const char *overrides, uint64_t seed, const SslGroups *groups);

/* A distillation: a frozen teacher of the configuration `teacher_overrides` alone, with random weights of its
 * own; every patch is in the batch's masks, and the moving average is random as well. */
SslFixture *ssl_support_create_distilled(const char *overrides, const char *teacher_overrides, uint64_t seed);
void ssl_support_destroy(SslFixture *fixture);

/* Fills the batch for a step: crops and masks are functions of (seed, step, global sample number). */
void ssl_support_fill_batch(SslFixture *fixture, uint64_t seed, int64_t step);

/* The same for a batch of one's own: an empty one of the configuration's sizes (batch_fini), and filling it.
 */
Batch ssl_support_batch(const Config *config, const SslGroups *groups, Dtype pixels, Device *device);
void ssl_support_fill(Batch *batch, const Config *config, uint64_t seed, int64_t step);

/* Random weights of a size that makes a network of a few layers behave: matrices 0.8 / sqrt(columns), norms
 * about 1, LayerScale about 0.7, the rest 0.3. */
void ssl_support_random_params(const ParamTable *table, uint64_t seed, float *flat);

/* One forward and backward of the fixture's batch, and the figures that it gives. */
SslFigures ssl_support_step(SslFixture *fixture, double teacher_temp);

/* The losses of one group (0-based, of all ranks) of the last step. */
SslGroupLosses ssl_support_group_losses(const SslFixture *fixture, int64_t group);

/* The fixture's total loss, gradients in ssl.grads. Centres start at zero every time. */
double ssl_support_loss(SslFixture *fixture);

/* direction [flat_count]: one that a missing part of the gradient of parameters [first, last) cannot hide
 * from: half of it is the gradient itself, half is random; 0 elsewhere. Returns <gradient, direction>; *size
 * is |gradient| |direction|. */
double ssl_support_direction(const ParamTable *table, const float *grads, int first, int last,
                             float *direction, double *size);

/* d loss / d t at t = 0 along flat + t * direction by a five-point formula with steps h; `loss` is called
 * with `context`. flat is restored. */
double ssl_support_slope(double (*loss)(void *context), void *context, float *flat, const float *direction,
                         int64_t count, double h);

/* max |a - b| / max |b|; infinity when either has a NaN. */
double ssl_support_difference(const float *a, const float *b, int64_t count);

#endif
