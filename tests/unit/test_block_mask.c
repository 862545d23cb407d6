/* test_block_mask.c - limits, counts and shapes of block masks; the reference's draws are replayed in golden.
 */
#include "data/block_mask.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t count_ones(const uint8_t *mask, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        cr_assert(mask[i] <= 1);
        count += mask[i];
    }
    return count;
}

Test(block_mask, grid_of_the_reference)
{
    BlockMaskGrid grid = block_mask_grid(224, 14);
    cr_assert(grid.height == 16 && grid.width == 16 && grid.max_patches == 128.0);
    cr_assert(block_mask_grid(98, 14).max_patches == 21.0, "0.5 * 7 // is rounded down before the product");
    cr_assert(block_mask_grid(32, 4).max_patches == 32.0);
}

Test(block_mask, target_is_never_exceeded)
{
    BlockMaskGrid grids[] = {
        block_mask_grid(224, 14),
        block_mask_grid(98, 14),
        block_mask_grid(28, 14),
        {.height = 3, .width = 40, .min_patches = 4, .max_patches = 60, .min_aspect = 0.3}};
    Rng rng = rng_at(1, RNG_TEST, 0, 0);
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        int64_t patches = grids[g].height * grids[g].width, exact = 0, trials = 400;
        uint8_t *mask = malloc((size_t)patches);
        for (int64_t i = 0; i < trials; i++) {
            int64_t target = rng_integer(&rng, 0, (int64_t)grids[g].max_patches);
            int64_t masked = block_mask_generate(&grids[g], target, block_mask_source(&rng), mask);
            cr_assert(masked == count_ones(mask, patches));
            cr_assert(masked <= target && (g > 0 || target < 4 || masked > 0));
            exact += masked == target;
        }
        if (g == 0)
            cr_assert(exact > trials * 8 / 10, "%lld exact of %lld", (long long)exact, (long long)trials);
        free(mask);
    }
}

Test(block_mask, one_patch_grids_stay_empty)
{
    /* no block can be strictly smaller than a grid of one patch */
    BlockMaskGrid grid = {.height = 1, .width = 1, .min_patches = 4, .max_patches = 1, .min_aspect = 0.3};
    Rng rng = rng_at(1, RNG_TEST, 0, 1);
    uint8_t mask = 9;
    cr_assert(block_mask_generate(&grid, 1, block_mask_source(&rng), &mask) == 0 && mask == 0);
}

/* A source that records what is asked of it and answers with a fixed block. */
typedef struct {
    int uniforms, integers;
    int64_t high[2];
} Script;

static double script_uniform(void *context, double a, double b)
{
    Script *script = context;
    script->uniforms++;
    (void)a;
    return script->uniforms % 2 == 1 ? b : 0.0; /* largest area, aspect 1 */
}

static int64_t script_integer(void *context, int64_t low, int64_t high)
{
    Script *script = context;
    cr_assert(low == 0);
    script->high[script->integers++ % 2] = high;
    return high;
}

Test(block_mask, draws_come_in_order)
{
    BlockMaskGrid grid = {.height = 8, .width = 12, .min_patches = 4, .max_patches = 16, .min_aspect = 0.3};
    Script script = {0};
    uint8_t mask[96];
    int64_t masked =
        block_mask_generate(&grid, 16, (BlockMaskSource){&script, script_uniform, script_integer}, mask);
    cr_assert(masked == 16 && script.uniforms == 2 && script.integers == 2);
    cr_assert(script.high[0] == 4 && script.high[1] == 8, "top, then left");
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 12; x++)
            cr_assert(mask[12 * y + x] == (y >= 4 && x >= 8));
}

