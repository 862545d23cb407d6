/* key_search.h - where the pictures with some keys are, in one or more data sets.
 *
 * Files about pictures (features, curations) name them by their keys; data sets number them, and leave out or
 * order what they hold by rules of their own. The keys looked for are held, hashed, and all pictures of the
 * sets go by: 16 bytes for each key, nothing for the pictures.
 */
#ifndef DINOBATCH_DATA_KEY_SEARCH_H
#define DINOBATCH_DATA_KEY_SEARCH_H

#include "data/data_set.h"

/* places[n] of the pictures with keys[n] among sets[count], set -1 where none has the key; a key may be asked
 * for more than once.
 * STATUS_INPUT where two pictures have one of the keys, naming both. Not collective. */
Status key_search_run(DataPlace *places, const char *const *keys, int64_t n, const DataSet *const *sets,
                      int count, Error *error);

#endif
