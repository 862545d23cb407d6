/* pca_picture.h - patch features of several images as colours: what belongs together looks alike.
 *
 * Source: DINOv2 paper, figure 1 and section 7.5. A first PCA over the patches of all images: its leading
 * component is thresholded, one side is the foreground. A second PCA over the foreground patches of all
 * images: its three leading components become red, green and blue, so that one colour means one kind of patch
 * across images. DEVIATION: the paper does not say how it thresholds; here the threshold is Otsu's, and the
 * foreground is the side that has the smaller share of the patches at the images' borders.
 */
#ifndef DINOBATCH_REPORT_PCA_PICTURE_H
#define DINOBATCH_REPORT_PCA_PICTURE_H

#include "report/picture.h"

#include <stdbool.h>

typedef struct {
    int64_t images, grid_height, grid_width; /* patches of one image: grid_height x grid_width */
    int64_t d;
    const float *tokens; /* [images * patches, d] */
    int64_t patch_size;  /* pixels */
    const uint8_t
        *rgb; /* [images, height, width, 3] the network's input; height = grid_height * patch_size */
    bool keep_background; /* colour every patch, no threshold */
} PcaPictureInput;

/* Which patches are foreground, and their colours. */
typedef struct {
    uint8_t *foreground; /* [images * patches] owned */
    uint8_t *colors;     /* [images * patches, 3] black in the background; owned */
    double explained[3]; /* share of the foreground's variance on each component */
} PcaColors;

void pca_picture_colors(PcaColors *colors, const PcaPictureInput *input);
void pca_picture_colors_fini(PcaColors *colors);

/* The grid: each image above its colours, `columns` images a row, every image at least 224 pixels wide.
 * Released by picture_fini. */
void pca_picture_draw(Picture *picture, const PcaPictureInput *input, const PcaColors *colors,
                      int64_t columns);

/* The threshold that splits values[n] into two classes with the greatest variance between them (Otsu 1979),
 * over a histogram of 256 bins. */
double pca_picture_threshold(const float *values, int64_t n);

#endif
