/* cuda_embed_tokens.cu - the twin of ops/cpu/embed_tokens.c: pictures into patch rows, patch rows into the
 * token sequences of the transformer.
 *
 * Floor: each pixel, patch element and token read once and written once. Once a step each, so these are
 * simple; reads and writes are coalesced (patchify of bytes: 16 at a time on both sides, by way of shared
 * memory; of fp32, which only tests have: whole lines of a picture against runs of p elements, which meet in
 * the cache).
 */
#include "ops/cuda/column_sums.cuh"

enum { EMBED_LOADS = 4 }; /* elements (patchify) or vectors of a thread under way at once */

/* --- patchify ----------------------------------------------------------------------------------------- */

typedef struct {
    int channels, height, width, p, grid_h, grid_w;
} PatchifyGrid;

static PatchifyGrid patchify_grid(Tensor images, Tensor patches, int64_t p)
{
    CHECK(images.ndim == 4 && patches.ndim == 2 && p > 0 && row_access_is_act(patches));
    int64_t height = images.shape[2], width = images.shape[3], grid_h = height / p, grid_w = width / p;
    CHECK(height % p == 0 && width % p == 0 && images.shape[1] * height * width <= INT32_MAX);
    CHECK(patches.shape[0] == images.shape[0] * grid_h * grid_w &&
          patches.shape[1] == images.shape[1] * p * p);
    PatchifyGrid g = {(int)images.shape[1], (int)height, (int)width, (int)p, (int)grid_h, (int)grid_w};
    return g;
}

/* A row of patches of one picture a block: warps have lines of it, lanes its columns. */
template <typename T, bool BACKWARD>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    patchify_kernel(T *patches, float *images, PatchifyGrid g)
{
    int64_t b = blockIdx.x / g.grid_h, i = blockIdx.x % g.grid_h;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, length = g.channels * g.p * g.p;
    patches += (int64_t)blockIdx.x * g.grid_w * length;
    images += (b * g.channels * g.height + i * g.p) * g.width;
    int lines = g.channels * g.p, plane = g.height * g.width;
    for (int x = lane; x < g.width; x += WARP) {
        T *column = patches + (int64_t)(x / g.p) * length + x % g.p;
        for (int first = warp; first < lines; first += EMBED_LOADS * ROW_ACCESS_WARPS) {
            float value[EMBED_LOADS];
#pragma unroll
            for (int u = 0; u < EMBED_LOADS; u++) {
                int line = first + u * ROW_ACCESS_WARPS;
                if (line >= lines) break;
                value[u] = BACKWARD ? to_f32(column[line * g.p])
                                    : images[line / g.p * plane + line % g.p * g.width + x];
            }
#pragma unroll
            for (int u = 0; u < EMBED_LOADS; u++) {
                int line = first + u * ROW_ACCESS_WARPS;
                if (line >= lines) break;
                if (BACKWARD)
                    images[line / g.p * plane + line % g.p * g.width + x] = value[u];
                else
                    column[line * g.p] = from_f32<T>(value[u]);
            }
        }
    }
}

/* Lines of bytes lie in shared memory as they lie in pieces of 16 bytes of global memory, so that a copy is
 * aligned on both sides, wherever a line begins. */
enum { PATCHIFY_PIECE = 16, PATCHIFY_SHARED = 32 << 10 };

/* A line in shared memory: its first pixel, and the first of its channel's levels. */
typedef struct {
    int pixels, levels;
} PatchifyLine;

/* One piece of a line; what lies outside of all images is not read. */
__device__ __forceinline__ void patchify_load(uint8_t *to, const uint8_t *from, const uint8_t *images,
                                              const uint8_t *end)
{
    if (from >= images && from + PATCHIFY_PIECE <= end) {
        *reinterpret_cast<uint4 *>(to) = __ldg(reinterpret_cast<const uint4 *>(from));
        return;
    }
    for (int k = 0; k < PATCHIFY_PIECE; k++)
        if (from + k >= images && from + k < end) to[k] = from[k];
}

