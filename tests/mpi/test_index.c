/* test_index.c - search, components and k-means on 1 to 4 ranks; the cases are in case_index.c. */
#include "../support/process.h"

#include <criterion/criterion.h>

enum { RANKS_MAX = 4 };

static void runs(const char *name)
{
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        ProcessResult result = process_run_case(ranks, name, NULL, 60);
        cr_expect_eq(result.exit_status, 0, "%s on %d ranks: status %d\n%s", name, ranks, result.exit_status,
                     result.err);
        process_result_fini(&result);
    }
}

Test(index, pieces_reach_their_ranks)
{
    runs("index_exchange");
}

Test(index, neighbours_are_those_of_one_rank)
{
    runs("index_search");
}

Test(index, a_bad_row_is_named_on_all_ranks)
{
    runs("index_bad_row");
}

Test(index, components_are_those_of_a_union_find)
{
    runs("index_components");
}

Test(index, clusters_are_those_of_one_rank)
{
    runs("index_kmeans");
}
