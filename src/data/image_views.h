/* image_views.h - a picture as several pictures: itself, crops, turned ones, and their mirror images.
 *
 * A descriptor that does not see through a crop or a mirror finds a copy all the same if the original is
 * described by such views, too: the similarity of two pictures is then the greatest one between a view of
 * either and the whole other (src/curation).
 *
 * View 0 is the whole picture. The views of a list's items follow in the order of the list: "crop:SIDE:GRID"
 * is GRID x GRID crops of SIDE of each side, evenly spaced from edge to edge, row by row; "rotate:DEGREES" is
 * the picture turned counter-clockwise by so much, then clockwise (image_turn.h). With "mirror" anywhere in
 * the list the mirror images of all of these follow, the whole one's first.
 *
 *     ImageViews views;
 *     TRY(image_views_parse(&views, "mirror,crop:0.84:3", error));          // 20 views
 */
#ifndef DINOBATCH_DATA_IMAGE_VIEWS_H
#define DINOBATCH_DATA_IMAGE_VIEWS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { IMAGE_VIEWS_MOST = 128, IMAGE_VIEWS_TEXT = 256 };

/* Not mirrored. */
typedef struct {
    double side;               /* of a crop, as a share of the picture's; 1: all of it */
    int64_t grid, row, column; /* of a crop */
    double degrees;            /* that it is turned by; 0: upright */
} ImageView;

typedef struct {
    int64_t count;                    /* of views, mirrored ones included */
    int64_t plain;                    /* of those that are not mirrored; plain + i is the mirror image of i */
    ImageView view[IMAGE_VIEWS_MOST]; /* [plain] */
    char text[IMAGE_VIEWS_TEXT];      /* the list, in one spelling: "mirror" first, then as it was given */
} ImageViews;

/* The whole picture alone; text is "". */
ImageViews image_views_whole(void);

/* STATUS_INPUT quotes the item that is wrong. */
Status image_views_parse(ImageViews *views, const char *list, Error *error);

/* A box of a picture. */
typedef struct {
    int64_t top, left, height, width;
} ImageViewBox;

/* What a view that is not turned is of a picture of height x width pixels; at least one pixel. */
ImageViewBox image_views_box(const ImageView *view, int64_t height, int64_t width);

#endif
