/* cuda_attention_work.cuh - how a packed batch is cut into pieces of work, one block each.
 *
 * Rows are counted in groups of 16, the rows of one tensor core instruction, and lengths are rounded up to 16
 * and no further. Useful share of the products, beside what square tiles of 64 would have:
 *     tokens        1370   257   197    65    50    37    17
 *     rounded to    1376   272   208    80    64    48    32
 *     useful         99 %  89 %  90 %  66 %  61 %  59 %  28 %
 *     tiles of 64    95 %  64 %  59 %  26 %  61 %  33 %   7 %
 *
 * A piece is one whole sequence, for as many heads as fit a block's shared memory, where at least one fits:
 * one head of 257 tokens, four of 50, eight of 17 weigh about the same, so short sequences keep a block as
 * busy as long ones. Else it is one head of a sequence for one block of its rows, and the other side streams
 * by.
 *
 * Lengths are known on the device only. Every block counts the pieces itself: each thread those of a run of
 * sequences, then a sum over the block, kept in 512 bytes of shared memory; finding a piece is a binary
 * search among the runs and a walk along one. That costs a block a microsecond or two once, less than one
 * more kernel before each attention. Piece i belongs to block i modulo the grid: no counter, and always the
 * same sums. Packs have their long sequences first, so that blocks run out of work with the small pieces.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_ATTENTION_WORK_CUH
#define DINOBATCH_OPS_CUDA_CUDA_ATTENTION_WORK_CUH

#include "ops/cuda/cuda_attention.cuh"

enum { ATTENTION_THREADS = 128, ATTENTION_WARPS = ATTENTION_THREADS / WARP, GROUP = 16 };

typedef struct {
    int whole_groups; /* the most groups that a block holds at once; longer sequences are cut into blocks */
    int block_groups; /* groups of one such block */
    bool long_only;   /* whole sequences are no work of this kernel */
    int run;          /* sequences that each thread counts */
} AttentionSplit;

/* A piece of work. It lies in shared memory; kernels read it there again rather than keep it in registers. */
typedef struct {
    int first;       /* row of the sequence's first token */
    int tokens;      /* of the sequence; 0: there is no work any more */
    int head, heads; /* first head, and how many */
    int group;       /* first group of the block, counted in the sequence; 0 for a whole one */
    bool whole;
} AttentionPiece;

/* In shared memory. */
typedef struct {
    int starts[ATTENTION_THREADS]; /* pieces before each thread's run of sequences */
    int totals[ATTENTION_WARPS];
    int total;                   /* pieces */
    int next;                    /* piece of this block */
    AttentionPiece piece, ahead; /* the one that is worked on, and the one after it */
} AttentionWork;

__device__ __forceinline__ int attention_groups(int tokens)
{
    return (tokens + GROUP - 1) / GROUP;
}

/* Pieces of one sequence. */
__device__ __forceinline__ int attention_work_count(AttentionSplit split, int heads, int tokens)
{
    int groups = attention_groups(tokens);
    if (groups > split.whole_groups) return heads * ((groups + split.block_groups - 1) / split.block_groups);
    if (groups == 0 || split.long_only) return 0;
    int together = min(heads, split.whole_groups / groups);
    return (heads + together - 1) / together;
}

/* Piece `index`. By one thread. */
static __device__ AttentionPiece attention_work_find(const AttentionWork *work, AttentionSplit split,
                                                     const AttentionArgs &args, int index)
{
    AttentionPiece piece = {0, 0, 0, 1, 0, true};
    if (index >= work->total) return piece;
    int run = 0; /* the last that starts at or before index */
    for (int step = ATTENTION_THREADS / 2; step > 0; step /= 2)
        if (work->starts[run + step] <= index) run += step;
    index -= work->starts[run];
    int s = run * split.run, count = 0;
    for (;; s++) {
        piece.first = args.cu_seqlens[s];
        piece.tokens = args.cu_seqlens[s + 1] - args.cu_seqlens[s];
        count = attention_work_count(split, args.heads, piece.tokens);
        if (index < count) break;
        index -= count;
    }
    piece.whole = attention_groups(piece.tokens) <= split.whole_groups;
    if (piece.whole) {
        int share = (args.heads + count - 1) / count; /* evenly: 4, 4, 4, 4 rather than 5, 5, 5, 1 */
        piece.head = index * share;
        piece.heads = min(share, args.heads - piece.head);
    } else {
        int blocks = count / args.heads; /* those of one head are neighbours: they read the same rows */
        piece.head = index / blocks;
        piece.group = index % blocks * split.block_groups;
    }
    return piece;
}

/* Finds the piece ahead, one thread for all; to be called while the block waits for rows of the present one.
 */
__device__ __forceinline__ void attention_work_foresee(AttentionWork *work, AttentionSplit split,
                                                       const AttentionArgs &args)
{
    if (threadIdx.x != ATTENTION_THREADS - WARP) return;
    work->ahead = attention_work_find(work, split, args, work->next);
    work->next += gridDim.x;
}

/* The piece ahead becomes the present one; no tokens: the work is done. What threads wrote to or still read
 * from shared memory before is settled behind it. */
__device__ __forceinline__ void attention_work_advance(AttentionWork *work)
{
    __syncthreads();
    if (threadIdx.x == ATTENTION_THREADS - WARP) work->piece = work->ahead;
    __syncthreads();
}

/* Counts the pieces and finds the first; all threads of the block call it. */
static __device__ void attention_work_begin(AttentionWork *work, AttentionSplit split,
                                            const AttentionArgs &args)
{
    int thread = threadIdx.x, lane = thread % WARP, run = split.run, own = 0;
    for (int s = thread * run; s < min((thread + 1) * run, args.sequences); s++)
        own += attention_work_count(split, args.heads, args.cu_seqlens[s + 1] - args.cu_seqlens[s]);
    int before = own; /* with those of lower lanes */
    for (int distance = 1; distance < WARP; distance *= 2) {
        int other = __shfl_up_sync(ALL_LANES, before, distance);
        if (lane >= distance) before += other;
    }
    if (lane == WARP - 1) work->totals[thread / WARP] = before;
    __syncthreads();
    for (int w = 0; w < thread / WARP; w++)
        before += work->totals[w];
    work->starts[thread] = before - own;
    if (thread == ATTENTION_THREADS - 1) {
        work->total = before;
        work->next = blockIdx.x;
    }
    __syncthreads();
    attention_work_foresee(work, split, args);
    attention_work_advance(work);
}

/* Host: see AttentionSplit. */
static inline AttentionSplit attention_work_split(const AttentionArgs &args, int whole_groups,
                                                  int block_groups, bool long_only)
{
    int run = (args.sequences + ATTENTION_THREADS - 1) / ATTENTION_THREADS;
    return AttentionSplit{whole_groups, block_groups, long_only, run};
}

/* Host: a grid of as many blocks as the GPU holds, or fewer where there cannot be work for all of them. */
static inline unsigned attention_work_grid(const OpsCuda *cuda, const AttentionArgs &args,
                                           AttentionSplit split, int blocks_by_registers, size_t shared_bytes)
{
    const size_t reserved = 1024; /* shared memory that each block takes beside its own */
    int64_t blocks = (int64_t)((cuda->shared_bytes + reserved) / (shared_bytes + reserved));
    if (blocks > blocks_by_registers) blocks = blocks_by_registers;
    if (blocks < 1) blocks = 1;
    int64_t most = (int64_t)args.heads * (args.sequences + args.tokens / (GROUP * split.block_groups));
    int64_t grid = blocks * cuda->multiprocessors;
    return (unsigned)(grid < most ? grid : most);
}

#endif
