/* fast_exp2.cuh - the emulator's file of that name: results below the normal numbers are 0 here, too. */
#ifndef DINOBATCH_EMULATOR_FAST_EXP2_CUH
#define DINOBATCH_EMULATOR_FAST_EXP2_CUH

#include <math.h>

static inline float fast_exp2(float x)
{
    return x < -126.0f ? 0.0f : exp2f(x);
}

#endif
