/* loader.h - the training data of one rank: batches in exact order, prefetched by threads.
 *
 * The content of a sample depends on (seed, step, group, place) alone: not on threads, ranks or timing.
 *   position   p = step * total_groups * group_size + group * group_size + place    (group is global)
 *   image      sampler_index(count, seed, p); if it cannot be read or decoded, the next index (mod count),
 *              and so on
 *   crops      rng_at(seed, RNG_AUGMENT, step, group * group_size + place)
 *   masks      rng_at(seed, RNG_MASK, step, group)
 * Batches lie in a ring of `prefetch` + 1; memory is bounded by that and nothing of
 * ours is allocated once the largest picture has been seen. Worker threads block all signals.
 *
 *     LoaderParams params = {...};
 *     TRY(loader_create(&loader, &params, set, error));
 *     for (...) {
 *         TRY(loader_next(loader, &batch, error));
 *         ...; loader_release(loader, batch);
 *         if (corrupt_list_has_news(loader_corrupt(loader)) on any rank) loader_tell_corrupt(loader, comm,
 * log);
 *     }
 */
#ifndef DINOBATCH_DATA_LOADER_H
#define DINOBATCH_DATA_LOADER_H

#include "base/status.h"
#include "data/augment.h"
#include "data/batch.h"
#include "data/data_set.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    AugmentParams augment;                                   /* sizes of the crops included */
    bool scaled_decode;                                      /* data.decode: see augment_part.h */
    int64_t patch_size;                                      /* divides the size of the global crops */
    double mask_probability, mask_ratio_min, mask_ratio_max; /* ibot.* */
    bool mask_all;                                           /* every patch, whatever the three say */
    uint64_t seed;                                           /* train.seed */
    int64_t group_size;                                      /* B */
    int64_t total_groups;                                    /* over all ranks */
    int64_t first_group, groups;                             /* those of this rank */
    int64_t first_step;                                      /* 0, or where the run resumes */
    int num_workers;  /* threads of this rank; 0: loader_next does the work itself */
    int64_t prefetch; /* batches ahead of those in use; at least 1 with threads */
    int in_use;       /* batches that the caller holds at once, 1 or more */
    Device *device;   /* which will read the batches, or NULL; outlives the loader */
} LoaderParams;

typedef struct Loader Loader;

/* Starts the threads. `set` is borrowed and outlives the loader. STATUS_FAILED: threads cannot be had. */
Status loader_create(Loader **out, const LoaderParams *params, const DataSet *set, Error *error);

/* Bytes of all batches of the ring. */
size_t loader_bytes(const Loader *loader);

/* Stops the threads within the time of one image each. */
void loader_destroy(Loader *loader);

/* The batch of the next step (first_step, first_step + 1, ...); blocks until it is complete and says in
 * wait_seconds for how long. It is the loader's memory, in use until loader_release. STATUS_INPUT: 1000
 * images in a row (or all) are corrupt. After a failure only loader_destroy is allowed. */
Status loader_next(Loader *loader, Batch **batch, Error *error);

/* Hands the memory of a batch back; in the order of loader_next. */
void loader_release(Loader *loader, Batch *batch);

#endif
