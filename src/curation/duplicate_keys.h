/* duplicate_keys.h - does any key name two rows of a set? Of a pool none may; references are often several
 * data sets, whose keys are alike and mean different pictures: there only rows of one file must differ.
 */
#ifndef DINOBATCH_CURATION_DUPLICATE_KEYS_H
#define DINOBATCH_CURATION_DUPLICATE_KEYS_H

#include "curation/feature_source.h"

typedef enum { DUPLICATE_KEYS_IN_SET, DUPLICATE_KEYS_IN_FILE } DuplicateKeysScope;

/* STATUS_INPUT where two rows of the set, or of one file of it, have one key: it names the key, and the files
 * and rows. Keys meet by 62-bit hashes, each on the rank that its hash belongs to, and equal hashes are
 * decided by reading the keys. Takes 32 bytes for each of this rank's rows meanwhile. The outcome is agreed.
 * Collective over COMM. */
Status duplicate_keys_check(const FeatureSource *source, DuplicateKeysScope scope, Comm *comm, Error *error);

#endif
