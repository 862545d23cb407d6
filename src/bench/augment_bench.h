/* augment_bench.h - decoding, and the crops of one picture, on one core. */
#ifndef DINOBATCH_BENCH_AUGMENT_BENCH_H
#define DINOBATCH_BENCH_AUGMENT_BENCH_H

#include "bench/bench_pictures.h"
#include "bench/bench_rows.h"
#include "data/augment.h"

/* Adds the rows "decode" (section "limits") and, with `crops`, "crops" and "decode and crops" (section
 * "augmentation") in pictures per second of one thread. STATUS_INPUT when a picture does not decode. */
Status augment_bench_run(BenchRows *rows, const BenchPictures *pictures, const AugmentParams *augment,
                         bool crops, double seconds, Error *error);

#endif
