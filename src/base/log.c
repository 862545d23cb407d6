/* log.c - the four ways to speak. */
#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

Log log_create(int rank)
{
    Log log = {.rank = rank};
    if (gethostname(log.host, sizeof log.host - 1) != 0) strcpy(log.host, "unknown");
    return log;
}

/* One write per line, so that lines of several ranks do not mix. */
static void say(Log *log, const char *prefix, const char *format, va_list arguments)
{
    char line[2048];
    int used = snprintf(line, sizeof line, "%s", prefix);
    int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, arguments);
    size_t length = (size_t)used + (more < 0 ? 0 : (size_t)more);
    if (length > sizeof line - 2) length = sizeof line - 2;
    line[length] = '\n';
    line[length + 1] = '\0';
    if (log->bar_on_line) fputs("\r\033[K", stderr);
    log->bar_on_line = false;
    fputs(line, stderr);
    if (log->file) {
        char now[32];
        clock_utc(now, sizeof now);
        fprintf(log->file, "%s %s", now, line);
        fflush(log->file);
    }
}

void log_info(Log *log, const char *format, ...)
{
    if (log->rank != 0 || log->silent) return;
    va_list arguments;
    va_start(arguments, format);
    say(log, "", format, arguments);
    va_end(arguments);
}

void log_warning(Log *log, const char *format, ...)
{
    if (log->rank != 0 || log->silent) return;
    va_list arguments;
    va_start(arguments, format);
    say(log, "warning: ", format, arguments);
    va_end(arguments);
}

void log_error(Log *log, const char *format, ...)
{
    char prefix[128] = "error: ";
    if (log->rank != 0) snprintf(prefix, sizeof prefix, "%s rank %d: error: ", log->host, log->rank);
    va_list arguments;
    va_start(arguments, format);
    say(log, prefix, format, arguments);
    va_end(arguments);
}

void log_progress(Log *log, const char *format, ...)
{
    if (log->rank != 0 || log->silent) return;
    va_list arguments;
    va_start(arguments, format);
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
        vfprintf(stderr, format, arguments);
        fflush(stderr);
        log->bar_on_line = true;
    } else {
        say(log, "", format, arguments);
    }
    va_end(arguments);
}
