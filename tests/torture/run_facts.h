/* run_facts.h - what lies in a run folder, seen from outside: by the files alone, not by what the run says.
 */
#ifndef DINOBATCH_TESTS_TORTURE_RUN_FACTS_H
#define DINOBATCH_TESTS_TORTURE_RUN_FACTS_H

#include <stdbool.h>
#include <stdint.h>

/* The checkpoints of a run. Iterations; -1: none. */
typedef struct {
    int64_t named;   /* by last_checkpoint */
    int64_t newest;  /* up to that one, any without it: whole, with every checksum right */
    int64_t older;   /* the next whole one below it */
    int64_t damaged; /* how many files above `newest` would have come first */
} RunFacts;

RunFacts run_facts_look(const char *run);

/* The last iteration in training_metrics.json; -1: none. */
int64_t run_facts_last_metrics(const char *run);

/* Whether a file of the run has that ending. */
bool run_facts_has_file(const char *run, const char *ending);

#endif
