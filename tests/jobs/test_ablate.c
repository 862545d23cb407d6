/* test_ablate.c - `ablate` by the real program: rows are made once, go on where they were stopped, and wait
 * for the rows they come after. */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"

#include "base/memory.h"
#include "base/text_file.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT_SECONDS = 60 };

static TempFolder temp;

static const char TABLE[] =
    "name: t\n"
    "title: A table\n"
    "base: [tiny.yaml]\n"
    "settings: [train.num_workers=0]\n"
    "seeds: [0, 1]\n"
    "evaluations:\n"
    "  - {name: knn, words: [evaluate, knn, --train-data, 'synthetic:classes=3,size=40,count=30,seed=5', "
    "--val-data,\n"
    "     'synthetic:classes=3,size=40,count=12,seed=6'], settings: ['evaluation.knn_k=[3]', "
    "evaluation.crop_size=32]}\n"
    "columns:\n"
    "  - {name: k-NN, of: knn, figure: knn_top1_k3, unit: '%'}\n"
    "rows:\n"
    "  - {name: plain, published: [50]}\n"
    "  - {name: distilled, job: distill, after: plain, settings: ['distillation.checkpoint_path={after}']}\n";

static void set_up(void)
{
    temp = train_support_folder();
    temp_folder_write(&temp, "t.yaml", TABLE);
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(ablate, .init = set_up, .fini = tear_down, .timeout = 120);

/* `ablate KIND --table t.yaml --output-dir FOLDER words...` on `ranks`. */
static Process start(int ranks, const char *kind, const char *folder, const char *const *words)
{
    TempPath table = temp_folder_in(&temp, "t.yaml"), output = temp_folder_in(&temp, "%s", folder);
    const char *all[PROCESS_ARGUMENTS_MAX] = {"ablate",   kind,           "--table",
                                              table.text, "--output-dir", output.text};
    for (int count = 6; words && *words; words++)
        all[count++] = *words;
    return process_start_dinobatch(ranks, all);
}

static void ablate(int ranks, const char *kind, const char *folder, const char *const *words, int status,
                   const char *text)
{
    Process process = start(ranks, kind, folder, words);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, status, "%s: exit %d: %s%s", text, result.exit_status, result.out,
                 result.err);
    cr_expect(strstr(result.out, text) || strstr(result.err, text), "no \"%s\" in: %s%s", text, result.out,
              result.err);
    process_result_fini(&result);
}

/* The report without digests' rows is the same text. */
static void expect_same(const char *folder_a, const char *folder_b)
{
    char name[64];
    snprintf(name, sizeof name, "%s/t.csv", folder_a);
    char *a = temp_folder_read(&temp, name);
    snprintf(name, sizeof name, "%s/t.csv", folder_b);
    char *b = temp_folder_read(&temp, name);
    cr_expect(*a && strcmp(a, b) == 0, "%s\n%s", a, b);
    temp_folder_free_text(a);
    temp_folder_free_text(b);
}

Test(ablate, rows_are_made_once_in_their_order_and_reported)
{
    ablate(1, "run", "whole", WORDS("--row", "2"), 2,
           "row 2 (distilled) comes after row 1 (plain), whose seed 0");
    ablate(2, "run", "whole", WORDS("--row", "1"), 0, "t: row 1 (plain), seed 0: ");
    ablate(1, "run", "whole", WORDS("--row", "1"), 0, "t: row 1 (plain), seed 0, done before: ");
    ablate(1, "list", "whole", NULL, 0, "1 0 0 done plain\n1 1 0 missing plain\n2 0 1 missing distilled\n");
    ablate(1, "run", "whole", WORDS("--row", "2"), 0, "t: row 2 (distilled), seed 0: ");
    ablate(1, "report", "whole", NULL, 0, "whole/t.png");
    char *text = temp_folder_read(&temp, "whole/t.md");
    cr_expect(strstr(text, "- row 1, plain: 1 of 2 seeds\n- row 2, distilled: 1 of 2 seeds\n"), "%s", text);
    temp_folder_free_text(text);

    ablate(1, "run", "whole", WORDS("--row", "3"), 2, "--row 3: expected a number from 1 to 2");
    ablate(1, "run", "whole", WORDS("--row", "1", "--seed", "5"), 2, "--seed 5: not one of the table's");
    ablate(1, "run", "whole", WORDS("--row", "1", "optim.epochs=50"), 2,
           "what is of the experiment belongs in the table");
    ablate(1, "draw", "whole", NULL, 2, "ablate draw: expected one of run, list, report");
}

/* Stopped by the scheduler, and killed, in the middle of training: the same table. */
Test(ablate, a_disturbed_row_ends_as_an_undisturbed_one)
{
    ablate(1, "run", "whole", WORDS("--row", "1"), 0, "t: row 1 (plain), seed 0: ");
    ablate(1, "report", "whole", NULL, 0, "whole/t.md");
    Process process = start(1, "run", "parts", WORDS("--row", "1"));
    cr_assert(process_wait_for_error_text(&process, "training ", LIMIT_SECONDS));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 75, "%d: %s", result.exit_status, result.err);
    process_result_fini(&result);
    process = start(1, "run", "parts", WORDS("--row", "1"));
    cr_assert(process_wait_for_error_text(&process, "resuming after iteration", LIMIT_SECONDS));
    process_signal(&process, SIGKILL);
    result = process_finish(&process, LIMIT_SECONDS);
    process_result_fini(&result);
    ablate(1, "run", "parts", WORDS("--row", "1"), 0, "t: row 1 (plain), seed 0: ");
    ablate(1, "report", "parts", NULL, 0, "parts/t.md");
    expect_same("whole", "parts");
}

static char *text_of(const char *folder, const char *name, const char *ending)
{
    char path[512], *text;
    size_t size;
    Error error = {0};
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, ending);
    cr_assert_eq(text_file_read(path, 1 << 20, &text, &size, &error), STATUS_OK, "%s", error.text);
    return text;
}

/* `report` makes of a recorded table's result files what is recorded, and no row has changed since. */
static void expect_recorded(const char *recorded)
{
    const char *name = strrchr(recorded, '/') + 1, *endings[] = {"md", "csv"};
    char table[256], results[256];
    snprintf(table, sizeof table, "jobs/configs/ablations/%s.yaml", name);
    snprintf(results, sizeof results, "%s/results", recorded);
    TempPath output = temp_folder_in(&temp, "%s", name);
    const char *words[] = {"ablate",    "report",    "--table", table, "--output-dir",
                           output.text, "--results", results,   NULL};
    Process process = process_start_dinobatch(0, words);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s: %s", name, result.err);
    process_result_fini(&result);
    for (int i = 0; i < 2; i++) {
        char *before = text_of(recorded, name, endings[i]), *now = text_of(output.text, name, endings[i]);
        cr_expect_str_eq(now, before, "%s/%s.%s is not of its files", recorded, name, endings[i]);
        memory_free(before);
        memory_free(now);
    }
}

Test(ablate, recorded_tables_are_of_their_files)
{
    glob_t found;
    cr_assert_eq(glob("results/ablations/*_small", GLOB_ONLYDIR, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        expect_recorded(found.gl_pathv[i]);
    globfree(&found);
}
