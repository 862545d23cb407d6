/* dense_maps.c - see dense_maps.h. */
#include "eval/dense_maps.h"

#include "base/check.h"
#include "base/memory.h"

#include <string.h>

enum { BLOCKS_MAX = 2 * 64 };

DenseMaps dense_maps_of(LinearProbe *probe, int64_t channels, int64_t block)
{
    int count = linear_probe_count(probe);
    float **map = memory_alloc_array((size_t)count, sizeof *map);
    return (DenseMaps){.probe = probe, .channels = channels, .block = block, .count = count, .map = map};
}

void dense_maps_fini(DenseMaps *maps)
{
    for (int c = 0; c < maps->count; c++)
        memory_free(maps->map[c]);
    memory_free(maps->map);
    *maps = (DenseMaps){0};
}

/* Rows [first, first + block) of tokens, or fewer; blocks: room for their pointers. */
static LinearProbeTokens part_of(const DenseMaps *maps, const LinearProbeTokens *tokens, int64_t first,
                                 int64_t D, const float *blocks[BLOCKS_MAX])
{
    CHECK(tokens->blocks <= BLOCKS_MAX);
    LinearProbeTokens part = {.blocks = tokens->blocks, .class_tokens = blocks};
    part.rows = tokens->rows - first < maps->block ? tokens->rows - first : maps->block;
    for (int64_t b = 0; b < tokens->blocks; b++)
        blocks[b] = tokens->class_tokens[b] + first * D;
    return part;
}

static void reserve(DenseMaps *maps, int64_t rows)
{
    if (rows <= maps->room) return;
    for (int c = 0; c < maps->count; c++) {
        memory_free(maps->map[c]);
        maps->map[c] = memory_alloc_array((size_t)(rows * maps->channels), sizeof *maps->map[c]);
    }
    maps->room = rows;
}

void dense_maps_forward(DenseMaps *maps, const LinearProbeTokens *tokens)
{
    const float *blocks[BLOCKS_MAX];
    int64_t K = maps->channels, D = linear_probe_embed_dim(maps->probe);
    reserve(maps, tokens->rows);
    for (int64_t first = 0; first < tokens->rows; first += maps->block) {
        LinearProbeTokens part = part_of(maps, tokens, first, D, blocks);
        linear_probe_predict(maps->probe, &part);
        for (int c = 0; c < maps->count; c++)
            for (int64_t row = 0; row < part.rows; row++)
                memcpy(maps->map[c] + (first + row) * K, linear_probe_scores(maps->probe, c, row),
                       (size_t)K * sizeof(float));
    }
}

void dense_maps_backward(DenseMaps *maps, const LinearProbeTokens *tokens)
{
    const float *blocks[BLOCKS_MAX];
    int64_t K = maps->channels, D = linear_probe_embed_dim(maps->probe);
    const float **gradients = memory_alloc_array((size_t)maps->count, sizeof *gradients);
    for (int64_t first = 0; first < tokens->rows; first += maps->block) {
        LinearProbeTokens part = part_of(maps, tokens, first, D, blocks);
        for (int c = 0; c < maps->count; c++)
            gradients[c] = maps->map[c] + first * K;
        linear_probe_add_gradient(maps->probe, &part, gradients);
    }
    memory_free(gradients);
}
