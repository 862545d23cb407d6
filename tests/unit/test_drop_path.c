/* test_drop_path.c - the subsets of stochastic depth: how many, how scaled, how they depend on group and cut.
 */
#include "nn/drop_path.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 10, MOST = 64 };

/* The residual scale of every sequence of a pack: 0 where it was dropped. */
typedef struct {
    PackedSequence pack;
    TokenSubset subset;
    float scale[MOST];
} Drawn;

/* A pack of sequences [first, first + n) of two sets with 10 and 5 sequences in a group; set 1 has as many
 * groups. */
static Drawn draw_at(Arena *arena, double rate, int64_t step, int64_t block, DropPathBranch branch,
                     int64_t first, int64_t n)
{
    const int64_t sequences[] = {n, n / 2}, tokens[] = {3, 2};
    Drawn d = {.subset = {0}};
    d.pack = packed_sequence_make(arena, 2, sequences, tokens);
    DropPathDraw draw = {.rate = rate,
                         .seed = 7,
                         .step = step,
                         .block = block,
                         .branch = branch,
                         .sets = {{GROUP, first}, {GROUP / 2, first / 2}}};
    d.subset = drop_path_subset(&d.pack, arena, &draw);
    if (!tensor_given(d.subset.rows)) return d;
    const int32_t *rows = tensor_i32(d.subset.rows), *starts = tensor_i32(d.pack.cu_seqlens),
                  *kept = tensor_i32(d.subset.cu_seqlens);
    int64_t s = 0;
    for (int64_t k = 0; k < d.subset.sequences; k++) {
        while (starts[s] != rows[kept[k]])
            s++;
        cr_assert_eq(kept[k + 1] - kept[k], starts[s + 1] - starts[s], "a sequence is kept whole");
        for (int32_t i = kept[k]; i < kept[k + 1]; i++) {
            cr_assert_eq(rows[i], starts[s] + i - kept[k]);
            d.scale[s] = tensor_f32(d.subset.row_scale)[i];
            cr_assert(d.scale[s] > 0);
        }
    }
    cr_assert_eq(kept[d.subset.sequences], d.subset.tokens);
    return d;
}

static Drawn draw_all(Arena *arena, double rate, int64_t step, int64_t block, DropPathBranch branch)
{
    return draw_at(arena, rate, step, block, branch, 0, 4 * GROUP);
}

