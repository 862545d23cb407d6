/* retrieval_set.h - a side of a retrieval evaluation, database or queries: rows with keys, dealt to ranks.
 *
 * From a features file, whose rows stay there and are read in blocks, or from features that were just made.
 * Keys and labels of this rank's rows are in memory.
 */
#ifndef DINOBATCH_EVAL_RETRIEVAL_SET_H
#define DINOBATCH_EVAL_RETRIEVAL_SET_H

#include "data/data_set.h"
#include "data/text_table.h"
#include "features/feature_rows.h"
#include "features/features_file.h"
#include "index/index_rows.h"

typedef struct {
    const char *name; /* for messages: the file's or the data set's; borrowed */
    IndexRows rows;   /* refers to this struct: do not copy it */
    int64_t *labels;  /* [rows.count] a number that is the same for rows of one class, or -1; owned */
    TextTable keys;   /* [rows.count] owned */
    uint64_t *hashes; /* [rows.count] of the keys; owned */
    int64_t classes;  /* of a file; 0: unlabelled, or not from a file */
    FeaturesFile file;
    bool is_file;
} RetrievalSet;

/* Of a features file at `path` (borrowed), a rank's part of it. STATUS_INPUT, naming it: no such file, one
 * with views or of pictures upside down. retrieval_set_fini, also after a failure. The outcome is agreed.
 * Collective over COMM. */
Status retrieval_set_open(RetrievalSet *set, const char *path, Comm *comm, Error *error);

/* Of features of the pictures of `data`; rows are borrowed, `name` too. Labels are numbers of the classes'
 * names, so that they mean the same in two data sets. Not collective. */
void retrieval_set_take(RetrievalSet *set, const char *name, const FeatureRows *rows, const DataSet *data);

/* Fine on a zeroed struct. */
void retrieval_set_fini(RetrievalSet *set);

/* What the rows were made of: two sets of the same data have the same pictures under the same keys.
 * Selections
 * (`;limit=N`) do not count. Specs as data_set_create takes them. */
bool retrieval_set_same_data(const char *left, const char *right);

/* places[keys->count] = the row of all ranks that has each key, -1: none has it. A key may be asked for more
 * than once. STATUS_INPUT where two rows have one of the keys, naming it. The outcome is agreed. Collective
 * over COMM. */
Status retrieval_set_find(const RetrievalSet *set, const TextTable *keys, int64_t *places, Comm *comm,
                          Error *error);

/* STATUS_INPUT, naming the set, where one of its rows has no label. The outcome is agreed. Collective over
 * COMM. */
Status retrieval_set_check_labels(const RetrievalSet *set, Comm *comm, Error *error);

#endif
