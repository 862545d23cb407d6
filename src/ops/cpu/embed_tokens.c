/* embed_tokens.c - pictures into patch rows, and patch rows into the token sequences of the transformer.
 *
 * Source: dinov2/layers/patch_embed.py (the convolution's gather), prepare_tokens_with_masks of
 * dinov2/models/vision_transformer.py. Backward sums run over the batch in order, each column on one thread.
 *
 * What it is not: the patch projection itself (linear_forward) or the resampling of positions (pos_embed.c).
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"
#include "ops/cpu/row_access.h"

#include <string.h>

enum { EMBED_COLUMNS = 64 }; /* of D, for one thread at a time in sums over tokens */

/* t[at .. at + n] = source, rounded if t is bf16 */
static inline void store_row(Tensor t, int64_t at, const float *restrict source, int64_t n)
{
    if (t.dtype == DTYPE_F32)
        memcpy((float *)t.data + at, source, (size_t)n * sizeof(float));
    else
        row_access_to_bf16((uint16_t *)t.data + at, source, n);
}

static inline void load_row(float *restrict target, Tensor t, int64_t at, int64_t n)
{
    if (t.dtype == DTYPE_F32)
        memcpy(target, (const float *)t.data + at, (size_t)n * sizeof(float));
    else
        row_access_to_f32(target, (const uint16_t *)t.data + at, n);
}

/* t[at .. at + n] = what the grey levels are, rounded if t is bf16 */
static inline void store_levels(Tensor t, int64_t at, const uint8_t *restrict bytes,
                                const float *restrict levels, int64_t n)
{
    if (t.dtype == DTYPE_F32) {
        float *restrict out = (float *)t.data + at;
        for (int64_t i = 0; i < n; i++)
            out[i] = levels[bytes[i]];
    } else {
        uint16_t *restrict out = (uint16_t *)t.data + at;
        for (int64_t i = 0; i < n; i++)
            out[i] = row_access_bf16(levels[bytes[i]]);
    }
}

/* --- patchify ----------------------------------------------------------------------------------------------
 */

typedef struct {
    int64_t batch, channels, height, width, p;
    int64_t grid_h, grid_w; /* patches */
} PatchGrid;

static PatchGrid patch_grid(Tensor images, Tensor patches, int64_t p)
{
    CHECK(images.ndim == 4 && patches.ndim == 2 && p > 0 && row_access_is_act(patches));
    PatchGrid g = {.batch = images.shape[0],
                   .channels = images.shape[1],
                   .height = images.shape[2],
                   .width = images.shape[3],
                   .p = p};
    CHECK(g.height % p == 0 && g.width % p == 0);
    g.grid_h = g.height / p;
    g.grid_w = g.width / p;
    CHECK(patches.shape[0] == g.batch * g.grid_h * g.grid_w && patches.shape[1] == g.channels * p * p);
    return g;
}

void cpu_patchify_forward(const Ops *ops, Tensor patches, Tensor images, Tensor levels, int64_t patch_size)
{
    PatchGrid g = patch_grid(images, patches, patch_size);
    int64_t rows = g.batch * g.grid_h, p = g.p, length = g.channels * p * p;
    if (tensor_count(patches) == 0) return;
    bool bytes = images.dtype == DTYPE_U8;
    CHECK(tensor_count(levels) == (bytes ? g.channels * PATCHIFY_LEVELS : 0));
    const uint8_t *grey = images.data;
    const float *pixels = bytes ? NULL : tensor_f32(images), *values = bytes ? tensor_f32(levels) : NULL;
    int threads = ops_cpu_threads(ops, tensor_count(patches), rows);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / g.grid_h, i = row % g.grid_h;
        for (int64_t c = 0; c < g.channels; c++)
            for (int64_t y = 0; y < p; y++) {
                int64_t line = ((b * g.channels + c) * g.height + i * p + y) * g.width;
                for (int64_t j = 0; j < g.grid_w; j++) {
                    int64_t to = (row * g.grid_w + j) * length + (c * p + y) * p, from = line + j * p;
                    if (bytes)
                        store_levels(patches, to, grey + from, values + c * PATCHIFY_LEVELS, p);
                    else
                        store_row(patches, to, pixels + from, p);
                }
            }
    }
}

void cpu_patchify_backward(const Ops *ops, Tensor dimages, Tensor dpatches, int64_t patch_size)
{
    PatchGrid g = patch_grid(dimages, dpatches, patch_size);
    int64_t rows = g.batch * g.grid_h, p = g.p, length = g.channels * p * p;
    if (tensor_count(dpatches) == 0) return;
    float *pixels = tensor_f32(dimages);
    int threads = ops_cpu_threads(ops, tensor_count(dpatches), rows);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / g.grid_h, i = row % g.grid_h;
        for (int64_t c = 0; c < g.channels; c++)
            for (int64_t y = 0; y < p; y++) {
                float *line = pixels + ((b * g.channels + c) * g.height + i * p + y) * g.width;
                for (int64_t j = 0; j < g.grid_w; j++)
                    load_row(line + j * p, dpatches, (row * g.grid_w + j) * length + (c * p + y) * p, p);
            }
    }
}

/* --- token sequences ---------------------------------------------------------------------------------------
 */

typedef struct {
    int64_t batch, patches, registers, tokens, D; /* tokens = 1 + registers + patches */
} TokenLayout;

