/* test_cli.c - the command line of the real program: exit status, one line, and who says it. */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <string.h>

enum { LIMIT_SECONDS = 50, WORDS_MAX = 4 };

static int count_lines(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

static ProcessResult run(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    return result;
}

typedef struct {
    char words[WORDS_MAX][64];
    char said[96]; /* in the one line on stderr */
} Refusal;

ParameterizedTestParameters(cli, refuses_with_one_line_and_status_2)
{
    static Refusal refusals[] = {
        {{"docter"}, "unknown job 'docter'; did you mean doctor?"},
        {{"zzzzzzzzzz"}, "unknown job 'zzzzzzzzzz'"},
        {{"--wrong"}, "unknown job '--wrong'"},
        {{"doctor", "--jsn"}, "did you mean --json?"},
        {{"doctor", "--output"}, "needs a value"},
        {{"doctor", "--json=1"}, "--json takes no value"},
        {{"doctor", "-q"}, "unknown option -q"},
        {{"doctor", "word"}, "unexpected word 'word'"},
        {{"doctor", "optim.epoch=3"}, "optim.epochs"},
        {{"doctor", "optim.epochs=many"}, "optim.epochs: expected an integer"},
        {{"doctor", "crops.global_crops_size=-5"}, "crops.global_crops_size"},
        {{"doctor", "dino.head_nlayers=9"}, "dino.head_nlayers: expected an integer from 1 to 8"},
        {{"doctor", "--config-file", "/nonexistent/x.yaml"}, "/nonexistent/x.yaml"},
        {{"doctor", "--print-config", "optim.epochs=[1]"}, "optim.epochs"},
    };
    return cr_make_param_array(Refusal, refusals, sizeof refusals / sizeof *refusals);
}

ParameterizedTest(Refusal *refusal, cli, refuses_with_one_line_and_status_2, .timeout = 60)
{
    const char *words[WORDS_MAX + 1] = {0};
    for (int i = 0; i < WORDS_MAX && refusal->words[i][0]; i++)
        words[i] = refusal->words[i];
    ProcessResult result = run(0, words);
    cr_expect_eq(result.exit_status, 2, "exit %d: %s", result.exit_status, result.err);
    cr_expect_eq(count_lines(result.err), 1, "%s", result.err);
    cr_expect_str_empty(result.out);
    cr_expect(strstr(result.err, refusal->said), "'%s' not in: %s", refusal->said, result.err);
    process_result_fini(&result);
}

Test(cli, without_a_job_shows_usage_and_fails, .timeout = 60)
{
    ProcessResult result = run(0, (const char *[]){NULL});
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "usage: dinobatch JOB"));
    process_result_fini(&result);
}

Test(cli, help_names_jobs_and_keys, .timeout = 60)
{
    ProcessResult all = run(0, (const char *[]){"--help", NULL});
    cr_expect_eq(all.exit_status, 0);
    cr_expect(strstr(all.out, "doctor"));
    cr_expect_str_empty(all.err);
    ProcessResult one = run(0, (const char *[]){"doctor", "--help", NULL});
    cr_expect_eq(one.exit_status, 0);
    cr_expect(strstr(one.out, "--config-file FILE") && strstr(one.out, "optim.epochs"));
    ProcessResult version = run(0, (const char *[]){"--version", NULL});
    cr_expect_eq(version.exit_status, 0);
    cr_expect_eq(strncmp(version.out, "dinobatch ", 10), 0);
    process_result_fini(&all);
    process_result_fini(&one);
    process_result_fini(&version);
}

/* Files in order, then key=value, and what it prints is read back to itself. */
Test(cli, print_config_resolves_and_reads_back, .timeout = 60)
{
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "a.yaml", "train:\n  seed: 11\noptim:\n  epochs: 50\n");
    temp_folder_write(&temp, "b.yaml", "optim:\n  epochs: 60\n  weight_decay: 0.25\n");
    char *a = temp_folder_path(&temp, "a.yaml"), *b = temp_folder_path(&temp, "b.yaml");
    ProcessResult first =
        run(0, (const char *[]){"doctor", "--config-file", a, "--print-config", "--config-file", b,
                                "optim.weight_decay=0.125", "--output-dir", "some where: odd", NULL});
    cr_assert_eq(first.exit_status, 0, "%s", first.err);
    cr_expect(strstr(first.out, "epochs: 60\n"), "%s", first.out);
    cr_expect(strstr(first.out, "seed: 11\n"));
    cr_expect(strstr(first.out, "weight_decay: 0.125\n"));
    cr_expect(strstr(first.out, "some where: odd"));

    temp_folder_write(&temp, "resolved.yaml", first.out);
    char *resolved = temp_folder_path(&temp, "resolved.yaml");
    ProcessResult second =
        run(0, (const char *[]){"doctor", "--print-config", "--config-file", resolved, NULL});
    cr_expect_str_eq(second.out, first.out);
    process_result_fini(&first);
    process_result_fini(&second);
    temp_folder_free_text(a);
    temp_folder_free_text(b);
    temp_folder_free_text(resolved);
    temp_folder_destroy(&temp);
}

/* Rank 0 alone speaks: results and complaints come once, whatever the rank count. */
Test(cli, speaks_once_on_two_ranks, .timeout = 60)
{
    ProcessResult good = run(2, (const char *[]){"doctor", "--facts", "--json", NULL});
    cr_assert_eq(good.exit_status, 0, "%s", good.err);
    const char *json = strrchr(good.out, '{'), *last = good.out + strlen(good.out) - 2;
    cr_expect(json && *last == '}', "%s", good.out);
    cr_expect(strstr(good.out, "\"ranks\":\"2\""), "%s", good.out);
    const char *first = strstr(good.out, "processor ");
    cr_expect(first && !strstr(first + 1, "processor "), "%s", good.out);

    const char *complaints[] = {"optim.epoch=3", "--nonsense"};
    const char *said[] = {"unknown key", "unknown option"};
    for (int i = 0; i < 2; i++) {
        ProcessResult bad = run(2, (const char *[]){"doctor", complaints[i], NULL});
        cr_expect_eq(bad.exit_status, 2, "exit %d: %s", bad.exit_status, bad.err);
        const char *line = strstr(bad.err, said[i]);
        cr_expect(line && !strstr(line + 1, said[i]), "%s", bad.err);
        process_result_fini(&bad);
    }
    process_result_fini(&good);
}

/* A job that has nothing to save is ended by a request to stop, and not held up by it. */
Test(cli, jobs_without_checkpoints_end_on_term, .timeout = 60)
{
    Process process = process_start_dinobatch(0, WORDS("bench"));
    cr_assert(process_wait_for_error_text(&process, "limits", 30));
    process_signal(&process, SIGTERM);
    ProcessResult result = process_finish(&process, 30);
    cr_expect_eq(result.exit_status, 128 + SIGTERM, "exit %d: %s", result.exit_status, result.err);
    process_result_fini(&result);
}
