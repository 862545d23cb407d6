/* picture.h - RGB pictures in memory, written as PNG files. */
#ifndef DINOBATCH_REPORT_PICTURE_H
#define DINOBATCH_REPORT_PICTURE_H

#include "base/status.h"

#include <stdint.h>

/* An RGB picture in memory. */
typedef struct {
    int64_t width, height;
    uint8_t *rgb; /* [height, width, 3] owned */
} Picture;

/* A white picture. Released by picture_fini. */
void picture_init(Picture *picture, int64_t width, int64_t height);
void picture_fini(Picture *picture);

/* Copies rgb[height, width, 3] to (left, top), each pixel as a square of scale x scale; it must fit. */
void picture_paste(Picture *picture, int64_t left, int64_t top, const uint8_t *rgb, int64_t width,
                   int64_t height, int64_t scale);

/* Writes `path` atomically. STATUS_FAILED naming the file. */
Status picture_write(const Picture *picture, const char *path, Error *error);

#endif
