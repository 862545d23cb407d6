/* golden_pos_embed.c - pos_embed.h5: position embeddings resampled to other grids, forward and backward. */
#include "../support/ops_support.h"
#include "golden.h"

#include "base/memory.h"
#include "ops/ops.h"

#include <stdio.h>
#include <string.h>

/* One grid of one variant: m<M>/<variant>/<h>x<w>. */
static void check_grid(Golden *golden, const Ops *ops, const char *m, const char *path)
{
    GoldenShape pos_shape, out_shape, scalar;
    const float *pos = golden_f32(golden, &pos_shape, "%s/pos_embed", m);
    const float *cotangent = golden_f32(golden, &out_shape, "%s/cotangent", path);
    int64_t h = (int64_t)golden_attr(golden, "grid_h", "%s", path);
    int64_t w = (int64_t)golden_attr(golden, "grid_w", "%s", path);
    double offset = golden_attr(golden, "interpolate_offset", "%s", path);
    bool antialias = golden_attr(golden, "interpolate_antialias", "%s", path) != 0.0;
    int64_t rows = pos_shape.dim[1], D = pos_shape.dim[2];
    bool native = h == w && h * w + 1 == rows; /* the caller's rule: nothing is resampled */

    float *out = memory_alloc_array((size_t)out_shape.count, sizeof(float));
    float *gradient = memory_alloc_array((size_t)pos_shape.count, sizeof(float));
    Tensor source = tensor_2d((void *)(uintptr_t)pos, DTYPE_F32, rows, D);
    Tensor slope = tensor_2d((void *)(uintptr_t)cotangent, DTYPE_F32, 1 + h * w, D);
    if (native) {
        memcpy(out, pos, (size_t)out_shape.count * sizeof(float));
        memcpy(gradient, cotangent, (size_t)pos_shape.count * sizeof(float));
    } else {
        ops->pos_embed_forward(ops, tensor_2d(out, DTYPE_F32, 1 + h * w, D), source, h, w, offset, antialias);
        ops->pos_embed_backward(ops, tensor_2d(gradient, DTYPE_F32, rows, D), slope, h, w, offset, antialias);
    }
    double loss = 0.0;
    for (int64_t i = 0; i < out_shape.count; i++)
        loss += (double)out[i] * (double)cotangent[i];
    golden_f64(golden, &scalar, "%s/loss", path);
    golden_compare(golden, out, out_shape.count, "%s/out", path);
    golden_compare_f64(golden, &loss, scalar.count, "%s/loss", path);
    golden_compare(golden, gradient, pos_shape.count, "%s/grad/pos_embed", path);
    memory_free(out);
    memory_free(gradient);
}

void golden_pos_embed(Golden *golden)
{
    OpsLimits limits = {.rows = 4096, .width = 1024, .max_seqlen = 4096, .head_dim = 64};
    Ops *ops = ops_support_open(&limits, 0);
    for (const char *const *m = golden_members(golden, NULL, "/"); *m; m++)
        for (const char *const *variant = golden_members(golden, NULL, "%s", *m); *variant; variant++) {
            if (strcmp(*variant, "pos_embed") == 0) continue;
            for (const char *const *grid = golden_members(golden, NULL, "%s/%s", *m, *variant); *grid;
                 grid++) {
                char path[256];
                snprintf(path, sizeof path, "%s/%s/%s", *m, *variant, *grid);
                check_grid(golden, ops, *m, path);
            }
        }
    ops_support_close(ops);
}
