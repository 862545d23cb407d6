/* train_loop.c - one iteration after the other. */
#include "train/train_loop.h"

#include "base/clock.h"
#include "base/memory.h"
#include "ckpt/checkpoint_writer.h"
#include "data/corrupt_list.h"
#include "run/metrics.h"
#include "run/progress.h"
#include "train/collapse_monitor.h"
#include "train/train_data.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PLAIN_LINE_EVERY = 10 };

/* A step that is under way, and what belongs to it. */
typedef struct {
    Batch *batch;
    double wait_seconds;
} UnderWay;

/* A loop in progress. */
typedef struct {
    Run *run;
    TrainState *state;
    const TrainLoopOptions *options;
    TrainLoopResult *result;
    char *config_text;        /* owned */
    char *checkpoints;        /* owned: OUTPUT/checkpoints */
    CheckpointWriter *writer; /* owned; NULL: checkpoints are written between steps */
    Loader *loader;           /* owned */
    CorruptList *corrupt;     /* of the data set; borrowed */
    Metrics *metrics;         /* owned; rank 0 */
    Progress progress;
    CollapseMonitor collapse;
    int64_t period;     /* iterations between checkpoints */
    int64_t keep_every; /* iterations between checkpoints that stay for ever; 0: none does */
    int64_t last_saved;
    UnderWay under_way[TRAIN_SUBMISSIONS]; /* iteration i at i % TRAIN_SUBMISSIONS */
    double last_time;                      /* when the last iteration was done with */
    Status written; /* of this rank's metrics; told to the others at the next iteration */
    Error write_error;
    bool losing_metrics; /* the disk did not take a line, and that is tolerated; rank 0 */
} Loop;

/* Without --no-resume a run continues; with it, earlier checkpoints are moved aside, never deleted. */
static Status set_aside(const Loop *loop, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(loop->run->comm) == 0) {
        for (int i = 1;; i++) {
            char aside[CHECKPOINT_PATH_MAX];
            snprintf(aside, sizeof aside, "%s.earlier-%d", loop->checkpoints, i);
            if (rename(loop->checkpoints, aside) == 0) {
                if (rmdir(aside) != 0)
                    log_info(&loop->run->log, "--no-resume: earlier checkpoints are now in %s", aside);
                break;
            }
            if (errno == ENOENT) break;
            if (errno != EEXIST && errno != ENOTEMPTY) {
                status = status_fail(error, STATUS_FAILED, "%s: cannot be moved aside: %s", loop->checkpoints,
                                     strerror(errno));
                break;
            }
        }
    }
    return comm_agree(loop->run->comm, status, error);
}

static Status open_metrics(Loop *loop, Error *error)
{
    char *path = run_folder_path(&loop->run->folder, "training_metrics.json");
    Status status = metrics_open(&loop->metrics, path, loop->state->iteration, error);
    memory_free(path);
    return status;
}

static void note_saved(Loop *loop, int64_t iteration, double seconds, const char *how)
{
    loop->last_saved = iteration;
    snprintf(loop->result->checkpoint, sizeof loop->result->checkpoint, "%s/model_%07lld.h5",
             loop->checkpoints, (long long)iteration);
    log_info(&loop->run->log, "saved %s in %.2f s%s", loop->result->checkpoint, seconds, how);
    /* Opening the file cuts off what a lost line left of itself. */
    if (loop->losing_metrics) loop->losing_metrics = open_metrics(loop, NULL) != STATUS_OK;
}

static bool outlives_errors(const Loop *loop)
{
    return loop->state->config->checkpoint.on_error == CONFIG_ON_ERROR_CONTINUE;
}

/* A failure with training to come: the run goes on where checkpoint.on_error says so, and the next period
 * tries again. */
