/* training_curves.c - see training_curves.h. */
#include "report/training_curves.h"

#include "report/evaluation_history.h"
#include "report/gnuplot.h"
#include "run/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096, POINTS = 300 };

static const GnuplotPage PAGE_OF_ONE = {1640, 1000, 13, "#ffffff"},
                         PAGE_OF_SEVERAL = {1640, 1400, 13, "#ffffff"};

/* Colours that people with any kind of colour vision tell apart (Okabe and Ito). */
static const char *const COLORS[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                     "#e69f00", "#56b4e9", "#222222", "#999999"};
enum { COLOR_COUNT = sizeof COLORS / sizeof *COLORS };

/* A line of one panel. */
typedef struct {
    const char *key, *title, *color;
} Curve;

enum { CURVES_MAX = 5 };

typedef struct {
    const char *title, *label, *settings;
    Curve curves[CURVES_MAX];
    int second_axis; /* the curves from this one on have an axis of their own; 0: none */
} Panel;

#define SHARES "set yrange [0:1]\n"

static const Panel LOSSES = {
    "Losses",
    "loss",
    "",
    {{"total_loss", "total", "#222222"},
     {"dino_global_crops_loss", "DINO, global crops", "#0072b2"},
     {"dino_local_crops_loss", "DINO, local crops", "#56b4e9"},
     {"ibot_loss", "iBOT", "#d55e00"},
     {"koleo_loss", "KoLeo", "#009e73"}},
    0,
};

static const Panel COLLAPSE = {
    "Collapse figures (1: as spread as can be)",
    "share",
    SHARES,
    {{"dino_teacher_entropy_share", "DINO targets: entropy / ln K", "#0072b2"},
     {"ibot_teacher_entropy_share", "iBOT targets: entropy / ln K", "#d55e00"},
     {"dino_prototypes_used", "DINO prototypes in use", "#56b4e9"},
     {"ibot_prototypes_used", "iBOT prototypes in use", "#e69f00"},
     {"feature_std", "spread of features", "#009e73"}},
    0,
};

static const Panel RATES = {
    "Schedules",
    "learning rate",
    "set y2label 'weight decay, momentum'\nset y2tics\nset ytics nomirror\nset y2range [0:1]\n"
    "set key at graph 0.5,0.85\n",
    {{"lr", "learning rate", "#222222"},
     {"wd", "weight decay", "#cc79a7"},
     {"mom", "teacher momentum", "#009e73"}},
    1,
};

/* Of several runs: one figure each; the k-NN accuracy follows. */
static const Panel SINGLE[] = {
    {"Total loss", "loss", "", {{"total_loss", "", ""}}, 0},
    {"DINO loss, global crops", "loss", "", {{"dino_global_crops_loss", "", ""}}, 0},
    {"DINO loss, local crops", "loss", "", {{"dino_local_crops_loss", "", ""}}, 0},
    {"iBOT loss", "loss", "", {{"ibot_loss", "", ""}}, 0},
    {"KoLeo loss", "loss", "", {{"koleo_loss", "", ""}}, 0},
    {"Learning rate", "learning rate", "", {{"lr", "", ""}}, 0},
    {"Spread of features", "share", SHARES, {{"feature_std", "", ""}}, 0},
    {"DINO targets: entropy / ln K", "share", SHARES, {{"dino_teacher_entropy_share", "", ""}}, 0},
    {"DINO prototypes in use", "share", SHARES, {{"dino_prototypes_used", "", ""}}, 0},
    {"iBOT targets: entropy / ln K", "share", SHARES, {{"ibot_teacher_entropy_share", "", ""}}, 0},
    {"iBOT prototypes in use", "share", SHARES, {{"ibot_prototypes_used", "", ""}}, 0},
};

enum { SINGLES = sizeof SINGLE / sizeof *SINGLE };

typedef struct {
    const char *name;
    MetricsTable table;
    EvaluationHistory history;
} CurvesRun;

typedef struct {
    int count;
    CurvesRun runs[TRAINING_CURVES_RUNS_MAX];
    double last; /* iteration of any of them */
} CurvesRuns;

/* A data block $KEY_RUN of (iteration, value): means of spans of lines, so that no line of a panel has more
 * than POINTS points. */
static void print_block(FILE *out, const MetricsTable *table, const char *key, int run)
{
    const double *iterations = metrics_table_column(table, "iteration");
    const double *values = metrics_table_column(table, key);
    int64_t span = (table->lines + POINTS - 1) / POINTS;
    fprintf(out, "$%s_%d << EOD\n", key, run);
    for (int64_t first = 0; first < table->lines; first += span) {
        double at = 0.0, sum = 0.0;
        int64_t count = 0;
        for (int64_t i = first; i < first + span && i < table->lines; i++) {
            if (!isfinite(values[i])) continue;
            at += iterations[i];
            sum += values[i];
            count++;
        }
        if (count > 0) fprintf(out, "%.1f %.9g\n", at / (double)count, sum / (double)count);
    }
    fprintf(out, "EOD\n");
}

