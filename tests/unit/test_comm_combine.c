/* test_comm_combine.c - the reduction over pieces: rank order to the bit, any place of the own piece, NaN. */
#include "base/rng.h"
#include "comm/mpi/comm_combine.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { RANKS = 5, COUNT = 2500 };

Test(comm_combine, sums_in_rank_order_wherever_the_own_piece_lies)
{
    static float pieces[RANKS][COUNT], expected[COUNT], own[COUNT];
    Rng rng = rng_at(9, RNG_TEST, 0, 0);
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < COUNT; i++)
            pieces[r][i] = (float)(rng_normal(&rng) * pow(10, rng_uniform(&rng, -8, 8)));
    for (int i = 0; i < COUNT; i++) {
        expected[i] = pieces[0][i];
        for (int r = 1; r < RANKS; r++)
            expected[i] += pieces[r][i];
    }
    for (int rank = 0; rank < RANKS; rank++) {
        memcpy(own, pieces[rank], sizeof own);
        float kept[COUNT];
        memcpy(kept, pieces[rank], sizeof kept);
        memset(pieces[rank], 0xff, sizeof pieces[rank]); /* must not be read */
        CombinePieces operands = {own, (const char *)pieces, sizeof pieces[0], rank, RANKS};
        comm_combine(own, operands, COUNT, DTYPE_F32, COMM_SUM); /* in place */
        cr_expect_arr_eq(own, expected, sizeof own, "own piece of rank %d", rank);
        memcpy(pieces[rank], kept, sizeof kept);
    }
}

Test(comm_combine, extremes_and_other_types)
{
    double pieces[3][4] = {{1, (double)NAN, -3, 0}, {2, 5, (double)NAN, -7}, {-4, 6, 8, (double)NAN}}, out[4];
    CombinePieces operands = {pieces[1], (const char *)pieces, sizeof pieces[0], 1, 3};
    comm_combine(out, operands, 4, DTYPE_F64, COMM_MAX);
    cr_expect(out[0] == 2 && isnan(out[1]) && isnan(out[2]) && isnan(out[3]));
    comm_combine(out, operands, 4, DTYPE_F64, COMM_MIN);
    cr_expect(out[0] == -4 && isnan(out[1]) && isnan(out[2]) && isnan(out[3]));

    int64_t whole[2][2] = {{INT64_C(1) << 60, -5}, {3, -9}}, result[2];
    CombinePieces two = {whole[0], (const char *)whole, sizeof whole[0], 0, 2};
    comm_combine(result, two, 2, DTYPE_I64, COMM_SUM);
    cr_expect(result[0] == (INT64_C(1) << 60) + 3 && result[1] == -14); /* exact where doubles are not */
    comm_combine(result, two, 2, DTYPE_I64, COMM_MIN);
    cr_expect(result[0] == 3 && result[1] == -9);
}