static Status tolerate(Loop *loop, int64_t iteration, Status status, const char *what, Error *error)
{
    if (status == STATUS_OK || !outlives_errors(loop)) return status;
    if (comm_rank(loop->run->comm) == 0)
        log_error(&loop->run->log, "no %s of iteration %lld, training goes on: %s", what,
                  (long long)iteration, error->text);
    *error = (Error){0};
    return STATUS_OK;
}

/* Waits for the checkpoint that is written beside training, if there is one. */
static Status collect(Loop *loop, Error *error)
{
    int64_t iteration;
    double seconds;
    if (!checkpoint_writer_is_busy(loop->writer)) return STATUS_OK;
    Status status = checkpoint_writer_collect(loop->writer, &iteration, &seconds, error);
    if (status == STATUS_OK) note_saved(loop, iteration, seconds, ", beside training");
    return tolerate(loop, iteration, status, "checkpoint", error);
}

/* The last checkpoint of a run is written before the run goes on to its end. */
static Status save(Loop *loop, bool last, Error *error)
{
    TrainState *state = loop->state;
    int64_t iteration = state->iteration - 1;
    int keep = (int)state->config->checkpoint.keep;
    TRY(collect(loop, error));
    if (loop->last_saved == iteration) return STATUS_OK;
    CheckpointState checkpoint = train_state_checkpoint(state, iteration, loop->config_text);
    if (loop->writer && !last) {
        checkpoint_writer_start(loop->writer, loop->checkpoints, &checkpoint, keep, loop->keep_every);
        return STATUS_OK;
    }
    double start = clock_seconds();
    TRY(checkpoint_save(loop->checkpoints, &checkpoint, keep, loop->keep_every, state->comm, error));
    note_saved(loop, iteration, clock_seconds() - start, "");
    return STATUS_OK;
}

static bool evaluation_is_due(const Loop *loop)
{
    int64_t period = loop->state->config->evaluation.eval_period_iterations;
    return period > 0 && loop->state->iteration % period == 0;
}

static Status evaluate(Loop *loop, Error *error)
{
    TrainState *state = loop->state;
    int64_t iteration = state->iteration - 1;
    char folder[64], file[96];
    TRY(collect(loop, error)); /* it reads the memory that the teacher's copy is made in */
    snprintf(folder, sizeof folder, "eval/training_%lld", (long long)iteration);
    snprintf(file, sizeof file, "%s/teacher_checkpoint.h5", folder);
    const TrainLoopOptions *options = loop->options;
    Status status = run_folder_make(&loop->run->folder, folder, error);
    if (status == STATUS_OK && options->evaluate) {
        status = options->evaluate(options->evaluate_context, state, iteration, error);
        if (status == STATUS_INPUT) return status;
    }
    if (status != STATUS_OK) return tolerate(loop, iteration, status, "evaluation", error);
    char *path = run_folder_path(&loop->run->folder, file);
    CheckpointState checkpoint = train_state_checkpoint(state, iteration, loop->config_text);
    status = checkpoint_save_model_ema(path, &checkpoint, state->comm, error);
    memory_free(path);
    return tolerate(loop, iteration, status, "checkpoint", error);
}

/* The evaluation that belongs to the checkpoint a run resumes from, if the run ended before it was complete.
 */
static Status evaluate_what_was_missed(Loop *loop, Error *error)
{
    int64_t missed = 0;
    if (loop->state->iteration == 0 || !evaluation_is_due(loop)) return STATUS_OK;
    if (comm_rank(loop->run->comm) == 0) {
        char file[96];
        snprintf(file, sizeof file, "eval/training_%lld/teacher_checkpoint.h5",
                 (long long)loop->state->iteration - 1);
        char *path = run_folder_path(&loop->run->folder, file);
        missed = access(path, F_OK) != 0;
        memory_free(path);
    }
    comm_broadcast(loop->run->comm, &missed, 1, DTYPE_I64, 0, NULL);
    return missed ? evaluate(loop, error) : STATUS_OK;
}

/* A disk that takes no checkpoint often takes no metrics either. Where that does not end the run, lines are
 * lost until it takes a checkpoint again. */
