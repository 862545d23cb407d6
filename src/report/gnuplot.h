/* gnuplot.h - draws a gnuplot script to a PNG file. */
#ifndef DINOBATCH_REPORT_GNUPLOT_H
#define DINOBATCH_REPORT_GNUPLOT_H

#include "base/status.h"

/* Runs gnuplot on `script`, which neither sets terminal nor output, and replaces `output` atomically by a
 * picture of width x height pixels. The script's temporary file lies beside `output`. STATUS_FAILED: gnuplot
 * is not installed, says something on stderr and fails (first line quoted), or the disk failed. Waits for the
 * child. */
Status gnuplot_draw(const char *script, int width, int height, const char *output, Error *error);

#endif
