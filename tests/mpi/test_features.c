/* test_features.c - features and k-NN on several ranks; the cases are in case_features.c. */
#include "../support/process.h"

#include <criterion/criterion.h>

static void runs(int ranks, const char *name)
{
    ProcessResult result = process_run_case(ranks, name, NULL, 60);
    cr_expect_eq(result.exit_status, 0, "%s on %d ranks: status %d\n%s", name, ranks, result.exit_status,
                 result.err);
    process_result_fini(&result);
}

Test(features, equal_on_two_ranks)
{
    runs(2, "features");
}

Test(features, equal_on_three_ranks)
{
    runs(3, "features");
}

Test(features, knn_search_merges_shards)
{
    runs(2, "knn_shards");
    runs(4, "knn_shards");
}