static void tolerate_lost_line(Loop *loop)
{
    if (loop->written == STATUS_OK || !outlives_errors(loop)) return;
    log_error(&loop->run->log,
              "metrics from iteration %lld to the next checkpoint are lost, training goes on: %s",
              (long long)loop->state->finished - 1, loop->write_error.text);
    metrics_close(loop->metrics);
    loop->metrics = NULL;
    loop->losing_metrics = true;
    loop->written = STATUS_OK;
}

static void write_metrics(Loop *loop, const TrainStep *step, double iter_time, double data_time)
{
    const SslMetaArch *ssl = &loop->state->ssl;
    const SslFigures *f = &step->figures;
    CollapseShares shares = collapse_shares(ssl, f);
    const char *warning = collapse_monitor_note(&loop->collapse, ssl, &shares, f);
    if (warning) log_warning(&loop->run->log, "iteration %lld: %s", (long long)step->iteration, warning);
    if (!loop->metrics || loop->written != STATUS_OK) return;
    double global_batch = (double)loop->state->config->train.global_batch_size;
    const struct {
        const char *key;
        double value;
    } pairs[] = {{"iteration", (double)step->iteration},
                 {"iter_time", iter_time},
                 {"data_time", data_time},
                 {"lr", step->schedule.lr},
                 {"wd", step->schedule.weight_decay},
                 {"mom", step->schedule.momentum},
                 {"last_layer_lr", step->schedule.last_layer_lr},
                 {"backbone_lr", step->schedule.backbone_lr},
                 {"current_batch_size", global_batch},
                 {"total_loss", f->total_loss},
                 {"dino_local_crops_loss", f->dino_local_crops_loss},
                 {"dino_global_crops_loss", f->dino_global_crops_loss},
                 {"koleo_loss", f->koleo_loss},
                 {"ibot_loss", f->ibot_loss},
                 {"teacher_temp", step->schedule.teacher_temp},
                 {"images_per_s", global_batch / iter_time},
                 {"grad_norm_backbone", step->grad_norm[PARAM_BACKBONE]},
                 {"grad_norm_dino_head", step->grad_norm[PARAM_DINO_HEAD]},
                 {"grad_norm_ibot_head", step->grad_norm[PARAM_IBOT_HEAD]},
                 {"loss_scale", step->loss_scale},
                 {"skipped", step->skipped},
                 {"masked_patches", (double)f->masked_patches},
                 {"dino_global_share_of_ln_k", shares.dino_global_share},
                 {"dino_local_share_of_ln_k", shares.dino_local_share},
                 {"ibot_share_of_ln_k", shares.ibot_share},
                 {"dino_teacher_entropy_share", shares.dino_entropy_share},
                 {"ibot_teacher_entropy_share", shares.ibot_entropy_share},
                 {"dino_prototypes_used", f->dino_prototypes_used},
                 {"ibot_prototypes_used", f->ibot_prototypes_used},
                 {"feature_std", f->feature_std}};
    MetricsLine line = {0};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        metrics_line_add(&line, pairs[i].key, pairs[i].value);
    loop->written = metrics_write(loop->metrics, &line, &loop->write_error);
    tolerate_lost_line(loop);
}

/* Whether any rank was asked to stop, or cannot go on; agreed, so that all ranks take the same branch. Names
 * corrupt pictures that some rank has met, and collects a checkpoint that all ranks have written. */
static Status agree_to_go_on(Loop *loop, Status local, bool *stop, Error *error)
{
    bool writing = checkpoint_writer_is_busy(loop->writer);
    int64_t flags[4] = {local != STATUS_OK, run_stop_requested(loop->run),
                        corrupt_list_has_news(loop->corrupt),
                        writing && !checkpoint_writer_is_done(loop->writer)};
    comm_all_reduce(loop->run->comm, flags, 4, DTYPE_I64, COMM_MAX, NULL);
    *stop = flags[1] != 0;
    if (flags[2]) corrupt_list_tell(loop->corrupt, loop->run->comm, &loop->run->log);
    if (flags[0]) return comm_agree(loop->run->comm, local, error);
    return writing && !flags[3] ? collect(loop, error) : STATUS_OK;
}

