/* drop_path.c - the draws of stochastic depth. */
#include "nn/drop_path.h"

#include "base/check.h"
#include "base/rng.h"

#include <string.h>

int64_t drop_path_kept(int64_t sequences, double rate)
{
    int64_t kept = (int64_t)((double)sequences * (1.0 - rate));
    return kept > 1 ? kept : 1;
}

/* One stream per (group, block, branch, crop set). */
static Rng stream(const DropPathDraw *draw, int64_t group, int set)
{
    uint64_t index =
        (((uint64_t)group * 1024u + (uint64_t)draw->block) * 2u + (uint64_t)draw->branch) * PACKED_MAX_SETS +
        (uint64_t)set;
    return rng_at(draw->seed, RNG_DROP_PATH, (uint64_t)draw->step, index);
}

/* scale[first..] of the pack's sequences of `set` that belong to `group`; permutation [group_sequences] is
 * scratch. */
static void draw_group(const DropPathDraw *draw, const PackedSet *packed, int set, int64_t group,
                       int32_t *permutation, float *scale)
{
    const DropPathSet *s = &draw->sets[set];
    int64_t kept = drop_path_kept(s->group_sequences, draw->rate);
    Rng rng = stream(draw, group, set);
    rng_permutation(&rng, permutation, s->group_sequences);
    for (int64_t i = 0; i < kept; i++) {
        int64_t place = group * s->group_sequences + permutation[i] - s->first_sequence;
        if (place >= 0 && place < packed->sequences)
            scale[packed->first_sequence + place] = (float)((double)s->group_sequences / (double)kept);
    }
}

TokenSubset drop_path_subset(const PackedSequence *pack, Arena *arena, const DropPathDraw *draw)
{
    if (draw->rate <= 0) return packed_sequence_all(pack);
    CHECK(draw->block < 1024);
    float *scale = arena_alloc_host(arena, (size_t)pack->sequences * sizeof *scale);
    bool measuring = arena_is_measuring(arena);
    if (!measuring) memset(scale, 0, (size_t)pack->sequences * sizeof *scale);

    int64_t sequence_bound = 0, token_bound = 0;
    for (int i = 0; i < pack->set_count; i++) {
        const PackedSet *packed = &pack->sets[i];
        const DropPathSet *s = &draw->sets[i];
        int32_t *permutation = arena_alloc_host(arena, (size_t)s->group_sequences * sizeof *permutation);
        int64_t end = s->first_sequence + packed->sequences;
        for (int64_t group = s->first_sequence / s->group_sequences; group * s->group_sequences < end;
             group++) {
            int64_t from = group * s->group_sequences, to = from + s->group_sequences;
            int64_t here = (to < end ? to : end) - (from > s->first_sequence ? from : s->first_sequence);
            int64_t kept = drop_path_kept(s->group_sequences, draw->rate);
            int64_t most = kept < here ? kept : here;
            sequence_bound += most;
            token_bound += most * packed->tokens_each;
            if (!measuring) draw_group(draw, packed, i, group, permutation, scale);
        }
    }
    return packed_sequence_subset(pack, arena, scale, sequence_bound, token_bound);
}
