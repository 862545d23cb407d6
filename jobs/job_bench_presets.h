/* job_bench_presets.h - the configurations that `bench` measures: those that the peer and the demo have,
 * sizes that a GPU trains, and the command line's.
 */
#ifndef DINOBATCH_JOB_BENCH_PRESETS_H
#define DINOBATCH_JOB_BENCH_PRESETS_H

#include "base/dtype.h"
#include "config/config.h"
#include "run/options.h"

enum {
    PRESET_TINY,
    PRESET_VITS14,
    PRESET_DEMO,
    PRESET_FULL_S,
    PRESET_FULL_B,
    PRESET_FULL_L,
    PRESET_CONFIG,
    PRESETS
};

/* As --preset has it. */
const char *job_bench_presets_name(int preset);

/* Of the size that a GPU trains. */
bool job_bench_presets_is_full(int preset);

/* jobs/configs/demo.yaml: path[size] from here, or beside the program's build folder. STATUS_INPUT if it is
 * in neither place. */
Status job_bench_presets_find_demo(char *path, size_t size, Error *error);

/* The preset's settings over CONFIG, and those of the command line over these. Errors as of config.h. */
Status job_bench_presets_overlay(Config *config, int preset, const Options *options, Error *error);

/* All products of the model in that type. */
void job_bench_presets_set_dtype(Config *config, Dtype dtype);

#endif
