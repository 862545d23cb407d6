/* test_cuda_attention.c - attention on a GPU against the CPU: mixtures of lengths, whole sequences and
 * streamed ones, tensor cores and plain kernels. Every check is one of each kind of kernels: those of
 * mma.sync and those of wgmma.
 *
 * The CPU computes 16-bit operands in fp32, the tensor cores round probabilities and their gradients to 16
 * bits: errors of half a last place of each term, which average out in sums over keys. Gradients of q, k and
 * v are compared each with its own largest entry.
 */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

enum { MAX_SEQUENCES = 8, MANY = 300 };

typedef struct {
    int sequences;
    int32_t lengths[MAX_SEQUENCES];
    int64_t heads, head_dim;
} Case;

/* The operands of one case, outputs poisoned. */
typedef struct {
    TwinTensor qkv, out, lse, dout, dqkv, cu_seqlens;
    int64_t heads;
} Problem;

static double forward_bound(Dtype act)
{
    return act == DTYPE_BF16 ? 1e-2 : act == DTYPE_F16 ? 2e-3 : 1e-5;
}

static double backward_bound(Dtype act)
{
    return act == DTYPE_BF16 ? 2e-2 : act == DTYPE_F16 ? 4e-3 : 2e-5;
}

static Problem problem_of(Twin *twin, Dtype act, int sequences, const int32_t *lengths, int64_t heads,
                          int64_t head_dim, double std)
{
    int32_t cu[MANY + 1] = {0};
    for (int s = 0; s < sequences; s++)
        cu[s + 1] = cu[s] + lengths[s];
    int64_t n = cu[sequences], D = heads * head_dim;
    return (Problem){.qkv = twin_normal(twin, act, n, 3 * D, std),
                     .out = twin_poison(twin, act, n, D),
                     .lse = twin_poison(twin, DTYPE_F32, n, heads),
                     .dout = twin_normal(twin, act, n, D, 1.0),
                     .dqkv = twin_poison(twin, act, n, 3 * D),
                     .cu_seqlens = twin_i32(twin, sequences + 1, cu),
                     .heads = heads};
}

static Problem case_problem(Twin *twin, Dtype act, const Case *c, double std)
{
    return problem_of(twin, act, c->sequences, c->lengths, c->heads, c->head_dim, std);
}

static void run(Twin *twin, const Problem *p, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->attention_forward(ops, p->out.on[side], p->lse.on[side], p->qkv.on[side], p->cu_seqlens.on[side],
                               p->heads);
        ops->attention_backward(ops, p->dqkv.on[side], p->dout.on[side], p->out.on[side], p->lse.on[side],
                                p->qkv.on[side], p->cu_seqlens.on[side], p->heads);
    }
}

/* max |device - host| / max |host| over the columns of q, k or v; infinite where anything is not finite.
 * `least` stands in for a smaller max |host|: keys of a single token have gradients that are all rounding. */
static double third_error(Twin *twin, TwinTensor dqkv, int third, double least)
{
    int64_t n = dqkv.host.shape[0], D = dqkv.host.shape[1] / 3;
    const double *host = twin_values(twin, dqkv, TWIN_HOST), *device = twin_values(twin, dqkv, TWIN_DEVICE);
    double worst = 0.0, largest = least;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = third * D; j < (third + 1) * D; j++) {
            double h = host[i * 3 * D + j], d = device[i * 3 * D + j];
            if (!isfinite(h) || !isfinite(d)) return (double)INFINITY;
            worst = fmax(worst, fabs(d - h));
            largest = fmax(largest, fabs(h));
        }
    return worst / largest;
}

static void expect_close(Twin *twin, const Problem *p, Dtype act, const char *what)
{
    static const char *const thirds[] = {"dq", "dk", "dv"};
    double out = twin_error(twin, p->out), lse = twin_error(twin, p->lse);
    const char *type = dtype_name(act);
    cr_expect(twin_written(twin, p->out) && twin_written(twin, p->lse) && twin_written(twin, p->dqkv),
              "%s %s: not every element is written", what, type);
    cr_expect_leq(out, forward_bound(act), "%s %s: out differs by %.3g", what, type, out);
    cr_expect_leq(lse, 4e-6, "%s %s: lse differs by %.3g", what, type, lse);
    for (int third = 0; third < 3; third++) {
        double error = third_error(twin, p->dqkv, third, 0.1);
        cr_expect_leq(error, backward_bound(act), "%s %s: %s differs by %.3g", what, type, thirds[third],
                      error);
    }
}

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { ACT_COUNT = 3 };

/* A check of the kernels that `attention` stands for; a test of each. */
#define KERNEL_TEST(name)                     \
    static void name(OpsAttention attention); \
    Test(cuda_attention, name)                \
    {                                         \
        TWIN_REQUIRE();                       \
        name(OPS_ATTENTION_SM80);             \
    }                                         \
    Test(cuda_attention_sm90, name)           \
    {                                         \
        TWIN_REQUIRE_SM90();                  \
        name(OPS_ATTENTION_SM90);             \
    }                                         \
    static void name(OpsAttention attention)

