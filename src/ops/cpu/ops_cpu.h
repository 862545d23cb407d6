/* ops_cpu.h - inside of the host backend: prototypes, private state, scratch planning.
 *
 * Each family of operations is one file of this folder; this header is what they share. Nothing outside the
 * folder includes it: users see ops/ops.h.
 */
#ifndef DINOBATCH_OPS_CPU_OPS_CPU_H
#define DINOBATCH_OPS_CPU_OPS_CPU_H

#include "ops/ops.h"

/* cpu_linear_forward, cpu_layer_norm_forward, ... : one prototype per operation of the table. */
#define OPS_CPU_PROTOTYPE(name, arguments) void cpu_##name arguments;
OPS_LIST(OPS_CPU_PROTOTYPE)
#undef OPS_CPU_PROTOTYPE

typedef struct Gemm Gemm;                 /* gemm.h */
typedef struct Convolutions Convolutions; /* convolution.h */

/* What an `Ops *` of this backend points at. */
typedef struct {
    Ops ops; /* first: an Ops is handed out as its address */
    Arena scratch;
    Gemm *gemm;                 /* owned: cached primitives of the matrix product library */
    Convolutions *convolutions; /* owned: the same of convolutions */
} OpsCpu;

static inline Gemm *ops_cpu_gemm(const Ops *ops)
{
    return ((const OpsCpu *)(const void *)ops)->gemm;
}

/* Bytes of ops->scratch that the operations of a family use at most, alignment of each piece included. The
 * arena is made as large as the largest: an operation gives back all that it takes. */
size_t cpu_linear_scratch(const OpsLimits *limits, int threads);
size_t cpu_layer_norm_scratch(const OpsLimits *limits, int threads);
size_t cpu_attention_scratch(const OpsLimits *limits, int threads);
size_t cpu_residual_scratch(const OpsLimits *limits, int threads);
size_t cpu_prototypes_scratch(const OpsLimits *limits, int threads);
size_t cpu_koleo_scratch(const OpsLimits *limits, int threads);
size_t cpu_pos_embed_scratch(const OpsLimits *limits, int threads);

/* `count` elements rounded up to whole cache lines, in bytes: one arena piece. */
static inline size_t ops_cpu_piece(int64_t count, size_t element_bytes)
{
    size_t bytes = (size_t)count * element_bytes;
    return (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

/* More threads than this in one rank are not used: ranks share a machine. */
enum { OPS_CPU_MAX_THREADS = 256 };

/* Work below this many elements (or flops / 8) is not worth waking other threads for. */
enum { OPS_CPU_PARALLEL_MIN = 16384 };

/* The threads to use for `work` elements in `parts` independent parts: 1 or ops->threads. */
static inline int ops_cpu_threads(const Ops *ops, int64_t work, int64_t parts)
{
    return work < OPS_CPU_PARALLEL_MIN || parts < 2 ? 1 : ops->threads;
}

/* Part `index` of `parts` contiguous runs of 0..n-1 whose lengths differ by at most one. */
static inline void ops_cpu_part(int64_t n, int index, int parts, int64_t *first, int64_t *last)
{
    *first = n * index / parts;
    *last = n * (index + 1) / parts;
}

/* At the end of operations that take milliseconds. */
static inline void ops_cpu_progress(const Ops *ops)
{
    if (ops->moving) comm_progress(ops->moving);
}

#endif
