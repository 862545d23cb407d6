/* test_cuda_prototype_sinkhorn.c - Sinkhorn-Knopp biases on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct {
    int64_t K, d, n;
    int iterations;
} Case;

/* Rows in one block and in several, columns of several blocks, rows of two parts, no rows at all. */
static const Case CASES[] = {{65, 24, 37, 3}, {1000, 16, 12, 3}, {1000, 33, 43, 3}, {8200, 8, 5, 3},
                             {300, 64, 1, 3}, {2100, 16, 20, 1}, {500, 16, 0, 3},   {3, 1, 2, 2}};
static const Dtype MATS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES, MAT_COUNT = 3 };

static Twin *make_twin(uint64_t seed)
{
    return twin_create(&(OpsLimits){.rows = 80, .width = 64, .prototypes = 8200, .bottleneck = 64}, seed);
}

static void check_case(Twin *twin, const Case *c, Dtype mat, double temp)
{
    TwinTensor narrow = twin_normal(twin, mat, c->K, c->d, 0.02), wide = twin_cast(twin, narrow, DTYPE_F32);
    TwinTensor v = {.host = wide.host, .device = narrow.device};
    TwinTensor x = twin_normal(twin, DTYPE_F32, c->n, c->d, 1.0 / sqrt((double)c->d));
    TwinTensor g = twin_uniform_1d(twin, DTYPE_F32, c->K, 0.8, 1.2),
               scale = twin_poison_1d(twin, DTYPE_F32, c->K);
    TwinTensor bias = twin_poison_1d(twin, DTYPE_F32, c->K), again = twin_copy(twin, bias);
    twin->cpu->prototype_scale(twin->cpu, scale.host, v.host, g.host);
    twin_upload(twin, scale);
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->prototype_sinkhorn(ops, bias.on[side], x.on[side], v.on[side], scale.on[side], (float)temp,
                                c->iterations, twin->comm);
    }
    /* 16 bits: three roundings of 2^-12 a score, over temp, of biases that are 10 to 20 at most */
    TWIN_CLOSE(twin, bias, mat == DTYPE_F32 ? 2e-6 : 3e-3);
    twin_poison_scratch(twin);
    twin->cuda->prototype_sinkhorn(twin->cuda, again.device, x.device, v.device, scale.device, (float)temp,
                                   c->iterations, twin->comm);
    TWIN_SAME_BITS(twin, bias, again);
}

Test(cuda_prototype_sinkhorn, biases_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(1);
    for (int i = 0; i < CASE_COUNT * MAT_COUNT; i++)
        check_case(twin, &CASES[i / MAT_COUNT], MATS[i % MAT_COUNT], i % 2 ? 0.07 : 0.04);
    twin_destroy(twin);
}

/* Scores / temp of several hundred, where exp overflows without the maximum. */
Test(cuda_prototype_sinkhorn, cold)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(2);
    check_case(twin, &(Case){300, 24, 20, 3}, DTYPE_F32, 0.004);
    twin_destroy(twin);
}

/* Sizes of a real head: blocks of 2048 rows in 16 bits, offsets beyond 2^28. Minutes in the emulator, so not
 * there. */
Test(cuda_prototype_sinkhorn, real_size)
{
    TWIN_REQUIRE_GPU();
    Twin *twin =
        twin_create(&(OpsLimits){.rows = 2500, .width = 64, .prototypes = 131072, .bottleneck = 64}, 3);
    check_case(twin, &(Case){131072, 64, 2500, 3}, DTYPE_BF16, 0.05);
    twin_destroy(twin);
}
