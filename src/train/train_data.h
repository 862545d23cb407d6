/* train_data.h - the loader's parameters as the configuration says them. */
#ifndef DINOBATCH_TRAIN_TRAIN_DATA_H
#define DINOBATCH_TRAIN_TRAIN_DATA_H

#include "config/config.h"
#include "data/loader.h"
#include "ssl/ssl_meta_arch.h"

/* crops.*: sizes, scales and probabilities of every augmentation. */
AugmentParams train_data_augment(const Config *config);

/* What this rank loads for `device`, from step `first_step` on. train.num_workers are threads of this rank.
 */
LoaderParams train_data_loader(const Config *config, const SslGroups *groups, Device *device,
                               int64_t first_step);

#endif
