/* corrupt_list.h - which images of a data set were found unreadable, each to be named once in the log.
 *
 * Filled by loader threads, emptied by the thread that logs. Private to data/.
 */
#ifndef DINOBATCH_DATA_CORRUPT_LIST_H
#define DINOBATCH_DATA_CORRUPT_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct CorruptList CorruptList;

CorruptList *corrupt_list_create(void);
void corrupt_list_destroy(CorruptList *list);

/* Notes image `index` with what is wrong with it; nothing happens when it is known. Thread-safe; allocates
 * only for a new one. */
void corrupt_list_add(CorruptList *list, int64_t index, const char *message);

/* The next line "MESSAGE; skipped", by the order of discovery; false: none. Thread-safe. */
bool corrupt_list_take(CorruptList *list, char *text, size_t size);

#endif
