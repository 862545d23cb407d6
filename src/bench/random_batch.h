/* random_batch.h - a training batch without data: noise for pictures, masks as training draws them. */
#ifndef DINOBATCH_BENCH_RANDOM_BATCH_H
#define DINOBATCH_BENCH_RANDOM_BATCH_H

#include "config/config.h"
#include "data/batch.h"
#include "ssl/ssl_meta_arch.h"

/* Sizes from the configuration, random grey levels as pixels, for that device. Own storage, released by
 * batch_fini. */
void random_batch_init(Batch *batch, const Config *config, const SslGroups *groups, Device *device);

/* Makes it the batch of iteration `step`: new masks. scratch [2 * group_size * patches] bytes. */
void random_batch_advance(Batch *batch, const Config *config, int64_t step, uint8_t *scratch);

#endif
