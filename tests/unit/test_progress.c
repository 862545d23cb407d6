/* test_progress.c - rate, time to go and the look of the line, with an invented clock. */
#include "run/progress.h"

#include <criterion/criterion.h>
#include <string.h>

static Progress at_rest(Log *log, int64_t first, int64_t total)
{
    Progress progress = progress_begin(log, "training", first, total, 10);
    progress.last_time = 100;
    progress.terminal = false;
    return progress;
}

Test(progress, constant_rate_gives_exact_rate_and_time_left)
{
    Log log = {0};
    char text[256];
    Progress progress = at_rest(&log, 0, 100);
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect_str_eq(text, "training 0/100   0%  -- steps/s, -- left");
    for (int i = 1; i <= 40; i++)
        progress_note(&progress, i, 100 + 0.5 * i);
    progress_format(&progress, "loss 9.5", 200, text, sizeof text);
    cr_expect_str_eq(text, "training 40/100  40%  2 steps/s, 0:30 left  loss 9.5");
}

Test(progress, slow_steps_and_long_times_are_readable)
{
    Log log = {0};
    char text[256];
    Progress progress = at_rest(&log, 0, 10000);
    progress_note(&progress, 1, 104);
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect_str_eq(text, "training 1/10000   0%  4 s/step, 11:06:36 left");
    progress.unit = "images";
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect_str_eq(text, "training 1/10000   0%  4 s/image, 11:06:36 left");
    progress = at_rest(&log, 0, 1000001);
    progress_note(&progress, 1, 102);
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect(strstr(text, "23d 03h left"), "%s", text);
}

/* The rate follows a change within a minute, and one slow step (an evaluation) does not rule it for long. */
Test(progress, smoothing_follows_a_change)
{
    Log log = {0};
    Progress progress = at_rest(&log, 0, 100000);
    double now = 100;
    int64_t done = 0;
    for (int i = 0; i < 300; i++)
        progress_note(&progress, ++done, now += 0.1);
    for (int i = 0; i < 300; i++)
        progress_note(&progress, ++done, now += 0.2);
    double step = progress.step_time / progress.weight;
    cr_expect(step > 0.19 && step <= 0.2 + 1e-9, "%g", step);
}

/* A resumed run must not count the steps that another process made. */
Test(progress, resumed_steps_do_not_count_as_speed)
{
    Log log = {0};
    char text[256];
    Progress progress = at_rest(&log, 50, 100);
    progress_note(&progress, 60, 110);
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect(strstr(text, "60/100  60%  1 s/step, 0:40 left"), "%s", text);
    progress_note(&progress, 60, 115);
    progress_note(&progress, 60, 105); /* nothing done, clock going back: no change, no NaN */
    cr_expect_float_eq(progress.step_time / progress.weight, 1, 1e-12);
}

Test(progress, terminal_has_a_bar_and_fits_its_width)
{
    Log log = {0};
    char text[256];
    Progress progress = at_rest(&log, 0, 4);
    progress.terminal = true;
    progress_note(&progress, 2, 102);
    progress_format(&progress, "a detail that is long", 200, text, sizeof text);
    cr_expect(strstr(text, "training [============>           ] 2/4  50%"), "%s", text);
    progress_format(&progress, "a detail that is long", 40, text, sizeof text);
    cr_expect_eq(strlen(text), 40);
    progress_note(&progress, 4, 104);
    progress_format(&progress, "", 200, text, sizeof text);
    cr_expect(strstr(text, "[========================] 4/4 100%"), "%s", text);
}