/* A finished step is told, and its batch given back. */
static void tell_step(Loop *loop, const TrainStep *step)
{
    UnderWay *u = &loop->under_way[step->iteration % TRAIN_SUBMISSIONS];
    double now = clock_seconds(), iter_time = now - loop->last_time;
    loop->last_time = now;
    write_metrics(loop, step, iter_time, u->wait_seconds);
    loader_release(loop->loader, u->batch);
    if (step->skipped)
        log_warning(&loop->run->log, "iteration %lld: values that are not finite; the step was skipped",
                    (long long)step->iteration);
    char detail[96];
    snprintf(detail, sizeof detail, "loss %.4f, %.1f images/s", step->figures.total_loss,
             (double)loop->state->config->train.global_batch_size / iter_time);
    progress_update(&loop->progress, step->iteration + 1, detail);
    loop->result->iterations++;
    loop->result->final_loss = step->figures.total_loss;
}

/* Steps that are finished; `all`: waits until every submitted one is. */
static Status tell_finished(Loop *loop, bool all, Error *error)
{
    for (;;) {
        TrainStep step;
        bool ready;
        TRY(train_state_finish(loop->state, all, &step, &ready, error));
        if (!ready) return STATUS_OK;
        tell_step(loop, &step);
    }
}

static Status one_iteration(Loop *loop, bool *stop, Error *error)
{
    Batch *batch = NULL;
    Status local = loader_next(loop->loader, &batch, error);
    if (local == STATUS_OK && loop->written != STATUS_OK) {
        *error = loop->write_error;
        local = loop->written;
    }
    TRY(agree_to_go_on(loop, local, stop, error));
    loop->under_way[loop->state->iteration % TRAIN_SUBMISSIONS] =
        (UnderWay){.batch = batch, .wait_seconds = batch->wait_seconds};
    train_state_submit(loop->state, batch);
    return tell_finished(loop, false, error);
}

static bool checkpoint_is_due(const Loop *loop)
{
    int64_t done = loop->state->iteration;
    return done % loop->period == 0 || (loop->keep_every > 0 && done % loop->keep_every == 0);
}

static Status iterate(Loop *loop, Error *error)
{
    TrainState *state = loop->state;
    int64_t stop_after = state->config->train.stop_after_iterations;
    while (state->iteration < state->total_iterations) {
        bool asked = false;
        TRY(one_iteration(loop, &asked, error));
        if (state->iteration == loop->result->first_iteration + 1)
            train_state_log_resident(state, &loop->run->log);
        bool stop =
            asked || (stop_after > 0 && state->iteration - loop->result->first_iteration >= stop_after);
        bool last = state->iteration == state->total_iterations;
        if (stop || last || checkpoint_is_due(loop) || evaluation_is_due(loop))
            TRY(tell_finished(loop, true, error));
        if (stop || last)
            TRY(save(loop, true, error));
        else if (checkpoint_is_due(loop))
            TRY(tolerate(loop, state->iteration - 1, save(loop, false, error), "checkpoint", error));
        /* who asks for a stop may not wait for an evaluation; the resumed run does it */
        if (evaluation_is_due(loop) && (!asked || last)) TRY(evaluate(loop, error));
        if (state->finished == state->iteration) /* saving and evaluating are no part of a step */
            loop->last_time = loop->progress.last_time = clock_seconds();
        if (stop && !last)
            return status_fail(error, STATUS_REQUEUE,
                               "stopped after iteration %lld of %lld, as requested; run me again to go on",
                               (long long)state->iteration, (long long)state->total_iterations);
    }
    *error = loop->write_error;
    return comm_agree(loop->state->comm, loop->written, error);
}

