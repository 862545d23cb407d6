/* cuda_attention_pass.cuh - how a block goes through a piece of work: some rows of a sequence stay in the
 * registers of their warp, all rows of the other side come by in shared memory.
 *
 * The forward pass keeps queries and lets keys and values come by; so does the first half of the backward
 * pass; the second keeps keys and values and lets queries and output gradients come by. What is kept, and
 * what happens when they meet, is a SIDE:
 *
 *     PARTIES      who takes tasks: each of a block's warps for itself, or (1) all of them together
 *     KEPT         how many groups of 16 rows a party keeps at once
 *     bring()      starts copying the coming rows of tokens [token, + tokens) to row `row` of the tiles, by
 *                  exactly one group of copies
 *     arrived()    called by every thread behind its wait for copies, before the barrier
 *     load()       takes up the rows of a task; those behind the sequence's end are zeros
 *     meet<COUNT>  the first COUNT groups (of one party: all) meet `tokens` rows, from row `row` of the
 *                  tiles on
 *     store()      writes the results
 *
 * Whole sequences come at once; then each party does what tasks it finds and waits for no other. Long ones
 * come in stages, one copied while the other is worked on. What outlives a meeting is read again from shared
 * memory: registers are what these kernels are short of.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_PASS_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_PASS_CUH

#include "ops/cuda/cuda_attention_tile.cuh"

/* A block's shared memory. */
template <typename T> struct AttentionShared {
    T *tiles;      /* two of AttentionSizes::ROWS rows, one behind the other */
    float2 *stats; /* [ROWS] backward pass: of the query in that row, log-sum-exp / ln 2 and delta */
    const volatile TilePlaces *places;

    /* The calling lane's place in 16 rows from `row` on, a multiple of 8. */
    template <int DIM> __device__ __forceinline__ const T *along(int row) const
    {
        return tiles + row * AttentionSizes<DIM>::SPAN + places->along[threadIdx.x % WARP];
    }
    template <int DIM> __device__ __forceinline__ const T *across(int row) const
    {
        return tiles + row * AttentionSizes<DIM>::SPAN + places->across[threadIdx.x % WARP];
    }
};

/* Starts copying keys and values of tokens [token, + tokens) to row `row` of the tiles. */
template <typename T, int DIM>
static __device__ __forceinline__ void
attention_bring_keys(const AttentionArgs &args, const volatile AttentionPiece &piece,
                     AttentionShared<T> shared, int row, int token, int tokens)
{
    int stride = 3 * args.width;
    const T *keys =
        (const T *)args.qkv + (int64_t)(piece.first + token) * stride + args.width + piece.head * DIM;
    tile_copy_heads<T, DIM>(shared.tiles, row, keys, stride, keys + args.width, stride, piece.heads, tokens);
}

/* What a party does at a time. */
typedef struct {
    int row;   /* of its first token, in the tensors */
    int place; /* the same in the tiles, where whole sequences lie */
    int head;
    int left;  /* rows from there to the sequence's end; 0 or less: nothing to do */
    int apart; /* rows from one of its groups to the next */
    int begin; /* row of the tiles where its head begins, of whole sequences */
} AttentionTask;

/* A party's task in its turn-th turn. Of whole sequences, runs of KEPT groups, dealt to the parties in turns;
 * of a block of a long one, party p has groups p, p + PARTIES, ... in every turn. */
template <typename SIDE>
static __device__ __forceinline__ AttentionTask attention_task(const volatile AttentionPiece &piece, int turn)
{
    const int KEPT = SIDE::KEPT, PARTIES = SIDE::PARTIES;
    int groups = attention_groups(piece.tokens), runs = (groups + KEPT - 1) / KEPT;
    int party = PARTIES == 1 ? 0 : threadIdx.x / WARP;
    if (!piece.whole) {
        int token = (piece.group + party) * GROUP;
        return AttentionTask{piece.first + token, 0, piece.head, piece.tokens - token, PARTIES * GROUP, 0};
    }
    int index = party + turn * PARTIES, slot = index / runs;
    int begin = slot * groups * GROUP, token = index % runs * KEPT * GROUP;
    int left = slot < piece.heads ? piece.tokens - token : 0;
    return AttentionTask{piece.first + token, begin + token, piece.head + slot, left, GROUP, begin};
}

