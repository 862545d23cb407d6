/* golden_masking.c - block masks: recorded draws replayed exactly, statistics and the collate rules compared.
 *
 * Statistics of both sides are random; a difference counts as one tolerance at five standard deviations.
 */
#include "golden.h"

#include "data/block_mask.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 8000, BATCHES = 400, THEIR_BATCHES = 40 };

static const double ALLOWED_DEVIATIONS = 5.0;

static bool is_result(const char *path)
{
    size_t length = strlen(path);
    return length < 6 || strcmp(path + length - 6, "/draws") != 0;
}

/* --- replay
 * --------------------------------------------------------------------------------------------------- */

typedef struct {
    const double *draws; /* [count, 4]: kind, low, high, value */
    int64_t count, next;
    int64_t wrong; /* draws asked for that were not the recorded ones */
} Recording;

static double replay(Recording *recording, double kind, double low, double high)
{
    if (recording->next >= recording->count) {
        recording->wrong++;
        return low;
    }
    const double *draw = recording->draws + 4 * recording->next++;
    recording->wrong += draw[0] != kind || fabs(draw[1] - low) > 1e-12 || fabs(draw[2] - high) > 1e-12;
    return draw[3];
}

static double replay_uniform(void *context, double a, double b)
{
    return replay(context, 0.0, a, b);
}

static int64_t replay_integer(void *context, int64_t low, int64_t high)
{
    return (int64_t)replay(context, 1.0, (double)low, (double)high);
}

static BlockMaskGrid base_grid(Golden *golden)
{
    double side = golden_attr(golden, "grid", "%s", "");
    return (BlockMaskGrid){.height = (int64_t)side,
                           .width = (int64_t)side,
                           .min_patches = golden_attr(golden, "min_num_patches", "%s", ""),
                           .max_patches = golden_attr(golden, "max_num_patches", "%s", ""),
                           .min_aspect = golden_attr(golden, "min_aspect", "%s", "")};
}

static void check_replay(Golden *golden, const char *name)
{
    BlockMaskGrid grid = base_grid(golden);
    grid.height = (int64_t)golden_attr(golden, "grid_h", "replay/%s", name);
    grid.width = (int64_t)golden_attr(golden, "grid_w", "replay/%s", name);
    grid.max_patches = golden_attr(golden, "max_num_patches", "replay/%s", name);
    GoldenShape shape;
    Recording recording = {.draws = golden_f64(golden, &shape, "replay/%s/draws", name)};
    recording.count = shape.count / 4;
    BlockMaskSource source = {&recording, replay_uniform, replay_integer};
    uint8_t *mask = calloc((size_t)(grid.height * grid.width), 1);
    int64_t target = (int64_t)golden_attr(golden, "target", "replay/%s", name);
    (void)block_mask_generate(&grid, target, source, mask);
    golden_compare_u8(golden, mask, grid.height * grid.width, "replay/%s/mask", name);
    if (recording.wrong > 0 || recording.next != recording.count)
        golden_fail(golden, "replay/%s: %lld draws differ, %lld of %lld used", name,
                    (long long)recording.wrong, (long long)recording.next, (long long)recording.count);
    free(mask);
}

/* --- statistics
 * ------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t *histogram; /* [patches + 1] */
    double *coverage;   /* [patches] */
    double agree[2], agree_square[2];
} MaskStatistics;

/* Share of equal neighbours of one mask: along rows (0) and down columns (1). */
static double neighbours_agree(const BlockMaskGrid *grid, const uint8_t *mask, int direction)
{
    int64_t rows = grid->height - (direction == 1), columns = grid->width - (direction == 0);
    int64_t step = direction == 0 ? 1 : grid->width, equal = 0;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x++)
            equal += mask[y * grid->width + x] == mask[y * grid->width + x + step];
    return (double)equal / (double)(rows * columns);
}

static void collect(const BlockMaskGrid *grid, int64_t target, MaskStatistics *statistics)
{
    int64_t patches = grid->height * grid->width;
    uint8_t *mask = calloc((size_t)patches, 1);
    Rng rng = rng_at(2, RNG_TEST, 0, (uint64_t)target);
    for (int i = 0; i < SAMPLES; i++) {
        int64_t count = block_mask_generate(grid, target, block_mask_source(&rng), mask);
        statistics->histogram[count]++;
        for (int64_t p = 0; p < patches; p++)
            statistics->coverage[p] += (double)mask[p] / SAMPLES;
        for (int d = 0; d < 2; d++) {
            double agree = neighbours_agree(grid, mask, d);
            statistics->agree[d] += agree / SAMPLES;
            statistics->agree_square[d] += agree * agree / SAMPLES;
        }
    }
    free(mask);
}

/* Two-sample chi-square over bins that hold at least ten samples together, the rest in one bin; in units of
 * five deviations above its mean. */
static double histogram_share(const int64_t *mine, const int64_t *theirs, int64_t bins, double their_samples)
{
    double chi = 0.0, freedom = 0.0, rest_mine = 0.0, rest_theirs = 0.0;
    double up = sqrt(their_samples / SAMPLES), down = 1.0 / up;
    for (int64_t i = 0; i < bins; i++) {
        double a = (double)mine[i], b = (double)theirs[i];
        if (a + b < 10.0) {
            rest_mine += a;
            rest_theirs += b;
            continue;
        }
        chi += (up * a - down * b) * (up * a - down * b) / (a + b);
        freedom += 1.0;
    }
    if (rest_mine + rest_theirs > 0.0) {
        double off = up * rest_mine - down * rest_theirs;
        chi += off * off / (rest_mine + rest_theirs);
        freedom += 1.0;
    }
    return chi / (freedom + ALLOWED_DEVIATIONS * sqrt(2.0 * freedom));
}

