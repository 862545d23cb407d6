/* version.h - which dinobatch this is; the build passes DINOBATCH_VERSION and DINOBATCH_GIT. */
#ifndef DINOBATCH_RUN_VERSION_H
#define DINOBATCH_RUN_VERSION_H

/* "0.1.0" */
const char *version_number(void);

/* `git describe --always --dirty` at build time, or "unknown". */
const char *version_git(void);

/* Compiler and options that matter, as one line. */
const char *version_build(void);

#endif
