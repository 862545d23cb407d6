/* block_mask.c - see the header. */
#include "data/block_mask.h"

#include "base/check.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { BLOCK_ATTEMPTS = 10 };

BlockMaskGrid block_mask_grid(int64_t size, int64_t patch_size)
{
    CHECK(patch_size >= 1 && size >= patch_size);
    int64_t side = size / patch_size;
    double half = floor(floor(0.5 * (double)size / (double)patch_size) * (double)size / (double)patch_size);
    return (BlockMaskGrid){
        .height = side, .width = side, .min_patches = 4.0, .max_patches = half, .min_aspect = 0.3};
}

static double rng_source_uniform(void *context, double a, double b)
{
    return rng_uniform(context, a, b);
}

static int64_t rng_source_integer(void *context, int64_t low, int64_t high)
{
    return rng_integer(context, low, high);
}

BlockMaskSource block_mask_source(Rng *rng)
{
    return (BlockMaskSource){.context = rng, .uniform = rng_source_uniform, .integer = rng_source_integer};
}

typedef struct {
    int64_t top, left, height, width;
} Block;

/* Draws a block's shape and, when it is strictly smaller than the grid, its place. */
static bool draw_block(const BlockMaskGrid *grid, double most, BlockMaskSource source, Block *block)
{
    double area = source.uniform(source.context, grid->min_patches, most);
    double log_min = log(grid->min_aspect), log_max = log(1.0 / grid->min_aspect);
    double aspect = exp(source.uniform(source.context, log_min, log_max));
    block->height = (int64_t)rint(sqrt(area * aspect));
    block->width = (int64_t)rint(sqrt(area / aspect));
    if (block->width >= grid->width || block->height >= grid->height) return false;
    block->top = source.integer(source.context, 0, grid->height - block->height);
    block->left = source.integer(source.context, 0, grid->width - block->width);
    return true;
}

static int64_t count_new(const BlockMaskGrid *grid, const uint8_t *mask, const Block *block)
{
    int64_t fresh = 0;
    for (int64_t y = block->top; y < block->top + block->height; y++)
        for (int64_t x = block->left; x < block->left + block->width; x++)
            fresh += mask[y * grid->width + x] == 0;
    return fresh;
}

/* Adds one block of at most `most` new patches; returns how many are new, 0 when no attempt fitted. */
static int64_t add_block(const BlockMaskGrid *grid, double most, BlockMaskSource source, uint8_t *mask)
{
    for (int attempt = 0; attempt < BLOCK_ATTEMPTS; attempt++) {
        Block block;
        if (!draw_block(grid, most, source, &block)) continue;
        int64_t fresh = count_new(grid, mask, &block);
        if (fresh == 0 || (double)fresh > most) continue;
        for (int64_t y = block.top; y < block.top + block.height; y++)
            memset(mask + y * grid->width + block.left, 1, (size_t)block.width);
        return fresh;
    }
    return 0;
}

int64_t block_mask_generate(const BlockMaskGrid *grid, int64_t target, BlockMaskSource source, uint8_t *mask)
{
    memset(mask, 0, (size_t)(grid->height * grid->width));
    int64_t masked = 0;
    while (masked < target) {
        double most = fmin((double)(target - masked), grid->max_patches);
        int64_t fresh = add_block(grid, most, source, mask);
        if (fresh == 0) break;
        masked += fresh;
    }
    return masked;
}

/* Edge i of `strata` equal parts of [min, max], with the float32 operations of torch.linspace: from the
 * nearer end. The count of patches is truncated from these, so the last bit matters. */
static float stratum_edge(double ratio_min, double ratio_max, int64_t strata, int64_t i)
{
    float low = (float)ratio_min, high = (float)ratio_max;
    float step = (high - low) / (float)strata;
    int64_t edges = strata + 1;
    return i < edges / 2 ? low + step * (float)i : high - step * (float)(strata - i);
}

static int64_t count_masked_crops(int64_t crops, double probability)
{
    return (int64_t)((double)crops * probability);
}

int64_t block_mask_upperbound(const BlockMaskGrid *grid, int64_t crops, double probability, double ratio_min,
                              double ratio_max)
{
    int64_t strata = count_masked_crops(crops, probability);
    float patches = (float)(grid->height * grid->width);
    int64_t bound = 0;
    for (int64_t i = 0; i < strata; i++)
        bound += (int64_t)(patches * stratum_edge(ratio_min, ratio_max, strata, i + 1));
    return bound;
}

static void swap_bytes(uint8_t *a, uint8_t *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint8_t swapped = a[i];
        a[i] = b[i];
        b[i] = swapped;
    }
}

BlockMaskCounts block_mask_group(const BlockMaskGrid *grid, int64_t crops, double probability,
                                 double ratio_min, double ratio_max, Rng rng, uint8_t *masks)
{
    int64_t patches = grid->height * grid->width;
    BlockMaskCounts counts = {.masked_crops = count_masked_crops(crops, probability),
                              .upperbound =
                                  block_mask_upperbound(grid, crops, probability, ratio_min, ratio_max)};
    CHECK(counts.masked_crops >= 0 && counts.masked_crops <= crops);
    BlockMaskSource source = block_mask_source(&rng);
    for (int64_t i = 0; i < crops; i++) {
        int64_t target = 0;
        if (i < counts.masked_crops) {
            float low = stratum_edge(ratio_min, ratio_max, counts.masked_crops, i);
            float high = stratum_edge(ratio_min, ratio_max, counts.masked_crops, i + 1);
            /* float32, as tensors are: a draw can round up to the edge but not beyond it, so the sum of the
             * targets never exceeds the upper bound */
            float ratio = low + (high - low) * (float)rng_uniform01(&rng);
            target = (int64_t)((float)patches * fminf(ratio, high));
        }
        counts.masked_patches += block_mask_generate(grid, target, source, masks + i * patches);
    }
    for (int64_t i = crops - 1; i > 0; i--) {
        int64_t j = rng_integer(&rng, 0, i);
        if (j != i) swap_bytes(masks + i * patches, masks + j * patches, patches);
    }
    return counts;
}

int64_t block_mask_indices(const uint8_t *masks, int64_t crops, int64_t patches, int32_t *indices,
                           float *weights)
{
    int64_t total = 0;
    for (int64_t c = 0; c < crops; c++) {
        const uint8_t *mask = masks + c * patches;
        int64_t begin = total;
        for (int64_t p = 0; p < patches; p++) {
            if (mask[p] == 0) continue;
            if (indices) indices[total] = (int32_t)(c * patches + p);
            total++;
        }
        for (int64_t k = begin; weights && k < total; k++)
            weights[k] = 1.0f / (float)(total - begin);
    }
    return total;
}
