/* check.c - the end of the line for a broken invariant. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "dinobatch: bug: %s:%d: %s does not hold\n", file, line, condition);
    fflush(stderr);
    abort();
}
