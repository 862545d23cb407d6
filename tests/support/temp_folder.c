/* temp_folder.c - mkdtemp and its removal. */
#include "temp_folder.h"

#include "base/check.h"
#include "base/memory.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 16 << 20 };

TempFolder temp_folder_create(void)
{
    TempFolder folder;
    const char *base = getenv("TMPDIR");
    snprintf(folder.path, sizeof folder.path, "%s/dinobatch-test-XXXXXX", base && *base ? base : "/tmp");
    CHECK(mkdtemp(folder.path));
    return folder;
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)facts;
    (void)kind;
    (void)place;
    return remove(path);
}

void temp_folder_destroy(TempFolder *folder)
{
    nftw(folder->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    folder->path[0] = '\0';
}

char *temp_folder_path(const TempFolder *folder, const char *relative)
{
    size_t bytes = strlen(folder->path) + strlen(relative) + 2;
    char *path = memory_alloc(bytes);
    snprintf(path, bytes, "%s/%s", folder->path, relative);
    return path;
}

TempPath temp_folder_in(const TempFolder *folder, const char *format, ...)
{
    TempPath path;
    int used = snprintf(path.text, sizeof path.text, "%s/", folder->path);
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(path.text + used, sizeof path.text - (size_t)used, format, arguments);
    va_end(arguments);
    CHECK(more >= 0 && (size_t)(used + more) < sizeof path.text);
    return path;
}

void temp_folder_write_bytes(const TempFolder *folder, const char *relative, const void *bytes, size_t size)
{
    char *path = temp_folder_path(folder, relative);
    FILE *file = fopen(path, "wbe");
    CHECK(file);
    CHECK(fwrite(bytes, 1, size, file) == size);
    CHECK(fclose(file) == 0);
    memory_free(path);
}

void temp_folder_write(const TempFolder *folder, const char *relative, const char *text)
{
    temp_folder_write_bytes(folder, relative, text, strlen(text));
}

char *temp_folder_read(const TempFolder *folder, const char *relative)
{
    char *path = temp_folder_path(folder, relative);
    char *text = memory_alloc(TEXT_MAX + 1);
    FILE *file = fopen(path, "rbe");
    size_t length = file ? fread(text, 1, TEXT_MAX, file) : 0;
    if (file) fclose(file);
    memory_free(path);
    char *exact = memory_strndup(text, length);
    memory_free(text);
    return exact;
}

void temp_folder_free_text(char *text)
{
    memory_free(text);
}
