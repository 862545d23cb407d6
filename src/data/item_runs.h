/* item_runs.h - what consecutive images of a set have in common: folder, class, file.
 *
 * A run begins at an item and lasts to the next run. It saves a label and a folder name per image.
 */
#ifndef DINOBATCH_DATA_ITEM_RUNS_H
#define DINOBATCH_DATA_ITEM_RUNS_H

#include "data/text_table.h"

typedef struct {
    int64_t first;  /* item */
    int64_t label;  /* class or -1 */
    int64_t source; /* number of the file that holds the run; 0 where there is one */
} ItemRun;

/* Zero-initialised it is empty. */
typedef struct {
    ItemRun *runs;     /* [count] by ascending first; owned */
    TextTable folders; /* [count] path of the folder inside the set, "" for its root */
    int64_t count, capacity;
} ItemRuns;

/* Begins a run at item run.first, which is above the last run's. */
void item_runs_append(ItemRuns *runs, ItemRun run, const char *folder);

/* Number of the run that holds `item`. */
int64_t item_runs_find(const ItemRuns *runs, int64_t item);

/* Writes "FOLDER/NAME", or NAME in the root, of an item of run `run` into text[size], cut to fit. */
void item_runs_path(const ItemRuns *runs, int64_t run, const char *name, char *text, size_t size);

void item_runs_destroy(ItemRuns *runs);

#endif
