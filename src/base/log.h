/* log.h - what the program says on stderr and into log.txt.
 *
 * Rank 0 speaks; the other ranks only report errors, prefixed with host and rank. A Log is owned by the run
 * and handed to whoever speaks; leaf code returns a Status with a message instead.
 */
#ifndef DINOBATCH_BASE_LOG_H
#define DINOBATCH_BASE_LOG_H

#include <stdbool.h>
#include <stdio.h>

typedef struct {
    int rank;
    char host[64];
    FILE *file;       /* log.txt of the run folder on rank 0, or NULL; borrowed */
    bool bar_on_line; /* a progress bar stands on the terminal's current line */
    bool silent;      /* say nothing but errors (tests) */
} Log;

/* A log of `rank` on this host that writes to stderr only. */
Log log_create(int rank);

/* One line, rank 0 only. */
void log_info(Log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line, rank 0 only, prefixed "warning: ". */
void log_warning(Log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line from any rank, prefixed "error: " on rank 0 and "HOST rank R: error: " elsewhere. */
void log_error(Log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A progress line: on a terminal it replaces the one before, elsewhere it is a plain line. Rank 0 only. */
void log_progress(Log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
