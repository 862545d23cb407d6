/* test_cuda_pos_embed.c - resampled position embeddings on a GPU against the CPU, and their transpose. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

typedef struct {
    int64_t side, h, w, D;
} Grid;

static const Grid GRIDS[] = {{1, 1, 3, 4},  {2, 5, 1, 3},   {4, 4, 4, 7},    {4, 2, 8, 65},  {7, 3, 3, 96},
                             {16, 7, 7, 1}, {5, 12, 9, 64}, {16, 1, 2, 130}, {37, 7, 7, 24}, {37, 16, 50, 3}};
enum { GRID_COUNT = sizeof GRIDS / sizeof *GRIDS };

Test(cuda_pos_embed, both_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    for (int s = 0; s < 3 * GRID_COUNT; s++) {
        Grid g = GRIDS[s / 3];
        double offset = s % 3 == 0 ? 0.1 : 0.0;
        bool antialias = s % 3 == 2;
        TwinTensor pos = twin_normal(twin, DTYPE_F32, 1 + g.side * g.side, g.D, 1.0);
        TwinTensor out = twin_poison(twin, DTYPE_F32, 1 + g.h * g.w, g.D);
        TwinTensor dout = twin_normal(twin, DTYPE_F32, 1 + g.h * g.w, g.D, 1.0);
        TwinTensor dpos = twin_normal(twin, DTYPE_F32, 1 + g.side * g.side, g.D, 1.0);
        TwinTensor again = twin_copy(twin, dpos);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->pos_embed_forward(ops, out.on[side], pos.on[side], g.h, g.w, offset, antialias);
            ops->pos_embed_backward(ops, dpos.on[side], dout.on[side], g.h, g.w, offset, antialias);
        }
        TWIN_CLOSE(twin, out, 2e-6);
        TWIN_CLOSE(twin, dpos, 2e-6);
        twin->cuda->pos_embed_backward(twin->cuda, again.device, dout.device, g.h, g.w, offset, antialias);
        TWIN_SAME_BITS(twin, dpos, again);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}
