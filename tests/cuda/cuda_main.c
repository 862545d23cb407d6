/* cuda_main.c - runs this suite, or says how many tests it skips where there is no GPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <stdio.h>

int main(int argc, char *argv[])
{
    struct criterion_test_set *tests = criterion_initialize();
    int failed = 0;
    if (!criterion_handle_args(argc, argv, true)) {
        criterion_finalize(tests);
        return 0;
    }
    if (twin_available())
        failed = !criterion_run_all_tests(tests);
    else
        printf("skipped: no CUDA device (%zu tests)\n", tests->tests);
    criterion_finalize(tests);
    return failed;
}
