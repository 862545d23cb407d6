/* dtype.c - sizes and names. */
#include "base/dtype.h"

#include "base/check.h"

size_t dtype_size(Dtype dtype)
{
    static const size_t sizes[DTYPE_COUNT] = {4, 2, 2, 8, 4, 8, 1};
    CHECK((unsigned)dtype < DTYPE_COUNT);
    return sizes[dtype];
}

const char *dtype_name(Dtype dtype)
{
    static const char *const names[DTYPE_COUNT] = {"fp32", "bf16", "fp16", "fp64", "int32", "int64", "uint8"};
    CHECK((unsigned)dtype < DTYPE_COUNT);
    return names[dtype];
}
