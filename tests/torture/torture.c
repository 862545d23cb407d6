/* torture.c - trainings that are disturbed at random moments and started again, until they are done.
 *
 * Two chains of starts take turns: one keeps its rank count, the other changes it, and with it how weights
 * are sharded and whether checkpoints are written beside training. After each trial: the job ended in time
 * and as the disturbance wants it, no process is left, whole checkpoints are never lost, and at most one
 * period of training is, or two where a checkpoint was still being written beside it. Each start resumes from
 * the newest whole file. A chain that is done has no temporary file, every evaluation, and the state of an
 * undisturbed run: bit for bit, or, on changing rank counts, in the mean loss of its last steps.
 *
 *     TORTURE_TRIALS   (30)
 *     TORTURE_SECONDS  after which no new trial begins (0: all trials)
 *     TORTURE_SEED     (1) a number, or "random"; moments also depend on the machine
 */
#include "../support/train_support.h"
#include "base/check.h"
#include "base/clock.h"
#include "disturbance.h"
#include "run/metrics.h"
#include "run_facts.h"
#include "small_disk.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    STEPS = 60,
    PERIOD = 5,
    EVALUATION = 7,
    RANKS_MAX = 4,
    LIMIT_SECONDS = 55,
    END_SECONDS = 30,
    LAST_STEPS = 10,
    DISK_BYTES = 64 << 20
};

/* Four groups of four, so that up to four ranks have work. */
#define WORDS_OF_ALL                                                                            \
    "train.global_batch_size=16", "optim.epochs=6", "checkpoint.period=5", "checkpoint.keep=3", \
        "evaluation.eval_period_iterations=7"

/* A run folder and what has happened to it. */
typedef struct {
    char run[16];
    bool same;        /* all its starts have `ranks` ranks */
    int ranks;        /* of the last start, */
    bool async;       /* checkpoints written beside it, */
    int strategy;     /* and its backbone's sharding strategy; 0: the default */
    bool lacks_lines; /* a full disk was outlived: metrics and evaluations may be missing */
    bool done;
} Chain;

typedef struct {
    TempFolder folder, disk; /* the disk lies in the folder */
    bool small;              /* it is small enough to be filled */
    char mark[48];           /* in the environment of all that is started */
    Rng rng;
    int trials, chains;
    bool has_reference[RANKS_MAX + 1];
    int failures;
    double slowest_end;
    int64_t lost;
} Torture;

/* --- telling --- */