static double coverage_share(const double *mine, const double *theirs, int64_t patches, double their_samples)
{
    double worst = 0.0;
    for (int64_t p = 0; p < patches; p++) {
        double rate = (mine[p] * SAMPLES + theirs[p] * their_samples) / (SAMPLES + their_samples);
        double variance = rate * (1.0 - rate) * (1.0 / SAMPLES + 1.0 / their_samples);
        double off = fabs(mine[p] - theirs[p]);
        double share = off == 0.0 ? 0.0 : off / (ALLOWED_DEVIATIONS * sqrt(variance));
        worst = share > worst ? share : worst;
    }
    return worst;
}

static void check_statistics(Golden *golden, const char *name)
{
    BlockMaskGrid grid = base_grid(golden);
    int64_t patches = grid.height * grid.width;
    double their_samples = golden_attr(golden, "samples", "stats/%s", name);
    MaskStatistics mine = {.histogram = calloc((size_t)patches + 1, sizeof(int64_t)),
                           .coverage = calloc((size_t)patches, sizeof(double))};
    collect(&grid, (int64_t)golden_attr(golden, "target", "stats/%s", name), &mine);

    GoldenShape bins, cells, pair;
    const int64_t *histogram = golden_i64(golden, &bins, "stats/%s/count_histogram", name);
    const double *coverage = golden_f64(golden, &cells, "stats/%s/coverage", name);
    const double *agree = golden_f64(golden, &pair, "stats/%s/agree_hv", name);
    cr_assert(bins.count == patches + 1 && cells.count == patches && pair.count == 2);
    golden_judge(golden, histogram_share(mine.histogram, histogram, bins.count, their_samples),
                 "stats/%s/count_histogram", name);
    golden_judge(golden, coverage_share(mine.coverage, coverage, patches, their_samples), "stats/%s/coverage",
                 name);
    double worst = 0.0;
    for (int d = 0; d < 2; d++) {
        double variance = mine.agree_square[d] - mine.agree[d] * mine.agree[d];
        double deviation = sqrt(variance * (1.0 / SAMPLES + 1.0 / their_samples));
        worst = fmax(worst, fabs(mine.agree[d] - agree[d]) / (ALLOWED_DEVIATIONS * deviation));
    }
    golden_judge(golden, worst, "stats/%s/agree_hv", name);
    free(mine.histogram);
    free(mine.coverage);
}

/* --- collate
 * --------------------------------------------------------------------------------------------------- */

/* Columns: crops, probability, ratios low and high, patches, masked samples, upper bound, mean masked
 * patches, mean unmasked crops. Returns the error as a share of what is allowed. */
static double collate_share(const double row[9])
{
    enum { PATCH = 14 };
    int64_t crops = (int64_t)row[0], side = (int64_t)lrint(sqrt(row[4]));
    BlockMaskGrid grid = block_mask_grid(side * PATCH, PATCH);
    int64_t patches = side * side;
    uint8_t *masks = malloc((size_t)(crops * patches));
    double sum = 0.0, squares = 0.0, unmasked = 0.0, share = 0.0;
    for (int b = 0; b < BATCHES; b++) {
        Rng rng = rng_at(3, RNG_TEST, (uint64_t)b, (uint64_t)crops);
        BlockMaskCounts counts = block_mask_group(&grid, crops, row[1], row[2], row[3], rng, masks);
        if ((double)counts.masked_crops != row[5] || (double)counts.upperbound != row[6]) share = INFINITY;
        if (counts.masked_patches != block_mask_indices(masks, crops, patches, NULL, NULL)) share = INFINITY;
        sum += (double)counts.masked_patches / BATCHES;
        squares += (double)(counts.masked_patches * counts.masked_patches) / BATCHES;
        for (int64_t c = 0; c < crops; c++)
            unmasked += memchr(masks + c * patches, 1, (size_t)patches) == NULL ? 1.0 / BATCHES : 0.0;
    }
    free(masks);
    double deviation = sqrt((squares - sum * sum) * (1.0 / BATCHES + 1.0 / THEIR_BATCHES));
    share = fmax(share, fabs(sum - row[7]) / (ALLOWED_DEVIATIONS * deviation));
    return fmax(share, fabs(unmasked - row[8]) / 0.2);
}

void golden_masking(Golden *golden)
{
    golden_require(golden, is_result);
    const char *const *names = golden_members(golden, NULL, "replay");
    for (int64_t i = 0; names[i]; i++)
        check_replay(golden, names[i]);
    names = golden_members(golden, NULL, "stats");
    for (int64_t i = 0; names[i]; i++)
        check_statistics(golden, names[i]);
    GoldenShape shape;
    const double *collate = golden_f64(golden, &shape, "collate");
    cr_assert(shape.ndim == 2 && shape.dim[1] == 9);
    double share = 0.0;
    for (int64_t r = 0; r < shape.dim[0]; r++)
        share = fmax(share, collate_share(collate + 9 * r));
    golden_judge(golden, share, "collate");
}