/* Elements [at, at + V) of the `run` elements of a patch that `lines` have, its own from `column` on; those
 * before 0 and from `run` on are others'. */
template <typename T, int V>
__device__ __forceinline__ void patchify_store(T *to, int at, int run, int p, const uint8_t *column,
                                               const PatchifyLine *lines, const float *levels)
{
    int from = at < 0 ? 0 : at, line = from / p, x = from % p;
    float value[V];
#pragma unroll
    for (int k = 0; k < V; k++) {
        value[k] = 0.0f;
        if (at + k < 0 || at + k >= run) continue;
        value[k] = levels[lines[line].levels + column[lines[line].pixels + x]];
        if (++x < p) continue;
        x = 0;
        line++;
    }
    if (at >= 0 && at + V <= run) {
        store_f32(to + at, value);
        return;
    }
#pragma unroll
    for (int k = 0; k < V; k++)
        if (at + k >= 0 && at + k < run) to[at + k] = from_f32<T>(value[k]);
}

/* A row of patches of one picture a block, `together` lines of it at a time, each of so many pieces. A thread
 * writes 16 bytes of one patch at once. */
template <typename T>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    patchify_levels_kernel(T *patches, const uint8_t *images, const uint8_t *end, const float *levels,
                           PatchifyGrid g, int together, int pieces)
{
    const int V = VectorWidth<T>::value;
    KERNEL_SHARED(uint8_t, pixels);
    float *values = reinterpret_cast<float *>(pixels + together * pieces * PATCHIFY_PIECE);
    PatchifyLine *lines = reinterpret_cast<PatchifyLine *>(values + g.channels * PATCHIFY_LEVELS);
    int64_t b = blockIdx.x / g.grid_h, i = blockIdx.x % g.grid_h;
    int all = g.channels * g.p, plane = g.height * g.width;
    const uint8_t *corner = images + (b * g.channels * g.height + i * g.p) * g.width;
    patches += (int64_t)blockIdx.x * g.grid_w * all * g.p;
    for (int k = threadIdx.x; k < g.channels * PATCHIFY_LEVELS; k += ROW_ACCESS_THREADS)
        values[k] = __ldg(levels + k);
    for (int first = 0; first < all; first += together) {
        int count = together < all - first ? together : all - first, run = count * g.p;
        for (int k = threadIdx.x; k < count * pieces; k += ROW_ACCESS_THREADS) {
            int line = k / pieces, piece = k % pieces, c = (first + line) / g.p, y = (first + line) % g.p;
            const uint8_t *from = corner + c * plane + y * g.width;
            int before = (int)((uintptr_t)from % PATCHIFY_PIECE), at = piece * PATCHIFY_PIECE - before;
            if (piece == 0) {
                lines[line].pixels = k * PATCHIFY_PIECE + before;
                lines[line].levels = c * PATCHIFY_LEVELS;
            }
            if (at < g.width) patchify_load(pixels + k * PATCHIFY_PIECE, from + at, images, end);
        }
        __syncthreads();
        int groups = (run + 2 * V - 2) / V; /* of a patch, wherever in 16 bytes it begins */
        for (int k = threadIdx.x; k < g.grid_w * groups; k += ROW_ACCESS_THREADS) {
            int j = k / groups;
            T *to = patches + ((int64_t)j * all + first) * g.p;
            int at = k % groups * V - (int)((uintptr_t)to / sizeof(T) % V);
            if (at < run) patchify_store<T, V>(to, at, run, g.p, pixels + j * g.p, lines, values);
        }
        __syncthreads();
    }
}

/* As many lines at a time as fit: nearly always all of a row of patches. */
template <typename T>
static void patchify_levels(const Ops *ops, Tensor patches, Tensor images, Tensor levels, PatchifyGrid g)
{
    int pieces = (g.width + 2 * PATCHIFY_PIECE - 2) / PATCHIFY_PIECE, all = g.channels * g.p;
    int fit = PATCHIFY_SHARED / (pieces * PATCHIFY_PIECE), together = fit < all ? fit : all;
    CHECK(together > 0);
    size_t shared = (size_t)together * (pieces * PATCHIFY_PIECE + sizeof(PatchifyLine)) +
                    (size_t)g.channels * PATCHIFY_LEVELS * sizeof(float);
    const uint8_t *bytes = (const uint8_t *)images.data;
    KERNEL_LAUNCH(patchify_levels_kernel<T>, (unsigned)(images.shape[0] * g.grid_h), ROW_ACCESS_THREADS,
                  shared, ops_cuda(ops)->stream, (T *)patches.data, bytes, bytes + tensor_count(images),
                  tensor_f32(levels), g, together, pieces);
}

