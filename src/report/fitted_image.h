/* fitted_image.h - pictures of a data set at a size of ours, one after the other in the same memory. */
#ifndef DINOBATCH_REPORT_FITTED_IMAGE_H
#define DINOBATCH_REPORT_FITTED_IMAGE_H

#include "data/data_set.h"
#include "data/image/image_resize.h"

/* Zero-initialised it is empty; fitted_image_fini frees it. */
typedef struct {
    Image image;     /* as it was loaded: planes are made of it */
    uint8_t *fitted; /* [3, height, width] planes of the last fitted_image_resize; inside `planes` */
    DataBuffer encoded, planes;
    ImageResizeScratch resize;
} FittedImage;

/* Loads a picture, whose size is then image.width x image.height. Errors of data_set_load_image. */
Status fitted_image_load(FittedImage *fitted, const DataSet *set, int64_t index, Error *error);

/* All of the loaded picture at width x height >= 1 (bicubic, as evaluation does it): fitted->fitted. */
void fitted_image_resize(FittedImage *fitted, int64_t width, int64_t height);

/* rgb[height, width, 3] of planes[3, height, width]. */
void fitted_image_interleave(uint8_t *rgb, const uint8_t *planes, int64_t width, int64_t height);

void fitted_image_fini(FittedImage *fitted);

#endif
