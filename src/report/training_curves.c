/* training_curves.c - see training_curves.h. */
#include "report/training_curves.h"

#include "base/memory.h"
#include "report/evaluation_history.h"
#include "report/gnuplot.h"
#include "run/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096, WIDTH = 1400, HEIGHT = 900, POINTS = 1000 };

/* A line of one panel. */
typedef struct {
    const char *key, *title, *color;
} Curve;

enum { CURVES_MAX = 5 };

typedef struct {
    const char *title, *label, *settings;
    Curve curves[CURVES_MAX];
} Panel;

static const Panel LOSSES = {
    "Losses",
    "loss",
    "",
    {{"total_loss", "total", "#222222"},
     {"dino_global_crops_loss", "DINO, global crops", "#0072b2"},
     {"dino_local_crops_loss", "DINO, local crops", "#56b4e9"},
     {"ibot_loss", "iBOT", "#d55e00"},
     {"koleo_loss", "KoLeo", "#009e73"}},
};

static const Panel COLLAPSE = {
    "Collapse figures (1: as spread as can be)",
    "share",
    "set yrange [0:*]\n",
    {{"dino_teacher_entropy_share", "entropy of DINO targets / ln K", "#0072b2"},
     {"ibot_teacher_entropy_share", "entropy of iBOT targets / ln K", "#d55e00"},
     {"dino_prototypes_used", "DINO prototypes in use", "#56b4e9"},
     {"ibot_prototypes_used", "iBOT prototypes in use", "#e69f00"},
     {"feature_std", "spread of features", "#009e73"}},
};

static const Panel RATES = {
    "Schedules",
    "learning rate",
    "set y2label 'weight decay, momentum'\nset y2tics\nset ytics nomirror\n",
    {{"lr", "learning rate", "#222222"},
     {"wd", "weight decay", "#cc79a7"},
     {"mom", "teacher momentum", "#009e73"}},
};

/* A data block $name of (iteration, value): means of runs of lines, so that no panel holds more than POINTS.
 */
static void print_block(FILE *out, const MetricsTable *table, const char *key)
{
    const double *iterations = metrics_table_column(table, "iteration");
    const double *values = metrics_table_column(table, key);
    int64_t run = (table->lines + POINTS - 1) / POINTS;
    fprintf(out, "$%s << EOD\n", key);
    for (int64_t first = 0; first < table->lines; first += run) {
        double at = 0.0, sum = 0.0;
        int64_t count = 0;
        for (int64_t i = first; i < first + run && i < table->lines; i++) {
            if (!isfinite(values[i])) continue;
            at += iterations[i];
            sum += values[i];
            count++;
        }
        if (count > 0) fprintf(out, "%.1f %.9g\n", at / (double)count, sum / (double)count);
    }
    fprintf(out, "EOD\n");
}

static bool is_on_second_axis(const Panel *panel, int i)
{
    return panel == &RATES && i > 0;
}

static void print_panel(FILE *out, const MetricsTable *table, const Panel *panel)
{
    int drawn = 0;
    for (int i = 0; i < CURVES_MAX && panel->curves[i].key; i++)
        if (metrics_table_column(table, panel->curves[i].key)) print_block(out, table, panel->curves[i].key);
    fprintf(out, "set title '%s'\nset ylabel '%s'\n%s", panel->title, panel->label, panel->settings);
    for (int i = 0; i < CURVES_MAX && panel->curves[i].key; i++) {
        const Curve *curve = &panel->curves[i];
        if (!metrics_table_column(table, curve->key)) continue;
        fprintf(out, "%s $%s using 1:2 with lines lw 1.6 lc rgb '%s'%s title '%s'", drawn++ ? "," : "plot",
                curve->key, curve->color, is_on_second_axis(panel, i) ? " axes x1y2" : "", curve->title);
    }
    fprintf(out, "%s\n", drawn ? "" : "set multiplot next");
    fprintf(out, "set yrange [*:*]\nunset y2label\nunset y2tics\nset ytics mirror\n");
}

static void print_knn(FILE *out, const EvaluationHistory *history)
{
    static const char *const colors[EVALUATION_HISTORY_KS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                              "#e69f00", "#56b4e9", "#222222", "#999999"};
    fprintf(out, "set title 'k-NN of the teacher'\nset ylabel 'top-1 accuracy, %%'\n");
    if (history->count == 0 || history->k_count == 0) {
        fprintf(out, "set label 1 'no evaluation in this run' at graph 0.5,0.5 center\n"
                     "set yrange [0:100]\nplot NaN notitle\nunset label 1\nset yrange [*:*]\n");
        return;
    }
    fprintf(out, "$knn << EOD\n");
    for (int64_t i = 0; i < history->count; i++) {
        fprintf(out, "%lld", (long long)history->points[i].iteration);
        for (int k = 0; k < history->k_count; k++)
            fprintf(out, isnan(history->points[i].top1[k]) ? " NaN" : " %.4f", history->points[i].top1[k]);
        fprintf(out, "\n");
    }
    fprintf(out, "EOD\n");
    for (int k = 0; k < history->k_count; k++)
        fprintf(out, "%s $knn using 1:%d with linespoints pt 7 ps 0.8 lw 1.6 lc rgb '%s' title 'k = %lld'",
                k ? "," : "plot", k + 2, colors[k], (long long)history->k[k]);
    fprintf(out, "\n");
}

/* memory of open_memstream: free() */
static char *make_script(const MetricsTable *table, const EvaluationHistory *history)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    double last = metrics_table_column(table, "iteration")[table->lines - 1];
    fprintf(out,
            "set multiplot layout 2,2\n"
            "set grid lc rgb '#dddddd'\nset border lc rgb '#444444'\nset key below horizontal maxrows 2 "
            "samplen 2\n"
            "set xlabel 'iteration'\nset xrange [0:%.17g]\nset datafile missing 'NaN'\n",
            last > 0 ? last : 1.0);
    print_panel(out, table, &LOSSES);
    print_knn(out, history);
    print_panel(out, table, &COLLAPSE);
    print_panel(out, table, &RATES);
    fprintf(out, "unset multiplot\n");
    return fclose(out) == 0 ? text : (free(text), NULL);
}

static Status draw(const MetricsTable *table, const char *folder, const char *output, Error *error)
{
    if (table->lines == 0 || !metrics_table_column(table, "iteration"))
        return status_fail(error, STATUS_INPUT, "%s: its training_metrics.json holds no iteration", folder);
    EvaluationHistory history;
    Status status = evaluation_history_read(&history, folder, error);
    if (status == STATUS_OK) {
        char *script = make_script(table, &history);
        status = script ? gnuplot_draw(script, WIDTH, HEIGHT, output, error)
                        : status_fail(error, STATUS_FAILED, "no memory for the gnuplot script");
        free(script);
    }
    evaluation_history_fini(&history);
    return status;
}

Status training_curves_draw(const char *folder, const char *output, Error *error)
{
    char path[PATH_ROOM];
    if (snprintf(path, sizeof path, "%s/training_metrics.json", folder) >= PATH_ROOM)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", folder);
    MetricsTable table = {0};
    TRY(metrics_table_read(&table, path, error));
    Status status = draw(&table, folder, output, error);
    metrics_table_fini(&table);
    return status;
}
