/* retention.h - the folder of checkpoints: which file is the newest, which may go. Not collective. */
#ifndef DINOBATCH_CKPT_RETENTION_H
#define DINOBATCH_CKPT_RETENTION_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Numbers of the files model_<number>.h5 in a folder, ascending. */
typedef struct {
    int64_t *numbers; /* owned */
    int64_t count;
} RetentionList;

/* FOLDER/model_0001249.h5 into path[size]; STATUS_INPUT when it does not fit. */
Status retention_path(const char *folder, int64_t number, char *path, size_t size, Error *error);

/* The number of FOLDER/model_0001249.h5, or -1. */
int64_t retention_number(const char *path);

/* A missing folder is an empty list. */
Status retention_list(const char *folder, RetentionList *list, Error *error);
void retention_list_fini(RetentionList *list);

/* The number that last_checkpoint names, or -1: missing, unreadable or not such a name. */
int64_t retention_read_last(const char *folder);

/* Replaces last_checkpoint, atomically. */
Status retention_write_last(const char *folder, int64_t number, Error *error);

/* Removes all but the newest `keep` files up to `newest`, which always stays; 0 keeps all. A file after a
 * multiple of `keep_every` iterations (its number + 1) stays in any case; 0: none does. Files above
 * `newest` belong to a future that was given up: they are neither counted nor removed (a run that gets there
 * replaces them). */
Status retention_prune(const char *folder, int64_t newest, int keep, int64_t keep_every, Error *error);

/* Removes *.tmp. */
Status retention_remove_temporary(const char *folder, Error *error);

#endif
