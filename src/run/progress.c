/* progress.c - smoothing and drawing. */
#include "run/progress.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double SMOOTHING_SECONDS = 20; /* older steps than this hardly count */
static const double DRAW_SECONDS = 0.1;     /* between two drawings on a terminal */

enum { BAR_COLUMNS = 24, PLAIN_COLUMNS = 400, LINE_BYTES = 512 };

Progress progress_begin(Log *log, const char *what, int64_t first, int64_t total, int64_t every)
{
    double now = clock_seconds();
    return (Progress){.log = log,
                      .what = what,
                      .unit = "steps",
                      .total = total,
                      .every = every < 1 ? 1 : every,
                      .done = first,
                      .last_time = now,
                      .terminal = isatty(STDERR_FILENO) != 0,
                      .last_drawn = now - 2 * DRAW_SECONDS};
}

/* An exponentially weighted mean of seconds per step; `weight` removes the bias of its start. */
void progress_note(Progress *progress, int64_t done, double now)
{
    double seconds = now - progress->last_time;
    int64_t steps = done - progress->done;
    if (steps <= 0 || seconds < 0) return;
    double keep = exp(-seconds / SMOOTHING_SECONDS);
    if (keep > 1 - 1e-6) keep = 1 - 1e-6; /* two updates within the clock's resolution */
    progress->step_time = keep * progress->step_time + (1 - keep) * seconds / (double)steps;
    progress->weight = keep * progress->weight + (1 - keep);
    progress->done = done;
    progress->last_time = now;
}

static void format_duration(double seconds, char text[32])
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 86400)
        snprintf(text, 32, "%lldd %02lldh", (long long)(s / 86400), (long long)(s / 3600 % 24));
    else if (s >= 3600)
        snprintf(text, 32, "%lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60),
                 (long long)(s % 60));
    else
        snprintf(text, 32, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
}

static void format_speed(const Progress *progress, char text[96])
{
    char left[32] = "?";
    double step = progress->weight > 0 ? progress->step_time / progress->weight : 0;
    if (step <= 0) {
        snprintf(text, 96, "-- %.40s/s, -- left", progress->unit);
        return;
    }
    format_duration(step * (double)(progress->total - progress->done), left);
    if (step < 1)
        snprintf(text, 96, "%.3g %.20s/s, %s left", 1 / step, progress->unit, left);
    else /* of one, so without the plural's s */
        snprintf(text, 96, "%.3g s/%.*s, %s left", step, (int)strlen(progress->unit) - 1, progress->unit,
                 left);
}

void progress_format(const Progress *progress, const char *detail, int width, char *text, int size)
{
    char bar[BAR_COLUMNS + 3] = "", speed[96];
    double share = progress->total > 0 ? (double)progress->done / (double)progress->total : 0;
    if (progress->terminal) {
        int filled = (int)(share * BAR_COLUMNS);
        bar[0] = '[';
        for (int i = 0; i < BAR_COLUMNS; i++)
            bar[1 + i] = i < filled ? '=' : i == filled ? '>' : ' ';
        bar[BAR_COLUMNS + 1] = ']';
    }
    format_speed(progress, speed);
    snprintf(text, (size_t)size, "%s %s%s%lld/%lld %3d%%  %s%s%s", progress->what, bar,
             progress->terminal ? " " : "", (long long)progress->done, (long long)progress->total,
             (int)(share * 100), speed, *detail ? "  " : "", detail);
    if (width < size) text[width < 0 ? 0 : width] = '\0';
}

static int terminal_columns(void)
{
    struct winsize window = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col < 20) return 80;
    return window.ws_col;
}

void progress_update(Progress *progress, int64_t done, const char *detail)
{
    char text[LINE_BYTES];
    int64_t before = progress->done;
    double now = clock_seconds();
    progress_note(progress, done, now);
    bool last = done >= progress->total;
    if (progress->terminal) {
        if (!last && now - progress->last_drawn < DRAW_SECONDS) return;
        progress_format(progress, detail, terminal_columns() - 1, text, sizeof text);
    } else {
        if (!last && before / progress->every == done / progress->every) return;
        progress_format(progress, detail, PLAIN_COLUMNS, text, sizeof text);
    }
    progress->last_drawn = now;
    log_progress(progress->log, "%s", text);
}

void progress_end(Progress *progress)
{
    if (!progress->log->bar_on_line) return;
    fputc('\n', stderr);
    progress->log->bar_on_line = false;
}

void progress_phases_tell(void *context, const char *what, const char *unit, int64_t done, int64_t total)
{
    ProgressPhases *phases = context;
    if (strcmp(phases->what, what) != 0) {
        progress_phases_end(phases);
        snprintf(phases->what, sizeof phases->what, "%s", what);
        phases->progress = progress_begin(phases->log, phases->what, 0, total, total / 20);
        phases->progress.unit = unit;
    }
    progress_update(&phases->progress, done, "");
}

void progress_phases_end(ProgressPhases *phases)
{
    if (*phases->what) progress_end(&phases->progress);
    *phases->what = '\0';
}
