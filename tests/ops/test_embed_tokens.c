/* patchify and embed_tokens against index arithmetic written out, both element types. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static Tensor images_of(OpsFixture *f, int64_t B, int64_t C, int64_t H, int64_t W, bool poison)
{
    Tensor flat = poison ? ops_support_poison(f, DTYPE_F32, B * C, H * W)
                         : ops_support_normal(f, DTYPE_F32, B * C, H * W, 1.0);
    return tensor_view(flat.data, DTYPE_F32, 4, (int64_t[]){B, C, H, W});
}

Test(patchify, places_every_pixel_and_takes_it_back)
{
    const int64_t shapes[][5] = {{1, 1, 2, 2, 2}, {2, 3, 28, 42, 14}, {3, 3, 8, 4, 4}, {1, 3, 112, 112, 16}};
    OpsFixture f = ops_support_create(2, 51);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int half = 0; half < 2; half++) {
            int64_t B = shapes[s][0], C = shapes[s][1], H = shapes[s][2], W = shapes[s][3], p = shapes[s][4];
            int64_t gh = H / p, gw = W / p, length = C * p * p;
            Dtype act = half ? DTYPE_BF16 : DTYPE_F32;
            Tensor images = images_of(&f, B, C, H, W, false), back = images_of(&f, B, C, H, W, true);
            Tensor patches = ops_support_poison(&f, act, B * gh * gw, length);
            f.ops->patchify_forward(f.ops, patches, images, tensor_none(), p);
            double *want = ops_support_f64_zeros(&f, tensor_count(images));
            for (int64_t at = 0; at < tensor_count(images); at++) {
                int64_t x = at % W, y = at / W % H, c = at / (W * H) % C, b = at / (W * H * C);
                int64_t row = (b * gh + y / p) * gw + x / p, column = (c * p + y % p) * p + x % p;
                want[row * length + column] = ops_support_get(images, at);
            }
            cr_assert_lt(ops_support_error(patches, want), half ? OPS_SUPPORT_BF16 : 1e-30);
            f.ops->patchify_backward(f.ops, back, patches, p);
            cr_assert_lt(ops_support_error(back, ops_support_f64(&f, images)),
                         half ? OPS_SUPPORT_BF16 : 1e-30);
        }
    ops_support_destroy(&f);
}

/* Grey levels are what the table of their channel says, to the bit. */
Test(patchify, looks_up_every_grey_level)
{
    const int64_t shapes[][5] = {
        {1, 1, 2, 2, 2}, {2, 3, 28, 42, 14}, {3, 3, 9, 3, 3}, {1, 3, 112, 112, 16}, {0, 3, 14, 14, 7}};
    OpsFixture f = ops_support_create(2, 55);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int half = 0; half < 2; half++) {
            int64_t B = shapes[s][0], C = shapes[s][1], H = shapes[s][2], W = shapes[s][3], p = shapes[s][4];
            Dtype act = half ? DTYPE_BF16 : DTYPE_F32;
            Tensor levels = ops_support_normal(&f, DTYPE_F32, C, 256, 1.0);
            Tensor values = images_of(&f, B, C, H, W, true);
            Tensor bytes = ops_support_zeros(&f, DTYPE_F32, B * C, H * W); /* room for them */
            Tensor images = tensor_view(bytes.data, DTYPE_U8, 4, (int64_t[]){B, C, H, W});
            for (int64_t i = 0; i < B * C * H * W; i++) {
                uint8_t level = ((uint8_t *)images.data)[i] = (uint8_t)rng_u32(&f.rng);
                tensor_f32(values)[i] = tensor_f32(levels)[i / (H * W) % C * 256 + level];
            }
            Tensor want = ops_support_poison(&f, act, B * (H / p) * (W / p), C * p * p);
            Tensor got = ops_support_poison(&f, act, B * (H / p) * (W / p), C * p * p);
            f.ops->patchify_forward(f.ops, want, values, tensor_none(), p);
            f.ops->patchify_forward(f.ops, got, images, levels, p);
            cr_assert(ops_support_equal(got, want));
        }
    ops_support_destroy(&f);
}

/* The operands of one case. */
typedef struct {
    int64_t B, R, N, D;
    Tensor patches, masks, mask_token, cls, registers, pos, x;
} Embedding;

static Embedding random_case(OpsFixture *f, const int64_t *shape, Dtype act, bool masked)
{
    Embedding e = {.B = shape[0], .R = shape[1], .N = shape[2], .D = shape[3]};
    e.patches = ops_support_normal(f, act, e.B * e.N, e.D, 1.0);
    e.mask_token = ops_support_normal_1d(f, DTYPE_F32, e.D, 1.0);
    e.cls = ops_support_normal_1d(f, DTYPE_F32, e.D, 1.0);
    e.registers = e.R ? ops_support_normal(f, DTYPE_F32, e.R, e.D, 1.0) : tensor_none();
    e.pos = ops_support_normal(f, DTYPE_F32, 1 + e.N, e.D, 1.0);
    e.x = ops_support_poison(f, DTYPE_F32, e.B * (1 + e.R + e.N), e.D);
    if (!masked) return e;
    Tensor bytes = ops_support_zeros(f, DTYPE_F32, e.B * e.N, 1);
    e.masks = tensor_1d(bytes.data, DTYPE_U8, e.B * e.N);
    for (int64_t i = 0; i < e.B * e.N; i++)
        ((uint8_t *)e.masks.data)[i] = rng_uniform01(&f->rng) < 0.4;
    return e;
}

static bool is_masked(const Embedding *e, int64_t patch)
{
    return tensor_given(e->masks) && ((const uint8_t *)e->masks.data)[patch];
}

