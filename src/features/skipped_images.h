/* skipped_images.h - names the images of an evaluation pass that could not be read, once, in rank 0's log. */
#ifndef DINOBATCH_FEATURES_SKIPPED_IMAGES_H
#define DINOBATCH_FEATURES_SKIPPED_IMAGES_H

#include "base/log.h"
#include "comm/comm.h"
#include "data/eval_loader.h"

/* Takes the loader's reports of all ranks to the log of rank 0: the first few of each rank by name, the rest
 * as a number. Collective over COMM. */
void skipped_images_log(EvalLoader *loader, Comm *comm, Log *log);

#endif
