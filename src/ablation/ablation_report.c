/* ablation_report.c - see ablation_report.h. */
#include "ablation/ablation_report.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was printed into a stream of memory; memory_free. */
typedef struct {
    FILE *stream;
    char *text;
    size_t size;
} Out;

static void out_open(Out *out)
{
    out->stream = open_memstream(&out->text, &out->size);
    CHECK(out->stream);
}

static char *out_close(Out *out)
{
    fclose(out->stream);
    char *text = memory_strndup(out->text, out->size);
    free(out->text);
    return text;
}

/* --- Markdown --- */

static void print_number(FILE *out, double value, const char *format)
{
    if (isnan(value))
        fprintf(out, " |");
    else
        fprintf(out, format, value);
}

/* Whether the table has a published figure for a row of that column. */
static bool has_published(const AblationTable *table, int column)
{
    for (int r = 0; r < table->row_count; r++)
        if (!table->rows[r].aside && !isnan(ablation_table_published(table, r, column))) return true;
    return false;
}

static void print_cell(FILE *out, const AblationTable *table, int row, int column, const AblationCell *cell)
{
    if (isnan(cell->mean))
        fprintf(out, " missing |");
    else if (isnan(cell->spread))
        fprintf(out, " %.2f |", cell->mean);
    else
        fprintf(out, " %.2f ± %.2f |", cell->mean, cell->spread);
    print_number(out, cell->step, " %+.2f |");
    if (has_published(table, column))
        print_number(out, ablation_table_published(table, row, column), " %.1f |");
}

static void print_settings(FILE *out, const YamlTexts *settings)
{
    for (int i = 0; i < settings->count; i++)
        fprintf(out, "%s`%s`", i ? ", " : " ", settings->texts[i]);
}

/* What each row changes, since its name says it to people only. */
static void print_rows(FILE *out, const AblationTable *table)
{
    fprintf(out, "\nRows%s:\n\n", table->cumulative ? ", each with all changes above it" : "");
    for (int r = 0; r < table->row_count; r++) {
        const AblationRow *row = &table->rows[r];
        fprintf(out, "%d. %s:", r + 1, row->name);
        if (row->settings.count == 0) fprintf(out, " the base");
        print_settings(out, &row->settings);
        if (strcmp(row->job, "pretrain") != 0) fprintf(out, "; job: %s", row->job);
        if (row->after) fprintf(out, "; after %s", row->after);
        if (row->beside) fprintf(out, "; Δ is to row %d", ablation_table_row(table, row->beside) + 1);
        if (row->aside) fprintf(out, "; no row of the table");
        fprintf(out, "\n");
    }
}

static void print_missing(FILE *out, const AblationTable *table, const AblationResults *results)
{
    int seeds = table->seeds.count, missing = 0;
    for (int r = 0; r < table->row_count; r++)
        missing += table->rows[r].aside ? 0 : seeds - results->rows[r].measured;
    if (missing == 0) {
        fprintf(out, "\nNothing is missing: %d rows, %d seed%s each.\n", table->row_count, seeds,
                seeds == 1 ? "" : "s");
        return;
    }
    fprintf(out, "\nMissing:\n\n");
    for (int r = 0; r < table->row_count; r++) {
        const AblationRowResults *row = &results->rows[r];
        if (table->rows[r].aside || row->measured == seeds) continue;
        fprintf(out, "- row %d, %s: %d of %d seeds", r + 1, table->rows[r].name, seeds - row->measured,
                seeds);
        if (row->stale > 0)
            fprintf(out, " (%d file%s of another configuration: run again)", row->stale,
                    row->stale == 1 ? "" : "s");
        fprintf(out, "\n");
    }
}

/* What was measured, whose figures stand beside it, and the names of columns. */
static void print_head(FILE *out, const AblationTable *table)
{
    bool published = false, beside = false;
    for (int c = 0; c < table->column_count; c++)
        published = published || has_published(table, c);
    for (int r = 0; r < table->row_count; r++)
        beside = beside || table->rows[r].beside;
    fprintf(out, "# %s\n\n", table->title);
    if (table->source) fprintf(out, "%s: %s.\n", published ? "Published figures" : "After", table->source);
    fprintf(out, "Measured: mean%s over %d seed%s; Δ is to the row above%s.\n\n",
            table->seeds.count > 1 ? " ± standard deviation" : "", table->seeds.count,
            table->seeds.count == 1 ? "" : "s", beside ? ", or to the one that the list of rows names" : "");
    fprintf(out, "| row | |");
    for (int c = 0; c < table->column_count; c++)
        fprintf(out, " %s, %s | Δ |%s", table->columns[c].name, table->columns[c].unit,
                has_published(table, c) ? " published |" : "");
    fprintf(out, " configuration |\n|---|---|");
    for (int c = 0; c < table->column_count; c++)
        fprintf(out, "---|---|%s", has_published(table, c) ? "---|" : "");
    fprintf(out, "---|\n");
}

char *ablation_report_markdown(const AblationTable *table, const AblationResults *results)
{
    Out out;
    out_open(&out);
    print_head(out.stream, table);
    for (int r = 0; r < table->row_count; r++) {
        if (table->rows[r].aside) continue;
        fprintf(out.stream, "| %d | %s |", r + 1, table->rows[r].name);
        for (int c = 0; c < table->column_count; c++)
            print_cell(out.stream, table, r, c, &results->rows[r].cells[c]);
        fprintf(out.stream, " `%.8s` |\n", results->rows[r].digest);
    }
    print_missing(out.stream, table, results);
    print_rows(out.stream, table);
    fprintf(out.stream, "\nBase:");
    print_settings(out.stream, &table->base.files);
    print_settings(out.stream, &table->base.keys);
    fprintf(out.stream, "; every row:");
    print_settings(out.stream, &table->settings);
    fprintf(out.stream, "\n");
    return out_close(&out);
}

/* --- CSV --- */

/* A field in double quotes, its own ones doubled. */
static void print_field(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_csv_number(FILE *out, double value)
{
    if (isnan(value))
        fprintf(out, ",");
    else
        fprintf(out, ",%.9g", value);
}

char *ablation_report_csv(const AblationTable *table, const AblationResults *results)
{
    Out out;
    out_open(&out);
    fprintf(out.stream, "row,name,column,unit,seeds,mean,spread,step,published,digest\n");
    for (int r = 0; r < table->row_count; r++) {
        for (int c = 0; c < table->column_count && !table->rows[r].aside; c++) {
            const AblationCell *cell = &results->rows[r].cells[c];
            fprintf(out.stream, "%d,", r + 1);
            print_field(out.stream, table->rows[r].name);
            fputc(',', out.stream);
            print_field(out.stream, table->columns[c].name);
            fputc(',', out.stream);
            print_field(out.stream, table->columns[c].unit);
            fprintf(out.stream, ",%d", cell->seeds);
            print_csv_number(out.stream, cell->mean);
            print_csv_number(out.stream, cell->spread);
            print_csv_number(out.stream, cell->step);
            print_csv_number(out.stream, ablation_table_published(table, r, c));
            fprintf(out.stream, ",%s\n", results->rows[r].digest);
        }
    }
    return out_close(&out);
}
