/* ops_cuda.h - inside of the CUDA backend: prototypes, private state, scratch planning.
 *
 * Each family of operations is one file of this folder, the twin of the file of that name in ops/cpu. Nothing
 * outside the folder includes this; users see ops/ops.h.
 */
#ifndef DINOBATCH_OPS_CUDA_OPS_CUDA_H
#define DINOBATCH_OPS_CUDA_OPS_CUDA_H

#include "device/cuda/device_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif
#include "base/check.h"
#include "ops/ops.h"

/* cuda_linear_forward, cuda_layer_norm_forward, ... : one prototype per operation of the table. */
#define OPS_CUDA_PROTOTYPE(name, arguments) void cuda_##name arguments;
OPS_LIST(OPS_CUDA_PROTOTYPE)
#undef OPS_CUDA_PROTOTYPE

typedef struct CudaGemm CudaGemm; /* cuda_gemm.h */

/* What an `Ops *` of this backend points at. */
typedef struct {
    Ops ops;        /* first: an Ops is handed out as its address */
    Arena scratch;  /* device memory; 256-byte aligned pieces are had by asking for multiples */
    CudaGemm *gemm; /* owned */
    OpsLimits limits;
    cudaStream_t stream;
    int multiprocessors;
    OpsAttention attention; /* as the options */
    size_t shared_bytes;    /* most shared memory of a block */
} OpsCuda;

static inline const OpsCuda *ops_cuda(const Ops *ops)
{
    return (const OpsCuda *)(const void *)ops;
}

/* Bytes of ops->scratch that the operations of a family use at most (pieces rounded up by ops_cuda_piece).
 * The arena is made as large as the largest: an operation gives back all that it takes. `multiprocessors` of
 * the device decides how many partial sums there are. */
size_t cuda_linear_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_layer_norm_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_attention_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_residual_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_embed_tokens_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_prototypes_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_koleo_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_pos_embed_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_optimizer_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_rows_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_sums_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_pictures_scratch(const OpsLimits *limits, int multiprocessors);

/* `count` elements rounded up to the arena's alignment, in bytes: one arena piece. */
static inline size_t ops_cuda_piece(int64_t count, size_t element_bytes)
{
    size_t bytes = (size_t)count * element_bytes;
    return (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

#ifdef __cplusplus
}
#endif
#endif
