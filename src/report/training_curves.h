/* training_curves.h - how trainings went, as one picture: losses, k-NN accuracy, collapse figures, learning
 * rate.
 *
 * Reads a run folder's training_metrics.json and eval/training_N/knn.json; gnuplot, run as a child process,
 * draws. One run has a panel for the losses, one for the collapse figures and so on; of several runs each
 * figure has a panel of its own, in which each run is a line.
 */
#ifndef DINOBATCH_REPORT_TRAINING_CURVES_H
#define DINOBATCH_REPORT_TRAINING_CURVES_H

#include "base/status.h"

enum { TRAINING_CURVES_RUNS_MAX = 16 };

/* Draws the runs in `folders` to the PNG file `output` (replaced atomically); several are called by the last
 * parts of their folders' names. STATUS_INPUT: too many, no such run, no iteration in it; STATUS_FAILED:
 * gnuplot is missing or failed, with its last line. Not collective: one rank draws. */
Status training_curves_draw(const char *const *folders, int count, const char *output, Error *error);

#endif
