/* corrupt_list.h - which images of a data set were found unreadable, each to be named once in the log of all
 * ranks together.
 *
 * Every opened data set has one (data_set_corrupt). Loader threads note images ahead of their use; an image
 * counts once its round (batch) has been delivered, so that names and number depend on the samples used
 * alone, not on how far the threads were ahead.
 *
 *     bool news = corrupt_list_has_news(list); // goes with a reduction that the ranks make anyway
 *     if (news on any rank) corrupt_list_tell(list, comm, log);
 */
#ifndef DINOBATCH_DATA_CORRUPT_LIST_H
#define DINOBATCH_DATA_CORRUPT_LIST_H

#include "base/log.h"
#include "comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct CorruptList CorruptList;

CorruptList *corrupt_list_create(void);
void corrupt_list_destroy(CorruptList *list);

/* Notes that image `index` was met in `round`, with what is wrong with it. Thread-safe; allocates only for a
 * new one. */
void corrupt_list_add(CorruptList *list, int64_t index, int64_t round, const char *message);

/* Rounds up to `round` have been handed out. Thread-safe. */
void corrupt_list_deliver(CorruptList *list, int64_t round);

/* Whether this rank has an image that counts and was not told. Thread-safe, not collective. */
bool corrupt_list_has_news(CorruptList *list);

/* Logs "MESSAGE; skipped" on rank 0 for every image that any rank has news of, once over all ranks and all
 * calls. Collective over COMM; NULL: this process alone. */
void corrupt_list_tell(CorruptList *list, Comm *comm, Log *log);

/* How many were told so far. Not collective. */
int64_t corrupt_list_total(const CorruptList *list);

/* Logs that number and `fate`, what became of each of them; nothing when there is none. Not collective. */
void corrupt_list_tell_total(const CorruptList *list, Log *log, const char *fate);

#endif
