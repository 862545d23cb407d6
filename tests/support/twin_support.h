/* twin_support.h - an operation on the CPU beside the same operation on a GPU: operands that lie on both, and
 * errors.
 *
 * A Twin owns both devices, both tables of operations and every tensor that it makes, until twin_destroy:
 *
 *     TWIN_REQUIRE();                                        // skips the test where there is no GPU
 *     Twin *twin = twin_create(NULL, 7);
 *     TwinTensor x = twin_normal(twin, DTYPE_BF16, 37, 65, 1.0), y = twin_poison(twin, DTYPE_BF16, 37, 65);
 *     for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
 *         Ops *ops = twin_ops(twin, side);
 *         ops->gelu_forward(ops, y.on[side], x.on[side]);
 *     }
 *     TWIN_CLOSE(twin, y, TWIN_BF16);
 *     twin_destroy(twin);
 *
 * Each tensor is an allocation of its own on the GPU. DTYPE_F16 is half precision on the GPU and fp32 on the
 * host, with values that half precision has (the CPU computes fp16 in fp32). Made anew, both sides hold the
 * same values.
 */
#ifndef DINOBATCH_TESTS_SUPPORT_TWIN_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_TWIN_SUPPORT_H

#include "base/rng.h"
#include "comm/comm.h"
#include "ops/ops.h"

typedef enum { TWIN_HOST, TWIN_DEVICE } TwinSide;

/* The same operand on both sides. */
typedef union {
    struct {
        Tensor host, device;
    };
    Tensor on[2];
} TwinTensor;

typedef struct {
    Device *host_device, *cuda_device;
    Ops *cpu, *cuda;
    Comm *comm; /* of this process alone */
    Rng rng;
    OpsLimits limits; /* in force */
    void **blocks;    /* host memory of tensors; owned */
    void **device_blocks;
    int block_count, block_capacity;
} Twin;

/* True if a CUDA device can be opened. */
bool twin_available(void);

/* First statement of every test. Criterion counts what was skipped. */
#define TWIN_REQUIRE()                                           \
    do {                                                         \
        if (!twin_available()) cr_skip_test("no CUDA device\n"); \
    } while (0)

/* The same for tests too large to emulate. */
#define TWIN_REQUIRE_GPU()                                                         \
    do {                                                                           \
        TWIN_REQUIRE();                                                            \
        if (twin_is_emulated()) cr_skip_test("no CUDA device but the emulator\n"); \
    } while (0)

/* The same for kernels that compute capability 9.0 alone has; the emulator has it from here on. */
#define TWIN_REQUIRE_SM90()                                                                  \
    do {                                                                                     \
        TWIN_REQUIRE();                                                                      \
        if (!twin_offers_sm90()) cr_skip_test("no CUDA device of compute capability 9.0\n"); \
    } while (0)
bool twin_offers_sm90(void);

/* True if the CUDA device is the emulator's. */
bool twin_is_emulated(void);

/* limits NULL: 4096 rows, width 1536, sequences of 1500, 8 heads of 128, 1024 prototypes of 256, groups of
 * 256, 64 segments, 1536 columns of convolutions; members that are 0 take these as well. The scratch memory
 * of the GPU is filled with NaN.
 */
Twin *twin_create(const OpsLimits *limits, uint64_t seed);
Twin *twin_create_with(const OpsLimits *limits, const OpsOptions *options, uint64_t seed);
void twin_destroy(Twin *twin);

static inline Ops *twin_ops(const Twin *twin, TwinSide side)
{
    return side == TWIN_HOST ? twin->cpu : twin->cuda;
}

/* --- operands: [rows, columns], or [n] by the _1d forms ---------------------------------------------- */

/* fp32, bf16, fp16 and fp64. */
TwinTensor twin_normal(Twin *twin, Dtype dtype, int64_t rows, int64_t columns, double std);
TwinTensor twin_normal_1d(Twin *twin, Dtype dtype, int64_t n, double std);
TwinTensor twin_uniform(Twin *twin, Dtype dtype, int64_t rows, int64_t columns, double low, double high);
TwinTensor twin_uniform_1d(Twin *twin, Dtype dtype, int64_t n, double low, double high);

/* Every bit set: NaN in floating point, -1 in int32. For outputs that must be written whole. */
TwinTensor twin_poison(Twin *twin, Dtype dtype, int64_t rows, int64_t columns);
TwinTensor twin_poison_1d(Twin *twin, Dtype dtype, int64_t n);
TwinTensor twin_zeros(Twin *twin, Dtype dtype, int64_t rows, int64_t columns);
TwinTensor twin_zeros_1d(Twin *twin, Dtype dtype, int64_t n);

