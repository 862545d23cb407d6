/* cuda_attention_backward.cuh - what the backward kernels for both kinds of tensor core instructions share: a
 * warp's rows of either half, and the step from scores to their gradients.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_BACKWARD_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_BACKWARD_CUH

#include "ops/cuda/cuda_attention_pass.cuh"

/* Results of S and dP products become P and dS: of a column or row with these statistics. */
static __device__ __forceinline__ void differentiate(float &s, float &dp, float factor, float log_sum,
                                                     float delta)
{
    s = fast_exp2(fmaf(s, factor, -log_sum));
    dp = s * (dp - delta);
}

/* First half: 16 queries. */
template <typename T, int DIM> struct BackwardQueryRows {
    uint32_t query[DIM / 16][4], dout[DIM / 16][4];
    float dquery[DIM / 8][4];
    float log_sum[2], delta[2]; /* of rows l / 4 and l / 4 + 8; log_sum / ln 2 */

    static __device__ __forceinline__ void bring(const AttentionArgs &args,
                                                 const volatile AttentionPiece &piece,
                                                 AttentionShared<T> shared, int row, int token, int tokens)
    {
        attention_bring_keys<T, DIM>(args, piece, shared, row, token, tokens);
    }

    /* The task is the calling warp's. delta is made here, and handed on to the second half. */
    __device__ __forceinline__ void take(const AttentionArgs &args, const volatile AttentionPiece &piece,
                                         AttentionShared<T> shared, const AttentionTask &task)
    {
        int64_t row = task.row, column = task.head * DIM;
        uint32_t out[DIM / 16][4];
        rows_load<T, DIM>(dout, (const T *)args.dout + row * args.width + column, args.width, task.left);
        rows_load<T, DIM>(out, (const T *)args.out + row * args.width + column, args.width, task.left);
        rows_load<T, DIM>(query, (const T *)args.qkv + row * 3 * args.width + column, 3 * args.width,
                          task.left);
        rows_dot<T, DIM / 16>(delta, dout, out);
        rows_to_left<DIM / 16>(dout);
        rows_to_left<DIM / 16>(query);
        rows_zero<DIM>(dquery);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int lane = threadIdx.x % WARP, r = lane / 4 + half * 8;
            bool valid = r < task.left;
            log_sum[half] = valid ? args.lse[(row + r) * args.heads + task.head] * LOG2_E : 0.0f;
            if (lane % 4 != 0 || task.left <= 0) continue;
            if (piece.whole)
                shared.stats[task.place + r] = make_float2(log_sum[half], delta[half]);
            else if (valid)
                args.delta[(int64_t)task.head * args.tokens + row + r] = delta[half];
        }
    }

    /* S and dP of 8 COLUMNS keys, of which `valid` exist, become P and dS. */
    template <int COLUMNS>
    __device__ __forceinline__ void gradients(float (*s)[4], float (*dp)[4], int valid, float factor)
    {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                differentiate(s[j][e], dp[j][e], factor, log_sum[e / 2], delta[e / 2]);
        if (valid < 8 * COLUMNS)
            mask_columns<COLUMNS>(dp, valid, 0.0f); /* exp(0 - lse) may be infinite there */
    }

    __device__ __forceinline__ void give(const AttentionArgs &args, const AttentionTask &task)
    {
        rows_store<T, DIM>((T *)args.dqkv + (int64_t)task.row * 3 * args.width + task.head * DIM,
                           3 * args.width, task.left, dquery, args.scale, args.scale);
    }
};

/* Second half: 16 keys and their values. Products are transposed: rows are keys, columns queries. */
template <typename T, int DIM> struct BackwardKeyRows {
    uint32_t key[DIM / 16][4], value[DIM / 16][4];
    float dkey[DIM / 8][4], dvalue[DIM / 8][4];

    /* Queries and output gradients, and of long sequences their statistics. */
    static __device__ __forceinline__ void bring(const AttentionArgs &args,
                                                 const volatile AttentionPiece &piece,
                                                 AttentionShared<T> shared, int row, int token, int tokens)
    {
        int64_t first = piece.first + token, column = piece.head * DIM;
        tile_copy_heads<T, DIM>(shared.tiles, row, (const T *)args.qkv + first * 3 * args.width + column,
                                3 * args.width, (const T *)args.dout + first * args.width + column,
                                args.width, piece.heads, tokens);
        if (piece.whole) return; /* the first half left the statistics there */
        for (int i = threadIdx.x; i < attention_groups(tokens) * GROUP; i += ATTENTION_THREADS) {
            float2 stats = make_float2(0.0f, 0.0f);
            if (i < tokens)
                stats = make_float2(args.lse[(first + i) * args.heads + piece.head] * LOG2_E,
                                    args.delta[(int64_t)piece.head * args.tokens + first + i]);
            shared.stats[row + i] = stats;
        }
    }

    /* The task is the calling warp's. */
    __device__ __forceinline__ void take(const AttentionArgs &args, const AttentionTask &task)
    {
        const T *from =
            (const T *)args.qkv + (int64_t)task.row * 3 * args.width + args.width + task.head * DIM;
        rows_load<T, DIM>(key, from, 3 * args.width, task.left);
        rows_load<T, DIM>(value, from + args.width, 3 * args.width, task.left);
        rows_to_left<DIM / 16>(key);
        rows_to_left<DIM / 16>(value);
        rows_zero<DIM>(dkey);
        rows_zero<DIM>(dvalue);
    }

    /* S and dP of 8 COLUMNS queries become P and dS; `stats` are those of this lane's first column. Queries
     * behind the end are zeros in all that they are multiplied with. */
    template <int COLUMNS>
    static __device__ __forceinline__ void gradients(float (*s)[4], float (*dp)[4], const float2 *stats,
                                                     float factor)
    {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            float4 two = *reinterpret_cast<const float4 *>(stats + 8 * j); /* of this lane's columns */
#pragma unroll
            for (int e = 0; e < 4; e++)
                differentiate(s[j][e], dp[j][e], factor, e % 2 ? two.z : two.x, e % 2 ? two.w : two.y);
        }
    }

    __device__ __forceinline__ void give(const AttentionArgs &args, const AttentionTask &task)
    {
        T *to = (T *)args.dqkv + (int64_t)task.row * 3 * args.width + args.width + task.head * DIM;
        rows_store<T, DIM>(to, 3 * args.width, task.left, dkey, args.scale, args.scale);
        rows_store<T, DIM>(to + args.width, 3 * args.width, task.left, dvalue, 1.0f, 1.0f);
    }
};

#endif
