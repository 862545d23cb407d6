/* curate_steps.h - steps of `dinobatch curate` run by a test in its folder, on directions in a plane. */
#ifndef DINOBATCH_TESTS_SUPPORT_CURATE_STEPS_H
#define DINOBATCH_TESTS_SUPPORT_CURATE_STEPS_H

#include "process.h"
#include "temp_folder.h"

#include "curation/retrieval_file.h"
#include "data/data_set.h"

/* Seconds until a step counts as hung, and the most words of one. */
enum { CURATE_STEPS_SECONDS = 60, CURATE_STEPS_WORDS = 60 };

/* TEMP/name: a features file of n directions at these angles, with the keys "p0", "p1", ..., or those of a
 * data set. */
TempPath curate_steps_write_angles(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                   const DataSet *set);

/* The same, said to be of the data set `spec`, with those keys. */
TempPath curate_steps_write_keys(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                 const char *spec, const char *const *keys);

/* The same of pictures upside down. */
TempPath curate_steps_write_probes(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                   const char *const *keys);

/* `dinobatch curate STEP ... compute.threads=1 --output-dir TEMP/out`; ranks 0: without mpirun. */
Process curate_steps_start(const TempFolder *temp, int ranks, const char *step, const char *out,
                           const char *const *more);
ProcessResult curate_steps_run(const TempFolder *temp, int ranks, const char *step, const char *out,
                               const char *const *more);

/* It ends with status 0. */
void curate_steps_run_well(const TempFolder *temp, int ranks, const char *step, const char *out,
                           const char *const *more);

/* It ends with status 2, and says `part`. */
void curate_steps_expect_refused(const TempFolder *temp, const char *step, const char *const *more,
                                 const char *part);

/* It is killed when its standard error says `sign`. */
void curate_steps_kill(const TempFolder *temp, const char *step, const char *out, const char *sign,
                       const char *const *more);

/* It goes on from what it was killed or stopped at, and ends well. */
void curate_steps_go_on(const TempFolder *temp, int ranks, const char *step, const char *out,
                        const char *const *more);

/* TEMP/out/retrieve_NAME.h5, for retrieval_file_fini. */
RetrievalFile curate_steps_read_retrieval(const TempFolder *temp, const char *out, const char *name);

#endif
