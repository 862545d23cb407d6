/* status.h - how every fallible function reports failure.
 *
 * A function that can fail because of its input or its environment returns a Status and takes a trailing
 * `Error *error`; on failure it writes one line there. Our own bugs are asserts (base/check.h), not statuses.
 * The values are the program's exit codes (design: 0 done, 1 failed, 2 usage/configuration/input, 75
 * requeue).
 *
 *   // defines: Status, Error, status_fail(), TRY()
 */
#ifndef DINOBATCH_BASE_STATUS_H
#define DINOBATCH_BASE_STATUS_H

typedef enum {
    STATUS_OK = 0,       /* done */
    STATUS_FAILED = 1,   /* the environment broke: disk, memory, network, a library */
    STATUS_INPUT = 2,    /* usage, configuration or unusable input */
    STATUS_REQUEUE = 75, /* stopped on request after saving: run me again */
} Status;

/* One line that names the file, key or rank at fault. Callers zero-initialise it: `Error error = {0};` */
typedef struct {
    char text[1024];
} Error;

/* Formats the message into `error` (may be NULL: the message is dropped) and returns `status`, so that a
 * failing function ends with `return status_fail(error, STATUS_INPUT, "%s: not a JPEG", path);`.
 * Newlines and control characters in the result are replaced, so that it stays one line. */
Status status_fail(Error *error, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the message already in `error` and returns `status` unchanged. */
Status status_prefix(Error *error, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Hands a failure up. Never between two collective calls: there, comm_agree() first. */
#define TRY(expression)                                   \
    do {                                                  \
        Status try_status_ = (expression);                \
        if (try_status_ != STATUS_OK) return try_status_; \
    } while (0)

#endif
