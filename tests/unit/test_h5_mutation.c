/* test_h5_mutation.c - damaged HDF5 files of every kind, read by what jobs read them by: an answer in one
 * line, never a crash or a hang, and never other contents than were written, where only noise was added.
 *
 * H5_TRIALS (default 12) files of each kind, H5_SEED (default 1; "random").
 */
#include "../support/h5_damage.h"
#include "../support/h5_kinds.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60 };

/* Of the sanitizers, where there are any: what they say of libhdf5 in a child is no finding. What they say of
 * us ends the process without an answer. */
__attribute__((weak)) void __sanitizer_set_report_path(const char *path);

/* What a process that reads the file says of it. */
typedef struct {
    Status status;
    Error error;
    uint64_t digest;
} Answer;

/* In a process of its own: OpenMP's threads do not survive a fork. */
static _Noreturn void answer(int pipe_end, H5KindsKind kind, const char *path, bool writes)
{
    alarm(LIMIT_SECONDS);
    if (__sanitizer_set_report_path) __sanitizer_set_report_path("stderr");
    Comm *comm = comm_self_create();
    Answer said = {0};
    if (writes)
        h5_kinds_write(kind, path, comm);
    else
        said.status = h5_kinds_read(kind, path, &said.digest, comm, &said.error);
    ssize_t written = write(pipe_end, &said, sizeof said);
    _exit(written == (ssize_t)sizeof said ? 0 : 1);
}

/* Reads the file, or writes a valid one. False: it died or was silent; *how is then waitpid's word. */
static bool ask(H5KindsKind kind, const char *path, bool writes, Answer *said, int *how)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) answer(ends[1], kind, path, writes);
    close(ends[1]);
    ssize_t n;
    while ((n = read(ends[0], said, sizeof *said)) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    while (waitpid(child, how, 0) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof *said;
}

static long number_of(const char *name, long fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : fallback;
}

static uint64_t seed_of(void)
{
    const char *text = getenv("H5_SEED");
    if (!text || strcmp(text, "random") != 0) return (uint64_t)number_of("H5_SEED", 1);
    return (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
}

typedef struct {
    long refused, broken, same, other; /* broken: of those refused, what libhdf5 breaks on */
} Tally;

static void try_one(const H5Victim *victim, H5KindsKind kind, uint64_t seed, long trial, uint64_t digest,
                    Tally *tally)
{
    bool sealed;
    char told[160], which[256];
    h5_damage_apply(victim, seed, (uint64_t)trial, &sealed, told, sizeof told);
    snprintf(which, sizeof which, "H5_SEED=%llu, %s, trial %ld (%s)", (unsigned long long)seed,
             h5_kinds_name(kind), trial, told);
    Answer said = {0};
    int how = 0;
    bool answered = ask(kind, victim->path, false, &said, &how);
    cr_expect(answered, "%s: ended by signal %d", which, WIFSIGNALED(how) ? WTERMSIG(how) : 0);
    if (!answered) return;
    cr_expect(said.status == STATUS_OK || said.status == STATUS_INPUT, "%s: %d: %s", which, said.status,
              said.error.text);
    if (said.status != STATUS_OK) {
        tally->refused++;
        tally->broken += strstr(said.error.text, "unreadable: the HDF5 library") != NULL;
        cr_expect(strstr(said.error.text, victim->path), "%s: %s", which, said.error.text);
    } else if (said.digest == digest) {
        tally->same++;
    } else {
        tally->other++;
        cr_expect(sealed, "%s: read as other contents", which);
    }
}

static void try_kind(H5KindsKind kind, long trials)
{
    TempFolder temp = temp_folder_create();
    TempPath path = temp_folder_in(&temp, "%s.h5", h5_kinds_name(kind));
    H5Victim victim;
    Answer whole = {0}, after = {0};
    Tally tally = {0};
    int how;
    cr_assert(ask(kind, path.text, true, &whole, &how));
    h5_damage_learn(&victim, path.text);
    cr_assert(ask(kind, path.text, false, &whole, &how));
    cr_assert_eq(whole.status, STATUS_OK, "%s", whole.error.text);
    uint64_t seed = seed_of();
    for (long trial = 0; trial < trials; trial++)
        try_one(&victim, kind, seed, trial, whole.digest, &tally);
    h5_damage_undo(&victim);
    cr_assert(ask(kind, path.text, false, &after, &how));
    cr_expect(after.status == STATUS_OK && after.digest == whole.digest, "%s", after.error.text);
    if (getenv("H5_TRIALS"))
        fprintf(stderr,
                "%s: %ld refused, of which libhdf5 breaks on %ld; %ld read as before, %ld as another\n",
                h5_kinds_name(kind), tally.refused, tally.broken, tally.same, tally.other);
    h5_damage_fini(&victim);
    temp_folder_destroy(&temp);
}

TestSuite(h5_mutation, .timeout = 3600);

Test(h5_mutation, features)
{
    try_kind(H5_KINDS_FEATURES, number_of("H5_TRIALS", 12));
}

Test(h5_mutation, shard)
{
    try_kind(H5_KINDS_SHARD, number_of("H5_TRIALS", 12));
}

Test(h5_mutation, checkpoint)
{
    try_kind(H5_KINDS_CHECKPOINT, number_of("H5_TRIALS", 12));
}

Test(h5_mutation, decisions)
{
    try_kind(H5_KINDS_DECISIONS, number_of("H5_TRIALS", 12));
}

Test(h5_mutation, retrieval)
{
    try_kind(H5_KINDS_RETRIEVAL, number_of("H5_TRIALS", 12));
}

Test(h5_mutation, state)
{
    try_kind(H5_KINDS_STATE, number_of("H5_TRIALS", 12));
}

/* 45 MB of weights: its tensors are read as a checkpoint's are. */
Test(h5_mutation, descriptor)
{
    try_kind(H5_KINDS_DESCRIPTOR, number_of("H5_TRIALS", 12) / 6);
}

Test(h5_mutation, result)
{
    try_kind(H5_KINDS_RESULT, number_of("H5_TRIALS", 12));
}
