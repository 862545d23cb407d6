/* ops_support.h - what the tests of operations share: random and poisoned tensors, fp64 copies, errors.
 *
 * A fixture owns one Ops and one arena; every tensor of a test lives until the fixture is destroyed. */
#ifndef DINOBATCH_TESTS_SUPPORT_OPS_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_OPS_SUPPORT_H

#include "base/rng.h"
#include "ops/ops.h"

/* Operations of the CPU on a device of their own, and both gone again. */
Ops *ops_support_open(const OpsLimits *limits, int threads);
void ops_support_close(Ops *ops);

typedef struct {
    Ops *ops;
    Arena arena;
    Rng rng;
} OpsFixture;

/* An Ops of the host backend with limits far above what tests use (4096 rows, width 4096, 1500 tokens, head
 * dimension 256, 4096 prototypes of 256), 1 GB for tensors, and a generator that starts at `seed`. */
OpsFixture ops_support_create(int threads, uint64_t seed);
void ops_support_destroy(OpsFixture *fixture);

/* [rows, columns] fp32 or bf16: standard normal numbers times std. */
Tensor ops_support_normal(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns, double std);
Tensor ops_support_normal_1d(OpsFixture *fixture, Dtype dtype, int64_t n, double std);

/* Every bit set: NaN in fp32 and bf16, -1 in int32. For outputs that must be written whole. */
Tensor ops_support_poison(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns);
Tensor ops_support_poison_1d(OpsFixture *fixture, Dtype dtype, int64_t n);

Tensor ops_support_zeros(OpsFixture *fixture, Dtype dtype, int64_t rows, int64_t columns);

/* A copy with its own memory, same shape, element type `dtype` (fp32 or bf16 from either; else unchanged). */
Tensor ops_support_copy(OpsFixture *fixture, Tensor source, Dtype dtype);

/* int32 [n] with these values. */
Tensor ops_support_i32(OpsFixture *fixture, int64_t n, const int32_t *values);

/* int32 [n]: n distinct numbers below total, in random order. */
Tensor ops_support_distinct(OpsFixture *fixture, int64_t n, int64_t total);

/* The elements as fp64, in the fixture's memory. fp32, bf16, int32, uint8. */
double *ops_support_f64(OpsFixture *fixture, Tensor source);

/* n zeroed fp64 numbers in the fixture's memory. */
double *ops_support_f64_zeros(OpsFixture *fixture, int64_t n);

double ops_support_get(Tensor t, int64_t index);
void ops_support_set(Tensor t, int64_t index, double value);

/* max |got - want| / max |want| (an absolute error where want is all zero); infinity if got has a NaN. */
double ops_support_error(Tensor got, const double *want);

/* sum_i a[i] b[i] in fp64, any element types: <gradient, direction>. */
double ops_support_dot(Tensor a, const double *b);

/* Same bytes. */
bool ops_support_equal(Tensor a, Tensor b);

/* Limits for ops_support_error: fp32 sums of a few hundred terms, and one rounding to bf16. */
#define OPS_SUPPORT_F32  4e-6
#define OPS_SUPPORT_BF16 8e-3

#endif
