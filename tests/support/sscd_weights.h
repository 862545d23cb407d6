/* sscd_weights.h - weights for the copy-detection network by the formula of its golden file: those that were
 * trained are nobody's to commit. */
#ifndef DINOBATCH_TESTS_SUPPORT_SSCD_WEIGHTS_H
#define DINOBATCH_TESTS_SUPPORT_SSCD_WEIGHTS_H

#include "tensor/param_table.h"

/* flat[table->flat_count]; padding becomes zero. */
void sscd_weights_fill(const ParamTable *table, uint64_t seed, float *flat);

#endif
