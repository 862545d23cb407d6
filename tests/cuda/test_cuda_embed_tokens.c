/* test_cuda_embed_tokens.c - patches and token sequences on a GPU against the CPU. */
#include "../support/twin_support.h"

#include "base/memory.h"

#include <criterion/criterion.h>

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { ACT_COUNT = 3 };

/* Pixels as [B, C, H, W]. */
static TwinTensor pictures(TwinTensor flat, const int64_t *shape)
{
    return twin_shaped(flat, 4, (int64_t[]){shape[0], shape[1], shape[2], shape[3]});
}

Test(cuda_embed_tokens, patchify_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    const int64_t shapes[][5] = {
        {1, 1, 2, 2, 2}, {2, 3, 28, 42, 14}, {3, 3, 8, 4, 4}, {1, 3, 112, 112, 16}, {0, 3, 28, 28, 14}};
    for (int s = 0; s < 5 * ACT_COUNT; s++) {
        const int64_t *shape = shapes[s / ACT_COUNT];
        int64_t B = shape[0], C = shape[1], H = shape[2], W = shape[3], p = shape[4];
        Dtype act = ACTS[s % ACT_COUNT];
        TwinTensor images = pictures(twin_normal(twin, DTYPE_F32, B * C, H * W, 1.0), shape);
        TwinTensor back = pictures(twin_poison(twin, DTYPE_F32, B * C, H * W), shape);
        TwinTensor patches = twin_poison(twin, act, B * (H / p) * (W / p), C * p * p);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->patchify_forward(ops, patches.on[side], images.on[side], tensor_none(), p);
            ops->patchify_backward(ops, back.on[side], patches.on[side], p);
        }
        TWIN_CLOSE(twin, patches, 5e-4);
        TWIN_CLOSE(twin, back, 5e-4);
        if (act != DTYPE_F16) TWIN_EQUAL(twin, patches);
    }
    twin_destroy(twin);
}

/* Bytes are read 16 at a time and written so: lines and pictures that begin anywhere in 16 bytes, all bytes
 * of a picture that is not the first of its memory, and lines too long for all of a row of patches at once.
 */
Test(cuda_embed_tokens, patchify_looks_up_the_cpus_levels)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 20);
    const int64_t shapes[][5] = {{1, 1, 2, 2, 2},    {3, 3, 28, 42, 14}, {3, 3, 9, 3, 3},
                                 {2, 3, 98, 98, 14}, {2, 3, 32, 48, 16}, {2, 3, 15, 2005, 5},
                                 {5, 1, 7, 21, 7},   {0, 3, 28, 28, 14}, {1, 3, 128, 256, 128}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    for (int s = 0; s < SHAPES * ACT_COUNT; s++) {
        const int64_t *shape = shapes[s / ACT_COUNT];
        int64_t B = shape[0], C = shape[1], H = shape[2], W = shape[3], p = shape[4];
        int64_t rows = B * (H / p) * (W / p), skip = s % 5;
        Dtype act = ACTS[s % ACT_COUNT];
        uint8_t *bytes = memory_alloc((size_t)(skip + B * C * H * W));
        for (int64_t i = 0; i < skip + B * C * H * W; i++)
            bytes[i] = (uint8_t)rng_u32(&twin->rng);
        TwinTensor all = twin_u8(twin, skip + B * C * H * W, bytes);
        memory_free(bytes);
        TwinTensor images = pictures(twin_rows(all, skip, B * C * H * W), shape);
        TwinTensor levels = twin_normal(twin, DTYPE_F32, C, 256, 1.0);
        TwinTensor patches = twin_rows(twin_poison(twin, act, 1 + rows, C * p * p), 1, rows);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->patchify_forward(ops, patches.on[side], images.on[side], levels.on[side], p);
        }
        TWIN_CLOSE(twin, patches, act == DTYPE_F16 ? 5e-4 : 0.0);
        if (act != DTYPE_F16) TWIN_EQUAL(twin, patches);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}

/* The operands of one case. */
typedef struct {
    int64_t B, R, N, D;
    TwinTensor patches, masks, mask_token, cls, registers, pos, x;
} Embedding;

