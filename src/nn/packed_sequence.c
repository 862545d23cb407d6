/* packed_sequence.c - layout of a pack and of subsets of it. */
#include "nn/packed_sequence.h"

#include "base/check.h"

PackedSequence packed_sequence_make(Arena *arena, int set_count, const int64_t *sequences,
                                    const int64_t *tokens_each)
{
    CHECK(set_count > 0 && set_count <= PACKED_MAX_SETS);
    PackedSequence pack = {.set_count = set_count};
    for (int i = 0; i < set_count; i++) {
        pack.sets[i] = (PackedSet){.sequences = sequences[i],
                                   .tokens_each = tokens_each[i],
                                   .first_sequence = pack.sequences,
                                   .first_row = pack.tokens};
        pack.sequences += sequences[i];
        pack.tokens += sequences[i] * tokens_each[i];
    }
    CHECK(pack.tokens < INT32_MAX);
    int32_t *starts, at = 0;
    pack.cu_seqlens = tensor_stage_1d(arena, DTYPE_I32, pack.sequences + 1, &starts);
    pack.starts = starts;
    if (arena_is_measuring(arena)) return pack;

    int64_t s = 0;
    starts[0] = 0;
    for (int i = 0; i < set_count; i++) {
        for (int64_t k = 0; k < sequences[i]; k++) {
            at += (int32_t)tokens_each[i];
            starts[++s] = at;
        }
    }
    return pack;
}

TokenSubset packed_sequence_all(const PackedSequence *pack)
{
    return (TokenSubset){
        .sequences = pack->sequences, .tokens = pack->tokens, .cu_seqlens = pack->cu_seqlens};
}

TokenSubset packed_sequence_subset(const PackedSequence *pack, Arena *arena, const float *scale,
                                   int64_t sequence_bound, int64_t token_bound)
{
    TokenSubset subset = {.sequences = sequence_bound, .tokens = token_bound};
    const int32_t *starts = pack->starts;
    if (!arena_is_measuring(arena)) {
        subset.sequences = subset.tokens = 0;
        for (int64_t s = 0; s < pack->sequences; s++) {
            if (scale[s] <= 0) continue;
            subset.sequences++;
            subset.tokens += starts[s + 1] - starts[s];
        }
        CHECK(subset.sequences <= sequence_bound && subset.tokens <= token_bound);
    }
    int32_t *rows, *cu_seqlens, at = 0;
    float *row_scale;
    subset.rows = tensor_stage_1d(arena, DTYPE_I32, subset.tokens, &rows);
    subset.row_scale = tensor_stage_1d(arena, DTYPE_F32, subset.tokens, &row_scale);
    subset.cu_seqlens = tensor_stage_1d(arena, DTYPE_I32, subset.sequences + 1, &cu_seqlens);
    if (arena_is_measuring(arena)) return subset;

    int64_t kept = 0;
    cu_seqlens[0] = 0;
    for (int64_t s = 0; s < pack->sequences; s++) {
        if (scale[s] <= 0) continue;
        for (int32_t row = starts[s]; row < starts[s + 1]; row++, at++) {
            rows[at] = row;
            row_scale[at] = scale[s];
        }
        cu_seqlens[++kept] = at;
    }
    return subset;
}
