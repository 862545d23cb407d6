/* test_pack_state.c - sizes of images that were read before, and files that must not be taken for them. */
#include "../support/temp_folder.h"
#include "data/pack_state.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

enum { N = 5 };

static bool restore(const PackState *state, int64_t *sizes, int64_t count, Comm *comm)
{
    bool found = true;
    for (int64_t i = 0; i < count; i++)
        sizes[i] = 77;
    pack_state_restore(state, sizes, count, &found, comm);
    for (int64_t i = 0; i < count && !found; i++)
        cr_expect_eq(sizes[i], PACK_STATE_UNREAD);
    return found;
}

Test(pack_state, only_the_whole_file_of_the_same_images_is_taken)
{
    TempFolder temp = temp_folder_create();
    TempPath path = temp_folder_in(&temp, "assemble.partial");
    Comm *comm = comm_self_create();
    const int64_t sizes[N] = {900, PACK_STATE_CORRUPT, 12, PACK_STATE_UNREAD, 5000000000};
    int64_t got[N];
    Error error = {0};
    PackState state = {.path = path.text, .digest = 9, .resume = true};
    cr_expect_not(restore(&state, got, N, comm), "there is none");
    cr_assert_eq(pack_state_save(&state, sizes, N, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect(restore(&state, got, N, comm));
    cr_expect_arr_eq(got, sizes, sizeof sizes);
    cr_expect_not(restore(&state, got, N - 1, comm), "of other images");
    state.digest = 8;
    cr_expect_not(restore(&state, got, N, comm), "of other settings");
    state.digest = 9;
    state.resume = false;
    cr_expect_not(restore(&state, got, N, comm), "not wanted");
    state.resume = true;
    cr_assert_eq(truncate(path.text, 24 + 8 * N - 1), 0);
    cr_expect_not(restore(&state, got, N, comm), "cut");
    cr_expect_eq(pack_state_stopped(&state, &error), STATUS_REQUEUE);
    cr_expect(strstr(error.text, "assemble.partial"), "%s", error.text);
    pack_state_remove(&state, comm);
    cr_expect_neq(access(path.text, F_OK), 0);
    PackState none = {0};
    cr_expect_not(restore(&none, got, N, comm));
    comm_destroy(comm);
    temp_folder_destroy(&temp);
}