static const int64_t SHAPES[][4] = {{1, 0, 1, 1}, {3, 4, 16, 24}, {2, 0, 9, 65},   {5, 1, 49, 130},
                                    {0, 4, 4, 8}, {37, 0, 6, 96}, {70, 4, 3, 384}, {2, 4, 7, 1000}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

static Embedding embedding_of(Twin *twin, const int64_t *shape, Dtype act, bool masked)
{
    Embedding e = {.B = shape[0], .R = shape[1], .N = shape[2], .D = shape[3]};
    e.patches = twin_normal(twin, act, e.B * e.N, e.D, 1.0);
    e.mask_token = twin_normal_1d(twin, DTYPE_F32, e.D, 1.0);
    e.cls = twin_normal_1d(twin, DTYPE_F32, e.D, 1.0);
    e.registers = e.R ? twin_normal(twin, DTYPE_F32, e.R, e.D, 1.0) : twin_none();
    e.pos = twin_normal(twin, DTYPE_F32, 1 + e.N, e.D, 1.0);
    e.x = twin_poison(twin, DTYPE_F32, e.B * (1 + e.R + e.N), e.D);
    e.masks = twin_none();
    if (!masked) return e;
    uint8_t *bytes = memory_alloc((size_t)(e.B * e.N));
    for (int64_t i = 0; i < e.B * e.N; i++)
        bytes[i] = rng_uniform01(&twin->rng) < 0.4;
    e.masks = twin_u8(twin, e.B * e.N, bytes);
    memory_free(bytes);
    return e;
}

Test(cuda_embed_tokens, forward_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 100);
    for (int s = 0; s < 2 * SHAPE_COUNT; s++) {
        Dtype act = ACTS[s % ACT_COUNT];
        Embedding e = embedding_of(twin, SHAPES[s / 2], act, s & 1);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->embed_tokens_forward(ops, e.x.on[side], e.patches.on[side], e.masks.on[side],
                                      e.mask_token.on[side], e.cls.on[side], e.registers.on[side],
                                      e.pos.on[side]);
        }
        TWIN_CLOSE(twin, e.x, 1e-7);
        TWIN_EQUAL(twin, e.x);
    }
    twin_destroy(twin);
}

/* The gradients' own starts are added to. */
static void backward(Twin *twin, const Embedding *e, TwinTensor dx, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->embed_tokens_backward(ops, e->patches.on[side], e->mask_token.on[side], e->cls.on[side],
                                   e->registers.on[side], e->pos.on[side], dx.on[side], e->masks.on[side]);
    }
}

Test(cuda_embed_tokens, backward_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 200);
    for (int s = 0; s < 2 * SHAPE_COUNT; s++) {
        Dtype act = ACTS[s % ACT_COUNT];
        Embedding e = embedding_of(twin, SHAPES[s / 2], act, s & 1);
        TwinTensor dx = twin_normal(twin, DTYPE_F32, e.x.host.shape[0], e.D, 1.0);
        e.patches = twin_poison(twin, act, e.B * e.N, e.D);
        Embedding again = e;
        again.patches = twin_poison(twin, act, e.B * e.N, e.D);
        again.mask_token = twin_copy(twin, e.mask_token);
        again.cls = twin_copy(twin, e.cls);
        again.pos = twin_copy(twin, e.pos);
        if (e.R) again.registers = twin_copy(twin, e.registers);
        backward(twin, &e, dx, TWIN_HOST);
        TWIN_CLOSE(twin, e.patches, act == DTYPE_F16 ? 5e-4 : 0.0);
        TWIN_CLOSE(twin, e.mask_token, TWIN_F32);
        TWIN_CLOSE(twin, e.cls, TWIN_F32);
        TWIN_CLOSE(twin, e.pos, TWIN_F32);
        if (e.R) TWIN_CLOSE(twin, e.registers, TWIN_F32);
        backward(twin, &again, dx, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, e.patches, again.patches);
        TWIN_SAME_BITS(twin, e.mask_token, again.mask_token);
        TWIN_SAME_BITS(twin, e.pos, again.pos);
        TWIN_SAME_BITS(twin, e.cls, again.cls);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}
