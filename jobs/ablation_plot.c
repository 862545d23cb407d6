/* ablation_plot.c - see ablation_plot.h. */
#include "ablation_plot.h"

#include "base/check.h"
#include "base/memory.h"
#include "report/gnuplot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* In pixels. */
enum {
    LEFT_LEAST = 95, /* for numbers and their name */
    RIGHT = 80,
    TOP = 70,
    PANEL = 240,
    BETWEEN = 45, /* panels: a legend stands there */
    ROW = 70,
    LABEL_FOOT = 30,
};
static const double LABEL_ACROSS = 5.9, LABEL_DOWN = 3.8; /* a character of a row's name, aslant */

/* Rows that the column has figures of, measured ($measured) and published ($published), as data blocks. */
static void print_data(FILE *out, const AblationTable *table, const AblationResults *results, int column)
{
    for (int published = 0; published < 2; published++) {
        fprintf(out, "$%s%d << EOD\n", published ? "published" : "measured", column);
        for (int r = 0, place = 0; r < table->row_count; r++) {
            if (table->rows[r].aside) continue;
            const AblationCell *cell = &results->rows[r].cells[column];
            double value = published ? ablation_table_published(table, r, column) : cell->mean;
            double spread = isnan(cell->spread) ? 0 : cell->spread;
            place++;
            if (!isnan(value)) fprintf(out, "%d %.6g %.6g\n", place, value, published ? 0 : spread);
        }
        fprintf(out, "EOD\n");
    }
}

static bool has_any(const AblationTable *table, const AblationResults *results, int column, bool published)
{
    for (int r = 0; r < table->row_count; r++)
        if (!table->rows[r].aside && !isnan(published ? ablation_table_published(table, r, column)
                                                      : results->rows[r].cells[column].mean))
            return true;
    return false;
}

static void print_panel(FILE *out, const AblationTable *table, const AblationResults *results, int column,
                        int rows, bool last)
{
    fprintf(out, "set ylabel ");
    char label[256];
    snprintf(label, sizeof label, "%.120s, %.60s", table->columns[column].name, table->columns[column].unit);
    gnuplot_quote(out, label);
    fprintf(out, "\nset xrange [0.5:%d.5]\nset xtics (", rows);
    for (int r = 0, place = 0; r < table->row_count; r++) {
        if (table->rows[r].aside) continue;
        fprintf(out, "%s", place++ ? ", " : "");
        gnuplot_quote(out, last ? table->rows[r].name : "");
        fprintf(out, " %d", place);
    }
    fprintf(out, ") rotate by 35 right\n");
    bool measured = has_any(table, results, column, false), published = has_any(table, results, column, true);
    fprintf(out, published ? "set y2tics nomirror\nset border 11\n" : "unset y2tics\nset border 3\n");
    fprintf(out, "plot ");
    if (measured)
        fprintf(out,
                "$measured%d using 1:2:3 with yerrorlines lw 2 pt 7 ps 1.2 lc rgb '#1f5fa8' title 'measured'",
                column);
    if (published)
        fprintf(out,
                "%s$published%d using 1:2 axes x1y2 with linespoints lw 1 dt 2 pt 6 ps 1.2 lc rgb '#888888' "
                "title 'published (right axis)'",
                measured ? ", " : "", column);
    fprintf(out, "\n");
}

/* Names of rows hang aslant below the last panel, to the left of their place. */
static void make_room(const AblationTable *table, int rows, int panels, GnuplotPage *page, int *left,
                      int *foot)
{
    int across = 2 * ROW + ROW * rows, place = 0;
    double to_left = LEFT_LEAST, down = 0;
    for (int r = 0; r < table->row_count; r++) {
        if (table->rows[r].aside) continue;
        double length = (double)strlen(table->rows[r].name), at = (place++ + 0.5) * across / rows;
        to_left = fmax(to_left, LABEL_ACROSS * length - at);
        down = fmax(down, LABEL_DOWN * length);
    }
    *left = (int)to_left;
    *foot = LABEL_FOOT + (int)down;
    *page = (GnuplotPage){.width = *left + across + RIGHT,
                          .height = TOP + panels * PANEL + (panels - 1) * BETWEEN + *foot,
                          .points = 10,
                          .background = "#ffffff"};
}

static char *make_script(const AblationTable *table, const AblationResults *results, GnuplotPage *page)
{
    int rows = 0, panels = 0, done = 0, left, foot;
    bool any = false;
    for (int r = 0; r < table->row_count; r++)
        rows += !table->rows[r].aside;
    for (int c = 0; c < table->column_count; c++) {
        any = any || has_any(table, results, c, false);
        panels += has_any(table, results, c, false) || has_any(table, results, c, true);
    }
    if (!any) return NULL;
    make_room(table, rows, panels, page, &left, &foot);
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    CHECK(out);
    fprintf(out,
            "set multiplot layout %d,1 margins screen %.4f, %.4f, %.4f, %.4f spacing screen 0, %.4f title ",
            panels, (double)left / page->width, 1 - (double)RIGHT / page->width, (double)foot / page->height,
            1 - (double)TOP / page->height, (double)BETWEEN / page->height);
    gnuplot_quote(out, table->title);
    fprintf(out, "\nset key at graph 1, graph 1.02 right bottom horizontal maxrows 1\nset grid ytics lc rgb "
                 "'#dddddd'\nset border 3\nset tics nomirror\n"
                 "set offsets 0, 0, graph 0.1, graph 0.1\n");
    for (int c = 0; c < table->column_count; c++) {
        if (!has_any(table, results, c, false) && !has_any(table, results, c, true)) continue;
        print_data(out, table, results, c);
        done++;
        print_panel(out, table, results, c, rows, done == panels);
    }
    fprintf(out, "unset multiplot\n");
    fclose(out);
    char *script = memory_strndup(text, size);
    free(text);
    return script;
}

Status ablation_plot_draw(const AblationTable *table, const AblationResults *results, const char *path,
                          bool *drawn, Error *error)
{
    GnuplotPage page;
    char *script = make_script(table, results, &page);
    *drawn = script != NULL;
    Status status = script ? gnuplot_draw(script, &page, path, error) : STATUS_OK;
    memory_free(script);
    return status;
}
