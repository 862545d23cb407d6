/* cuda_attention.cu - attention on a GPU: the table's functions, and which kernels do the work.
 *
 * The twin of ops/cpu/attention.c. The number of sequences is known to the host, their lengths only to the
 * device: kernels find their work there, and cu_seqlens is not checked (the CPU's twin does). 16-bit operands
 * of head dimension 32, 64, 96, 128 go to the tensor cores (cuda_attention_forward.cu,
 * cuda_attention_backward.cu; with OPS_ATTENTION_SM90 those named _sm90), all else to
 * cuda_attention_plain.cu. Not here: masks inside a sequence, dropout, keys of another length than the
 * queries.
 */
#include "ops/cuda/cuda_attention.cuh"

#include <math.h>

/* delta of every row and head. */
size_t cuda_attention_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    return ops_cuda_piece(limits->rows * limits->heads, sizeof(float));
}

static AttentionArgs attention_of(Tensor qkv, Tensor out, Tensor lse, Tensor cu_seqlens, int64_t heads)
{
    CHECK(qkv.ndim == 2 && out.ndim == 2 && out.dtype == qkv.dtype && heads > 0);
    int64_t n = out.shape[0], width = out.shape[1], head_dim = width / heads;
    CHECK(head_dim * heads == width && qkv.shape[1] == 3 * width && qkv.shape[0] == n);
    CHECK(head_dim > 0 && head_dim <= ATTENTION_PLAIN_DIM);
    CHECK(tensor_count(lse) == n * heads && lse.dtype == DTYPE_F32);
    CHECK(cu_seqlens.dtype == DTYPE_I32 && tensor_count(cu_seqlens) >= 1);
    CHECK(n * heads <= INT32_MAX && 3 * width <= INT32_MAX);
    AttentionArgs args = {};
    args.qkv = qkv.data;
    args.out = out.data;
    args.lse = (float *)lse.data;
    args.cu_seqlens = (const int32_t *)cu_seqlens.data;
    args.tokens = (int)n;
    args.width = (int)width;
    args.sequences = (int)tensor_count(cu_seqlens) - 1;
    args.heads = (int)heads;
    args.head_dim = (int)head_dim;
    args.scale = 1.0f / sqrtf((float)head_dim);
    args.scale_log2 = args.scale * LOG2_E;
    return args;
}

static bool is_aligned(const void *data)
{
    return (uintptr_t)data % 16 == 0;
}

static bool tensor_cores_can(Dtype dtype, const AttentionArgs &args)
{
    int dim = args.head_dim;
    return dtype != DTYPE_F32 && (dim == 32 || dim == 64 || dim == 96 || dim == 128) &&
           is_aligned(args.qkv) && is_aligned(args.out) && is_aligned(args.dout) && is_aligned(args.dqkv);
}

static bool by_warpgroups(const Ops *ops)
{
    return ops_cuda(ops)->attention == OPS_ATTENTION_SM90;
}

extern "C" void cuda_attention_forward(const Ops *ops, Tensor out, Tensor lse, Tensor qkv, Tensor cu_seqlens,
                                       int64_t heads)
{
    if (out.shape[0] == 0) return;
    AttentionArgs args = attention_of(qkv, out, lse, cu_seqlens, heads);
    if (tensor_cores_can(qkv.dtype, args))
        (by_warpgroups(ops) ? cuda_attention_forward_sm90_launch
                            : cuda_attention_forward_launch)(ops_cuda(ops), qkv.dtype, args);
    else
        cuda_attention_plain_forward(ops_cuda(ops), qkv.dtype, args);
}

extern "C" void cuda_attention_backward(const Ops *ops, Tensor dqkv, Tensor dout, Tensor out, Tensor lse,
                                        Tensor qkv, Tensor cu_seqlens, int64_t heads)
{
    if (out.shape[0] == 0) return;
    AttentionArgs args = attention_of(qkv, out, lse, cu_seqlens, heads);
    CHECK(dout.ndim == 2 && dout.shape[0] == out.shape[0] && dout.shape[1] == out.shape[1]);
    CHECK(dqkv.ndim == 2 && dqkv.shape[0] == out.shape[0] && dqkv.shape[1] == qkv.shape[1]);
    CHECK(dout.dtype == out.dtype && dqkv.dtype == qkv.dtype);
    ArenaMark mark = arena_mark(ops->scratch);
    args.dout = dout.data;
    args.dqkv = dqkv.data;
    args.delta = (float *)arena_alloc(ops->scratch, (size_t)args.tokens * (size_t)heads * sizeof(float));
    if (tensor_cores_can(qkv.dtype, args))
        (by_warpgroups(ops) ? cuda_attention_backward_sm90_launch
                            : cuda_attention_backward_launch)(ops_cuda(ops), qkv.dtype, args);
    else
        cuda_attention_plain_backward(ops_cuda(ops), qkv.dtype, args);
    arena_reset(ops->scratch, mark);
}
