/* train_teacher.h - the frozen teacher of a distillation: where it is, what it looks like, its weights.
 *
 * Source: paper section 5 ("Distillation"); the reference released no code of it. The teacher is a network of
 * another training, heads included; its moving average is what teaches (the student's, if it was distilled
 * itself). Everything about it comes from its checkpoint.
 *
 *     TRY(train_teacher_open(&teacher, config, comm, log, error));
 *     TRY(train_state_init(&state, config, &teacher, ...));
 *     TRY(train_teacher_load(&teacher, &state.ssl, comm, log, error));
 */
#ifndef DINOBATCH_TRAIN_TRAIN_TEACHER_H
#define DINOBATCH_TRAIN_TRAIN_TEACHER_H

#include "base/log.h"
#include "ckpt/checkpoint.h"
#include "config/config.h"
#include "ssl/ssl_meta_arch.h"

typedef struct {
    char path[CHECKPOINT_PATH_MAX]; /* of the file */
    Config config;                  /* of its training, from the file; owned */
    char digest[24];                /* of its weights, once they are loaded */
} TrainTeacher;

/* Finds distillation.checkpoint_path (a file, a run folder: the newest) and reads what kind of network it
 * holds. STATUS_INPUT where it cannot teach the student of `config`: other patches, other numbers of
 * prototypes, no head for patches, another normalisation; the line names the key. Owned by the caller:
 * train_teacher_fini, also after a failure. Collective over COMM; the outcome is agreed. */
Status train_teacher_open(TrainTeacher *teacher, const Config *config, Comm *comm, Log *log, Error *error);

void train_teacher_fini(TrainTeacher *teacher);

/* This rank's part of all its weights into ssl->teacher, which was built from teacher->config; fills the
 * digest. STATUS_INPUT: tensors that do not fit, wrong checksums. Collective over COMM. */
Status train_teacher_load(TrainTeacher *teacher, SslMetaArch *ssl, Comm *comm, Error *error);

#endif