static void fail(Torture *t, const Chain *chain, const ProcessResult *result, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void fail(Torture *t, const Chain *chain, const ProcessResult *result, const char *format, ...)
{
    va_list arguments;
    t->failures++;
    printf("FAILED: %s: ", chain->run);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    if (result)
        printf("exit %d after %.1f s, standard error:\n%s\n", result->exit_status, result->seconds,
               result->err);
    TempPath path = temp_folder_in(&t->disk, "%s", chain->run);
    ProcessResult list = process_run(WORDS("find", path.text, "-printf", "%P %s %T@\n"), LIMIT_SECONDS);
    printf("%s", list.out);
    process_result_fini(&list);
}

/* --- starting --- */

static Process start(const TempFolder *where, const Chain *chain, const char *word)
{
    static const char *const strategies[][2] = {
#define BACKBONES(strategy)                                            \
    {"compute_precision.student.backbone.sharding_strategy=" strategy, \
     "compute_precision.teacher.backbone.sharding_strategy=" strategy}
        BACKBONES("SHARD_GRAD_OP"), BACKBONES("NO_SHARD"), BACKBONES("FULL_SHARD")};
    const char *const *s = strategies[chain->strategy];
    return train_support_pretrain(where, chain->ranks, chain->run,
                                  WORDS(WORDS_OF_ALL, s[0], s[1],
                                        chain->async ? "checkpoint.async=true" : "checkpoint.async=false",
                                        word));
}

/* The undisturbed run on so many ranks, made when it is first asked for. */
static TempPath reference(Torture *t, int ranks)
{
    char run[16];
    snprintf(run, sizeof run, "whole%d", ranks);
    if (!t->has_reference[ranks]) {
        Chain whole = {.ranks = ranks};
        snprintf(whole.run, sizeof whole.run, "%s", run);
        Process process = start(&t->folder, &whole, NULL);
        ProcessResult result = process_finish(&process, LIMIT_SECONDS);
        if (result.exit_status != 0) printf("%s\n", result.err);
        CHECK(result.exit_status == 0 && "the undisturbed run");
        process_result_fini(&result);
        t->has_reference[ranks] = true;
    }
    return temp_folder_in(&t->folder, "%s", run);
}

static Chain new_chain(Torture *t, bool same)
{
    Chain chain = {.same = same, .ranks = (int)rng_integer(&t->rng, 2, RANKS_MAX)};
    snprintf(chain.run, sizeof chain.run, "run%d", ++t->chains);
    return chain;
}

/* --- what must hold --- */

/* The start resumed from the newest whole checkpoint, and warned of what it passed over. Silent where it was
 * ended before it came to that. */
static void expect_start(Torture *t, const Chain *chain, const RunFacts *before, const ProcessResult *result)
{
    char from[320] = "starting from initial weights";
    if (before->newest >= 0)
        snprintf(from, sizeof from, "resuming after iteration %lld from %s/%s/checkpoints/model_%07lld.h5",
                 (long long)before->newest, t->disk.path, chain->run, (long long)before->newest);
    bool started = strstr(result->err, "resuming after") || strstr(result->err, "starting from initial");
    if (!started) return;
    if (!strstr(result->err, from)) fail(t, chain, result, "expected: %s", from);
    if (before->newest >= 0 && before->damaged > 0 && !strstr(result->err, "warning: not usable: "))
        fail(t, chain, result, "no warning of a damaged file");
    if (before->newest >= 0 && before->named < 0 &&
        !strstr(result->err, "last_checkpoint names no checkpoint"))
        fail(t, chain, result, "no warning that last_checkpoint is missing");
}

static void expect_no_process(Torture *t, const Chain *chain, const Disturbance *d)
{
    int left = 0;
    double end = clock_seconds() + END_SECONDS;
    while ((left = process_count_marked(WORDS(t->mark))) > 0 && clock_seconds() < end)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    if (left > 0) fail(t, chain, NULL, "%d processes of the job are still there", left);
    t->slowest_end = fmax(t->slowest_end, clock_seconds() - d->struck);
}

static void expect_little_lost(Torture *t, const Chain *chain, const Disturbance *d, const RunFacts *before,
                               const RunFacts *after, int64_t last, const ProcessResult *result)
{
    int64_t lost = last - after->newest;
    if (after->newest < before->newest)
        fail(t, chain, result, "the newest whole checkpoint is %lld, was %lld", (long long)after->newest,
             (long long)before->newest);
    if (result->exit_status == 75 && lost != 0)
        fail(t, chain, result, "asked to stop after %lld, saved %lld", (long long)last,
             (long long)after->newest);
    if (d->kind == DISTURBANCE_DISK_FULL_AWHILE || before->damaged > 0 || before->named < 0) return;
    if (lost > (chain->async ? 2 : 1) * PERIOD)
        fail(t, chain, result, "at iteration %lld with a checkpoint of %lld", (long long)last,
             (long long)after->newest);
    if (lost > t->lost) t->lost = lost;
}

static double mean_of_last_losses(const char *run)
{
    char path[400];
    MetricsTable table;
    Error error;
    double sum = 0;
    int64_t count = 0;
    snprintf(path, sizeof path, "%s/training_metrics.json", run);
    CHECK(metrics_table_read(&table, path, &error) == STATUS_OK);
    const double *iterations = metrics_table_column(&table, "iteration"),
                 *losses = metrics_table_column(&table, "total_loss");
    for (int64_t i = 0; i < table.lines; i++) {
        if (iterations[i] < STEPS - LAST_STEPS) continue;
        sum += losses[i];
        count++;
    }
    metrics_table_fini(&table);
    return count > 0 ? sum / (double)count : NAN;
}

static void expect_same_result(Torture *t, const Chain *chain, const char *run)
{
    TempPath whole = reference(t, chain->ranks),
             a = temp_folder_in(&t->folder, "whole%d/checkpoints/model_%07d.h5", chain->ranks, STEPS - 1),
             b = train_support_checkpoint(&t->disk, chain->run, STEPS - 1);
    TrainDifference d = train_support_checkpoints_differ(a.text, b.text, NULL);
    double loss = mean_of_last_losses(whole.text), apart = fabs(mean_of_last_losses(run) / loss - 1);
    printf("%s is done%s: %lld of %lld tensors differ, loss %.2g apart\n", chain->run,
           chain->same ? ", always on the same ranks" : "", (long long)d.differing_bits, (long long)d.tensors,
           apart);
    if (chain->same && (d.tensors < 100 || d.differing_bits != 0)) fail(t, chain, NULL, "not the same bits");
    if (!(apart < 0.01)) fail(t, chain, NULL, "the mean loss is %g apart", apart);
    if (chain->same && !chain->lacks_lines && train_support_losses_differ(whole.text, run, STEPS) != 0)
        fail(t, chain, NULL, "not the losses of the undisturbed run");
}

static void expect_done(Torture *t, Chain *chain)
{
    chain->done = true;
    TempPath run = temp_folder_in(&t->disk, "%s", chain->run);
    RunFacts facts = run_facts_look(run.text);
    if (facts.named != STEPS - 1 || facts.newest != STEPS - 1) {
        fail(t, chain, NULL, "done, and last_checkpoint names %lld", (long long)facts.named);
        return;
    }
    if (run_facts_has_file(run.text, ".tmp")) fail(t, chain, NULL, "a temporary file is left");
    for (int i = EVALUATION - 1; i < STEPS && !chain->lacks_lines; i += EVALUATION) {
        TempPath file = temp_folder_in(&t->disk, "%s/eval/training_%d/teacher_checkpoint.h5", chain->run, i);
        if (access(file.text, F_OK) != 0) fail(t, chain, NULL, "%s is missing", file.text);
    }
    expect_same_result(t, chain, run.text);
}

/* --- trials --- */

static void run_trial(Torture *t, Chain *chain, DisturbanceKind kind)
{
    TempPath run = temp_folder_in(&t->disk, "%s", chain->run);
    RunFacts before = run_facts_look(run.text);
    if (!chain->same) {
        chain->ranks = (int)rng_integer(&t->rng, disturbance_least_ranks(kind), RANKS_MAX);
        chain->strategy = (int)rng_integer(&t->rng, 0, 2);
        chain->async = rng_integer(&t->rng, 0, 1) == 1;
    }
    DisturbancePlace place = {.run = run.text,
                              .disk = t->small ? t->disk.path : NULL,
                              .ranks = chain->ranks,
                              .starts_from = before.newest};
    Disturbance d = disturbance_draw(&t->rng, kind, &place);
    chain->lacks_lines = chain->lacks_lines || kind == DISTURBANCE_DISK_FULL_AWHILE;
    /* mpirun's second between TERM and KILL, or none */
    setenv("OMPI_MCA_odls_base_sigkill_timeout", rng_integer(&t->rng, 0, 2) ? "0" : "1", 1);

    disturbance_prepare(&d, &place);
    Process process = start(&t->disk, chain, disturbance_word(&d));
    disturbance_strike(&d, &place, &process);
    ProcessResult result = process_finish(&process, d.struck + END_SECONDS - process.started);
    double end = clock_seconds() - d.struck;
    expect_no_process(t, chain, &d);
    RunFacts after = run_facts_look(run.text);
    int64_t last = run_facts_last_metrics(run.text);

    char what[96];
    disturbance_describe(&d, what, sizeof what);
    printf("%3d. %s, %d ranks%s, from %lld: %s: at %lld, saved %lld, exit %d after %.1f s\n", ++t->trials,
           chain->run, chain->ranks, chain->async ? ", async" : "", (long long)before.newest, what,
           (long long)last, (long long)after.newest, result.exit_status, end);
    const char *wrong = disturbance_judge(&d, &place, &result);
    if (result.timed_out) fail(t, chain, &result, "it did not end within %d s", END_SECONDS);
    if (wrong && !result.timed_out) fail(t, chain, &result, "%s", wrong);
    expect_start(t, chain, &before, &result);
    expect_little_lost(t, chain, &d, &before, &after, last, &result);
    if (result.exit_status == 0) expect_done(t, chain);
    /* a run whose every checkpoint is damaged is refused */
    disturbance_finish(&d, &place, chain->done || after.older < 0 ? -1 : after.newest);
    process_result_fini(&result);
}

/* The last start of a chain, which nothing disturbs. */
static void finish_chain(Torture *t, Chain *chain)
{
    TempPath run = temp_folder_in(&t->disk, "%s", chain->run);
    RunFacts before = run_facts_look(run.text);
    Process process = start(&t->disk, chain, NULL);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    expect_start(t, chain, &before, &result);
    if (result.exit_status == 0)
        expect_done(t, chain);
    else
        fail(t, chain, &result, "the undisturbed start does not come to its end");
    process_result_fini(&result);
}

/* Every kind once, in a random order, and again. */
static DisturbanceKind next_kind(Torture *t, int32_t *deck)
{
    int place = t->trials % DISTURBANCE_KINDS;
    if (place == 0) rng_permutation(&t->rng, deck, DISTURBANCE_KINDS);
    return (DisturbanceKind)deck[place];
}

static void run_trials(Torture *t, int trials, double seconds)
{
    int32_t deck[DISTURBANCE_KINDS];
    double began = clock_seconds();
    Chain chains[2] = {new_chain(t, true), new_chain(t, false)};
    while (t->trials < trials && t->failures == 0 && (seconds == 0 || clock_seconds() - began < seconds)) {
        Chain *chain = &chains[t->trials % 2];
        if (chain->done) *chain = new_chain(t, chain->same);
        run_trial(t, chain, next_kind(t, deck));
        fflush(stdout);
    }
    for (int i = 0; i < 2 && t->failures == 0; i++)
        if (!chains[i].done) finish_chain(t, &chains[i]);
    printf("%d trials in %.0f s, %d chains: %d failures; at most %lld steps lost, the slowest end %.1f s\n",
           t->trials, clock_seconds() - began, t->chains, t->failures, (long long)t->lost, t->slowest_end);
}

/* --- where --- */

static void prepare(Torture *t)
{
    t->folder = train_support_folder();
    int length = snprintf(t->disk.path, sizeof t->disk.path, "%s/disk", t->folder.path);
    CHECK(length < (int)sizeof t->disk.path && mkdir(t->disk.path, 0700) == 0);
    t->small = small_disk_mount(t->disk.path, DISK_BYTES);
    if (!t->small)
        printf("no small disk without the right to mount one: the size of files is limited instead\n");
    temp_folder_write(&t->disk, "tiny.yaml", TRAIN_SUPPORT_CONFIG);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0); /* other tests run beside this one */
    /* what a killed mpirun leaves behind goes with the folder */
    setenv("TMPDIR", t->folder.path, 1);
    setenv("OMPI_MCA_btl_vader_backing_directory", t->folder.path, 1);
    snprintf(t->mark, sizeof t->mark, "DINOBATCH_TORTURE=%ld", (long)getpid());
    setenv("DINOBATCH_TORTURE", strchr(t->mark, '=') + 1, 1);
}

static double number_from(const char *name, double fallback)
{
    const char *text = getenv(name);
    char *end = NULL;
    double value = text && *text ? strtod(text, &end) : fallback;
    CHECK((!end || !*end) && value >= 0 && "TORTURE_*: a number");
    return value;
}

int main(void)
{
    Torture t = {0};
    const char *word = getenv("TORTURE_SEED");
    bool random = word && strcmp(word, "random") == 0;
    uint64_t seed = random ? (uint64_t)time(NULL) : (uint64_t)number_from("TORTURE_SEED", 1);
    t.rng = rng_at(seed, RNG_TEST, 5, 0);
    printf("TORTURE_SEED=%llu\n", (unsigned long long)seed);
    prepare(&t);
    run_trials(&t, (int)number_from("TORTURE_TRIALS", 30), number_from("TORTURE_SECONDS", 0));
    if (t.small) small_disk_unmount(t.disk.path);
    temp_folder_destroy(&t.folder);
    return t.failures == 0 ? 0 : 1;
}