/* Of given values; i64 as [rows, columns] (bounds of segments: [S, 2]). */
TwinTensor twin_i32(Twin *twin, int64_t n, const int32_t *values);
TwinTensor twin_i64(Twin *twin, int64_t rows, int64_t columns, const int64_t *values);
TwinTensor twin_u8(Twin *twin, int64_t n, const uint8_t *values);
TwinTensor twin_f64(Twin *twin, int64_t n, const double *values);
TwinTensor twin_f32(Twin *twin, int64_t n, const float *values);

/* int32 [n]: distinct numbers below total in random order; and any numbers from low to high, both included.
 */
TwinTensor twin_distinct(Twin *twin, int64_t n, int64_t total);
TwinTensor twin_integers(Twin *twin, int64_t n, int64_t low, int64_t high);

static inline TwinTensor twin_none(void)
{
    return (TwinTensor){.host = tensor_none(), .device = tensor_none()};
}

/* Memory of its own with the host's values on both sides (a new start for what works in place), as another
 * type where dtype differs. */
TwinTensor twin_copy(Twin *twin, TwinTensor source);
TwinTensor twin_cast(Twin *twin, TwinTensor source, Dtype dtype);

/* The same memory in another shape, and rows [first, first + rows). */
TwinTensor twin_shaped(TwinTensor t, int ndim, const int64_t *shape);
TwinTensor twin_rows(TwinTensor t, int64_t first, int64_t rows);

/* --- values ------------------------------------------------------------------------------------------ */

/* One element of the host's side, of any type. A change reaches the GPU by twin_upload. */
double twin_get(TwinTensor t, int64_t index);
void twin_set(TwinTensor t, int64_t index, double value);
void twin_upload(Twin *twin, TwinTensor t);

/* All elements of one side as fp64, in memory of the twin. Waits for the GPU. */
double *twin_values(Twin *twin, TwinTensor t, TwinSide side);

/* Fills the GPU's scratch memory with NaN again. */
void twin_poison_scratch(Twin *twin);

/* --- comparing; all of them wait for the GPU --------------------------------------------------------- */

/* max |device - host| / max |host|, absolute where the host is all zero. Elements that are not finite must be
 * the same on both sides (NaN and NaN count as the same); infinity otherwise. */
double twin_error(Twin *twin, TwinTensor got);

/* sqrt(sum (device - host)^2 / sum host^2), with the same rules. */
double twin_rms_error(Twin *twin, TwinTensor got);

/* max |device - want| / max |want| against numbers of the test's own. */
double twin_error_to(Twin *twin, TwinTensor got, const double *want);

/* True if the GPU's side has no NaN left (integers: no -1), that is: every element of a poisoned output is
 * written. */
bool twin_written(Twin *twin, TwinTensor got);

/* The same bytes on the GPU: for repeated runs; and on both sides of one tensor. */
bool twin_same_bits(Twin *twin, TwinTensor a, TwinTensor b);
bool twin_equal(Twin *twin, TwinTensor t);

/* Limits for twin_error: fp32 sums of a few hundred terms in another order; one or two roundings to 16 bits.
 */
#define TWIN_F32  4e-6
#define TWIN_BF16 1.2e-2
#define TWIN_F16  1.5e-3

/* The limit for results that are stored as dtype. */
static inline double twin_bound(Dtype dtype)
{
    return dtype == DTYPE_BF16 ? TWIN_BF16 : dtype == DTYPE_F16 ? TWIN_F16 : TWIN_F32;
}

/* Fails the test unless every element is written and twin_error is within the bound. */
#define TWIN_CLOSE(twin, tensor, bound)                                                                     \
    do {                                                                                                    \
        double twin_close_error_ = twin_error(twin, tensor);                                                \
        cr_expect(twin_written(twin, tensor), "%s: not every element is written", #tensor);                 \
        cr_expect(twin_close_error_ <= (bound), "%s: error %.3g, at most %.3g", #tensor, twin_close_error_, \
                  (double)(bound));                                                                         \
    } while (0)

/* Fails the test unless the two tensors hold the same bytes on the GPU. */
#define TWIN_SAME_BITS(twin, a, b) \
    cr_expect(twin_same_bits(twin, a, b), "%s and %s: not the same bits", #a, #b)

/* Fails the test unless both sides hold the same bytes (integers, copies). */
#define TWIN_EQUAL(twin, tensor) cr_expect(twin_equal(twin, tensor), "%s: not the CPU's bits", #tensor)

#endif
