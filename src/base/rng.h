/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC'11).
 *
 * A generator is a pure function of (seed, purpose, step, index): no state is shared, saved or advanced by
 * others, so any rank draws what any other would have drawn, and a resumed run draws what the first would.
 */
#ifndef DINOBATCH_BASE_RNG_H
#define DINOBATCH_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* What the numbers are for; keeps streams of the same step and index apart. Append only: the values are part
 * of what "the same seed gives the same run" means. */
typedef enum {
    RNG_INIT = 1,      /* initial weights: index = hash of the parameter's name */
    RNG_SAMPLER = 2,   /* permutation of the data set: step = epoch */
    RNG_AUGMENT = 3,   /* index = global sample place */
    RNG_MASK = 4,      /* index = group */
    RNG_DROP_PATH = 5, /* index = packed (group, block, branch, crop set) */
    RNG_SYNTHETIC = 6, /* index = image */
    RNG_EVALUATION = 7,
    RNG_TEST = 8,
    RNG_BENCH = 9,
    RNG_INDEX =
        10, /* samples of rows for search and k-means: step = what for (index_rows.h), index = place */
    RNG_FEATURES = 11, /* drawn descriptors: step = what for (synthetic_features.c), index = number of it */
    RNG_TRIAL = 12,    /* contents of files that only try a file system: step = version or writer */
} RngPurpose;

typedef struct {
    uint32_t key[2];
    uint32_t counter[4]; /* [0] counts blocks of four words; the rest place the stream */
    uint32_t block[4];
    int used; /* words of `block` already handed out */
} Rng;

/* The stream of (seed, purpose, step, index), at its beginning. */
Rng rng_at(uint64_t seed, RngPurpose purpose, uint64_t step, uint64_t index);

uint32_t rng_u32(Rng *rng);
uint64_t rng_u64(Rng *rng);

/* Uniform in [0, 1), 53 bits. */
double rng_uniform01(Rng *rng);

/* Uniform between a and b; b < a is legal (as in Python's random.uniform). */
double rng_uniform(Rng *rng, double a, double b);

/* Uniform integer, both ends included, without modulo bias; low <= high. */
int64_t rng_integer(Rng *rng, int64_t low, int64_t high);

/* Standard normal (Box-Muller, one of the pair is discarded so that a draw is always two words of 64 bits).
 */
double rng_normal(Rng *rng);

/* Normal(0, std) redrawn until it lies in [low, high]. */
double rng_truncated_normal(Rng *rng, double std, double low, double high);

/* out[n]: a uniform permutation of 0..n-1 (Fisher-Yates). */
void rng_permutation(Rng *rng, int32_t *out, int64_t n);

/* FNV-1a, 64 bits, of a string: a stable index for a name. */
uint64_t rng_hash_name(const char *name);

/* The same of bytes, going on from `hash`: RNG_HASH_START, or that of the bytes before. */
#define RNG_HASH_START UINT64_C(14695981039346656037)
uint64_t rng_hash_bytes(uint64_t hash, const void *bytes, size_t size);

/* The same of a string with its end, so that one text does not run into the next. */
uint64_t rng_hash_text(uint64_t hash, const char *text);

#endif
