/* train_start.h - what a run starts from: the newest checkpoint of its folder, a named one, given weights, or
 * the seed.
 *
 *     TrainStart start;
 *     TRY(train_start_find(&start, config, !no_resume, comm, log, error));   // may settle the global batch
 *     TRY(train_state_init(&state, config, comm, threads, error));
 *     TRY(train_start_load(&start, &state, allow_config_change, log, error));
 *     TRY(run_open_folder(...));
 *     train_loop(...);
 *
 * Both steps only read: a start that is refused leaves the run folder as it was.
 */
#ifndef DINOBATCH_TRAIN_TRAIN_START_H
#define DINOBATCH_TRAIN_TRAIN_START_H

#include "train/train_state.h"

typedef struct {
    bool resume;                          /* asked for: continue if there is something to continue */
    bool found;                           /* the run continues from `checkpoint` */
    bool named;                           /* which is train.resume_from, not one of the run's folder */
    char checkpoint[CHECKPOINT_PATH_MAX]; /* "" unless found */
} TrainStart;

/* Looks for the newest checkpoint below config->train.output_dir, else takes train.resume_from, and settles
 * train.global_batch_size for a run that resumes: 0 becomes the checkpoint's. STATUS_INPUT: there are
 * checkpoints but no whole one, or the named one is unusable. Before train_state_init. Collective over COMM.
 */
Status train_start_find(TrainStart *start, Config *config, bool resume, Comm *comm, Log *log, Error *error);

/* Fills the state, which train_state_init has made: from the checkpoint that was found, unless its
 * configuration forbids it (allow_change: whatever its configuration); if its bytes are damaged, from the
 * newest whole one below it, with a warning (a named one has none below it); else, for a fresh start, the
 * weights of train.init_from or the backbones of student.pretrained_weights where given. One log line says
 * which. STATUS_INPUT naming what does not fit. Collective over COMM. */
Status train_start_load(TrainStart *start, TrainState *state, bool allow_change, Log *log, Error *error);

#endif
