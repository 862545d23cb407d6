/* curation_chain.h - a curation as the command lines of its jobs, in order. */
#ifndef DINOBATCH_JOBS_CURATION_CHAIN_H
#define DINOBATCH_JOBS_CURATION_CHAIN_H

#include "curation/curation_plan.h"

/* One job. */
typedef struct {
    char **argv; /* [argc + 1] "dinobatch", its name, its words; NULL at the end; owned, each too */
    int argc;
    char *output; /* a file that is there when it is done; NULL: it only prints, and is run each time; owned
                   */
} ChainLink;

typedef struct {
    ChainLink *links; /* owned */
    int count;
} CurationChain;

/* The jobs of a plan, which write below `folder`. Owned by the caller: curation_chain_fini. Not collective.
 */
void curation_chain_init(CurationChain *chain, const CurationPlan *plan, const char *folder);
void curation_chain_fini(CurationChain *chain);

/* One word more at the end. */
void curation_chain_add_word(ChainLink *link, const char *word);

/* The command line as one would type it, words with unusual letters in single quotes; memory_free.
 */
char *curation_chain_text(const ChainLink *link);

#endif
