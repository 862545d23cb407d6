/* synthetic_set.h - data set kind `synthetic:OPTIONS`: images of synthetic_draw.h, drawn when they are read.
 *
 * Options, comma separated, all optional: classes=10 (2..100), size=64 (16..1024 pixels a side), count=5000,
 * seed=0, duplicates=0 (share of the images that are near-duplicates of others, 0..0.5).
 * Index i is image i of the seed: two sets of one seed with different counts share their first images but not
 * their near-duplicates, so take another seed for a test set.
 */
#ifndef DINOBATCH_DATA_SYNTHETIC_SET_H
#define DINOBATCH_DATA_SYNTHETIC_SET_H

#include "data/data_kind.h"
#include "data/synthetic_draw.h"

/* Parses the options after "synthetic:". STATUS_INPUT names the option. */
Status synthetic_set_parse(SyntheticParams *params, const char *options, Error *error);

Status synthetic_set_open(DataKind *kind, const char *options, Error *error);

#endif
