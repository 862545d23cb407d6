/* test_comm_self.c - one process as the whole world: the same results as many ranks of one. */
#include "comm/comm.h"

#include <criterion/criterion.h>
#include <string.h>

Test(comm_self, collectives_are_copies)
{
    Comm *comm = comm_self_create();
    float in[3] = {1, -2, 3}, out[3] = {0}, all[3] = {0};
    cr_expect(comm_rank(comm) == 0 && comm_size(comm) == 1);
    cr_expect_str_eq(comm_backend_name(comm), "self");
    comm_reserve(comm, 1 << 20, 2);
    comm_all_gather(comm, all, in, 3, DTYPE_F32, NULL);
    comm_reduce_scatter(comm, out, in, 3, DTYPE_F32, NULL);
    cr_expect_arr_eq(all, in, sizeof in);
    cr_expect_arr_eq(out, in, sizeof in);
    comm_all_reduce(comm, out, 3, DTYPE_F32, COMM_MAX, NULL);
    comm_all_gather(comm, out, out, 3, DTYPE_F32, NULL); /* in place */
    comm_broadcast(comm, out, 3, DTYPE_F32, 0, NULL);
    comm_barrier(comm);
    comm_progress(comm);
    cr_expect_arr_eq(out, in, sizeof in);
    Comm *part = comm_split(comm, 3);
    cr_expect_eq(comm_size(part), 1);
    comm_destroy(part);
    comm_destroy(comm);
}

Test(comm_self, agree_gives_the_local_outcome_unchanged)
{
    Comm *comm = comm_self_create();
    Error error = {0};
    cr_expect_eq(comm_agree(comm, STATUS_OK, &error), STATUS_OK);
    status_fail(&error, STATUS_INPUT, "why");
    cr_expect_eq(comm_agree(comm, STATUS_INPUT, &error), STATUS_INPUT);
    cr_expect_str_eq(error.text, "why");
    comm_destroy(comm);
}

Test(comm_self, watchdog_starts_and_stops)
{
    Comm *comm = comm_self_create();
    comm_set_timeout(comm, 5);
    comm_barrier(comm);
    Comm *part = comm_split(comm, 0); /* inherits it */
    comm_barrier(part);
    comm_set_timeout(comm, 0);
    comm_destroy(part);
    comm_destroy(comm);
    comm_destroy(NULL);
}

Test(comm_self, abort_leaves_with_the_status, .exit_code = 75)
{
    comm_abort(comm_self_create(), STATUS_REQUEUE);
}
