/* retention.c - listing, pruning, last_checkpoint. */
#include "ckpt/retention.h"

#include "base/atomic_file.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static const char last_name[] = "last_checkpoint";

static Status join(const char *folder, const char *name, char *path, size_t size, Error *error)
{
    int length = snprintf(path, size, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= size)
        return status_fail(error, STATUS_INPUT, "%s: the name of the folder is too long", folder);
    return STATUS_OK;
}

Status retention_path(const char *folder, int64_t number, char *path, size_t size, Error *error)
{
    char name[40];
    snprintf(name, sizeof name, "model_%07" PRId64 ".h5", number);
    return join(folder, name, path, size, error);
}

/* The number of "model_0001249.h5", or -1. */
static int64_t parse_name(const char *name)
{
    static const char prefix[] = "model_";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return -1;
    const char *digits = name + sizeof prefix - 1;
    size_t count = strspn(digits, "0123456789");
    if (count < 7 || count > 18 || strcmp(digits + count, ".h5") != 0) return -1;
    return strtoll(digits, NULL, 10);
}

int64_t retention_number(const char *path)
{
    const char *slash = strrchr(path, '/');
    return parse_name(slash ? slash + 1 : path);
}

static int compare_numbers(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

Status retention_list(const char *folder, RetentionList *list, Error *error)
{
    *list = (RetentionList){0};
    DIR *handle = opendir(folder);
    if (!handle && errno == ENOENT) return STATUS_OK;
    if (!handle) return status_fail(error, STATUS_INPUT, "%s: %s", folder, strerror(errno));
    int64_t capacity = 0;
    for (struct dirent *entry; (entry = readdir(handle));) {
        int64_t number = parse_name(entry->d_name);
        if (number < 0) continue;
        if (list->count == capacity) {
            int64_t grown = capacity ? 2 * capacity : 32;
            list->numbers = memory_grow(list->numbers, (size_t)capacity * sizeof *list->numbers,
                                        (size_t)grown * sizeof *list->numbers);
            capacity = grown;
        }
        list->numbers[list->count++] = number;
    }
    closedir(handle);
    if (list->count) qsort(list->numbers, (size_t)list->count, sizeof *list->numbers, compare_numbers);
    return STATUS_OK;
}

void retention_list_fini(RetentionList *list)
{
    memory_free(list->numbers);
    *list = (RetentionList){0};
}

int64_t retention_read_last(const char *folder)
{
    char path[PATH_BYTES], name[64] = "";
    if (join(folder, last_name, path, sizeof path, NULL) != STATUS_OK) return -1;
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    bool read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    name[strcspn(name, "\n")] = '\0';
    return read ? parse_name(name) : -1;
}

Status retention_write_last(const char *folder, int64_t number, Error *error)
{
    char path[PATH_BYTES], text[40];
    TRY(join(folder, last_name, path, sizeof path, error));
    snprintf(text, sizeof text, "model_%07" PRId64 ".h5\n", number);
    return atomic_file_write_text(path, text, error);
}

Status retention_prune(const char *folder, int64_t newest, int keep, int64_t keep_every, Error *error)
{
    if (keep <= 0) return STATUS_OK;
    RetentionList list;
    TRY(retention_list(folder, &list, error));
    int64_t usable = 0; /* how many count: those up to `newest` */
    while (usable < list.count && list.numbers[usable] <= newest)
        usable++;
    Status status = STATUS_OK;
    for (int64_t i = 0; i + keep < usable && status == STATUS_OK; i++) {
        char path[PATH_BYTES];
        if (keep_every > 0 && (list.numbers[i] + 1) % keep_every == 0) continue;
        status = retention_path(folder, list.numbers[i], path, sizeof path, error);
        if (status == STATUS_OK && unlink(path) != 0 && errno != ENOENT)
            status = status_fail(error, STATUS_FAILED, "%s: cannot remove: %s", path, strerror(errno));
    }
    retention_list_fini(&list);
    return status;
}

Status retention_remove_temporary(const char *folder, Error *error)
{
    DIR *handle = opendir(folder);
    if (!handle) return status_fail(error, STATUS_FAILED, "%s: %s", folder, strerror(errno));
    Status status = STATUS_OK;
    for (struct dirent *entry; status == STATUS_OK && (entry = readdir(handle));) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 4, ".tmp") != 0) continue;
        char path[PATH_BYTES];
        status = join(folder, entry->d_name, path, sizeof path, error);
        if (status == STATUS_OK && unlink(path) != 0 && errno != ENOENT)
            status = status_fail(error, STATUS_FAILED, "%s: cannot remove: %s", path, strerror(errno));
    }
    closedir(handle);
    return status;
}
