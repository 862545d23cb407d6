/* test_ablation.c - ablation tables: what a file may say, what a digest depends on, and the report of known
 * figures. */
#include "../support/temp_folder.h"

#include "ablation/ablation_report.h"
#include "base/memory.h"
#include "config/config.h"
#include "h5/result_file.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char TABLE[] =
    "name: t\n"
    "title: Two | rows\n"
    "source: a paper\n"
    "base: {optim: {epochs: 30}}\n"
    "settings: ['train.dataset_path=folder:{root}/a']\n"
    "cumulative: true\n"
    "seeds: [0, 7]\n"
    "evaluations:\n"
    "  - {name: knn, words: [evaluate, knn], settings: ['evaluation.knn_k=[20]']}\n"
    "columns:\n"
    "  - {name: k-NN, of: knn, figure: knn_top1_k20, unit: '%'}\n"
    "rows:\n"
    "  - {name: first, settings: [student.layerscale=0], published: [72.9]}\n"
    "  - {name: 'aside, one', settings: [student.num_register_tokens=4], aside: true}\n"
    "  - {name: second, settings: [optim.epochs=50], published: ['-']}\n"
    "  - {name: third, job: distill, after: first, settings: "
    "['distillation.checkpoint_path={after}']}\n";

/* TABLE with `from` replaced by `to` where that is not NULL. */
static Status load(AblationTable *table, const char *from, const char *to, Error *error)
{
    TempFolder folder = temp_folder_create();
    char text[4096];
    const char *at = from ? strstr(TABLE, from) : TABLE;
    cr_assert(at, "%s", from);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - TABLE), TABLE, from ? to : "",
             at + (from ? strlen(from) : 0));
    temp_folder_write(&folder, "t.yaml", text);
    Status status = ablation_table_load(table, temp_folder_in(&folder, "t.yaml").text, error);
    temp_folder_destroy(&folder);
    return status;
}

static AblationTable loaded(const char *from, const char *to)
{
    AblationTable table;
    Error error = {0};
    cr_assert_eq(load(&table, from, to, &error), STATUS_OK, "%s", error.text);
    return table;
}

Test(ablation, rows_have_the_settings_above_them)
{
    AblationTable table = loaded(NULL, NULL);
    YamlTexts second = ablation_table_settings(&table, 2), aside = ablation_table_settings(&table, 1);
    cr_assert_eq(second.count, 3);
    cr_expect_str_eq(second.texts[0], "train.dataset_path=folder:{root}/a");
    cr_expect_str_eq(second.texts[1], "student.layerscale=0");
    cr_expect_str_eq(second.texts[2], "optim.epochs=50", "a row aside is not above others");
    cr_assert_eq(aside.count, 3);
    cr_expect_str_eq(aside.texts[2], "student.num_register_tokens=4");
    cr_expect(ablation_table_published(&table, 0, 0) == 72.9 &&
              isnan(ablation_table_published(&table, 2, 0)) && isnan(ablation_table_published(&table, 3, 0)));
    char *filled = ablation_table_fill("x={after}/{root}/{after}", "R", "A B");
    cr_expect_str_eq(filled, "x=A B/R/A B");
    memory_free(filled);
    yaml_texts_fini(&second);
    yaml_texts_fini(&aside);
    ablation_table_fini(&table);
}

static void digest_of(const char *from, const char *to, int row, char digest[ABLATION_DIGEST])
{
    AblationTable table = loaded(from, to);
    Error error = {0};
    cr_assert_eq(ablation_table_digest(&table, row, digest, &error), STATUS_OK, "%s", error.text);
    ablation_table_fini(&table);
}

/* Row `row` (0-based) of the changed table is another experiment exactly if `differs`. */
static void expect_digest(int row, const char *from, const char *to, bool differs)
{
    char before[ABLATION_DIGEST], after[ABLATION_DIGEST];
    digest_of(NULL, NULL, row, before);
    digest_of(from, to, row, after);
    cr_expect_eq(strcmp(before, after) != 0, differs, "row %d, %s to %s: %s, %s", row, from, to, before,
                 after);
}