Test(drop_path, number_of_kept_sequences)
{
    static const struct {
        int64_t sequences;
        double rate;
        int64_t kept;
    } cases[] = {{10, 0.0, 10}, {10, 0.3, 7}, {6, 0.3, 4},  {7, 0.3, 4},  {1, 0.4, 1},
                 {3, 0.4, 1},   {10, 0.1, 9}, {10, 0.7, 3}, {4, 0.99, 1}, {2, 0.05, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_eq(drop_path_kept(cases[i].sequences, cases[i].rate), cases[i].kept, "%d of %d at %g",
                     (int)drop_path_kept(cases[i].sequences, cases[i].rate), (int)cases[i].sequences,
                     cases[i].rate);
}

Test(drop_path, every_group_keeps_its_number_at_its_scale)
{
    Arena arena = arena_create((size_t)1 << 20);
    Drawn d = draw_all(&arena, 0.3, 3, 1, DROP_PATH_FFN);
    for (int set = 0; set < 2; set++) {
        int64_t size = set == 0 ? GROUP : GROUP / 2, kept = drop_path_kept(size, 0.3);
        for (int64_t group = 0; group < 4; group++) {
            int64_t count = 0;
            for (int64_t i = 0; i < size; i++) {
                float scale = d.scale[d.pack.sets[set].first_sequence + group * size + i];
                count += scale > 0;
                cr_expect(scale == 0 || fabs(scale - (double)size / (double)kept) < 1e-6);
            }
            cr_expect_eq(count, kept, "set %d, group %d", set, (int)group);
        }
    }
    arena_destroy(&arena);
}

Test(drop_path, the_cut_does_not_change_the_draw)
{
    Arena arena = arena_create((size_t)4 << 20);
    Drawn whole = draw_all(&arena, 0.4, 5, 2, DROP_PATH_ATTENTION);
    for (int64_t n = 2; n <= 26; n += 6) {
        for (int64_t first = 0; first < 4 * GROUP; first += n) {
            int64_t here = 4 * GROUP - first < n ? 4 * GROUP - first : n;
            Drawn part = draw_at(&arena, 0.4, 5, 2, DROP_PATH_ATTENTION, first, here);
            for (int set = 0; set < 2; set++) {
                const PackedSet *p = &part.pack.sets[set];
                int64_t offset = whole.pack.sets[set].first_sequence + (set == 0 ? first : first / 2);
                cr_expect(memcmp(part.scale + p->first_sequence, whole.scale + offset,
                                 (size_t)p->sequences * sizeof(float)) == 0,
                          "%d sequences from %d, set %d", (int)here, (int)first, set);
            }
        }
        arena_reset(&arena, ARENA_START);
        whole = draw_all(&arena, 0.4, 5, 2, DROP_PATH_ATTENTION);
    }
    arena_destroy(&arena);
}

Test(drop_path, steps_blocks_branches_groups_and_sets_draw_afresh)
{
    Arena arena = arena_create((size_t)4 << 20);
    Drawn d = draw_all(&arena, 0.5, 1, 1, DROP_PATH_ATTENTION);
    Drawn step = draw_all(&arena, 0.5, 2, 1, DROP_PATH_ATTENTION);
    Drawn block = draw_all(&arena, 0.5, 1, 2, DROP_PATH_ATTENTION);
    Drawn branch = draw_all(&arena, 0.5, 1, 1, DROP_PATH_FFN);
    Drawn again = draw_all(&arena, 0.5, 1, 1, DROP_PATH_ATTENTION);
    cr_expect(memcmp(d.scale, step.scale, sizeof d.scale) != 0);
    cr_expect(memcmp(d.scale, block.scale, sizeof d.scale) != 0);
    cr_expect(memcmp(d.scale, branch.scale, sizeof d.scale) != 0);
    cr_expect(memcmp(d.scale, again.scale, sizeof d.scale) == 0);
    cr_expect(memcmp(d.scale, d.scale + GROUP, GROUP * sizeof(float)) != 0, "groups draw the same");
    arena_destroy(&arena);
}

Test(drop_path, every_sequence_is_kept_equally_often)
{
    Arena arena = arena_create((size_t)1 << 20);
    int count[GROUP] = {0};
    enum { DRAWS = 2000 };
    for (int64_t step = 0; step < DRAWS; step++) {
        Drawn d = draw_at(&arena, 0.3, step, 0, DROP_PATH_ATTENTION, 0, GROUP);
        for (int i = 0; i < GROUP; i++)
            count[i] += d.scale[i] > 0;
        arena_reset(&arena, ARENA_START);
    }
    for (int i = 0; i < GROUP; i++) /* 5 standard deviations of a share of 0.7 */
        cr_expect(abs(count[i] - DRAWS * 7 / 10) < 103, "sequence %d kept %d times", i, count[i]);
    arena_destroy(&arena);
}

Test(drop_path, rate_zero_keeps_everything)
{
    Arena arena = arena_create((size_t)1 << 20);
    Drawn d = draw_all(&arena, 0.0, 1, 1, DROP_PATH_ATTENTION);
    cr_expect(!tensor_given(d.subset.rows) && !tensor_given(d.subset.row_scale));
    cr_expect_eq(d.subset.tokens, d.pack.tokens);
    arena_destroy(&arena);
}

Test(drop_path, the_measured_size_holds_every_draw)
{
    Arena arena = arena_create((size_t)1 << 20);
    for (int64_t first = 0; first < 14; first += 2) {
        const int64_t sequences[] = {16, 8}, tokens[] = {5, 3};
        DropPathDraw draw = {.rate = 0.35, .sets = {{GROUP, first}, {GROUP / 2, first / 2}}};
        Arena plan = arena_measuring();
        PackedSequence sizes = packed_sequence_make(&plan, 2, sequences, tokens);
        drop_path_subset(&sizes, &plan, &draw);
        for (draw.step = 0; draw.step < 50; draw.step++) {
            arena_reset(&arena, ARENA_START);
            arena.peak = 0;
            PackedSequence pack = packed_sequence_make(&arena, 2, sequences, tokens);
            drop_path_subset(&pack, &arena, &draw);
            cr_expect(arena.peak <= plan.peak + plan.staged.peak);
        }
    }
    arena_destroy(&arena);
}
