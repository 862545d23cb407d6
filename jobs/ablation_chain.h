/* ablation_chain.h - a row of an ablation table as the command lines of its jobs. */
#ifndef DINOBATCH_JOBS_ABLATION_CHAIN_H
#define DINOBATCH_JOBS_ABLATION_CHAIN_H

#include "ablation/ablation_table.h"
#include "job_chain.h"

/* One row with one seed. */
typedef struct {
    const AblationTable *table; /* borrowed, like the rest */
    int row;
    const char *seed;
    const char *folder; /* of the whole table */
    const char *root;   /* {root} */
} AblationRun;

/* FOLDER/rowNN_seedS, of another row of the same seed, too; memory_free. */
char *ablation_chain_folder(const AblationRun *run, int row);

/* The run folder of the row's training: its own, or that of the row it comes after where it trains nothing;
 * memory_free. */
char *ablation_chain_model(const AblationRun *run, int row);

/* The training (unless the row has none) and the evaluations; of those, `output` is the result file. Owned by
 * the caller: job_chain_fini. Not collective. */
void ablation_chain_init(JobChain *chain, const AblationRun *run);

#endif
