/* synthetic_export.h - the synthetic data set written out: image files, masks, and the truth as CSV.
 *
 *   FOLDER/images/CLASS/00000000.png   (or .jpg), to be opened as folder:FOLDER/images
 *   FOLDER/masks/CLASS/00000000.png    on request: 8-bit gray, label + 1 on the object, 0 elsewhere
 *   FOLDER/labels.csv                  index,key,label,class
 *   FOLDER/duplicates.csv              index,source,left,top,extent,mirrored,brightness,contrast
 */
#ifndef DINOBATCH_DATA_SYNTHETIC_EXPORT_H
#define DINOBATCH_DATA_SYNTHETIC_EXPORT_H

#include "base/status.h"
#include "comm/comm.h"
#include "data/data_buffer.h"
#include "data/synthetic_draw.h"

#include <stdbool.h>

typedef struct {
    SyntheticParams images;
    const char *folder; /* exists */
    bool masks;
    int jpeg_quality; /* 1..100; 0: PNG */
} SyntheticExportParams;

/* Writes images and masks, dealt over ranks and threads; agreed. Collective over COMM. */
Status synthetic_export_images(const SyntheticExportParams *params, Comm *comm, Error *error);

/* Writes labels.csv and duplicates.csv. One rank calls it. */
Status synthetic_export_truth(const SyntheticExportParams *params, Error *error);

/* The mask of image `index` as PNG. */
Status synthetic_export_mask(const SyntheticParams *images, int64_t index, DataBuffer *buffer, Error *error);

#endif
