/* version.c - texts fixed at build time. */
#include "run/version.h"

#ifndef DINOBATCH_VERSION
#define DINOBATCH_VERSION "0.1.0"
#endif
#ifndef DINOBATCH_GIT
#define DINOBATCH_GIT "unknown"
#endif

#ifdef __clang__
#define COMPILER "clang"
#else
#define COMPILER "gcc"
#endif

#ifdef DINOBATCH_POISON
#define KIND "debug"
#else
#define KIND "release"
#endif

const char *version_number(void)
{
    return DINOBATCH_VERSION;
}

const char *version_git(void)
{
    return DINOBATCH_GIT;
}

const char *version_build(void)
{
    return COMPILER " " __VERSION__ ", " KIND;
}
