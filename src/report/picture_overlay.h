/* picture_overlay.h - text and lines on a picture.
 *
 * gnuplot draws them, once on white and once on black; what differs is see-through, so pictures keep their
 * pixels where nothing is drawn, and edges are as soft as gnuplot makes them. Coordinates are pixels from the
 * upper left corner.
 *
 *     PictureOverlay overlay;
 *     picture_overlay_init(&overlay);
 *     picture_overlay_text(&overlay, 10, 20, PICTURE_LEFT, 12, "#000000", "head 1");
 *     TRY(picture_overlay_finish(&overlay, &picture, "out.png", error));
 */
#ifndef DINOBATCH_REPORT_PICTURE_OVERLAY_H
#define DINOBATCH_REPORT_PICTURE_OVERLAY_H

#include "report/picture.h"

#include <stdio.h>

typedef enum { PICTURE_LEFT, PICTURE_CENTRE, PICTURE_RIGHT } PictureAlign;

/* The drawing so far, as gnuplot commands. */
typedef struct {
    FILE *out;
    char *script;
    size_t size;
    int64_t items;
} PictureOverlay;

/* Ended by picture_overlay_finish. The stream refers to the struct: do not copy it. */
void picture_overlay_init(PictureOverlay *overlay);

/* One line of text whose vertical middle is at y; `pixels` is the size of its letters, `color` "#rrggbb".
 * Bytes that are not UTF-8 become '?'. */
void picture_overlay_text(PictureOverlay *overlay, double x, double y, PictureAlign align, int pixels,
                          const char *color, const char *text);

/* The size of letters, up to `most`, at which `text` is likely to fit into `width` pixels; at least `least`.
 */
int picture_overlay_letters(const char *text, int64_t width, int least, int most);

/* The longest front of `text` that is likely to fit into `width` pixels, with "..." where it was cut, in
 * out[size]. */
void picture_overlay_fit(char *out, size_t size, const char *text, int64_t width, int pixels);

/* A line with a dot at either end. */
void picture_overlay_line(PictureOverlay *overlay, const double from[2], const double to[2], double width,
                          const char *color);

/* Draws all of it onto `picture`, unless there is nothing, and frees the overlay, also after a failure.
 * Temporary files lie beside `output`, the file that the picture will be written to. STATUS_FAILED as
 * gnuplot_draw. */
Status picture_overlay_finish(PictureOverlay *overlay, Picture *picture, const char *output, Error *error);

#endif
