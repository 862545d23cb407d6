/* block_mask.h - which patches of the global crops are hidden from the student: random blocks.
 *
 * Source: dinov2/data/masking.py (MaskingGenerator) and collate.py, BEiT's block-wise masking. The random
 * numbers come through a BlockMaskSource, so that a recorded run can be replayed.
 * It does not apply masks: it only makes them.
 */
#ifndef DINOBATCH_DATA_BLOCK_MASK_H
#define DINOBATCH_DATA_BLOCK_MASK_H

#include "base/rng.h"

#include <stdint.h>

typedef struct {
    int64_t height, width; /* of the grid of patches */
    double min_patches;    /* smallest block drawn: 4 in the reference */
    double max_patches;    /* largest block drawn */
    double min_aspect;     /* of a block, height / width; the largest is 1 / min_aspect */
} BlockMaskGrid;

/* The reference's grid for a crop of `size` pixels: max_patches is 0.5 * size // patch * size // patch, from
 * left to right, which is less than half of an odd grid. */
BlockMaskGrid block_mask_grid(int64_t size, int64_t patch_size);

/* Where draws come from. `uniform(a, b)` allows b < a; `integer` includes both ends. */
typedef struct {
    void *context;
    double (*uniform)(void *context, double a, double b);
    int64_t (*integer)(void *context, int64_t low, int64_t high);
} BlockMaskSource;

/* A source that advances `rng`, which is borrowed. */
BlockMaskSource block_mask_source(Rng *rng);

/* One mask [height, width], 1 = masked, with at most `target` patches masked (a few less in one sample of
 * ten: the search gives up after 10 attempts without a new patch). Returns how many are masked. */
int64_t block_mask_generate(const BlockMaskGrid *grid, int64_t target, BlockMaskSource source, uint8_t *mask);

/* What the loss needs to know about a group's masks. */
typedef struct {
    int64_t masked_crops;   /* int(2B * probability), of which some may have target 0 */
    int64_t masked_patches; /* ones in all masks */
    int64_t upperbound; /* rows of the padded iBOT buffer: sum of int(N * upper ratio), >= masked_patches */
} BlockMaskCounts;

/* Masks of one group: masks [crops, N] uint8, N = height * width, in the order of the crops (2B of B samples,
 * crop-major: index c * B + s). int(crops * probability) of them have targets from as many strata of
 * [ratio_min, ratio_max], the others none; then all are shuffled. */
BlockMaskCounts block_mask_group(const BlockMaskGrid *grid, int64_t crops, double probability,
                                 double ratio_min, double ratio_max, Rng rng, uint8_t *masks);

/* The upper bound alone: it depends on no draw, so buffers can be planned with it. */
int64_t block_mask_upperbound(const BlockMaskGrid *grid, int64_t crops, double probability, double ratio_min,
                              double ratio_max);

/* Flat indices (crop * N + patch, ascending) of the masked patches and 1 / (masked patches of that crop) for
 * each; either may be NULL. Returns their number. */
int64_t block_mask_indices(const uint8_t *masks, int64_t crops, int64_t patches, int32_t *indices,
                           float *weights);

#endif
