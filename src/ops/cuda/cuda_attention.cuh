/* cuda_attention.cuh - what the attention kernels share: their operands, and the launchers of each kind.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_CUH

#include "ops/cuda/kernel_math.cuh"

/* Operands of one call, in device memory. Row t of qkv holds q, k, v of token t, each [heads, head_dim]. */
typedef struct {
    const void *qkv;           /* [n, 3D] act */
    void *out;                 /* [n, D] act; written by the forward pass, read by the backward pass */
    float *lse;                /* [n, heads]; the same */
    const void *dout;          /* [n, D] act */
    void *dqkv;                /* [n, 3D] act */
    float *delta;              /* [heads, n] scratch of the backward pass: <dout, out> of each row and head */
    const int32_t *cu_seqlens; /* [sequences + 1] */
    int tokens, width;         /* n, D */
    int sequences, heads, head_dim;
    float scale;
    float scale_log2; /* scale * LOG2_E */
} AttentionArgs;

/* 2^(x log2 e) = e^x: scores are kept in units of ln 2, where exp is one instruction. */
static const float LOG2_E = 1.44269504088896340736f;
static const float LN_2 = 0.69314718055994530942f;

/* 16-bit operands whose head dimension has a kernel on the tensor cores: 32, 64, 96, 128. */
void cuda_attention_forward_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);
void cuda_attention_backward_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);

/* The same by wgmma, for GPUs of compute capability 9.0 alone. */
void cuda_attention_forward_sm90_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);
void cuda_attention_backward_sm90_launch(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);

/* Any activation, any head dimension up to ATTENTION_PLAIN_DIM. */
void cuda_attention_plain_forward(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);
void cuda_attention_plain_backward(const OpsCuda *cuda, Dtype dtype, AttentionArgs args);

enum { ATTENTION_PLAIN_DIM = 256 };

#endif
