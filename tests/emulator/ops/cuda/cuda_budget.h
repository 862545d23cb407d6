/* cuda_budget.h - small pieces, in place of the header of that name in src: blocks of some 16 rows of 1000
 * scores. */
#ifndef DINOBATCH_TESTS_EMULATOR_CUDA_BUDGET_H
#define DINOBATCH_TESTS_EMULATOR_CUDA_BUDGET_H

#include <stdint.h>

static const int64_t CUDA_BUDGET_SCORES = 32 << 10;
static const int64_t CUDA_BUDGET_FEWEST = 16;
static const int64_t CUDA_BUDGET_MOST = 40;
static const int64_t CUDA_BUDGET_CACHE = 8 << 10;
static const int64_t CUDA_BUDGET_CONVERTED = 24;
static const int64_t CUDA_BUDGET_DOTS = 1000;
static const int64_t CUDA_BUDGET_WINDOWS = 16 << 10;

#endif