/* Losses begin at 0, or a little below it where one is, not at the next tick. */
static void print_range(FILE *out, const CurvesRuns *runs, const Panel *panel)
{
    double least = 0.0, most = 0.0;
    for (int r = 0; r < runs->count; r++)
        for (int i = 0; i < CURVES_MAX && panel->curves[i].key; i++) {
            const MetricsTable *table = &runs->runs[r].table;
            const double *values = metrics_table_column(table, panel->curves[i].key);
            for (int64_t line = 0; values && line < table->lines; line++) {
                if (!isfinite(values[line])) continue;
                least = fmin(least, values[line]);
                most = fmax(most, values[line]);
            }
        }
    if (least > -0.02 * most) fprintf(out, "set yrange [%.9g:*]\n", fmin(least, -0.01 * most));
}

static void print_panel(FILE *out, const CurvesRuns *runs, const Panel *panel)
{
    int drawn = 0;
    for (int r = 0; r < runs->count; r++)
        for (int i = 0; i < CURVES_MAX && panel->curves[i].key; i++)
            if (metrics_table_column(&runs->runs[r].table, panel->curves[i].key))
                print_block(out, &runs->runs[r].table, panel->curves[i].key, r);
    fprintf(out, "set title '%s'\nset ylabel '%s'\n", panel->title, panel->label);
    if (panel == &LOSSES) print_range(out, runs, panel);
    fprintf(out, "%s", panel->settings);
    for (int r = 0; r < runs->count; r++)
        for (int i = 0; i < CURVES_MAX && panel->curves[i].key; i++) {
            const Curve *curve = &panel->curves[i];
            if (!metrics_table_column(&runs->runs[r].table, curve->key)) continue;
            fprintf(out, "%s $%s_%d using 1:2%s with lines lw 2 lc rgb '%s' dt %d", drawn++ ? "," : "plot",
                    curve->key, r, panel->second_axis > 0 && i >= panel->second_axis ? " axes x1y2" : "",
                    runs->count > 1 ? COLORS[r % COLOR_COUNT] : curve->color, 1 + r / COLOR_COUNT);
            fprintf(out, runs->count > 1 ? " notitle" : " title '%s'", curve->title);
        }
    fprintf(out, "%s\n", drawn ? "" : "set multiplot next");
    fprintf(out, "set yrange [*:*]\n");
}

/* The place of k among a run's, or -1. */
static int place_of_k(const EvaluationHistory *history, int64_t k)
{
    for (int i = 0; i < history->k_count; i++)
        if (history->k[i] == k) return i;
    return -1;
}

static void print_history(FILE *out, const EvaluationHistory *history, int run)
{
    fprintf(out, "$knn_%d << EOD\n", run);
    for (int64_t i = 0; i < history->count; i++) {
        fprintf(out, "%lld", (long long)history->points[i].iteration);
        for (int k = 0; k < history->k_count; k++)
            fprintf(out, isnan(history->points[i].top1[k]) ? " NaN" : " %.4f", history->points[i].top1[k]);
        fprintf(out, "\n");
    }
    fprintf(out, "EOD\n");
}

#define KNN_END "set offsets 0,0,0,0\nset key at graph 1.02,1\n"

static void print_no_history(FILE *out)
{
    fprintf(out, "set label 1000 'no evaluation' at graph 0.5,0.5 center\n"
                 "set yrange [0:100]\nplot NaN notitle\nunset label 1000\nset yrange [*:*]\n" KNN_END);
}

/* All k of one run; of several runs the first k of the first run that has one. */
static void print_knn(FILE *out, const CurvesRuns *runs)
{
    int64_t k = -1;
    int drawn = 0;
    for (int r = runs->count - 1; r >= 0; r--)
        if (runs->runs[r].history.k_count > 0) k = runs->runs[r].history.k[0];
    if (runs->count > 1 && k > 0)
        fprintf(out, "set title 'k-NN of the teacher, k = %lld'\n", (long long)k);
    else
        fprintf(out, "set title 'k-NN of the teacher'\n");
    fprintf(out, "set ylabel 'top-1 accuracy, %%'\nset offsets 0,0,graph 0.08,graph 0.05\n"
                 "set key at graph 0.03,0.97\n");
    if (k < 0) {
        print_no_history(out);
        return;
    }
    for (int r = 0; r < runs->count; r++)
        if (runs->runs[r].history.k_count > 0) print_history(out, &runs->runs[r].history, r);
    for (int r = 0; r < runs->count; r++) {
        const EvaluationHistory *history = &runs->runs[r].history;
        for (int i = 0; i < history->k_count; i++) {
            if (runs->count > 1 && i != place_of_k(history, k)) continue;
            fprintf(out, "%s $knn_%d using 1:%d with linespoints pt 7 ps 0.9 lw 2 lc rgb '%s'",
                    drawn++ ? "," : "plot", r, i + 2, COLORS[(runs->count > 1 ? r : i) % COLOR_COUNT]);
            if (runs->count > 1)
                fprintf(out, " dt %d notitle", 1 + r / COLOR_COUNT);
            else
                fprintf(out, " title 'k = %lld'", (long long)history->k[i]);
        }
    }
    fprintf(out, "\n" KNN_END);
}