/* Brings stage `stage` of a long sequence, if there is one, to its half of the tiles. */
template <typename T, int DIM, typename SIDE>
static __device__ __forceinline__ void attention_pass_bring(const AttentionArgs &args,
                                                            const volatile AttentionPiece &piece,
                                                            AttentionShared<T> shared, int stage)
{
    const int STAGE = AttentionSizes<DIM>::STAGE;
    int left = piece.tokens - stage * STAGE;
    if (left > 0)
        SIDE::bring(args, piece, shared, stage % 2 * STAGE, stage * STAGE, min(STAGE, left));
    else
        cp_async_commit(); /* of nothing, so that there is one more group each time */
}

/* One piece, from a __syncthreads behind the last use of the tiles on. `meanwhile` is called once the rows
 * are under way. */
template <typename T, int DIM, typename SIDE, typename MEANWHILE>
static __device__ __forceinline__ void attention_pass(const AttentionArgs &args,
                                                      const volatile AttentionPiece &piece,
                                                      AttentionShared<T> shared, MEANWHILE meanwhile)
{
    const int STAGE = AttentionSizes<DIM>::STAGE;
    if (piece.whole)
        SIDE::bring(args, piece, shared, 0, 0, piece.tokens);
    else
        attention_pass_bring<T, DIM, SIDE>(args, piece, shared, 0);
    meanwhile();
    int turn = 0; /* of whole sequences: of tasks; of long ones: of stages */
#pragma unroll 1
    do {
        AttentionTask task = attention_task<SIDE>(piece, turn);
        if (task.left <= 0 && piece.whole && turn > 0) break;
        SIDE side;
        side.load(args, piece, shared, task); /* under way while the warp waits for what comes by */
#pragma unroll 1
        do {
            int tokens = piece.tokens, row = task.begin;
            if (piece.whole) {
                cp_async_wait<0>();
            } else {
                attention_pass_bring<T, DIM, SIDE>(args, piece, shared, turn + 1);
                cp_async_wait<1>();
                row = turn % 2 * STAGE;
                tokens = min(tokens - turn * STAGE, STAGE);
            }
            if (turn == 0 || !piece.whole) {
                SIDE::arrived();
                __syncthreads();
            }
            if (SIDE::PARTIES > 1 && SIDE::KEPT > 1 && task.left > task.apart)
                side.template meet<SIDE::KEPT>(args, shared, row, tokens);
            else if (task.left > 0)
                side.template meet<1>(args, shared, row, tokens);
            task = attention_task<SIDE>(piece, turn++);
            if (piece.whole) break;
            __syncthreads(); /* the stage after the next overwrites this one */
        } while (turn * STAGE < piece.tokens);
        side.store(args, task);
    } while (piece.whole);
}

/* Launcher<T, DIM>::launch for the operands' element type (bf16, fp16) and head dimension. */
template <template <typename, int> class Launcher, typename T>
static void attention_dispatch_dim(const OpsCuda *cuda, const AttentionArgs &args)
{
    switch (args.head_dim) {
    case 32:
        Launcher<T, 32>::launch(cuda, args);
        break;
    case 64:
        Launcher<T, 64>::launch(cuda, args);
        break;
    case 96:
        Launcher<T, 96>::launch(cuda, args);
        break;
    default:
        CHECK(args.head_dim == 128);
        Launcher<T, 128>::launch(cuda, args);
    }
}

template <template <typename, int> class Launcher>
static void attention_dispatch(const OpsCuda *cuda, Dtype dtype, const AttentionArgs &args)
{
    if (dtype == DTYPE_BF16)
        attention_dispatch_dim<Launcher, bf16>(cuda, args);
    else
        attention_dispatch_dim<Launcher, fp16>(cuda, args);
}

#endif