static TokenLayout token_layout(Tensor x, Tensor patches, Tensor masks, Tensor registers, Tensor pos)
{
    CHECK(x.ndim == 2 && pos.ndim == 2 && patches.ndim == 2 && row_access_is_act(patches));
    TokenLayout l = {.patches = pos.shape[0] - 1, .D = x.shape[1]};
    l.registers = tensor_count(registers) / l.D;
    l.tokens = 1 + l.registers + l.patches;
    l.batch = x.shape[0] / l.tokens;
    CHECK(pos.shape[1] == l.D && tensor_count(registers) % l.D == 0);
    CHECK(x.shape[0] == l.batch * l.tokens && patches.shape[1] == l.D);
    CHECK(patches.shape[0] == l.batch * l.patches);
    CHECK(!tensor_given(masks) || (masks.dtype == DTYPE_U8 && tensor_count(masks) == l.batch * l.patches));
    return l;
}

/* out = a + b */
static inline void add_rows(float *restrict out, const float *restrict a, const float *restrict b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

static inline void accumulate(float *restrict sum, const float *restrict x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] += x[i];
}

void cpu_embed_tokens_forward(const Ops *ops, Tensor x, Tensor patches, Tensor masks, Tensor mask_token,
                              Tensor cls, Tensor registers, Tensor pos)
{
    TokenLayout l = token_layout(x, patches, masks, registers, pos);
    if (l.batch == 0) return;
    CHECK(tensor_count(cls) == l.D && (!tensor_given(masks) || tensor_count(mask_token) == l.D));
    float *out = tensor_f32(x);
    const float *position = tensor_f32(pos), *first = tensor_f32(cls);
    const float *mask_value = tensor_given(masks) ? tensor_f32(mask_token) : NULL;
    const uint8_t *masked = tensor_given(masks) ? masks.data : NULL;
    int64_t head = 1 + l.registers, D = l.D;
    int threads = ops_cpu_threads(ops, tensor_count(x), l.batch * l.tokens);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < l.batch * l.tokens; row++) {
        int64_t b = row / l.tokens, t = row % l.tokens;
        float *target = out + row * D;
        if (t == 0) {
            add_rows(target, first, position, D);
        } else if (t < head) {
            memcpy(target, tensor_f32(registers) + (t - 1) * D, (size_t)D * sizeof(float));
        } else {
            int64_t patch = b * l.patches + t - head;
            const float *place = position + (1 + t - head) * D;
            if (masked && masked[patch]) {
                add_rows(target, mask_value, place, D);
            } else {
                load_row(target, patches, patch * D, D);
                accumulate(target, place, D);
            }
        }
    }
}

/* Sums over the batch of columns [0, n) of dx, and over masked patches: each in order of tokens. */
static void sum_columns(const TokenLayout *l, const float *dx, const uint8_t *masked, float *dmask_token,
                        float *dcls, float *dregisters, float *dpos, int64_t n)
{
    int64_t head = 1 + l->registers, D = l->D;
    for (int64_t b = 0; b < l->batch; b++) {
        const float *sequence = dx + b * l->tokens * D;
        accumulate(dcls, sequence, n);
        accumulate(dpos, sequence, n);
        for (int64_t r = 0; r < l->registers; r++)
            accumulate(dregisters + r * D, sequence + (1 + r) * D, n);
        for (int64_t i = 0; i < l->patches; i++) {
            const float *row = sequence + (head + i) * D;
            accumulate(dpos + (1 + i) * D, row, n);
            if (masked && masked[b * l->patches + i]) accumulate(dmask_token, row, n);
        }
    }
}

void cpu_embed_tokens_backward(const Ops *ops, Tensor dpatches, Tensor dmask_token, Tensor dcls,
                               Tensor dregisters, Tensor dpos, Tensor dx, Tensor masks)
{
    TokenLayout l = token_layout(dx, dpatches, masks, dregisters, dpos);
    if (l.batch == 0) return;
    CHECK(tensor_count(dcls) == l.D && (!tensor_given(masks) || tensor_count(dmask_token) == l.D));
    const float *slope = tensor_f32(dx);
    float *mask_sum = tensor_given(masks) ? tensor_f32(dmask_token) : NULL;
    float *register_sum = l.registers > 0 ? tensor_f32(dregisters) : NULL;
    float *cls_sum = tensor_f32(dcls), *pos_sum = tensor_f32(dpos);
    const uint8_t *masked = tensor_given(masks) ? masks.data : NULL;
    int64_t D = l.D, parts = (D + EMBED_COLUMNS - 1) / EMBED_COLUMNS;
    int threads = ops_cpu_threads(ops, tensor_count(dx), l.batch * l.patches);
    const float ZERO[EMBED_COLUMNS] = {0};

#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
        for (int64_t part = 0; part < parts; part++) {
            int64_t at = part * EMBED_COLUMNS;
            int64_t n = D - at < EMBED_COLUMNS ? D - at : EMBED_COLUMNS;
            sum_columns(&l, slope + at, masked, mask_sum ? mask_sum + at : NULL, cls_sum + at,
                        register_sum ? register_sum + at : NULL, pos_sum + at, n);
        }
#pragma omp for schedule(static)
        for (int64_t patch = 0; patch < l.batch * l.patches; patch++) {
            int64_t b = patch / l.patches, i = patch % l.patches;
            const float *row = slope + (b * l.tokens + 1 + l.registers + i) * D;
            bool hidden = masked && masked[patch];
            for (int64_t at = 0; at < D; at += EMBED_COLUMNS) {
                int64_t n = D - at < EMBED_COLUMNS ? D - at : EMBED_COLUMNS;
                store_row(dpatches, patch * D + at, hidden ? ZERO : row + at, n);
            }
        }
    }
}