/* checkpoint.async, where MPI lets several threads talk. */
static void open_writer(Loop *loop)
{
    Run *run = loop->run;
    if (!loop->state->config->checkpoint.async) return;
    if (comm_size(run->comm) == 1 || strcmp(run->thread_level, "multiple") == 0)
        loop->writer = checkpoint_writer_create(run->comm);
    else
        log_warning(&run->log,
                    "checkpoint.async: MPI gives thread level %s instead of multiple; checkpoints are "
                    "written between steps",
                    run->thread_level);
}

static Status prepare(Loop *loop, const DataSet *set, const TrainStart *start, Error *error)
{
    Run *run = loop->run;
    TrainState *state = loop->state;
    if (!start->resume) TRY(set_aside(loop, error));
    TRY(checkpoint_clean(loop->checkpoints, run->comm, error));
    memcpy(loop->result->checkpoint, start->checkpoint, sizeof start->checkpoint);
    loop->result->first_iteration = state->iteration;
    LoaderParams params = train_data_loader(state->config, &state->groups, state->device, state->iteration);
    TRY(comm_agree(run->comm, loader_create(&loop->loader, &params, set, error), error));
    open_writer(loop);
    Status opened = STATUS_OK;
    if (comm_rank(run->comm) == 0) opened = open_metrics(loop, error);
    TRY(comm_agree(run->comm, opened, error));
    train_state_log_precision(state, &run->log);
    train_state_log_memory(state, loader_bytes(loop->loader), &run->log);
    log_info(
        &run->log,
        "%lld iterations of %lld images in %lld groups on %d ranks, %d threads each; peak learning rate %.3g",
        (long long)state->total_iterations, (long long)state->config->train.global_batch_size,
        (long long)state->groups.total_groups, comm_size(run->comm), state->ops->threads, state->peak_lr);
    return STATUS_OK;
}

Status train_loop(Run *run, TrainState *state, const DataSet *set, const TrainStart *start,
                  const TrainLoopOptions *options, TrainLoopResult *result, Error *error)
{
    *result = (TrainLoopResult){0};
    Loop loop = {.run = run, .state = state, .options = options, .result = result, .last_saved = -1};
    loop.corrupt = data_set_corrupt(set);
    loop.config_text = config_dump(state->config);
    loop.checkpoints = run_folder_path(&run->folder, "checkpoints");
    loop.period = state->config->checkpoint.period ? state->config->checkpoint.period
                                                   : 3 * state->config->train.OFFICIAL_EPOCH_LENGTH;
    loop.keep_every = state->config->train.saveckp_freq * state->config->train.OFFICIAL_EPOCH_LENGTH;
    Status status = prepare(&loop, set, start, error);
    if (status == STATUS_OK) {
        loop.progress = progress_begin(&run->log, "training", state->iteration, state->total_iterations,
                                       PLAIN_LINE_EVERY);
        status = evaluate_what_was_missed(&loop, error);
        double began = loop.last_time = loop.progress.last_time = clock_seconds();
        if (status == STATUS_OK) status = iterate(&loop, error);
        double seconds = clock_seconds() - began;
        progress_end(&loop.progress);
        corrupt_list_tell_total(loop.corrupt, &run->log, "each was replaced by the next sample");
        result->images_per_s =
            (double)(result->iterations * state->config->train.global_batch_size) / fmax(seconds, 1e-9);
    }
    Error late = {0}; /* where the run has failed already, that is told */
    Status saved = collect(&loop, &late);
    if (status == STATUS_OK && saved != STATUS_OK) {
        status = saved;
        *error = late;
    }
    checkpoint_writer_destroy(loop.writer);
    metrics_close(loop.metrics);
    if (loop.loader) loader_destroy(loop.loader);
    memory_free(loop.config_text);
    memory_free(loop.checkpoints);
    return status;
}
