/* test_cuda_prototype_cross_entropy.c - cross-entropy over prototypes on a GPU against the CPU: losses,
 * gradients, entropy and usage. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct {
    int64_t K, d, n, m, t, e; /* e: as d, of the teacher */
} Case;

/* Teacher rows that fit one block and that do not, student rows in many blocks, rows of two parts, as many
 * targets as are allowed, more teacher rows than pairs; rows of the teacher as wide, wider, narrower. */
static const Case CASES[] = {{1000, 24, 21, 20, 2, 40}, {65, 33, 18, 12, 2, 33}, {2100, 16, 17, 17, 1, 16},
                             {8200, 8, 3, 7, 2, 8},     {1000, 24, 1, 3, 1, 24}, {600, 40, 33, 33, 1, 64},
                             {300, 64, 9, 4, 16, 48},   {17, 5, 42, 6, 3, 5},    {200, 16, 3, 60, 2, 33},
                             {1, 1, 2, 2, 1, 1}};
static const Dtype MATS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES, MAT_COUNT = 3 };

static Twin *make_twin(uint64_t seed)
{
    return twin_create(&(OpsLimits){.rows = 64, .width = 64, .prototypes = 8200, .bottleneck = 64}, seed);
}

/* A side of the loss: rows, and weights of which the GPU has 16 bits where asked for. */
typedef struct {
    TwinTensor x, v, scale;
} Head;

static Head head_make(Twin *twin, Dtype mat, int64_t K, int64_t d, int64_t rows)
{
    TwinTensor narrow = twin_normal(twin, mat, K, d, 0.02), wide = twin_cast(twin, narrow, DTYPE_F32);
    TwinTensor g = twin_uniform_1d(twin, DTYPE_F32, K, 0.8, 1.2);
    Head h = {.x = twin_normal(twin, DTYPE_F32, rows, d, 1.0 / sqrt((double)d)),
              .v = {.host = wide.host, .device = narrow.device},
              .scale = twin_poison_1d(twin, DTYPE_F32, K)};
    twin->cpu->prototype_scale(twin->cpu, h.scale.host, h.v.host, g.host);
    twin_upload(twin, h.scale);
    return h;
}

typedef struct {
    Head student, teacher;
    TwinTensor bias, targets, row_weight, loss_scale;
} Inputs;

typedef struct {
    TwinTensor loss, d_student, d_student_w, usage, entropy;
} Results;

static Inputs inputs_make(Twin *twin, const Case *c, Dtype mat)
{
    Inputs in = {.student = head_make(twin, mat, c->K, c->d, c->n),
                 .teacher = head_make(twin, mat, c->K, c->e, c->m)};
    const int64_t shape[] = {c->n, c->t};
    const double scale = 8.0;
    in.bias = twin_normal_1d(twin, DTYPE_F32, c->K, 1.0);
    in.targets = twin_shaped(twin_integers(twin, c->n * c->t, -1, c->m - 1), 2, shape);
    in.row_weight = twin_uniform_1d(twin, DTYPE_F32, c->n, 0.0, 0.01);
    in.loss_scale = mat == DTYPE_F16 ? twin_f64(twin, 1, &scale) : twin_none();
    return in;
}

static Results results_make(Twin *twin, const Case *c, bool backward)
{
    const double none[] = {3.0, 5.0};
    return (Results){.loss = twin_poison_1d(twin, DTYPE_F32, c->n),
                     .d_student = backward ? twin_poison(twin, DTYPE_F32, c->n, c->d) : twin_none(),
                     .d_student_w = backward ? twin_zeros(twin, DTYPE_F32, c->K, c->d) : twin_none(),
                     .usage = twin_zeros_1d(twin, DTYPE_F32, c->K),
                     .entropy = twin_f64(twin, 2, none)};
}

static void run(Twin *twin, const Inputs *in, const Results *out, TwinSide side)
{
    Ops *ops = twin_ops(twin, side);
    PrototypeCrossEntropy args = {.student = in->student.x.on[side],
                                  .student_v = in->student.v.on[side],
                                  .student_scale = in->student.scale.on[side],
                                  .student_temp = 0.1f,
                                  .teacher = in->teacher.x.on[side],
                                  .teacher_v = in->teacher.v.on[side],
                                  .teacher_scale = in->teacher.scale.on[side],
                                  .teacher_temp = 0.05f,
                                  .teacher_bias = in->bias.on[side],
                                  .targets = in->targets.on[side],
                                  .row_weight = in->row_weight.on[side],
                                  .loss_scale = in->loss_scale.on[side],
                                  .loss = out->loss.on[side],
                                  .d_student = out->d_student.on[side],
                                  .d_student_w = out->d_student_w.on[side],
                                  .usage = out->usage.on[side],
                                  .entropy = out->entropy.on[side]};
    ops->prototype_cross_entropy(ops, &args);
}

/* 16 bits: three roundings of 2^-12 a score, over temp, of losses and entropies of 5 to 15 (the fewer columns
 * a row has, the less they cancel); gradients are rounded to bf16 once. */
static void check_results(Twin *twin, const Results *r, Dtype mat)
{
    bool exact = mat == DTYPE_F32;
    TWIN_CLOSE(twin, r->loss, exact ? 2e-6 : 1.2e-3);
    TWIN_CLOSE(twin, r->entropy, exact ? 2e-6 : 1.2e-3);
    if (tensor_given(r->usage.host)) TWIN_EQUAL(twin, r->usage);
    if (!tensor_given(r->d_student.host)) return;
    TWIN_CLOSE(twin, r->d_student, exact ? 1e-5 : TWIN_BF16);
    TWIN_CLOSE(twin, r->d_student_w, exact ? 1e-5 : TWIN_BF16);
}

