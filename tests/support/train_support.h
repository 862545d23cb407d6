/* train_support.h - a training run small enough for tests, and how two such runs differ. */
#ifndef DINOBATCH_TESTS_SUPPORT_TRAIN_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_TRAIN_SUPPORT_H

#include "process.h"
#include "temp_folder.h"

#include <stdint.h>

/* YAML of 20 steps of 48 drawn pictures in groups of 4, all losses on, drop path 0.3, checkpoints every 10
 * steps, none removed. Depth 3: with two blocks of which either may be dropped, several class tokens never
 * see their picture and are equal, and KoLeo's gradient between equal rows is a difference of huge numbers.
 */
extern const char TRAIN_SUPPORT_CONFIG[];

/* A new temporary folder with that text as tiny.yaml, for runs whose ranks end at once. */
TempFolder train_support_folder(void);

/* Starts `dinobatch pretrain` on tiny.yaml and those words (NULL: none) in FOLDER/RUN; ranks 0: without
 * mpirun. */
Process train_support_pretrain(const TempFolder *folder, int ranks, const char *run,
                               const char *const *words);

/* The same for another job that trains. */
Process train_support_start(const TempFolder *folder, const char *job, int ranks, const char *run,
                            const char *const *words);

/* FOLDER/RUN/checkpoints/model_<iteration>.h5 */
TempPath train_support_checkpoint(const TempFolder *folder, const char *run, long iteration);

/* Another bit in the byte at `part` (0 to 1) of a file. */
void train_support_flip_bit(const char *path, double part);

/* The losses that a run logs. */
enum { TRAIN_SUPPORT_LOSSES = 5 };
extern const char *const TRAIN_SUPPORT_LOSS_KEYS[TRAIN_SUPPORT_LOSSES];

/* The largest difference of one logged loss in iterations [0, count) of two run folders, as a share of its
 * value in the first, or of `floor` times its largest value there where that is more: KoLeo is a logarithm
 * and passes through zero. -1 when either lacks an iteration. */
double train_support_loss_differs(const char *run_a, const char *run_b, const char *key, int64_t count,
                                  double floor);

/* The largest relative difference of any logged loss in iterations [0, count) of two run folders; -1 when
 * either lacks one of them. */
double train_support_losses_differ(const char *run_a, const char *run_b, int64_t count);

/* How far apart two checkpoints are. */
typedef struct {
    double worst;           /* over tensors of student and teacher: |a - b| / |a - initial| */
    char tensor[256];       /* where */
    int64_t differing_bits; /* data sets of the whole file that are not the same bit for bit */
    int64_t tensors;        /* data sets compared */
} TrainDifference;

/* `initial` is a checkpoint of the weights before the first update, or NULL: `worst` is then 0. The key third
 * of qkv.bias is left out of `worst`: its gradient is rounding alone. Fails the test on files that cannot be
 * read. */
TrainDifference train_support_checkpoints_differ(const char *a, const char *b, const char *initial);

/* The bits of everything below group_a of one file against group_b of another; `worst` is 0. */
TrainDifference train_support_groups_differ(const char *a, const char *group_a, const char *b,
                                            const char *group_b);

/* The same of two runs in a temporary folder, after that iteration. */
TrainDifference train_support_runs_differ(const TempFolder *folder, const char *run_a, const char *run_b,
                                          long iteration);

#endif