extern "C" void cuda_patchify_forward(const Ops *ops, Tensor patches, Tensor images, Tensor levels,
                                      int64_t patch_size)
{
    PatchifyGrid g = patchify_grid(images, patches, patch_size);
    if (tensor_count(patches) == 0) return;
    bool bytes = images.dtype == DTYPE_U8;
    CHECK(tensor_count(levels) == (bytes ? g.channels * PATCHIFY_LEVELS : 0));
    if (bytes) {
        DISPATCH_ACT(patches.dtype, T, patchify_levels<T>(ops, patches, images, levels, g));
        return;
    }
    unsigned blocks = (unsigned)(images.shape[0] * g.grid_h);
    DISPATCH_ACT(patches.dtype, T,
                 KERNEL_LAUNCH((patchify_kernel<T, false>), blocks, ROW_ACCESS_THREADS, 0,
                               ops_cuda(ops)->stream, (T *)patches.data, tensor_f32(images), g));
}

extern "C" void cuda_patchify_backward(const Ops *ops, Tensor dimages, Tensor dpatches, int64_t patch_size)
{
    PatchifyGrid g = patchify_grid(dimages, dpatches, patch_size);
    if (tensor_count(dpatches) == 0) return;
    unsigned blocks = (unsigned)(dimages.shape[0] * g.grid_h);
    DISPATCH_ACT(dpatches.dtype, T,
                 KERNEL_LAUNCH((patchify_kernel<T, true>), blocks, ROW_ACCESS_THREADS, 0,
                               ops_cuda(ops)->stream, (T *)dpatches.data, tensor_f32(dimages), g));
}

/* --- token sequences ---------------------------------------------------------------------------------- */

typedef struct {
    int64_t batch, patches, registers, tokens; /* tokens = 1 + registers + patches */
    int D;
} TokenLayout;

static TokenLayout token_layout(Tensor x, Tensor patches, Tensor masks, Tensor registers, Tensor pos)
{
    CHECK(x.ndim == 2 && pos.ndim == 2 && patches.ndim == 2 && row_access_is_act(patches));
    int64_t D = x.shape[1];
    TokenLayout l = {};
    l.D = (int)D;
    l.patches = pos.shape[0] - 1;
    l.registers = tensor_given(registers) ? tensor_count(registers) / D : 0;
    l.tokens = 1 + l.registers + l.patches;
    l.batch = x.shape[0] / l.tokens;
    CHECK(D <= INT32_MAX && pos.shape[1] == D &&
          (!tensor_given(registers) || tensor_count(registers) % D == 0));
    CHECK(x.shape[0] == l.batch * l.tokens && patches.shape[1] == D &&
          patches.shape[0] == l.batch * l.patches);
    CHECK(!tensor_given(masks) || (masks.dtype == DTYPE_U8 && tensor_count(masks) == l.batch * l.patches));
    return l;
}

/* What both directions read or write; forward: x and so on, backward: their gradients. */
template <typename T> struct EmbedTokens {
    T *patches;
    const uint8_t *masks; /* or NULL */
    float *x, *mask_token, *cls, *registers, *pos;
    float *mask_sums; /* backward: [patches of a sequence, D] */
    TokenLayout l;
};

