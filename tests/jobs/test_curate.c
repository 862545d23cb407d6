/* test_curate.c - curation by the real program: planted duplicates on any ranks, stopped and killed runs, and
 * what it refuses.
 */
#include "../support/curation_support.h"
#include "../support/process.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "curation/curation_file.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POOL = 700, MORE = 200, ROWS = POOL + MORE, D = 96, REFERENCES = 50, LIMIT_SECONDS = 60 };

static TempFolder temp;

/* The pool lies in two files; references are rows of the same groups, later in the endless set. */
static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
    CurationSupportData data = curation_support_data(0, POOL, D);
    curation_support_write(&data, temp_folder_in(&temp, "a.h5").text);
    data = curation_support_data(POOL, MORE, D);
    curation_support_write(&data, temp_folder_in(&temp, "b.h5").text);
    data = curation_support_data(ROWS, REFERENCES, D);
    curation_support_write(&data, temp_folder_in(&temp, "reference.h5").text);
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate, .init = set_up, .fini = tear_down, .timeout = 120);

/* --- running --- */

enum { WORDS_MOST = 40 };

/* `dinobatch curate STEP` on the pool's two files, into the folder `out`. */
typedef struct {
    TempPath a, b, out;
    const char *words[WORDS_MOST];
} Command;

static Command command_of(const char *step, const char *out, const char *const *more)
{
    Command command = {.a = temp_folder_in(&temp, "a.h5"),
                       .b = temp_folder_in(&temp, "b.h5"),
                       .out = temp_folder_in(&temp, "%s", out)};
    const char *words[] = {"curate", step, "compute.threads=1"};
    int n = 0;
    for (; n < 3; n++)
        command.words[n] = words[n];
    for (; *more; more++)
        command.words[n++] = *more;
    return command;
}

static void complete(Command *command)
{
    int n = 0;
    while (command->words[n])
        n++;
    const char *words[] = {"--features",    command->a.text, "--features",
                           command->b.text, "--output-dir",  command->out.text};
    for (int i = 0; i < 6; i++)
        command->words[n + i] = words[i];
}

static Process start(int ranks, const char *step, const char *out, const char *const *more)
{
    Command command = command_of(step, out, more);
    complete(&command);
    return process_start_dinobatch(ranks, command.words);
}

static ProcessResult run(int ranks, const char *step, const char *out, const char *const *more)
{
    Process process = start(ranks, step, out, more);
    return process_finish(&process, LIMIT_SECONDS);
}

