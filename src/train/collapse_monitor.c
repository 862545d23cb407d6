/* collapse_monitor.c - shares of ln K and the three ways to be stuck. */
#include "train/collapse_monitor.h"

#include <math.h>

static const double UNIFORM_SHARE = 0.995, CONSTANT_STD = 0.02, MIN_PROTOTYPES = 2;

CollapseShares collapse_shares(const SslMetaArch *ssl, const SslFigures *f)
{
    CollapseShares s = {0};
    double L = (double)ssl->config->crops.local_crops_number, terms = 2 + (L > 0 ? 2 * L : 1);
    double dino_k = log((double)ssl->student.dino_head.config.prototypes);
    double ibot_k = ssl->do_ibot && !ssl->student.shared_head
                        ? log((double)ssl->student.ibot_head.config.prototypes)
                        : dino_k;
    if (ssl->do_dino) {
        s.dino_global_share = f->dino_global_crops_loss * terms / 2 / dino_k;
        if (L > 0) s.dino_local_share = f->dino_local_crops_loss * terms / (2 * L) / dino_k;
        s.dino_entropy_share = f->dino_teacher_entropy / dino_k;
    }
    if (ssl->do_ibot && f->masked_patches > 0) {
        /* The logged loss is half of a mean over all global crops, of which only some are masked. */
        double masked_share = fmin(1.0, ssl->config->ibot.mask_sample_probability);
        s.ibot_share = 2 * f->ibot_loss / masked_share / ibot_k;
        s.ibot_entropy_share = f->ibot_teacher_entropy / ibot_k;
    }
    return s;
}

static const char *lasted(bool bad, int64_t *steps, const char *warning)
{
    *steps = bad ? *steps + 1 : 0;
    return *steps == COLLAPSE_PATIENCE ? warning : NULL;
}

const char *collapse_monitor_note(CollapseMonitor *m, const SslMetaArch *ssl, const CollapseShares *s,
                                  const SslFigures *f)
{
    if (!ssl->do_dino) return NULL;
    double used = f->dino_prototypes_used * (double)ssl->student.dino_head.config.prototypes;
    const char *uniform =
        lasted(s->dino_global_share > UNIFORM_SHARE, &m->uniform_steps,
               "collapse, uniform scores: the DINO loss stays at ln K, nothing is being learned "
               "(look at the learning rate, the temperatures and the batch size)");
    const char *few = lasted(used < MIN_PROTOTYPES, &m->few_prototypes_steps,
                             "collapse, one prototype: all teacher targets favour a single prototype "
                             "(look at train.centering and the teacher temperature)");
    const char *constant = lasted(
        f->feature_std < CONSTANT_STD, &m->constant_feature_steps,
        "collapse, constant features: the teacher gives nearly the same class token for every picture");
    return constant ? constant : few ? few : uniform;
}
