/* gnuplot.c - see gnuplot.h. */
#include "report/gnuplot.h"

#include "base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PATH_ROOM = 4096, COMMAND_MISSING = 127 };

typedef struct {
    char script[PATH_ROOM], picture[PATH_ROOM], messages[PATH_ROOM];
} Files;

static Status name_files(Files *files, const char *output, Error *error)
{
    /* the longest suffix must fit, and gnuplot's quotes must not be broken */
    if (strlen(output) + 16 > PATH_ROOM)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", output);
    if (strpbrk(output, "'\n")) return status_fail(error, STATUS_INPUT, "%s: a quote in the path", output);
    snprintf(files->script, sizeof files->script, "%s.gp", output);
    snprintf(files->picture, sizeof files->picture, "%s.tmp", output);
    snprintf(files->messages, sizeof files->messages, "%s.err", output);
    return STATUS_OK;
}

static Status write_script(const Files *files, const char *script, const GnuplotPage *page, Error *error)
{
    FILE *file = fopen(files->script, "w");
    if (!file) return status_fail(error, STATUS_FAILED, "%s: %s", files->script, strerror(errno));
    fprintf(file, "set terminal pngcairo size %d,%d font 'sans,%.2f' background '%s'\nset output '%s'\n%s",
            page->width, page->height, page->points, page->background, files->picture, script);
    if (fclose(file) == 0) return STATUS_OK;
    return status_fail(error, STATUS_FAILED, "%s: %s", files->script, strerror(errno));
}

/* The child's exit status, COMMAND_MISSING when it cannot be started. */
static int run_child(const Files *files)
{
    char *argv[] = {"gnuplot", (char *)files->script, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, files->messages, O_WRONLY | O_CREAT | O_TRUNC,
                                     0644);
    pid_t child;
    int failed = posix_spawnp(&child, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed) return COMMAND_MISSING;
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The last line of its complaint, which says why; those before it quote the script. */
static void last_message(const Files *files, char *line, int size)
{
    char next[256];
    line[0] = '\0';
    FILE *file = fopen(files->messages, "r");
    if (!file) return;
    while (fgets(next, sizeof next, file))
        if (strspn(next, " \t\n^") != strlen(next)) snprintf(line, (size_t)size, "%s", next);
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
}

int gnuplot_character(const char *text)
{
    unsigned char lead = (unsigned char)*text;
    int bytes = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    for (int i = 1; i < bytes; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80) return 0;
    return bytes;
}

void gnuplot_quote(FILE *out, const char *text)
{
    fputc('\'', out);
    while (*text) {
        int bytes = gnuplot_character(text);
        if (bytes == 0 || (unsigned char)*text < ' ')
            fputc('?', out);
        else if (*text == '\'')
            fputs("''", out);
        else
            fwrite(text, 1, (size_t)bytes, out);
        text += bytes ? bytes : 1;
    }
    fputc('\'', out);
}

Status gnuplot_draw(const char *script, const GnuplotPage *page, const char *output, Error *error)
{
    Files files;
    TRY(name_files(&files, output, error));
    TRY(write_script(&files, script, page, error));
    int exit_status = run_child(&files);
    char message[256];
    last_message(&files, message, sizeof message);
    unlink(files.script);
    unlink(files.messages);
    if (exit_status == 0) return atomic_file_commit(files.picture, output, error);
    unlink(files.picture);
    if (exit_status == COMMAND_MISSING)
        return status_fail(
            error, STATUS_FAILED,
            "gnuplot is needed for curves and captions and cannot be started (package gnuplot-nox)");
    return status_fail(error, STATUS_FAILED, "gnuplot failed with status %d: %s", exit_status, message);
}