Test(block_mask, groups)
{
    BlockMaskGrid grid = block_mask_grid(224, 14);
    enum { CROPS = 24, N = 256 };
    uint8_t *masks = malloc(CROPS * N), *again = malloc(CROPS * N);
    int empty_first_half = 0;
    for (uint64_t step = 0; step < 50; step++) {
        Rng rng = rng_at(3, RNG_MASK, step, 0);
        BlockMaskCounts counts = block_mask_group(&grid, CROPS, 0.5, 0.1, 0.5, rng, masks);
        cr_assert(counts.masked_crops == 12);
        cr_assert(counts.upperbound == block_mask_upperbound(&grid, CROPS, 0.5, 0.1, 0.5));
        cr_assert(counts.masked_patches == count_ones(masks, CROPS * N));
        cr_assert(counts.masked_patches <= counts.upperbound);
        int masked = 0;
        for (int c = 0; c < CROPS; c++) {
            int64_t ones = count_ones(masks + c * N, N);
            cr_assert(ones <= 128);
            masked += ones > 0;
            empty_first_half += c < CROPS / 2 && ones == 0;
        }
        cr_assert(masked == 12);
        block_mask_group(&grid, CROPS, 0.5, 0.1, 0.5, rng, again);
        cr_assert(memcmp(masks, again, CROPS * N) == 0, "the same stream gives the same masks");
    }
    cr_assert(abs(empty_first_half - 300) < 60, "%d: not shuffled", empty_first_half);
    free(masks);
    free(again);
}

/* Targets are stratified: sorted by size, the masks of a group fill one stratum each. */
Test(block_mask, ratios_are_stratified)
{
    BlockMaskGrid grid = block_mask_grid(224, 14);
    enum { CROPS = 8, N = 256 };
    uint8_t *masks = malloc(CROPS * N);
    for (uint64_t step = 0; step < 30; step++) {
        block_mask_group(&grid, CROPS, 1.0, 0.1, 0.5, rng_at(4, RNG_MASK, step, 0), masks);
        int below[CROPS + 1] = {0};
        for (int c = 0; c < CROPS; c++) {
            double ratio = (double)count_ones(masks + c * N, N) / N;
            for (int s = 1; s <= CROPS; s++)
                below[s] += ratio < 0.1 + 0.4 * s / CROPS;
        }
        for (int s = 1; s < CROPS;
             s++) /* at least s are below edge s; a mask that misses its target may fall lower */
            cr_assert(below[s] >= s && below[s] <= s + 2, "step %d: %d below edge %d", (int)step, below[s],
                      s);
    }
    free(masks);
}

Test(block_mask, no_masks_and_all_masks)
{
    BlockMaskGrid grid = block_mask_grid(64, 16);
    uint8_t masks[4 * 16];
    BlockMaskCounts counts = block_mask_group(&grid, 4, 0.0, 0.1, 0.5, rng_at(5, RNG_MASK, 0, 0), masks);
    cr_assert(counts.masked_crops == 0 && counts.masked_patches == 0 && counts.upperbound == 0);
    cr_assert(count_ones(masks, 64) == 0);
    counts = block_mask_group(&grid, 1, 0.5, 0.1, 0.5, rng_at(5, RNG_MASK, 0, 0), masks);
    cr_assert(counts.masked_crops == 0);
    counts = block_mask_group(&grid, 4, 1.0, 0.0, 0.0, rng_at(5, RNG_MASK, 0, 0), masks);
    cr_assert(counts.masked_crops == 4 && counts.masked_patches == 0 && counts.upperbound == 0);
}

Test(block_mask, indices_and_weights)
{
    const uint8_t masks[3 * 4] = {0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1};
    int32_t indices[5];
    float weights[5];
    cr_assert(block_mask_indices(masks, 3, 4, NULL, NULL) == 5);
    cr_assert(block_mask_indices(masks, 3, 4, indices, weights) == 5);
    const int32_t expected[5] = {1, 2, 8, 10, 11};
    for (int i = 0; i < 5; i++) {
        cr_assert(indices[i] == expected[i]);
        cr_assert(weights[i] == (i < 2 ? 0.5f : 1.0f / 3.0f));
    }
}