static Twin *twin_of(OpsAttention attention, uint64_t seed)
{
    return twin_create_with(NULL, &(OpsOptions){.attention = attention}, seed);
}

static void check_cases(OpsAttention attention, const Case *cases, int count, int first_act, double std)
{
    for (int i = 0; i < count; i++)
        for (int a = first_act; a < ACT_COUNT; a++) {
            char what[64];
            Twin *twin = twin_of(attention, 100 + (uint64_t)i);
            Problem p = case_problem(twin, ACTS[a], &cases[i], std);
            run(twin, &p, TWIN_HOST);
            snprintf(what, sizeof what, "case %d, head_dim %lld", i, (long long)cases[i].head_dim);
            expect_close(twin, &p, ACTS[a], what);
            twin_destroy(twin);
        }
}

#define CHECK_CASES(attention, cases, first_act, std) \
    check_cases(attention, cases, sizeof(cases) / sizeof *(cases), first_act, std)

/* Shapes without a tensor core kernel, and fp32. */
KERNEL_TEST(plain_kernels)
{
    static const Case cases[] = {
        {1, {1}, 1, 8},        {3, {2, 1, 3}, 2, 12}, {2, {0, 7}, 3, 24},  {4, {33, 0, 32, 65}, 2, 48},
        {2, {17, 16}, 1, 200}, {2, {5, 40}, 1, 256},  {2, {50, 37}, 3, 5}, {1, {131}, 1, 64},
    };
    CHECK_CASES(attention, cases, 0, 1.2);
}

/* Sequences that a block holds whole; one or several heads to a block. */
KERNEL_TEST(whole_sequences_of_head_dim_64)
{
    static const Case cases[] = {
        {1, {1}, 1, 64},
        {3, {2, 1, 3}, 3, 64},
        {5, {17, 17, 17, 17, 17}, 3, 64},
        {8, {65, 17, 17, 64, 63, 16, 15, 1}, 2, 64},
        {3, {257, 50, 50}, 1, 64},
        {6, {0, 50, 0, 37, 33, 0}, 6, 64},
    };
    CHECK_CASES(attention, cases, 1, 1.2);
}

KERNEL_TEST(whole_sequences_of_other_head_dims)
{
    static const Case cases[] = {
        {4, {65, 17, 48, 1}, 2, 32}, {4, {65, 17, 47, 1}, 2, 96}, {4, {65, 17, 33, 1}, 2, 128},
        {2, {272, 3}, 1, 32},        {2, {176, 161}, 1, 96},      {2, {128, 113}, 1, 128},
    };
    CHECK_CASES(attention, cases, 1, 1.2);
}

/* Longer than a block holds: keys come by in stages; beside short ones in the same launch. */
KERNEL_TEST(long_sequences)
{
    static const Case cases[] = {
        {4, {300, 50, 0, 17}, 1, 64}, {2, {385, 273}, 1, 64},  {2, {19, 289}, 1, 32},
        {2, {193, 40}, 1, 96},        {2, {129, 200}, 1, 128},
    };
    CHECK_CASES(attention, cases, 1, 1.2);
}

/* Scores of +-80 and more: without the maximum subtracted, exp overflows. */
KERNEL_TEST(large_scores)
{
    static const Case cases[] = {{2, {90, 23}, 2, 64}, {1, {300}, 1, 64}, {2, {20, 40}, 1, 12}};
    for (int i = 0; i < 3; i++)
        for (int a = 0; a < ACT_COUNT; a++) {
            Twin *twin = twin_of(attention, 200 + (uint64_t)i);
            Problem p = case_problem(twin, ACTS[a], &cases[i], 5.0);
            run(twin, &p, TWIN_HOST);
            expect_close(twin, &p, ACTS[a], "large scores");
            const double *lse = twin_values(twin, p.lse, TWIN_DEVICE);
            double largest = 0.0;
            for (int64_t j = 0; j < tensor_count(p.lse.host); j++)
                largest = fmax(largest, fabs(lse[j]));
            cr_expect_gt(largest, 60.0, "largest lse is %g", largest);
            twin_destroy(twin);
        }
}

/* All keys the same: every score far below 0, so that exp(-lse) is beyond fp32 where zeros stand in for keys.
 */
KERNEL_TEST(scores_far_below_zero)
{
    static const int32_t lengths[] = {33, 300};
    for (int a = 1; a < ACT_COUNT; a++) {
        Twin *twin = twin_of(attention, 300);
        Problem p = problem_of(twin, ACTS[a], 2, lengths, 1, 64, 1.0);
        for (int64_t i = 0; i < p.qkv.host.shape[0]; i++)
            for (int64_t j = 0; j < 128; j++)
                twin_set(p.qkv, i * 192 + j, j < 64 ? 5.0 : -4.0 + (double)((i + j) % 3) * 0.5);
        twin_upload(twin, p.qkv);
        run(twin, &p, TWIN_HOST);
        expect_close(twin, &p, ACTS[a], "far below zero");
        twin_destroy(twin);
    }
}

