/* augment_bench.h - decoding, and the crops of one picture, on one core. */
#ifndef DINOBATCH_BENCH_AUGMENT_BENCH_H
#define DINOBATCH_BENCH_AUGMENT_BENCH_H

#include "bench/bench_pictures.h"
#include "bench/bench_rows.h"
#include "data/augment.h"

/* Adds the row "decode" (section "limits") and, with `crops`, the crops of decoded pictures and whole samples
 * from encoded ones in both modes of data.decode, of the given pictures and of larger ones (section
 * "augmentation"), in pictures per second of one thread. STATUS_INPUT when a picture does not decode. */
Status augment_bench_run(BenchRows *rows, const BenchPictures *pictures, const AugmentParams *augment,
                         bool crops, double seconds, Error *error);

#endif
