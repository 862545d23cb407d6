/* collapse_monitor.h - is training learning, or stuck? Names the cause.
 *
 * A plateau of the loss at ln K is easily taken for slow training; it means that student or teacher scores
 * are uniform. The shares computed here go into the metrics, and a state that lasts is a warning.
 */
#ifndef DINOBATCH_TRAIN_COLLAPSE_MONITOR_H
#define DINOBATCH_TRAIN_COLLAPSE_MONITOR_H

#include "ssl/ssl_meta_arch.h"

enum { COLLAPSE_PATIENCE = 200 }; /* consecutive steps before a warning */

/* 1 = uniform. All are 0 where the loss is off. */
typedef struct {
    double dino_global_share, dino_local_share, ibot_share; /* mean cross-entropy / ln K */
    double dino_entropy_share, ibot_entropy_share;          /* teacher entropy / ln K */
} CollapseShares;

typedef struct {
    int64_t uniform_steps, few_prototypes_steps, constant_feature_steps; /* consecutive */
} CollapseMonitor;

CollapseShares collapse_shares(const SslMetaArch *ssl, const SslFigures *figures);

/* Takes note of a step. Returns a warning (static text) when a bad state has just lasted COLLAPSE_PATIENCE
 * steps, else NULL; the same on all ranks. */
const char *collapse_monitor_note(CollapseMonitor *monitor, const SslMetaArch *ssl,
                                  const CollapseShares *shares, const SslFigures *figures);

#endif