/* A token a warp. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) embed_tokens_forward_kernel(EmbedTokens<T> e)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP, head = 1 + e.l.registers;
    if (row >= e.l.batch * e.l.tokens) return;
    int64_t b = row / e.l.tokens, t = row % e.l.tokens, patch = b * e.l.patches + t - head, D = e.l.D;
    bool is_patch = t >= head, hidden = is_patch && e.masks && e.masks[patch];
    const float *place = t == 0 ? e.pos : is_patch ? e.pos + (1 + t - head) * D : NULL;
    const float *learned = t == 0 ? e.cls : is_patch ? e.mask_token : e.registers + (t - 1) * D;
#pragma unroll 4
    for (int j = (int)(threadIdx.x % WARP) * V; j < e.l.D; j += WARP * V) {
        float value[V], position[V];
        if (is_patch && !hidden)
            load_f32(value, e.patches + patch * D + j);
        else
            load_f32(value, learned + j);
        if (place) {
            load_f32(position, place + j);
#pragma unroll
            for (int k = 0; k < V; k++)
                value[k] += position[k];
        }
        store_f32(e.x + row * D + j, value);
    }
}

/* The block's warps' sums of a thread's columns, in order; to every thread of warp 0. */
template <int V> __device__ __forceinline__ void embed_add_warps(float (&sum)[V], float (*shared)[WARP * V])
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < V; k++)
        shared[warp][lane * V + k] = sum[k];
    __syncthreads();
    for (int w = 1; warp == 0 && w < ROW_ACCESS_WARPS; w++)
#pragma unroll
        for (int k = 0; k < V; k++)
            sum[k] += shared[w][lane * V + k];
    __syncthreads();
}

template <int V> __device__ __forceinline__ void embed_add_to(float *out, const float (&sum)[V])
{
#pragma unroll
    for (int k = 0; k < V; k++)
        out[k] += sum[k];
}

/* Block (tile, t): columns tile * 32 V and on of token t of all sequences, each eighth a warp's. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) embed_tokens_backward_kernel(EmbedTokens<T> e)
{
    __shared__ float shared[ROW_ACCESS_WARPS][WARP * V];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = (int)(blockIdx.x * WARP + lane) * V;
    int64_t t = blockIdx.y, head = 1 + e.l.registers, place = t - head, D = e.l.D;
    bool is_patch = t >= head;
    float sum[V], masked[V];
#pragma unroll
    for (int k = 0; k < V; k++)
        sum[k] = masked[k] = 0.0f;
    for (int64_t b = warp; b < e.l.batch && j < e.l.D; b += EMBED_LOADS * ROW_ACCESS_WARPS) {
        float slope[EMBED_LOADS][V];
#pragma unroll
        for (int u = 0; u < EMBED_LOADS; u++) {
            int64_t sequence = b + u * ROW_ACCESS_WARPS;
            if (sequence < e.l.batch) load_f32(slope[u], e.x + (sequence * e.l.tokens + t) * D + j);
        }
#pragma unroll
        for (int u = 0; u < EMBED_LOADS; u++) {
            int64_t sequence = b + u * ROW_ACCESS_WARPS, patch = sequence * e.l.patches + place;
            if (sequence >= e.l.batch) break;
            bool hidden = is_patch && e.masks && e.masks[patch];
#pragma unroll
            for (int k = 0; k < V; k++) {
                sum[k] += slope[u][k];
                if (hidden) masked[k] += slope[u][k];
                slope[u][k] = hidden ? 0.0f : slope[u][k];
            }
            if (is_patch) store_f32(e.patches + patch * D + j, slope[u]);
        }
    }
    embed_add_warps(sum, shared);
    if (e.masks) embed_add_warps(masked, shared);
    if (warp > 0 || j >= e.l.D) return;
    if (t == 0) embed_add_to(e.cls + j, sum);
    if (t == 0 || is_patch)
        embed_add_to(e.pos + (is_patch ? 1 + place : 0) * D + j, sum);
    else
        embed_add_to(e.registers + (t - 1) * D + j, sum);
    if (is_patch && e.masks) store_f32(e.mask_sums + place * D + j, masked);
}

/* --- host side ---------------------------------------------------------------------------------------- */

size_t cuda_embed_tokens_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    return ops_cuda_piece(limits->max_seqlen * limits->width, sizeof(float));
}

