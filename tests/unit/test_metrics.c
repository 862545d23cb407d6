/* test_metrics.c - the metrics file: exact numbers, null, resume, torn lines, reading back. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "run/metrics.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void write_iterations(const char *path, int64_t from, int64_t to, double scale)
{
    Metrics *metrics;
    Error error = {0};
    cr_assert_eq(metrics_open(&metrics, path, from, &error), STATUS_OK, "%s", error.text);
    for (int64_t i = from; i < to; i++) {
        MetricsLine line = {0};
        metrics_line_add(&line, "iteration", (double)i);
        metrics_line_add(&line, "total_loss", scale * (double)i);
        cr_assert_eq(metrics_write(metrics, &line, &error), STATUS_OK);
    }
    metrics_close(metrics);
}

Test(metrics, line_is_ordered_json_with_null_for_non_finite)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "training_metrics.json");
    Metrics *metrics;
    cr_assert_eq(metrics_open(&metrics, path, 0, NULL), STATUS_OK);
    MetricsLine line = {0};
    metrics_line_add(&line, "iteration", 0);
    metrics_line_add(&line, "lr", 0.1);
    metrics_line_add(&line, "total_loss", (double)NAN);
    metrics_line_add(&line, "grad_norm", (double)-INFINITY);
    metrics_line_add(&line, "samples", 123456789012.0);
    cr_assert_eq(metrics_write(metrics, &line, NULL), STATUS_OK);
    /* Flushed: another reader sees it now. */
    char *text = temp_folder_read(&temp, "training_metrics.json");
    cr_expect_str_eq(text, "{\"iteration\": 0, \"lr\": 0.1, \"total_loss\": null, \"grad_norm\": null, "
                           "\"samples\": 123456789012}\n");
    metrics_close(metrics);
    temp_folder_free_text(text);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(metrics, doubles_survive_bit_by_bit_and_writing_allocates_nothing)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "m.json");
    enum { LINES = 300 };
    double expected[LINES];
    Metrics *metrics;
    Rng rng = rng_at(1, RNG_TEST, 0, 3);
    cr_assert_eq(metrics_open(&metrics, path, 0, NULL), STATUS_OK);
    int64_t before = memory_allocation_count();
    for (int i = 0; i < LINES; i++) {
        expected[i] = rng_normal(&rng) * pow(10, rng_uniform(&rng, -30, 30));
        MetricsLine line = {0};
        metrics_line_add(&line, "iteration", i);
        metrics_line_add(&line, "x", expected[i]);
        cr_assert_eq(metrics_write(metrics, &line, NULL), STATUS_OK);
    }
    cr_expect_eq(memory_allocation_count(), before);
    metrics_close(metrics);

    MetricsTable table;
    cr_assert_eq(metrics_table_read(&table, path, NULL), STATUS_OK);
    cr_assert_eq(table.lines, LINES);
    const double *x = metrics_table_column(&table, "x");
    for (int i = 0; i < LINES; i++)
        cr_assert_eq(x[i], expected[i]);
    metrics_table_fini(&table);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(metrics, resume_leaves_every_iteration_once)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "m.json");
    write_iterations(path, 0, 30, 1);
    write_iterations(path, 12, 20, 2); /* resumed from the checkpoint after 12 steps */
    MetricsTable table;
    cr_assert_eq(metrics_table_read(&table, path, NULL), STATUS_OK);
    const double *iteration = metrics_table_column(&table, "iteration"),
                 *loss = metrics_table_column(&table, "total_loss");
    cr_assert_eq(table.lines, 20);
    for (int i = 0; i < 20; i++) {
        cr_expect_eq(iteration[i], i);
        cr_expect_eq(loss[i], i < 12 ? i : 2 * i);
    }
    cr_expect_null(metrics_table_column(&table, "lr"));
    metrics_table_fini(&table);
    write_iterations(path, 0, 1, 1); /* --no-resume */
    char *text = temp_folder_read(&temp, "m.json");
    cr_expect_str_eq(text, "{\"iteration\": 0, \"total_loss\": 0}\n");
    temp_folder_free_text(text);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(metrics, torn_last_line_is_dropped_when_resuming)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "m.json");
    temp_folder_write(&temp, "m.json",
                      "{\"iteration\": 0, \"total_loss\": 5}\n{\"iteration\": 1, \"total_lo");
    write_iterations(path, 3, 4, 1);
    char *text = temp_folder_read(&temp, "m.json");
    cr_expect_str_eq(text, "{\"iteration\": 0, \"total_loss\": 5}\n{\"iteration\": 3, \"total_loss\": 3}\n");
    temp_folder_free_text(text);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(metrics, reader_fills_gaps_with_nan_and_names_bad_lines)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "m.json");
    temp_folder_write(&temp, "m.json", "{\"a\": 1}\n{\"b\": null, \"a\": 2}\n{\"b\": 3}\n{\"a\": 9, \"b\"");
    MetricsTable table;
    Error error = {0};
    cr_assert_eq(metrics_table_read(&table, path, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(table.lines, 3);
    const double *a = metrics_table_column(&table, "a"), *b = metrics_table_column(&table, "b");
    cr_expect(a[0] == 1 && a[1] == 2 && isnan(a[2]));
    cr_expect(isnan(b[0]) && isnan(b[1]) && b[2] == 3);
    metrics_table_fini(&table);

    temp_folder_write(&temp, "m.json", "{\"a\": 1}\n[2]\n{\"a\": 3}\n");
    cr_expect_eq(metrics_table_read(&table, path, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "m.json:2: "), "%s", error.text);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(metrics, unwritable_path_is_named)
{
    Metrics *metrics;
    Error error = {0};
    cr_expect_eq(metrics_open(&metrics, "/nonexistent/m.json", 0, &error), STATUS_FAILED);
    cr_expect_null(metrics);
    cr_expect(strstr(error.text, "/nonexistent/m.json"), "%s", error.text);
}