Test(ablation, a_digest_is_of_what_is_measured)
{
    expect_digest(2, "name: second", "name: other", false);
    expect_digest(0, "72.9", "1", false);
    expect_digest(0, "[0, 7]", "[3]", false);
    expect_digest(0, "{epochs: 30}", "{epochs: 30, clip_grad: 3.0}", false); /* the default */
    expect_digest(0, "{epochs: 30}", "{epochs: 40}", true);
    expect_digest(2, "{epochs: 30}", "{epochs: 40}", false); /* the row has its own */
    expect_digest(0, "[20]", "[10]", true);
    expect_digest(2, "layerscale=0", "layerscale=1", true); /* of a row above */
    expect_digest(3, "layerscale=0", "layerscale=1", true); /* of the row before */
    expect_digest(2, "num_register_tokens=4", "num_register_tokens=2", false);
    expect_digest(3, "job: distill", "job: pretrain", true);
}

Test(ablation, what_makes_no_sense_is_refused_with_the_line)
{
    static const struct {
        const char *from, *to, *said;
    } cases[] = {
        {"name: second", "name: first", "t.yaml:15: name: expected another name than that of a row before"},
        {"after: first", "after: fourth", "t.yaml:16: after: expected the name of a row before"},
        {"after: first", "after: first, beside: third",
         "t.yaml:16: beside: expected the name of a row before"},
        {"after: first, ", "", "t.yaml:16: settings: expected `after`, which {after} stands for"},
        {"job: distill", "job: dream", "t.yaml:16: job: expected pretrain, distill or none"},
        {"[72.9]", "[1, 2]", "row first: 2 published figures for 1 columns"},
        {"[72.9]", "[much]", "t.yaml:13: published: expected numbers, or - for none"},
        {"of: knn", "of: linear", "column k-NN: there is no evaluation linear"},
        {"[0, 7]", "[0, x]", "t.yaml:7: seeds: expected whole numbers from 0"},
        {"[evaluate, knn]", "[pretrain, knn]", "t.yaml:9: words: expected [evaluate, knn, ...]"},
        {"name: t\n", "name: a/b\n", "t.yaml:1: name: expected a word that can be a file's name"},
        {"cumulative", "cumulativ", "t.yaml:6: unknown key cumulativ; did you mean cumulative"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        AblationTable table;
        Error error = {0};
        cr_expect_eq(load(&table, cases[i].from, cases[i].to, &error), STATUS_INPUT, "%s", cases[i].said);
        cr_expect(strstr(error.text, cases[i].said), "%s: %s", cases[i].said, error.text);
        ablation_table_fini(&table);
    }
    AblationTable table = loaded("optim.epochs=50", "optim.epoch=50");
    char digest[ABLATION_DIGEST];
    Error error = {0};
    cr_expect_eq(ablation_table_digest(&table, 2, digest, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "row second: ") && strstr(error.text, "optim.epochs"), "%s", error.text);
    ablation_table_fini(&table);
}

/* Every row of a table that comes with the program is a configuration; the recipe is Table 1, and ends where
 * the reference's own file is. */
Test(ablation, shipped_tables_are_whole)
{
    glob_t found;
    cr_assert_eq(glob("jobs/configs/ablations/*.yaml", 0, NULL, &found), 0);
    for (size_t f = 0; f < found.gl_pathc; f++) {
        AblationTable table;
        Error error = {0};
        cr_assert_eq(ablation_table_load(&table, found.gl_pathv[f], &error), STATUS_OK, "%s", error.text);
        for (int row = 0; row < table.row_count; row++) {
            char digest[ABLATION_DIGEST];
            cr_expect_eq(ablation_table_digest(&table, row, digest, &error), STATUS_OK, "%s", error.text);
        }
        ablation_table_fini(&table);
    }
    globfree(&found);

    AblationTable table;
    Error error = {0};
    Config last, reference;
    cr_assert_eq(ablation_table_load(&table, "jobs/configs/ablations/recipe.yaml", &error), STATUS_OK);
    cr_assert(table.row_count == 12 && ablation_table_published(&table, 11, 1) == 84.5);
    config_init(&last);
    config_init(&reference);
    cr_assert_eq(config_load_file(&reference, "jobs/configs/train/vitl14.yaml", &error), STATUS_OK, "%s",
                 error.text);
    cr_assert_eq(config_load_file(&last, table.base.files.texts[0], &error), STATUS_OK, "%s", error.text);
    YamlTexts settings = ablation_table_settings(&table, 11);
    for (int i = 0; i < settings.count; i++) {
        char *filled = ablation_table_fill(settings.texts[i], "r", NULL);
        cr_assert_eq(config_override(&last, filled, &error), STATUS_OK, "%s", error.text);
        memory_free(filled);
    }
    static const char *const own[] = {"train.dataset_path", "train.global_batch_size"};
    ConfigDiff diff;
    config_diff_init(&diff, &reference, &last);
    for (int i = 0; i < diff.count; i++)
        cr_expect(strcmp(diff.items[i].key, own[0]) == 0 || strcmp(diff.items[i].key, own[1]) == 0,
                  "%s is %s, not %s", diff.items[i].key, diff.items[i].after, diff.items[i].before);
    config_diff_fini(&diff);
    yaml_texts_fini(&settings);
    config_fini(&last);
    config_fini(&reference);
    ablation_table_fini(&table);
}

/* The evaluation's file with `value`, and the row's made of it. */
static void measure(const AblationTable *table, int row, const char *seed, const TempFolder *folder,
                    double value)
{
    Error error = {0};
    TempPath evaluated = temp_folder_in(folder, "knn.h5");
    Figure figures[] = {{"other", "%", 1, NAN, ""}, {"knn_top1_k20", "%", value, NAN, ""}};
    Result result = {
        .job = "evaluate knn", .subject = "x", .config = "", .version = "1", .figures = figures, .count = 2};
    cr_assert_eq(result_file_write(evaluated.text, &result, &error), STATUS_OK, "%s", error.text);
    const char *files[] = {evaluated.text};
    cr_assert_eq(ablation_results_write(table, row, seed, folder->path, files, "a: b\n", &error), STATUS_OK,
                 "%s", error.text);
}

static AblationState state_of(const AblationTable *table, int row, const char *seed, const TempFolder *folder)
{
    AblationState state;
    Error error = {0};
    cr_assert_eq(ablation_results_state(table, row, seed, folder->path, &state, &error), STATUS_OK, "%s",
                 error.text);
    return state;
}

Test(ablation, a_report_of_known_figures)
{
    TempFolder folder = temp_folder_create();
    AblationTable table = loaded(NULL, NULL), changed = loaded("optim.epochs=50", "optim.epochs=60");
    cr_expect_eq(state_of(&table, 0, "0", &folder), ABLATION_MISSING);
    measure(&table, 0, "0", &folder, 30.0);
    measure(&table, 0, "7", &folder, 32.0);
    measure(&table, 1, "0", &folder, 99.0);
    measure(&table, 2, "7", &folder, 33.5);
    measure(&changed, 2, "0", &folder, 77.0);
    cr_expect_eq(state_of(&table, 0, "7", &folder), ABLATION_DONE);
    cr_expect_eq(state_of(&table, 2, "0", &folder), ABLATION_STALE);

    AblationResults results;
    Error error = {0};
    cr_assert_eq(ablation_results_load(&results, &table, folder.path, &error), STATUS_OK, "%s", error.text);
    const AblationRowResults *rows = results.rows;
    cr_expect(rows[0].measured == 2 && rows[2].measured == 1 && rows[2].stale == 1 && rows[3].measured == 0);
    cr_expect_float_eq(rows[0].cells[0].mean, 31.0, 1e-12);
    cr_expect_float_eq(rows[0].cells[0].spread, sqrt(2.0), 1e-12);
    cr_expect(isnan(rows[0].cells[0].step) && isnan(rows[2].cells[0].spread) && isnan(rows[3].cells[0].mean));
    cr_expect_float_eq(rows[2].cells[0].step, 2.5, 1e-12, "to the row above, over the one aside");

    char *text = ablation_report_markdown(&table, &results), line[200];
    snprintf(line, sizeof line, "\n| 1 | first | 31.00 ± 1.41 | | 72.9 | `%.8s` |\n", rows[0].digest);
    cr_expect(strstr(text, line), "%s", text);
    snprintf(line, sizeof line, "\n| 3 | second | 33.50 | +2.50 | | `%.8s` |\n", rows[2].digest);
    cr_expect(strstr(text, line), "%s", text);
    snprintf(line, sizeof line, "\n| 4 | third | missing | | | `%.8s` |\n", rows[3].digest);
    cr_expect(strstr(text, line), "%s", text);
    cr_expect(strstr(text, "- row 3, second: 1 of 2 seeds (1 file of another configuration: run again)\n"),
              "%s", text);
    cr_expect(strstr(text, "- row 4, third: 2 of 2 seeds\n") && !strstr(text, "99"), "%s", text);
    memory_free(text);
    text = ablation_report_csv(&table, &results);
    snprintf(line, sizeof line, "\n1,\"first\",\"k-NN\",\"%%\",2,31,1.41421356,,72.9,%s\n", rows[0].digest);
    cr_expect(strstr(text, line), "%s", text);
    memory_free(text);
    ablation_results_fini(&results);

    Figure wrong = {"knn_top1", "%", 1, NAN, ""};
    TempPath evaluated = temp_folder_in(&folder, "knn.h5");
    Result result = {.job = "a", .subject = "b", .config = "", .version = "1", .figures = &wrong, .count = 1};
    cr_assert_eq(result_file_write(evaluated.text, &result, &error), STATUS_OK);
    const char *files[] = {evaluated.text};
    cr_expect_eq(ablation_results_write(&table, 3, "0", folder.path, files, "", &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "has no figure knn_top1_k20, but knn_top1"), "%s", error.text);
    ablation_table_fini(&table);
    ablation_table_fini(&changed);
    temp_folder_destroy(&folder);
}

Test(ablation, a_column_of_no_published_figure_has_no_room_for_them)
{
    TempFolder folder = temp_folder_create();
    AblationTable table = loaded("[72.9]", "['-']");
    AblationResults results;
    Error error = {0};
    measure(&table, 0, "0", &folder, 30.0);
    cr_assert_eq(ablation_results_load(&results, &table, folder.path, &error), STATUS_OK, "%s", error.text);
    char *text = ablation_report_markdown(&table, &results), line[200];
    snprintf(line, sizeof line, "\n| 1 | first | 30.00 | | `%.8s` |\n", results.rows[0].digest);
    cr_expect(strstr(text, line) && strstr(text, "\nAfter: a paper.\n") &&
                  strstr(text, "| k-NN, % | Δ | configuration |"),
              "%s", text);
    memory_free(text);
    ablation_results_fini(&results);
    ablation_table_fini(&table);
    temp_folder_destroy(&folder);
}

Test(ablation, a_row_stands_beside_the_one_it_names)
{
    TempFolder folder = temp_folder_create();
    AblationTable table = loaded("after: first", "after: first, beside: first");
    AblationResults results;
    Error error = {0};
    for (int row = 0; row < 4; row++)
        for (int s = 0; s < 2; s++)
            measure(&table, row, s ? "7" : "0", &folder, 30.0 + 5.0 * (double)(row * row));
    cr_assert_eq(ablation_results_load(&results, &table, folder.path, &error), STATUS_OK, "%s", error.text);
    cr_expect_float_eq(results.rows[2].cells[0].step, 20.0, 1e-12);
    cr_expect_float_eq(results.rows[3].cells[0].step, 45.0, 1e-12);
    char *text = ablation_report_markdown(&table, &results);
    cr_expect(strstr(text, "; Δ is to the row above, or to the one that the list of rows names.\n"), "%s",
              text);
    cr_expect(strstr(text, "; job: distill; after first; Δ is to row 1\n"), "%s", text);
    memory_free(text);
    ablation_results_fini(&results);
    ablation_table_fini(&table);
    temp_folder_destroy(&folder);
}