/* The runs' names in their colours, over all panels. */
static void print_names(FILE *out, const CurvesRuns *runs)
{
    for (int r = 0; r < runs->count; r++) {
        double x = (r + 0.5) / runs->count;
        fprintf(out,
                "set arrow %d from screen %.4f,0.975 to screen %.4f,0.975 nohead lw 3 lc rgb '%s' dt %d\n",
                r + 1, x - 0.025, x - 0.005, COLORS[r % COLOR_COUNT], 1 + r / COLOR_COUNT);
        fprintf(out, "set label %d ", r + 1);
        gnuplot_quote(out, runs->runs[r].name);
        fprintf(out, " at screen %.4f,0.975 left noenhanced\n", x);
    }
}

/* memory of open_memstream: free() */
static char *make_script(const CurvesRuns *runs)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    fprintf(
        out,
        "set encoding utf8\nset grid lt 1 lw 0.6 lc rgb '#dddddd'\nset border lc rgb '#444444'\n"
        "set key at graph 1.02,1 left top vertical Left reverse samplen 1.5 width -3\nset title font ',15'\n"
        "set xlabel 'iteration'\nset xrange [0:%.17g]\nset datafile missing 'NaN'\n",
        runs->last > 0 ? runs->last : 1.0);
    if (runs->count > 1) {
        fprintf(out, "set multiplot layout 4,3 margins 0.06,0.985,0.055,0.92 spacing 0.075,0.075\n"
                     "set format x '%%.0s%%c'\nunset xlabel\n");
        print_names(out, runs);
        print_panel(out, runs, &SINGLE[0]);
        for (int r = 0; r < runs->count; r++)
            fprintf(out, "unset arrow %d\nunset label %d\n", r + 1, r + 1);
        for (int i = 1; i < SINGLES; i++) {
            if (i >= SINGLES - 2) fprintf(out, "set xlabel 'iteration'\n"); /* the last row, with the k-NN */
            print_panel(out, runs, &SINGLE[i]);
        }
        print_knn(out, runs);
    } else {
        fprintf(out, "set multiplot layout 2,2 margins 0.05,0.94,0.07,0.95 spacing 0.235,0.15\n");
        print_panel(out, runs, &LOSSES);
        print_knn(out, runs);
        print_panel(out, runs, &COLLAPSE);
        print_panel(out, runs, &RATES);
    }
    fprintf(out, "unset multiplot\n");
    return fclose(out) == 0 ? text : (free(text), NULL);
}

/* The last part of a path. */
static const char *name_of(const char *folder)
{
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    while (length > 0 && folder[length - 1] != '/')
        length--;
    return folder + length;
}

static Status read_run(CurvesRuns *runs, const char *folder, Error *error)
{
    CurvesRun *run = &runs->runs[runs->count++];
    char path[PATH_ROOM];
    run->name = name_of(folder);
    if (snprintf(path, sizeof path, "%s/training_metrics.json", folder) >= PATH_ROOM)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", folder);
    TRY(metrics_table_read(&run->table, path, error));
    const double *iterations = metrics_table_column(&run->table, "iteration");
    if (run->table.lines == 0 || !iterations)
        return status_fail(error, STATUS_INPUT, "%s: its training_metrics.json holds no iteration", folder);
    runs->last = fmax(runs->last, iterations[run->table.lines - 1]);
    return evaluation_history_read(&run->history, folder, error);
}

Status training_curves_draw(const char *const *folders, int count, const char *output, Error *error)
{
    if (count > TRAINING_CURVES_RUNS_MAX)
        return status_fail(error, STATUS_INPUT, "%d runs: at most %d fit into one picture", count,
                           TRAINING_CURVES_RUNS_MAX);
    CurvesRuns runs = {0};
    Status status = STATUS_OK;
    for (int i = 0; i < count && status == STATUS_OK; i++)
        status = read_run(&runs, folders[i], error);
    if (status == STATUS_OK) {
        char *script = make_script(&runs);
        status = script ? gnuplot_draw(script, count > 1 ? &PAGE_OF_SEVERAL : &PAGE_OF_ONE, output, error)
                        : status_fail(error, STATUS_FAILED, "no memory for the gnuplot script");
        free(script);
    }
    for (int i = 0; i < runs.count; i++) {
        metrics_table_fini(&runs.runs[i].table);
        evaluation_history_fini(&runs.runs[i].history);
    }
    return status;
}