template <typename T>
static EmbedTokens<T> embed_tokens_of(const TokenLayout *l, Tensor x, Tensor patches, Tensor masks,
                                      Tensor mask_token, Tensor cls, Tensor registers, Tensor pos)
{
    CHECK(tensor_count(cls) == l->D && (!tensor_given(masks) || tensor_count(mask_token) == l->D));
    EmbedTokens<T> e = {};
    e.patches = (T *)patches.data;
    e.masks = (const uint8_t *)masks.data;
    e.x = tensor_f32(x);
    e.mask_token = tensor_given(masks) ? tensor_f32(mask_token) : NULL;
    e.cls = tensor_f32(cls);
    e.registers = l->registers > 0 ? tensor_f32(registers) : NULL;
    e.pos = tensor_f32(pos);
    e.l = *l;
    return e;
}

static bool embed_tokens_aligned(int64_t D, Tensor x, Tensor patches, Tensor mask_token, Tensor cls,
                                 Tensor registers, Tensor pos)
{
    return row_access_aligned(x, D, 4) && row_access_aligned(patches, D, 4) &&
           row_access_aligned(mask_token, D, 4) && row_access_aligned(cls, D, 4) &&
           row_access_aligned(registers, D, 4) && row_access_aligned(pos, D, 4);
}

extern "C" void cuda_embed_tokens_forward(const Ops *ops, Tensor x, Tensor patches, Tensor masks,
                                          Tensor mask_token, Tensor cls, Tensor registers, Tensor pos)
{
    TokenLayout l = token_layout(x, patches, masks, registers, pos);
    if (l.batch == 0) return;
    bool wide = embed_tokens_aligned(l.D, x, patches, mask_token, cls, registers, pos);
    unsigned grid = row_access_grid(x.shape[0]);
    cudaStream_t stream = ops_cuda(ops)->stream;
    DISPATCH_ACT(patches.dtype, T, {
        EmbedTokens<T> e = embed_tokens_of<T>(&l, x, patches, masks, mask_token, cls, registers, pos);
        if (wide)
            KERNEL_LAUNCH((embed_tokens_forward_kernel<T, 4>), grid, ROW_ACCESS_THREADS, 0, stream, e);
        else
            KERNEL_LAUNCH((embed_tokens_forward_kernel<T, 1>), grid, ROW_ACCESS_THREADS, 0, stream, e);
    });
}

extern "C" void cuda_embed_tokens_backward(const Ops *ops, Tensor dpatches, Tensor dmask_token, Tensor dcls,
                                           Tensor dregisters, Tensor dpos, Tensor dx, Tensor masks)
{
    TokenLayout l = token_layout(dx, dpatches, masks, dregisters, dpos);
    if (l.batch == 0) return;
    bool wide = embed_tokens_aligned(l.D, dx, dpatches, tensor_none(), dcls, dregisters, dpos);
    bool masked = tensor_given(masks) && l.patches > 0;
    ArenaMark mark = arena_mark(ops->scratch);
    float *mask_sums = NULL;
    if (masked) mask_sums = (float *)arena_alloc(ops->scratch, (size_t)(l.patches * l.D) * sizeof *mask_sums);
    dim3 grid((unsigned)ceil_div(l.D, WARP * (wide ? 4 : 1)), (unsigned)l.tokens);
    cudaStream_t stream = ops_cuda(ops)->stream;
    DISPATCH_ACT(dpatches.dtype, T, {
        EmbedTokens<T> e = embed_tokens_of<T>(&l, dx, dpatches, masks, dmask_token, dcls, dregisters, dpos);
        e.mask_sums = mask_sums;
        if (wide)
            KERNEL_LAUNCH((embed_tokens_backward_kernel<T, 4>), grid, ROW_ACCESS_THREADS, 0, stream, e);
        else
            KERNEL_LAUNCH((embed_tokens_backward_kernel<T, 1>), grid, ROW_ACCESS_THREADS, 0, stream, e);
    });
    if (masked) column_sums_add(ops, tensor_f32(dmask_token), NULL, mask_sums, l.patches, l.D);
    arena_reset(ops->scratch, mark);
}