KERNEL_TEST(more_sequences_than_threads)
{
    int32_t lengths[MANY];
    for (int s = 0; s < MANY; s++)
        lengths[s] = (s * 7 + 3) % 5 - (s % 11 == 0 ? (s * 7 + 3) % 5 : 0);
    for (int a = 1; a < ACT_COUNT; a++) {
        Twin *twin = twin_of(attention, 400);
        Problem p = problem_of(twin, ACTS[a], MANY, lengths, 2, 32, 1.2);
        run(twin, &p, TWIN_HOST);
        expect_close(twin, &p, ACTS[a], "many sequences");
        twin_destroy(twin);
    }
}

KERNEL_TEST(nothing_to_do)
{
    static const int32_t lengths[] = {0, 0};
    Twin *twin = twin_of(attention, 500);
    for (int sequences = 0; sequences <= 2; sequences += 2)
        for (int a = 0; a < ACT_COUNT; a++) {
            Problem p = problem_of(twin, ACTS[a], sequences, lengths, 2, 64, 1.0);
            run(twin, &p, TWIN_HOST);
        }
    twin_destroy(twin);
}

/* Tensors that no 16-byte access may touch go to the plain kernels. */
KERNEL_TEST(any_address)
{
    static const int32_t lengths[] = {40, 9};
    for (int a = 1; a < ACT_COUNT; a++) {
        Twin *twin = twin_of(attention, 600);
        Problem p = problem_of(twin, ACTS[a], 2, lengths, 2, 32, 1.2);
        TwinTensor flat = twin_normal_1d(twin, ACTS[a], 49 * 192 + 1, 1.2);
        p.qkv = twin_shaped(twin_rows(flat, 1, 49 * 192), 2, (const int64_t[]){49, 192});
        run(twin, &p, TWIN_HOST);
        expect_close(twin, &p, ACTS[a], "odd address");
        twin_destroy(twin);
    }
}

/* The same operands in other memory, other rubbish in the scratch memory: the same bits. */
KERNEL_TEST(same_bits_every_time)
{
    static const Case cases[] = {{4, {70, 300, 17, 50}, 2, 64}, {2, {33, 20}, 2, 24}};
    for (int i = 0; i < 2; i++)
        for (int a = 0; a < ACT_COUNT; a++) {
            Twin *twin = twin_of(attention, 700);
            Problem p = case_problem(twin, ACTS[a], &cases[i], 1.2), again = p;
            again.out = twin_copy(twin, p.out);
            again.lse = twin_copy(twin, p.lse);
            again.dqkv = twin_copy(twin, p.dqkv);
            again.qkv = twin_copy(twin, p.qkv);
            run(twin, &p, TWIN_DEVICE);
            twin_poison_scratch(twin);
            run(twin, &again, TWIN_DEVICE);
            TWIN_SAME_BITS(twin, p.out, again.out);
            TWIN_SAME_BITS(twin, p.lse, again.lse);
            TWIN_SAME_BITS(twin, p.dqkv, again.dqkv);
            twin_destroy(twin);
        }
}

/* Log-sum-exps and outputs are the same thing to both kinds of kernels. */
Test(cuda_attention_sm90, either_forward_feeds_either_backward)
{
    TWIN_REQUIRE_SM90();
    static const Case cases[] = {{3, {70, 300, 17}, 2, 64}, {2, {33, 140}, 1, 128}};
    for (int i = 0; i < 2; i++)
        for (int swapped = 0; swapped < 2; swapped++) {
            Twin *twin = twin_of(swapped ? OPS_ATTENTION_SM90 : OPS_ATTENTION_SM80, 800);
            const OpsOptions options = {.attention = swapped ? OPS_ATTENTION_SM80 : OPS_ATTENTION_SM90};
            Ops *other = ops_create(twin->cuda_device, &twin->limits, &options);
            Problem p = case_problem(twin, DTYPE_BF16, &cases[i], 1.2);
            run(twin, &p, TWIN_HOST);
            other->attention_backward(other, p.dqkv.device, p.dout.device, p.out.device, p.lse.device,
                                      p.qkv.device, p.cu_seqlens.device, p.heads);
            expect_close(twin, &p, DTYPE_BF16, "one forward, the other backward");
            ops_destroy(other);
            twin_destroy(twin);
        }
}

/* Which devices may be asked for which kernels. */
Test(cuda_attention, works_where_the_device_has_the_kernels)
{
    TWIN_REQUIRE();
    Device *host = device_open_host(), *gpu;
    Error error = {0};
    cr_assert_eq(device_open(&gpu, DEVICE_CUDA, 0, &error), STATUS_OK);
    for (OpsAttention a = OPS_ATTENTION_AUTO; a <= OPS_ATTENTION_SM90; a++) {
        cr_expect(ops_attention_works(host, a));
        cr_expect_eq(ops_attention_works(gpu, a), a != OPS_ATTENTION_SM90 || device_architecture(gpu) == 90);
    }
    cr_expect_eq(device_architecture(host), 0);
    cr_expect_geq(device_architecture(gpu), 80);
    device_close(gpu);
    device_close(host);
}
