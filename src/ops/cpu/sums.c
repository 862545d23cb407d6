/* sums.c - the figures of a step: losses by group, the spread of features, prototypes in use.
 *
 * Few numbers out of few rows, added up in fp64 in the order of the rows.
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"

#include <math.h>

void cpu_group_sums(const Ops *ops, Tensor sums, Tensor values, Tensor weights, Tensor groups, double factor)
{
    (void)ops;
    int64_t n = tensor_count(values);
    CHECK(tensor_count(groups) == n && (!tensor_given(weights) || tensor_count(weights) == n));
    for (int64_t i = 0; i < n; i++) {
        int32_t group = tensor_i32(groups)[i];
        CHECK(group >= -1 && group < tensor_count(sums));
        double weight = tensor_given(weights) ? (double)tensor_f32(weights)[i] : 1.0;
        if (group >= 0) tensor_f64(sums)[group] += factor * weight * (double)tensor_f32(values)[i];
    }
}

void cpu_direction_sums(const Ops *ops, Tensor sums, Tensor x)
{
    static const double TINY = 1e-24; /* of a squared norm: a row of zeros stays one */
    (void)ops;
    int64_t n = x.shape[0], D = x.shape[1];
    CHECK(x.ndim == 2 && tensor_count(sums) == 2 * D);
    double *sum = tensor_f64(sums), *squares = sum + D;
    for (int64_t i = 0; i < n; i++) {
        const float *row = tensor_f32(x) + i * D;
        double square = 0.0;
        for (int64_t d = 0; d < D; d++)
            square += (double)row[d] * (double)row[d];
        double inverse = 1.0 / sqrt(square + TINY);
        for (int64_t d = 0; d < D; d++) {
            double value = (double)row[d] * inverse;
            sum[d] += value;
            squares[d] += value * value;
        }
    }
}

void cpu_count_positive(const Ops *ops, Tensor count, Tensor x)
{
    (void)ops;
    CHECK(tensor_count(count) == 1);
    int64_t n = tensor_count(x), positive = 0;
    for (int64_t i = 0; i < n; i++)
        positive += tensor_f32(x)[i] > 0.0f;
    tensor_f64(count)[0] = (double)positive;
}
