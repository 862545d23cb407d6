/* libraries.h - versions of the libraries in use, as they report them at run time. */
#ifndef DINOBATCH_RUN_LIBRARIES_H
#define DINOBATCH_RUN_LIBRARIES_H

enum { LIBRARIES_MAX = 16 };

typedef struct {
    const char *name;  /* static */
    char version[128]; /* one line */
} Library;

/* Fills `libraries` and returns their number. Not collective; works before MPI_Init. */
int libraries_list(Library libraries[LIBRARIES_MAX]);

#endif
