/* Figures of a step: sums by group, the spread of directions, prototypes in use; zero. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

Test(sums, rows_go_to_their_groups_with_their_weights)
{
    OpsFixture f = ops_support_create(2, 81);
    static const int32_t GROUPS[7] = {2, -1, 0, 2, 1, -1, 2};
    Tensor values = ops_support_normal_1d(&f, DTYPE_F32, 7, 1.0),
           weights = ops_support_normal_1d(&f, DTYPE_F32, 7, 1.0);
    Tensor groups = ops_support_i32(&f, 7, GROUPS);
    for (int weighted = 0; weighted < 2; weighted++) {
        double *sums = ops_support_f64_zeros(&f, 3), want[3] = {1.0, 2.0, 3.0};
        for (int g = 0; g < 3; g++)
            sums[g] = want[g];
        for (int i = 0; i < 7; i++)
            if (GROUPS[i] >= 0)
                want[GROUPS[i]] +=
                    0.25 * ops_support_get(values, i) * (weighted ? ops_support_get(weights, i) : 1.0);
        f.ops->group_sums(f.ops, tensor_1d(sums, DTYPE_F64, 3), values, weighted ? weights : tensor_none(),
                          groups, 0.25);
        for (int g = 0; g < 3; g++)
            cr_expect_float_eq(sums[g], want[g], 1e-12);
    }
    ops_support_destroy(&f);
}

Test(sums, directions_count_whatever_their_length)
{
    enum { N = 50, D = 24 };
    OpsFixture f = ops_support_create(2, 82);
    Tensor x = ops_support_normal(&f, DTYPE_F32, N, D, 3.0);
    for (int d = 0; d < D; d++)
        ops_support_set(x, 7 * D + d, 0.0); /* a row of zeros adds nothing, and no NaN */
    double *sums = ops_support_f64_zeros(&f, 2 * D), total = 0.0;
    f.ops->direction_sums(f.ops, tensor_1d(sums, DTYPE_F64, 2 * D), x);
    for (int d = 0; d < D; d++) {
        double sum = 0.0;
        for (int i = 0; i < N; i++) {
            double square = 0.0;
            for (int e = 0; e < D; e++)
                square += pow(ops_support_get(x, i * D + e), 2);
            if (square > 0) sum += ops_support_get(x, i * D + d) / sqrt(square);
        }
        cr_expect_float_eq(sums[d], sum, 1e-9);
        total += sums[D + d];
    }
    cr_expect_float_eq(total, N - 1, 1e-9);
    ops_support_destroy(&f);
}

Test(sums, positive_entries_are_counted)
{
    OpsFixture f = ops_support_create(1, 83);
    Tensor x = ops_support_zeros(&f, DTYPE_F32, 1, 40);
    x = tensor_1d(x.data, DTYPE_F32, 40);
    ops_support_set(x, 3, 2.0);
    ops_support_set(x, 39, 1e-30);
    ops_support_set(x, 5, -1.0);
    double count = NAN;
    f.ops->count_positive(f.ops, tensor_1d(&count, DTYPE_F64, 1), x);
    cr_expect_eq(count, 2.0);
    ops_support_destroy(&f);
}

Test(sums, zero_clears_every_byte_and_no_more)
{
    OpsFixture f = ops_support_create(2, 84);
    Tensor x = ops_support_poison_1d(&f, DTYPE_F32, 3000001);
    f.ops->zero(f.ops, tensor_rows(x, 1, 2999999));
    cr_expect(isnan(ops_support_get(x, 0)) && isnan(ops_support_get(x, 3000000)));
    for (int64_t i = 1; i < 3000000; i++)
        if (ops_support_get(x, i) != 0.0) cr_assert_fail("element %ld", i);
    f.ops->zero(f.ops, tensor_rows(x, 0, 0));
    ops_support_destroy(&f);
}
