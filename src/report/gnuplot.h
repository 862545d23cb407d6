/* gnuplot.h - draws a gnuplot script to a PNG file, and puts foreign text into such scripts. */
#ifndef DINOBATCH_REPORT_GNUPLOT_H
#define DINOBATCH_REPORT_GNUPLOT_H

#include "base/status.h"

#include <stdio.h>

/* `text` as one of gnuplot's strings, in quotes; control characters and bytes that are not UTF-8 become '?'.
 */
void gnuplot_quote(FILE *out, const char *text);

/* Bytes of the UTF-8 character that `text` begins with; 0: it begins with none. */
int gnuplot_character(const char *text);

typedef struct {
    int width, height;      /* pixels */
    double points;          /* size of text, in points of 4/3 pixels */
    const char *background; /* "#rrggbb" */
} GnuplotPage;

/* Runs gnuplot on `script`, which neither sets terminal nor output, and replaces `output` atomically by a
 * picture of the page. The script's temporary file lies beside `output`. STATUS_FAILED: gnuplot
 * is not installed, says something on stderr and fails (last line quoted), or the disk failed. Waits for the
 * child. */
Status gnuplot_draw(const char *script, const GnuplotPage *page, const char *output, Error *error);

#endif
