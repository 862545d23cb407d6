/* cuda_prototype_blocks.cuh - how scores against many prototypes are made and measured on a GPU, a block of
 * rows at a time.
 *
 * Scores s = x . W^T with W = weight_g v / |v| row-wise are made by cuBLASLt into scratch and worked on by
 * row kernels: z = s / temp + bias, softmax, sums. With fp32 weights everything is fp32.
 *
 * With 16-bit weights (bf16 or fp16) x and W are rounded to fp16, whichever the 16-bit type is, and the
 * products, summed in fp32, are kept as fp16. Rows of x and W are unit vectors (times weight_g, about 1), so
 * that their range is harmless: fp16 holds a bf16 weight exactly but for the factor's rounding, holds x 8
 * times better than bf16 would, and a score with a relative error of at most 2^-12. An error of a score of
 * size s reaches z as s * 2^-12 / temp: for s = 0.5 and temp = 0.04, 0.003 at the most (bf16 scores: 0.024),
 * random in sign. That is below what bf16 rounding of the weights themselves does to a score (about 2^-9 /
 * sqrt(3 d) times 2 = 1e-4 of 1, or 0.003 of z for d = 256), and an error of 0.003 in every z of a row moves
 * its loss by 0.003 |p - q|, some 1e-4 of its value; over the thousands of rows of a mean it cancels. In
 * return every pass over the scores moves 2 bytes a score instead of 4, and those passes are what these
 * operations take their time for.
 *
 * Floor and plan for n rows, K prototypes, d columns (10,000, 131,072, 384: 1.3e9 scores; a product is 1.0e12
 * flop, 1.4 ms at 700 TFLOP/s; 2 bytes a score are 0.8 ms at 3.3 TB/s). Estimates, not measurements:
 *   cross-entropy  4 products (5.7 ms). Scores of both sides are written (4 bytes), read by the teacher's
 * measures (2) and the loss (4) and, out of the level-2 cache, by the gradient, which is written over the
 * student's scores (2) and read by two products (4): 16 bytes a score from memory, 6.4 ms, some of them under
 *                  the products; d W is read and written once a block of rows (1.2 ms in all). Together 10 to
 * 12 ms. Making scores again for the gradient instead of keeping them would cost two products more; a kernel
 *                  of our own that makes scores and measures them in registers would save up to half of the
 * bytes, but has to reach half of the library's rate by mma.sync to be even. Sinkhorn       3 iterations, 5
 * passes. Scores that fit the budget (class tokens) are made once. Otherwise 3 products (4.3 ms), scores
 * written and read in each (12 bytes), read again out of the cache by the column sums of the last two: 5 ms,
 * together 7 to 9 ms. W              K * d * 4 (6 with gradient) bytes, moved once a call: 0.1 ms. Scratch:
 * two buffers of CUDA_BUDGET_SCORES and three copies of W, 0.8 GiB for these K and d.
 *
 * What it is not: an operation; cuda_prototypes.cu, cuda_prototype_sinkhorn.cu,
 * cuda_prototype_cross_entropy.cu are.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_PROTOTYPE_BLOCKS_CUH
#define DINOBATCH_OPS_CUDA_CUDA_PROTOTYPE_BLOCKS_CUH

#include "ops/cuda/ops_cuda.h"

enum {
    PROTOTYPE_THREADS = 256, /* of a block */
    PROTOTYPE_EACH = 32,     /* scores of a thread */
    PROTOTYPE_SPAN =
        PROTOTYPE_THREADS * PROTOTYPE_EACH, /* columns of a row that one block works on: a part */
};

/* Operands of one side. */
typedef struct {
    int64_t K, d;
    int64_t stride; /* elements from a row of scores to the next; a multiple of 16 bytes */
    int64_t parts;  /* of a row */
    Dtype dtype;    /* of scores and of what makes them: fp32 or fp16 */
} PrototypeBlocks;

/* What a row's parts say, [rows, parts] each: of z = score / temp + bias. */
typedef struct {
    float *maximum;
    float *sum; /* exp(z - maximum) */
    float *
        product; /* (z - maximum) exp(z - maximum); of a student's row, see cuda_prototype_cross_entropy.cu */
    int32_t *top; /* first column that has the maximum */
} PrototypeParts;

/* And the whole row, [rows] each. */
typedef struct {
    float *log_sum; /* log sum exp z */
    float *entropy; /* of softmax z, in nats; may be NULL */
    int32_t *top;   /* may be NULL */
} PrototypeMeasures;

/* Of weights v [K, d] of any type. */
PrototypeBlocks cuda_prototype_blocks_of(Tensor v);

/* Most rows of a block with `budget` bytes of scores. */
int64_t cuda_prototype_blocks_most(const PrototypeBlocks *p, int64_t budget);

/* `most` or fewer rows, so that n rows make blocks of nearly one size. */
int64_t cuda_prototype_blocks_even(int64_t n, int64_t most);

/* Of a block's `rows`, how many at a time kernels should go over so that one finds in the cache what the one
 * before it read or wrote, of `sides` rows of scores each; enough to fill the machine. */
int64_t cuda_prototype_blocks_cached(const Ops *ops, const PrototypeBlocks *p, int64_t sides, int64_t rows);

/* The most rows of a block of any call within the limits; the targets of one row always fit. */
int64_t cuda_prototype_blocks_limit(const OpsLimits *limits);

/* Bytes of scratch for the scores of a block, for any call within the limits. */
size_t cuda_prototype_blocks_bytes(const OpsLimits *limits, int64_t budget);

/* w[K, d] of p->dtype = scale[k] * v[k, :]; `second` (or NULL): the same in bf16. */
void cuda_prototype_blocks_weights(const Ops *ops, const PrototypeBlocks *p, void *w, void *second, Tensor v,
                                   Tensor scale);

/* out[rows, d] = x[index[i]] rounded to dtype, zeros where index is -1; index NULL: row i. */
void cuda_prototype_blocks_round(const Ops *ops, void *out, Dtype dtype, const float *x, const int32_t *index,
                                 int64_t rows, int64_t d);

/* scores[rows, stride] of x[rows, d] and W[K, d], both of p->dtype. */
void cuda_prototype_blocks_scores(const Ops *ops, const PrototypeBlocks *p, void *scores, const void *x,
                                  const void *w, int64_t rows);

/* Measures of rows of scores; bias [K] or NULL. `parts` is room for them. */
void cuda_prototype_blocks_measure(const Ops *ops, const PrototypeBlocks *p, PrototypeMeasures out,
                                   PrototypeParts parts, const void *scores, int64_t rows, float temp,
                                   const float *bias);

/* Room for the parts of `rows` rows, and what is planned for it: for any blocks of `budget` bytes. */
PrototypeParts cuda_prototype_blocks_parts(const Ops *ops, const PrototypeBlocks *p, int64_t rows);
size_t cuda_prototype_blocks_parts_bytes(const OpsLimits *limits, int64_t budget);

/* A family's own shares of cuda_prototypes_scratch. */
size_t cuda_prototype_sinkhorn_scratch(const OpsLimits *limits, int multiprocessors);
size_t cuda_prototype_cross_entropy_scratch(const OpsLimits *limits);

#endif
