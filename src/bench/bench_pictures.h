/* bench_pictures.h - encoded pictures in memory, to measure decoding and augmentation without a disk. */
#ifndef DINOBATCH_BENCH_BENCH_PICTURES_H
#define DINOBATCH_BENCH_BENCH_PICTURES_H

#include "base/status.h"
#include "data/data_buffer.h"

#include <stdint.h>

enum { BENCH_PICTURES_MAX = 16 };

typedef struct {
    DataBuffer items[BENCH_PICTURES_MAX]; /* encoded; owned */
    int count;
    double pixels, bytes; /* of all together */
    char source[128];     /* for reports */
} BenchPictures;

/* Up to BENCH_PICTURES_MAX pictures, evenly spread over the data set `spec`; NULL: drawn ones of 500 x 375 as
 * JPEG of quality 90. STATUS_INPUT for a set that cannot be read. Own storage, released by
 * bench_pictures_fini, on failure too. */
Status bench_pictures_init(BenchPictures *pictures, const char *spec, Error *error);

/* The drawn ones, of width x height. */
Status bench_pictures_draw(BenchPictures *pictures, int64_t width, int64_t height, Error *error);
void bench_pictures_fini(BenchPictures *pictures);

#endif