Test(cuda_prototype_cross_entropy, losses_and_gradients_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(1);
    for (int i = 0; i < CASE_COUNT * MAT_COUNT; i++) {
        const Case *c = &CASES[i / MAT_COUNT];
        Dtype mat = MATS[i % MAT_COUNT];
        Inputs in = inputs_make(twin, c, mat);
        Results out = results_make(twin, c, true), again = results_make(twin, c, true);
        run(twin, &in, &out, TWIN_HOST);
        run(twin, &in, &out, TWIN_DEVICE);
        check_results(twin, &out, mat);

        twin_poison_scratch(twin);
        run(twin, &in, &again, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, out.loss, again.loss);
        TWIN_SAME_BITS(twin, out.d_student, again.d_student);
        TWIN_SAME_BITS(twin, out.d_student_w, again.d_student_w);
        TWIN_SAME_BITS(twin, out.entropy, again.entropy);
    }
    twin_destroy(twin);
}

/* Patches: every row has a teacher row of its own. Forward alone, without usage, and d W on top of what is
 * there. */
Test(cuda_prototype_cross_entropy, forward_alone_and_accumulation)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(2);
    const Case c = {300, 32, 35, 35, 1, 32};
    for (int i = 0; i < MAT_COUNT; i++) {
        Inputs in = inputs_make(twin, &c, MATS[i]);
        for (int64_t row = 0; row < c.n; row++)
            twin_set(in.targets, row, (double)(c.n - 1 - row));
        twin_upload(twin, in.targets);
        Results forward = results_make(twin, &c, false), out = results_make(twin, &c, true);
        forward.usage = twin_none();
        out.d_student_w = twin_normal(twin, DTYPE_F32, c.K, c.d, 0.02);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            run(twin, &in, &forward, side);
            run(twin, &in, &out, side);
        }
        check_results(twin, &out, MATS[i]);
        TWIN_SAME_BITS(twin, forward.loss, out.loss);
        TWIN_SAME_BITS(twin, forward.entropy, out.entropy);
    }
    twin_destroy(twin);
}

/* Rows without any target, and no rows. */
Test(cuda_prototype_cross_entropy, nothing_to_compare)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(3);
    for (int i = 0; i < MAT_COUNT; i++) {
        const Case c = {130, 16, 21, 5, 2, 16}, empty = {130, 16, 0, 5, 2, 16};
        Inputs in = inputs_make(twin, &c, MATS[i]), none = inputs_make(twin, &empty, MATS[i]);
        for (int64_t at = 0; at < c.n * c.t; at++)
            twin_set(in.targets, at, -1.0);
        twin_upload(twin, in.targets);
        Results out = results_make(twin, &c, true), rest = results_make(twin, &empty, true);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            run(twin, &in, &out, side);
            run(twin, &none, &rest, side);
        }
        TWIN_EQUAL(twin, out.loss);
        TWIN_EQUAL(twin, out.entropy);
        TWIN_EQUAL(twin, rest.entropy);
        cr_expect(twin_error(twin, out.d_student) == 0.0 && twin_error(twin, out.d_student_w) == 0.0);
        cr_expect(twin_error(twin, rest.d_student_w) == 0.0 && twin_written(twin, out.d_student));
    }
    twin_destroy(twin);
}

/* A row's largest entry in its second part; or in both parts, equally large: then the first one counts. */
Test(cuda_prototype_cross_entropy, largest_entry_in_another_part)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(5);
    const Case c = {8200, 8, 4, 4, 1, 8};
    for (int equal = 0; equal < 2; equal++) {
        Inputs in = inputs_make(twin, &c, DTYPE_F32);
        if (equal) /* of rows of zeros, z is the bias alone */
            for (int64_t at = 0; at < c.m * c.e; at++)
                twin_set(in.teacher.x, at, 0.0);
        for (int64_t row = 0; row < c.n; row++)
            twin_set(in.targets, row, (double)row);
        twin_set(in.bias, 8197, 40.0);
        if (equal) { /* one of a thread, and its neighbour */
            twin_set(in.bias, 77, 40.0);
            twin_set(in.bias, 78, 40.0);
        }
        twin_upload(twin, in.bias);
        twin_upload(twin, in.targets);
        twin_upload(twin, in.teacher.x);
        Results out = results_make(twin, &c, true);
        run(twin, &in, &out, TWIN_HOST);
        run(twin, &in, &out, TWIN_DEVICE);
        check_results(twin, &out, DTYPE_F32);
        cr_expect(twin_get(out.usage, equal ? 77 : 8197) == 4.0);
    }
    twin_destroy(twin);
}

/* Sizes of a real head: several blocks of 1024 rows in 16 bits. Minutes in the emulator, so not there. */
Test(cuda_prototype_cross_entropy, real_size)
{
    TWIN_REQUIRE_GPU();
    Twin *twin =
        twin_create(&(OpsLimits){.rows = 1300, .width = 64, .prototypes = 131072, .bottleneck = 64}, 4);
    const Case c = {131072, 64, 1300, 1300, 1, 64};
    Inputs in = inputs_make(twin, &c, DTYPE_BF16);
    Results out = results_make(twin, &c, true);
    out.usage = twin_none(); /* of so many prototypes some are nearly equal */
    run(twin, &in, &out, TWIN_HOST);
    run(twin, &in, &out, TWIN_DEVICE);
    check_results(twin, &out, DTYPE_BF16);
    twin_destroy(twin);
}
