/* training_curves.h - how a training went, as one picture: losses, k-NN accuracy, collapse figures, learning
 * rate.
 *
 * Reads a run folder's training_metrics.json and eval/training_N/knn.json; gnuplot, run as a child process,
 * draws.
 */
#ifndef DINOBATCH_REPORT_TRAINING_CURVES_H
#define DINOBATCH_REPORT_TRAINING_CURVES_H

#include "base/status.h"

/* Draws the run in `folder` to the PNG file `output` (replaced atomically). STATUS_INPUT: no such run, no
 * iteration in it; STATUS_FAILED: gnuplot is missing or failed, with its first line. Not collective: one rank
 * draws. */
Status training_curves_draw(const char *folder, const char *output, Error *error);

#endif
