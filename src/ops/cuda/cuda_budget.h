/* cuda_budget.h - how much memory operations work in that go over their operands piece by piece.
 *
 * The tests put another file of this name before it (tests/emulator), so that small operands are cut into
 * many pieces, too.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_BUDGET_H
#define DINOBATCH_OPS_CUDA_CUDA_BUDGET_H

#include <stdint.h>

/* Bytes of the scores of one block of rows against prototypes, student's or teacher's; there are two such
 * buffers. 1024 rows of 131,072 prototypes in 16 bits: enough for full-rate products, and for the sums of d W
 * (K * d * 8 bytes of traffic a block) to take no longer than the product that makes them. */
static const int64_t CUDA_BUDGET_SCORES = (int64_t)256 << 20;

/* Fewest rows of such a block, however many prototypes (at least PROTOTYPE_MAX_TARGETS); and the most. */
static const int64_t CUDA_BUDGET_FEWEST = 32;
static const int64_t CUDA_BUDGET_MOST = 8192;

/* Bytes of scores that one kernel leaves for the next in the level-2 cache (50 MiB on an H100, 40 on an A100,
 * but what multiprocessors on both sides of the chip read may be held twice), at least one wave of blocks. */
static const int64_t CUDA_BUDGET_CACHE = (int64_t)16 << 20;

/* Rows that are converted to another type at one time before a product. */
static const int64_t CUDA_BUDGET_CONVERTED = 1024;

/* Inner products of a block of rows of KoLeo. */
static const int64_t CUDA_BUDGET_DOTS = (int64_t)1 << 22;

/* Bytes of the windows of a convolution that are written at one time for the product to read. */
static const int64_t CUDA_BUDGET_WINDOWS = (int64_t)32 << 20;

#endif
