/* golden_params.h - parameters of a golden file into and out of a parameter table. */
#ifndef DINOBATCH_TESTS_GOLDEN_GOLDEN_PARAMS_H
#define DINOBATCH_TESTS_GOLDEN_GOLDEN_PARAMS_H

#include "golden.h"
#include "tensor/param_table.h"

/* How the data sets of a group are named. */
typedef enum {
    GOLDEN_NAMES_PLAIN,      /* as in the table */
    GOLDEN_NAMES_WITH_MODULE /* "backbone." and so on in front */
} GoldenNames;

/* Every parameter of the table from GROUP/NAME into flat; fails unless both sides have the same names. */
void golden_params_load(Golden *golden, const ParamTable *table, GoldenNames names, float *flat,
                        const char *group);

/* Every data set of the group against the parameter of that name in flat; a qkv bias that has a tol_abs_qv
 * without its key third. */
void golden_params_compare(Golden *golden, const ParamTable *table, GoldenNames names, const float *flat,
                           const char *group);

/* A table entry by the name that the file gives it, or -1. */
int golden_params_find(const ParamTable *table, GoldenNames names, const char *name);

/* Whether the group has a parameter whose name ends in `suffix`. */
bool golden_params_any(Golden *golden, const char *group, const char *suffix);

/* Borrowed input as an operand; operations do not write to inputs. */
static inline Tensor golden_params_input(const float *values, int64_t rows, int64_t columns)
{
    return tensor_2d((void *)(uintptr_t)values, DTYPE_F32, rows, columns);
}

#endif
