/* curation_chain.h - a curation as the command lines of its jobs, in order. */
#ifndef DINOBATCH_JOBS_CURATION_CHAIN_H
#define DINOBATCH_JOBS_CURATION_CHAIN_H

#include "curation/curation_plan.h"
#include "job_chain.h"

/* The jobs of a plan, which write below `folder`. Owned by the caller: job_chain_fini. Not collective.
 */
void curation_chain_init(JobChain *chain, const CurationPlan *plan, const char *folder);

#endif