static void run_well(int ranks, const char *step, const char *out, const char *const *more)
{
    ProcessResult result = run(ranks, step, out, more);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

/* --- results --- */

typedef struct {
    int64_t group[ROWS], reference[ROWS];
    uint8_t keep[ROWS];
    float similarity[ROWS];
    int64_t edges;
} Decision;

static Decision read_decision(const char *out, const char *step)
{
    Decision d;
    memset(&d, 0, sizeof d);
    CurationInput input;
    Error error = {0};
    TempPath path = temp_folder_in(&temp, "%s/%s.h5", out, step);
    cr_assert_eq(curation_file_open(&input, path.text, "/keep", &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(input.n, ROWS);
    Status status = curation_file_read(&input, "/keep", H5_TYPE_U8, 0, ROWS, d.keep, &error);
    H5Kind kind = H5_KIND_ABSENT;
    if (status == STATUS_OK) status = h5_file_kind(&input.file, "/group", &kind, &error);
    if (status == STATUS_OK && kind == H5_KIND_DATASET)
        status = curation_file_read(&input, "/group", H5_TYPE_I64, 0, ROWS, d.group, &error);
    if (status == STATUS_OK && strcmp(step, "exclude") == 0) {
        status = curation_file_read(&input, "/reference", H5_TYPE_I64, 0, ROWS, d.reference, &error);
        if (status == STATUS_OK)
            status = curation_file_read(&input, "/similarity", H5_TYPE_F32, 0, ROWS, d.similarity, &error);
    }
    if (status == STATUS_OK) status = curation_file_read_int(&input, "edges", &d.edges, &error);
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
    curation_file_close(&input);
    return d;
}

static void expect_same(const char *out, const char *other, const char *step)
{
    Decision a = read_decision(out, step), b = read_decision(other, step);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0, "%s and %s differ", out, other);
    TempPath state = temp_folder_in(&temp, "%s/%s.partial.h5", out, step);
    cr_expect_neq(access(state.text, F_OK), 0, "%s is left", state.text);
}

/* The groups are the planted ones. */
static void expect_planted(const char *out)
{
    Decision d = read_decision(out, "dedup");
    CurationSupportData data = curation_support_data(0, ROWS, D);
    int64_t lowest[40 + ROWS], kept = 0;
    for (int64_t i = 0; i < 40 + ROWS; i++)
        lowest[i] = -1;
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t *first = &lowest[curation_support_group(&data, i)];
        if (*first < 0) *first = i;
        cr_expect_eq(d.group[i], *first, "row %lld", (long long)i);
        cr_expect_eq(d.keep[i], *first == i);
        kept += d.keep[i];
    }
    cr_expect(kept < ROWS - 200 && d.edges > 1000);
}

/* --- dedup --- */

#define IVF "curation.index=IVF8,Flat", "curation.nprobe=8", "curation.train_rows=400"

Test(curate, duplicates_are_found_on_any_ranks)
{
    run_well(0, "dedup", "one", WORDS("--json"));
    expect_planted("one");
    run_well(2, "dedup", "two", WORDS("curation.block_queries=100"));
    expect_same("two", "one", "dedup");
    run_well(3, "dedup", "lists", WORDS(IVF)); /* all lists are looked at */
    expect_same("lists", "one", "dedup");
    run_well(4, "dedup", "four", WORDS("curation.block_queries=99"));
    expect_same("four", "one", "dedup");
}

/* Blocks are small, so that there are many, and what takes time is to save after each. */
#define SLOW "curation.block_queries=30", "curation.save_minutes=0"

/* Kills a rank once standard error holds `sign`. */
static void kill_one(int ranks, const char *step, const char *out, const char *sign, const char *const *more)
{
    Process process = start(ranks, step, out, more);
    cr_assert(process_wait_for_error_text(&process, sign, LIMIT_SECONDS));
    pid_t rank = ranks ? process_of_rank(&process, ranks - 1, 5) : process.pid;
    cr_assert(rank > 0 && kill(rank, SIGKILL) == 0);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_neq(result.exit_status, 0);
    process_result_fini(&result);
    cr_assert_neq(access(temp_folder_in(&temp, "%s/%s.h5", out, step).text, F_OK), 0, "it was ready before");
    cr_assert_eq(access(temp_folder_in(&temp, "%s/%s.partial.h5", out, step).text, F_OK), 0);
}

static void goes_on(int ranks, const char *step, const char *out, const char *const *more)
{
    ProcessResult result = run(ranks, step, out, more);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    cr_expect(strstr(result.err, "going on from"), "%s", result.err);
    process_result_fini(&result);
}

/* On as many ranks and on others, from the rows and from lists: the same. */
Test(curate, a_killed_deduplication_goes_on)
{
    kill_one(0, "dedup", "same", "dedup", WORDS(SLOW));
    goes_on(0, "dedup", "same", WORDS("--json"));
    expect_planted("same");
    kill_one(2, "dedup", "other", "dedup", WORDS(SLOW, IVF));
    goes_on(3, "dedup", "other", WORDS(IVF));
    expect_same("other", "same", "dedup");
}

Test(curate, a_stopped_deduplication_goes_on)
{
    Process process = start(0, "dedup", "stopped", WORDS("curation.block_queries=1"));
    cr_assert(process_wait_for_error_text(&process, "dedup", LIMIT_SECONDS));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 75, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    goes_on(0, "dedup", "stopped", WORDS("--json"));
    expect_planted("stopped");
}

/* --- exclude --- */

#define LIKE "curation.exclude.threshold=0.6"

/* Rows of the groups that references have go; `kept`: only lowest rows of groups were there. */
static void expect_excluded(const char *out, bool kept)
{
    Decision d = read_decision(out, "exclude");
    CurationSupportData data = curation_support_data(0, ROWS, D);
    bool gone[40 + ROWS + REFERENCES] = {false}, seen[40 + ROWS + REFERENCES] = {false};
    for (int64_t i = ROWS; i < ROWS + REFERENCES; i++)
        gone[curation_support_group(&data, i)] = true;
    int64_t excluded = 0;
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t group = curation_support_group(&data, i);
        bool there = !kept || !seen[group];
        seen[group] = true;
        cr_expect_eq(d.keep[i], there && !gone[group], "row %lld", (long long)i);
        cr_expect_eq(d.group[i] >= 0, there);
        cr_expect_eq(d.reference[i] >= 0, there && gone[group]);
        cr_expect(d.reference[i] < 0 ? d.similarity[i] == 0.0f
                                     : curation_support_group(&data, ROWS + d.reference[i]) == group &&
                                           d.similarity[i] > 0.6f);
        excluded += there && gone[group];
    }
    cr_expect(excluded > (kept ? 8 : 60), "%lld", (long long)excluded);
}

