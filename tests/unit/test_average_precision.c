/* test_average_precision.c - figures of a ranked list, worked by hand. */
#include "eval/average_precision.h"

#include <criterion/criterion.h>

Test(average_precision, of_a_perfect_list_is_one)
{
    int64_t places[] = {0, 1, 2};
    cr_expect_float_eq(average_precision_mean(places, 3), 1.0, 1e-15);
    cr_expect_float_eq(average_precision_trapezoid(places, 3), 1.0, 1e-15);
    int64_t cuts[] = {1, 3, 10};
    for (int c = 0; c < 3; c++)
        cr_expect_float_eq(average_precision_at(places, 3, cuts[c]), 1.0, 1e-15, "three of three found");
}

Test(average_precision, of_a_mixed_list_is_what_the_hand_finds)
{
    /* found at the second, third and sixth of the list */
    int64_t places[] = {1, 2, 5};
    /* precisions there: 1/2, 2/3, 3/6 */
    cr_expect_float_eq(average_precision_mean(places, 3), (1.0 / 2 + 2.0 / 3 + 1.0 / 2) / 3, 1e-15);
    /* just before: 0/1, 1/2, 2/5 */
    double trapezoid = ((0.0 + 1.0 / 2) / 2 + (1.0 / 2 + 2.0 / 3) / 2 + (2.0 / 5 + 1.0 / 2) / 2) / 3;
    cr_expect_float_eq(average_precision_trapezoid(places, 3), trapezoid, 1e-15);
    cr_expect_float_eq(average_precision_at(places, 3, 1), 0.0, 1e-15);
    cr_expect_float_eq(average_precision_at(places, 3, 2), 1.0 / 2, 1e-15);
    cr_expect_float_eq(average_precision_at(places, 3, 5), 2.0 / 5, 1e-15);
    cr_expect_float_eq(average_precision_at(places, 3, 10), 3.0 / 6, 1e-15,
                       "the list ends at the last positive");
}

Test(average_precision, of_one_positive)
{
    int64_t first[] = {0}, fourth[] = {3};
    cr_expect_float_eq(average_precision_trapezoid(first, 1), 1.0, 1e-15,
                       "precision before the first place is 1");
    cr_expect_float_eq(average_precision_mean(fourth, 1), 1.0 / 4, 1e-15);
    cr_expect_float_eq(average_precision_trapezoid(fourth, 1), 1.0 / 8, 1e-15);
    cr_expect_float_eq(average_precision_at(fourth, 1, 10), 1.0 / 4, 1e-15);
}
