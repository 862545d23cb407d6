/* prototype_blocks.h - how scores against many prototypes are cut into pieces.
 *
 * Scores of [rows, K] are made for a block of rows at a time, and within it for a tile of columns at a time:
 * a tile is made by one matrix product on one thread and is worked on while it is in that thread's cache. In
 * memory a block is a row of tiles, each dense as [rows, tile width]; so no two rows of a tile lie a power of
 * two apart. Tiles are dealt to threads in groups. Every cut depends on shapes alone, never on the number of
 * threads, and neither does any result.
 *
 * What it is not: an operation; prototypes.c, prototype_sinkhorn.c and prototype_cross_entropy.c are.
 */
#ifndef DINOBATCH_OPS_CPU_PROTOTYPE_BLOCKS_H
#define DINOBATCH_OPS_CPU_PROTOTYPE_BLOCKS_H

#include "ops/cpu/ops_cpu.h"

enum {
    PROTOTYPE_TILE = 512,  /* widest tile, columns */
    PROTOTYPE_GROUPS = 32, /* most groups of tiles */
    PROTOTYPE_BLOCK = 256, /* most rows of a block of a cross-entropy; a Sinkhorn block may have twice that */
    PROTOTYPE_BLOCK_MIN = 16,   /* and the fewest that a large K leaves */
    PROTOTYPE_SCORES = 8 << 20, /* scores of a block, where K allows it: 32 MiB */
};

typedef struct {
    int64_t K, d;
    int64_t tile, tiles; /* columns of a tile (the last may be narrower), and their number */
    int64_t groups;
} PrototypeTiles;

/* A Sinkhorn-Knopp block and a cross-entropy never coexist: both are laid out in this much scratch. */
size_t prototype_sinkhorn_scratch(const OpsLimits *limits);
size_t prototype_cross_entropy_scratch(const OpsLimits *limits);

PrototypeTiles prototype_tiles(int64_t K, int64_t d);

/* Most rows of a block whose scores fill `scores` floats, at most `most`. */
int64_t prototype_block_rows(int64_t K, int64_t scores, int64_t most);

/* Floats of a block of prototype_block_rows(K, scores, most), for this or any smaller K. */
int64_t prototype_block_floats(int64_t K, int64_t scores, int64_t most);

/* `most` or fewer rows, so that n rows make blocks of nearly one size. n > 0. */
int64_t prototype_even_rows(int64_t n, int64_t most);

/* Tiles [first, last) of a group. */
static inline void prototype_group(const PrototypeTiles *t, int64_t group, int64_t *first, int64_t *last)
{
    *first = t->tiles * group / t->groups;
    *last = t->tiles * (group + 1) / t->groups;
}

/* Columns of a tile. */
static inline int64_t prototype_width(const PrototypeTiles *t, int64_t tile)
{
    int64_t rest = t->K - tile * t->tile;
    return rest < t->tile ? rest : t->tile;
}

/* z[rows, width] = x[rows, d] . v[tile, d]^T * scale / temp + bias; bias may be NULL. */
void prototype_tile_scores(const PrototypeTiles *t, int64_t tile, int64_t rows, const float *x,
                           const float *v, const float *scale, float temp, const float *bias, float *z);

#endif