Test(curate, what_is_like_a_reference_goes_on_any_ranks)
{
    TempPath reference = temp_folder_in(&temp, "reference.h5");
    run_well(0, "exclude", "one", WORDS("--reference", reference.text, LIKE));
    expect_excluded("one", false);
    run_well(2, "exclude", "lists",
             WORDS("--reference", reference.text, LIKE, IVF, "curation.exclude.index=IVF4,Flat"));
    expect_same("lists", "one", "exclude");
    run_well(4, "exclude", "four", WORDS("--reference", reference.text, LIKE, "curation.block_queries=99"));
    expect_same("four", "one", "exclude");
    run_well(0, "dedup", "dedup", WORDS("--json"));
    TempPath keep = temp_folder_in(&temp, "dedup/dedup.h5");
    run_well(3, "exclude", "kept", WORDS("--reference", reference.text, LIKE, "--keep", keep.text));
    expect_excluded("kept", true);
}

Test(curate, a_killed_exclusion_goes_on)
{
    TempPath reference = temp_folder_in(&temp, "reference.h5");
    kill_one(2, "exclude", "out", "pool rows to each other",
             WORDS("--reference", reference.text, LIKE, SLOW));
    goes_on(3, "exclude", "out", WORDS("--reference", reference.text, LIKE));
    expect_excluded("out", false);
}

/* More ranks than rows. A reference at 0 degrees, a row at 40 that is like it, one at 80 that is like that
 * one, one that is like none. */
Test(curate, links_within_the_pool_count)
{
    TempPath a = temp_folder_in(&temp, "pool.h5"), b = temp_folder_in(&temp, "references.h5"),
             out = temp_folder_in(&temp, "out");
    curation_support_write_angles((double[]){200.0, 80.0, 40.0}, 3, a.text);
    curation_support_write_angles((double[]){300.0, 0.0}, 2, b.text);
    ProcessResult result =
        process_run_dinobatch(4,
                              WORDS("curate", "exclude", "--features", a.text, "--reference", b.text,
                                    "--output-dir", out.text, "--json", LIKE),
                              LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect(strstr(result.out, "\"rows_like_a_reference\":1,"), "%s", result.out);
    cr_expect(strstr(result.out, "\"rows_kept\":1}"), "%s", result.out);
    cr_expect(strstr(result.err, "2 is all that a row can have"), "%s", result.err);
    process_result_fini(&result);
}

/* --- what is refused --- */

static void expect_refused(const char *const *words, const char *part)
{
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_not_null(strstr(result.err, part), "\"%s\" is not in:\n%s", part, result.err);
    cr_expect_null(strchr(result.err, '\n')[1] ? strchr(result.err, '\n') : NULL, "not one line:\n%s",
                   result.err);
    process_result_fini(&result);
}

Test(curate, bad_input_is_refused_with_one_line)
{
    TempPath a = temp_folder_in(&temp, "a.h5"), out = temp_folder_in(&temp, "out"),
             bad = temp_folder_in(&temp, "bad.h5");
    CurationSupportData data = curation_support_data(POOL, 30, D);
    data.nan_row = 7;
    curation_support_write(&data, bad.text);
#define DEDUP(...)   WORDS("curate", "dedup", "--output-dir", out.text, __VA_ARGS__)
#define EXCLUDE(...) WORDS("curate", "exclude", "--output-dir", out.text, __VA_ARGS__)
    expect_refused(DEDUP("--json"), "needs --features FILE");
    expect_refused(DEDUP("--features", a.text, "curation.index=IVF9999,Flat"), "IVF9999,Flat");
    expect_refused(EXCLUDE("--features", a.text, "--reference", bad.text), "bad.h5: row 7 holds a number");
    data.model = "other.h5";
    curation_support_write(&data, bad.text);
    expect_refused(EXCLUDE("--features", a.text, "--reference", bad.text), "model 'm.h5' and 'other.h5'");
}
