/* cuda_attention_forward.cuh - what the forward kernels for both kinds of tensor core instructions share: a
 * warp's query rows, and the online softmax.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_FORWARD_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_FORWARD_CUH

#include "ops/cuda/cuda_attention_pass.cuh"

static const float LOWEST = -1e30f; /* below any score */

/* The online softmax of one group of 16 rows: s becomes 2^(s factor - top). Returns by how much what was
 * summed with the old maximum shrinks. */
template <int COLUMNS>
static __device__ __forceinline__ float2 softmax_step(float (*s)[4], float *top, float *sum, float factor)
{
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = s[0][2 * half];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            largest = fmaxf(largest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        float now = fmaxf(top[half], largest * factor), total = 0.0f;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j][e] = fast_exp2(fmaf(s[j][e], factor, -now));
                total += s[j][e];
            }
        shrink[half] = fast_exp2(top[half] - now);
        sum[half] = sum[half] * shrink[half] + total;
        top[half] = now;
    }
    return make_float2(shrink[0], shrink[1]);
}

/* What a warp knows of GROUPS groups of its queries. Index 0, 1 of top and sum: rows l / 4 and l / 4 + 8. */
template <typename T, int DIM, int GROUPS> struct ForwardRows {
    uint32_t query[GROUPS][DIM / 16][4];
    float out[GROUPS][DIM / 8][4];
    float top[GROUPS][2]; /* largest score so far, times scale_log2 */
    float sum[GROUPS][2]; /* this lane's share of the sum of 2^(score scale_log2 - top) */

    static __device__ __forceinline__ void bring(const AttentionArgs &args,
                                                 const volatile AttentionPiece &piece,
                                                 AttentionShared<T> shared, int row, int token, int tokens)
    {
        attention_bring_keys<T, DIM>(args, piece, shared, row, token, tokens);
    }

    /* row, head, left and apart of the task are the calling warp's. */
    __device__ __forceinline__ void take(const AttentionArgs &args, const AttentionTask &task)
    {
        int stride = 3 * args.width;
#pragma unroll
        for (int m = 0; m < GROUPS; m++) {
            const T *from =
                (const T *)args.qkv + (int64_t)(task.row + m * task.apart) * stride + task.head * DIM;
            rows_load<T, DIM>(query[m], from, stride, task.left - m * task.apart);
            rows_to_left<DIM / 16>(query[m]);
            rows_zero<DIM>(out[m]);
            top[m][0] = top[m][1] = LOWEST;
            sum[m][0] = sum[m][1] = 0.0f;
        }
    }

    /* Scores of group m with 8 COLUMNS keys, of which `valid` exist, become p, the left operand of the
     * product with the values; what was summed so far is made to fit. */
    template <int COLUMNS>
    __device__ __forceinline__ void weigh(int m, float (*s)[4], uint32_t (*p)[4], int valid, float factor)
    {
        if (valid < 8 * COLUMNS) mask_columns<COLUMNS>(s, valid, LOWEST);
        float2 shrink = softmax_step<COLUMNS>(s, top[m], sum[m], factor);
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++)
            left_operand<T>(p[pair], s + 2 * pair);
        if (!__any_sync(ALL_LANES, shrink.x < 1.0f || shrink.y < 1.0f)) return; /* as a rule, after a few */
#pragma unroll
        for (int j = 0; j < DIM / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[m][j][e] *= e < 2 ? shrink.x : shrink.y;
    }

    /* The task as with take. */
    __device__ __forceinline__ void give(const AttentionArgs &args, const AttentionTask &task)
    {
        int lane = threadIdx.x % WARP;
#pragma unroll
        for (int m = 0; m < GROUPS; m++) {
            int left = task.left - m * task.apart, row = task.row + m * task.apart;
            if (left <= 0) break;
            float factor[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int r = lane / 4 + half * 8;
                float total = sum[m][half];
                total += __shfl_xor_sync(ALL_LANES, total, 1);
                total += __shfl_xor_sync(ALL_LANES, total, 2);
                factor[half] = 1.0f / total;
                if (lane % 4 == 0 && r < left)
                    args.lse[(int64_t)(row + r) * args.heads + task.head] = top[m][half] * LN_2 + logf(total);
            }
            rows_store<T, DIM>((T *)args.out + (int64_t)row * args.width + task.head * DIM, args.width, left,
                               out[m], factor[0], factor[1]);
        }
    }
};

#endif
