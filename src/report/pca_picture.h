/* pca_picture.h - patch features of several pictures as colours: what belongs together looks alike.
 *
 * Source: DINOv2 paper, figure 1 and section 7.5. A first PCA over the patches of all pictures: its leading
 * component is thresholded, one side is the foreground. A second PCA over the foreground patches of all
 * pictures together: its three leading components become red, green and blue, so that one colour means one
 * kind of patch across pictures. DEVIATION: the paper does not say how it thresholds; here the threshold is
 * Otsu's unless one is given, and the foreground, unless a side is asked for, is the one that has the smaller
 * share of the patches at the pictures' borders.
 */
#ifndef DINOBATCH_REPORT_PCA_PICTURE_H
#define DINOBATCH_REPORT_PCA_PICTURE_H

#include "report/patch_pictures.h"

#include <stdbool.h>

/* Which side of the threshold is the foreground. The component's sign is that of principal_components.h. */
typedef enum {
    PCA_FOREGROUND_AUTO,
    PCA_FOREGROUND_ABOVE,
    PCA_FOREGROUND_BELOW,
    PCA_FOREGROUND_ALL /* every patch, no threshold */
} PcaForeground;

typedef struct {
    PcaForeground foreground;
    bool has_threshold;
    double threshold; /* in standard deviations of the first component, from its mean */
} PcaOptions;

/* Which patches are foreground, and their colours. */
typedef struct {
    uint8_t *foreground; /* [patches] owned */
    uint8_t *colors;     /* [patches, 3] black in the background; owned */
    double threshold;    /* in standard deviations, which was used; 0 with PCA_FOREGROUND_ALL */
    bool above;          /* the side that is foreground */
    double share;        /* of the patches that are foreground */
    double explained[3]; /* share of the foreground's variance on each component */
} PcaColors;

/* `pictures` after patch_pictures_compute, with at least 3 columns. With PCA_FOREGROUND_AUTO a foreground of
 * less than 2 % counts as not found and every patch is it; an empty side that was asked for, too. */
void pca_picture_colors(PcaColors *colors, const PatchPictures *pictures, const PcaOptions *options);
void pca_picture_colors_fini(PcaColors *colors);

/* The grid: each picture above its colours, `columns` pictures a row. Released by picture_fini. */
void pca_picture_draw(Picture *picture, const PatchPictures *pictures, const PcaColors *colors,
                      int64_t columns);

/* The threshold that splits values[n] into two classes with the greatest variance between them (Otsu 1979),
 * over a histogram of 256 bins. */
double pca_picture_threshold(const float *values, int64_t n);

#endif
