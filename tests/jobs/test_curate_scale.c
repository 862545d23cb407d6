/* test_curate_scale.c - the script that measures deduplication of large pools, at a size that takes seconds:
 * what it compares is the same, and its tables are filled.
 */
#include "../support/process.h"

#include <criterion/criterion.h>
#include <string.h>

enum { LIMIT_SECONDS = 100 };

/* Looking at all lists is exact, and 128 columns keep chance below the threshold: all there is is found. */
Test(curate_scale, a_small_pool_goes_through, .timeout = 120)
{
    process_end_ranks_at_once();
    ProcessResult result = process_run(
        WORDS("bash", "tests/support/curation_scale.sh", "rows=3000", "lists=16", "nprobe=16", "small=1000",
              "small_lists=8", "probes=8", "columns=128", "mates=100", "block=64", "save_minutes=0"),
        LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s\n%s", result.out, result.err);
    cr_expect(strstr(result.out, "nprobe 8: 1.00000 of the edges, the same groups"), "%s", result.out);
    cr_expect(strstr(result.out, "those of the undisturbed run: the same, bit for bit"), "%s", result.out);
    int rows = 0;
    for (const char *at = result.out; (at = strstr(at, "| 1.00000 |")); at++)
        rows++;
    cr_expect_geq(rows, 4, "all true pairs are found by each of four runs: %s", result.out);
    cr_expect(strstr(result.out, "kB), ") && !strstr(result.out, "||"), "%s", result.out);
    process_result_fini(&result);
}

Test(curate_scale, says_how_it_is_used, .timeout = 60)
{
    ProcessResult result =
        process_run(WORDS("bash", "tests/support/curation_scale.sh", "row=3000"), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "rows=1000000  lists=2048"), "%s", result.err);
    process_result_fini(&result);
}