static const int64_t SHAPES[][4] = {
    {1, 0, 1, 1}, {3, 4, 16, 32}, {2, 0, 9, 65}, {5, 1, 49, 130}, {0, 4, 4, 8}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

Test(embed_tokens, forward_agrees_with_the_layout)
{
    OpsFixture f = ops_support_create(2, 52);
    for (int s = 0; s < 4 * SHAPE_COUNT; s++) {
        Embedding e = random_case(&f, SHAPES[s / 4], s & 1 ? DTYPE_BF16 : DTYPE_F32, s & 2);
        f.ops->embed_tokens_forward(f.ops, e.x, e.patches, e.masks, s & 2 ? e.mask_token : tensor_none(),
                                    e.cls, e.registers, e.pos);
        int64_t tokens = 1 + e.R + e.N;
        double *want = ops_support_f64_zeros(&f, e.B * tokens * e.D);
        for (int64_t at = 0; at < e.B * tokens * e.D; at++) {
            int64_t d = at % e.D, t = at / e.D % tokens, b = at / (e.D * tokens), i = t - 1 - e.R;
            if (t == 0)
                want[at] = ops_support_get(e.cls, d) + ops_support_get(e.pos, d);
            else if (i < 0)
                want[at] = ops_support_get(e.registers, (t - 1) * e.D + d);
            else
                want[at] =
                    (is_masked(&e, b * e.N + i) ? ops_support_get(e.mask_token, d)
                                                : ops_support_get(e.patches, (b * e.N + i) * e.D + d)) +
                    ops_support_get(e.pos, (1 + i) * e.D + d);
        }
        cr_assert_lt(ops_support_error(e.x, want), 2e-7, "case %d", s);
    }
    ops_support_destroy(&f);
}

/* The map is linear: <dx, forward(direction)> must be <gradients, direction> for every operand. */
Test(embed_tokens, backward_is_the_transpose_of_forward)
{
    OpsFixture f = ops_support_create(2, 53);
    for (int s = 0; s < 4 * SHAPE_COUNT; s++) {
        Dtype act = s & 1 ? DTYPE_BF16 : DTYPE_F32;
        Embedding e = random_case(&f, SHAPES[s / 4], act, s & 2);
        f.ops->embed_tokens_forward(f.ops, e.x, e.patches, e.masks, e.mask_token, e.cls, e.registers, e.pos);
        Tensor dx = ops_support_normal(&f, DTYPE_F32, e.x.shape[0], e.D, 1.0);
        Tensor dpatches = ops_support_poison(&f, act, e.B * e.N, e.D);
        Tensor zeros = ops_support_zeros(&f, DTYPE_F32, 2 + e.R + 1 + e.N, e.D);
        Tensor dmask = tensor_rows(zeros, 0, 1), dcls = tensor_rows(zeros, 1, 1);
        Tensor dregisters = e.R ? tensor_rows(zeros, 2, e.R) : tensor_none();
        Tensor dpos = tensor_rows(zeros, 2 + e.R, 1 + e.N);
        f.ops->embed_tokens_backward(f.ops, dpatches, dmask, dcls, dregisters, dpos, dx, e.masks);

        double want = ops_support_dot(dx, ops_support_f64(&f, e.x));
        double got = ops_support_dot(dpatches, ops_support_f64(&f, e.patches)) +
                     ops_support_dot(dmask, ops_support_f64(&f, e.mask_token)) +
                     ops_support_dot(dcls, ops_support_f64(&f, e.cls)) +
                     ops_support_dot(dpos, ops_support_f64(&f, e.pos));
        if (e.R) got += ops_support_dot(dregisters, ops_support_f64(&f, e.registers));
        double scale = sqrt((double)tensor_count(e.x)) + 1.0;
        cr_assert_float_eq(got, want, scale * (s & 1 ? 2e-2 : 2e-5), "case %d: %g, want %g", s, got, want);
        for (int64_t i = 0; i < e.B * e.N * e.D; i++)
            if (is_masked(&e, i / e.D)) cr_assert_eq(ops_support_get(dpatches, i), 0.0);
    }
    ops_support_destroy(&f);
}

Test(embed_tokens, gradients_are_added_and_the_same_on_any_number_of_threads)
{
    OpsFixture keep = ops_support_create(1, 54);
    Embedding e = random_case(&keep, (int64_t[]){7, 2, 64, 96}, DTYPE_F32, true);
    Tensor dx = ops_support_normal(&keep, DTYPE_F32, e.x.shape[0], e.D, 1.0), first = tensor_none();
    for (int threads = 1; threads <= 3; threads++) {
        OpsFixture f = ops_support_create(threads, 54);
        Tensor dpatches = ops_support_poison(&keep, DTYPE_F32, e.B * e.N, e.D);
        Tensor sums = ops_support_zeros(&keep, DTYPE_F32, 2 + e.R + 1 + e.N, e.D);
        Tensor once = tensor_none();
        for (int pass = 0; pass < 2; pass++) {
            f.ops->embed_tokens_backward(f.ops, dpatches, tensor_rows(sums, 0, 1), tensor_rows(sums, 1, 1),
                                         tensor_rows(sums, 2, e.R), tensor_rows(sums, 2 + e.R, 1 + e.N), dx,
                                         e.masks);
            if (pass == 0) once = ops_support_copy(&keep, sums, DTYPE_F32);
        }
        double *twice = ops_support_f64(&keep, once);
        for (int64_t i = 0; i < tensor_count(once); i++)
            twice[i] *= 2.0;
        cr_assert_lt(ops_support_error(sums, twice), 1e-6);
        if (threads == 1) first = once;
        cr_assert(ops_support_equal(once, first));
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}
