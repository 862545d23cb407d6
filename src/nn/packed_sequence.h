/* packed_sequence.h - every crop of a network pass in one sequence of tokens.
 *
 * Crops of different sizes lie one after another as rows of one [tokens, D] matrix; cu_seqlens says where
 * each begins, which is the block-diagonal attention mask (paper section 5, "sequence packing"). Row-wise
 * work runs once over all.
 */
#ifndef DINOBATCH_NN_PACKED_SEQUENCE_H
#define DINOBATCH_NN_PACKED_SEQUENCE_H

#include "tensor/tensor.h"

enum { PACKED_MAX_SETS = 4 };

/* Crops of one size. */
typedef struct {
    int64_t sequences;
    int64_t tokens_each;
    int64_t first_sequence; /* in the pack */
    int64_t first_row;      /* in the pack */
} PackedSet;

typedef struct {
    int set_count;
    PackedSet sets[PACKED_MAX_SETS];
    int64_t sequences, tokens;
    Tensor cu_seqlens;     /* [sequences + 1] int32, staged */
    const int32_t *starts; /* the same where the host reads it; NULL while measuring */
} PackedSequence;

/* The part of a pack that a residual branch computes (stochastic depth keeps a subset of the sequences). */
typedef struct {
    int64_t sequences, tokens; /* kept */
    Tensor rows;               /* [tokens] int32: rows of the pack, ascending; none: all of them */
    Tensor row_scale;          /* [tokens] fp32: residual scale; none: 1 */
    Tensor cu_seqlens;         /* [sequences + 1] int32, within the kept tokens */
} TokenSubset;

/* Lays out `set_count` sets of sequences[i] crops with tokens_each[i] tokens; cu_seqlens comes from the
 * arena. */
PackedSequence packed_sequence_make(Arena *arena, int set_count, const int64_t *sequences,
                                    const int64_t *tokens_each);

/* Everything, scale 1. Borrows the pack's cu_seqlens. */
TokenSubset packed_sequence_all(const PackedSequence *pack);

/* The sequences with scale[s] > 0 (scale [pack->sequences]), each row scaled by it. On a measuring arena
 * `scale` is not read and `token_bound`, `sequence_bound` are taken as the counts. */
TokenSubset packed_sequence_subset(const PackedSequence *pack, Arena *arena, const float *scale,
                                   int64_t sequence_bound, int64_t token_bound);

#endif
