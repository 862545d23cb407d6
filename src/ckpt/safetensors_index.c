/* safetensors_index.c - see safetensors_index.h. */
#include "ckpt/safetensors_index.h"

#include "base/memory.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INDEX_MAX = 16 << 20, PARTS_MAX = 1024, NAME_MAX_BYTES = 200 };

/* While an index is read. */
typedef struct {
    SafetensorsFile *file;
    size_t folder;            /* bytes of the path before the file's name */
    bool *claimed[PARTS_MAX]; /* [tensors of the part] listed by the index; owned */
    Error *error;
} Reading;

/* All of the file, terminated; memory_free. */
static Status read_text(const char *path, char **text, size_t *length, Error *error)
{
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *text = NULL;
    if (fd < 0) return status_fail(error, STATUS_INPUT, "%s: cannot open: %s", path, strerror(errno));
    Status status = STATUS_OK;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size > INDEX_MAX)
        status = status_fail(error, STATUS_INPUT, "%s: no file of at most %d bytes", path, INDEX_MAX);
    size_t done = 0, size = status == STATUS_OK ? (size_t)facts.st_size : 0;
    *text = memory_alloc(size + 1);
    while (done < size) {
        ssize_t n = read(fd, *text + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    close(fd);
    (*text)[done] = '\0';
    *length = done;
    if (status == STATUS_OK && done < size)
        status = status_fail(error, STATUS_INPUT, "%s: cannot be read", path);
    return status;
}

/* A file beside the index. */
static bool is_plain(const char *name)
{
    static const char ending[] = ".safetensors";
    size_t length = strlen(name), tail = sizeof ending - 1;
    return length > tail && length <= NAME_MAX_BYTES && name[0] != '.' && !strchr(name, '/') &&
           strcmp(name + length - tail, ending) == 0;
}

/* The part of that name, opened when it is first met; -1: see the error. */
static int part_of(Reading *r, const char *name)
{
    SafetensorsFile *file = r->file;
    size_t folder = r->folder, size = folder + strlen(name) + 1;
    int part = 0;
    while (part < file->part_count && strcmp(file->parts[part].path + folder, name) != 0)
        part++;
    if (part < file->part_count) return part;
    if (part == PARTS_MAX) {
        status_fail(r->error, STATUS_INPUT, "%s: names more than %d files", file->path, PARTS_MAX);
        return -1;
    }
    char *path = memory_alloc(size);
    snprintf(path, size, "%.*s%s", (int)folder, file->path, name);
    Status status = safetensors_open(&file->parts[part], path, r->error);
    memory_free(path);
    if (status != STATUS_OK) {
        status_prefix(r->error, status, "%s", file->path);
        return -1;
    }
    r->claimed[part] = memory_alloc_array((size_t)file->parts[part].count + 1, sizeof **r->claimed);
    return file->part_count++;
}

static Status claim(Reading *r, const cJSON *entry)
{
    const char *path = r->file->path, *name = entry->string;
    if (!cJSON_IsString(entry) || !is_plain(entry->valuestring))
        return status_fail(r->error, STATUS_INPUT,
                           "%s: %.200s: expected a FILE.safetensors of the same folder", path, name);
    int part = part_of(r, entry->valuestring);
    if (part < 0) return STATUS_INPUT;
    const SafetensorsFile *from = &r->file->parts[part];
    const SafetensorsTensor *tensor = safetensors_find(from, name);
    if (!tensor)
        return status_fail(r->error, STATUS_INPUT, "%s: %.200s: is not in %s", path, name, from->path);
    bool *claimed = &r->claimed[part][tensor - from->tensors];
    if (*claimed) return status_fail(r->error, STATUS_INPUT, "%s: %.200s: is there twice", path, name);
    *claimed = true;
    r->file->count++;
    return STATUS_OK;
}

/* Every part's tensors become the file's. */
static Status take_tensors(Reading *r)
{
    SafetensorsFile *file = r->file;
    int64_t taken = 0;
    for (int p = 0; p < file->part_count; p++)
        for (int64_t t = 0; t < file->parts[p].count; t++)
            if (!r->claimed[p][t])
                return status_fail(r->error, STATUS_INPUT, "%s: %.200s of %s is not in it", file->path,
                                   file->parts[p].tensors[t].name, file->parts[p].path);
    file->tensors = memory_alloc_array((size_t)file->count + 1, sizeof *file->tensors);
    for (int p = 0; p < file->part_count; p++) {
        SafetensorsFile *part = &file->parts[p];
        for (int64_t t = 0; t < part->count; t++) {
            file->tensors[taken] = part->tensors[t];
            file->tensors[taken++].part = p;
        }
        part->count = 0; /* their names are the file's now */
    }
    return safetensors_sort(file, r->error);
}

static Status read_map(Reading *r, const cJSON *root)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map"), *entry;
    if (!cJSON_IsObject(root) || !cJSON_IsObject(map))
        return status_fail(r->error, STATUS_INPUT,
                           "%s: no index of safetensors files: there is no weight_map", r->file->path);
    r->file->parts = memory_alloc_array(PARTS_MAX, sizeof *r->file->parts);
    cJSON_ArrayForEach(entry, map)
    {
        Status status = claim(r, entry);
        if (status != STATUS_OK) {
            r->file->count = 0;
            return status;
        }
    }
    Status status = take_tensors(r);
    if (status != STATUS_OK && !r->file->tensors) r->file->count = 0;
    return status;
}

Status safetensors_index_open(SafetensorsFile *file, const char *path, Error *error)
{
    char *text;
    size_t length = 0;
    *file = (SafetensorsFile){.path = memory_strdup(path), .fd = -1};
    Reading *reading = memory_alloc(sizeof *reading);
    const char *slash = strrchr(path, '/');
    *reading = (Reading){.file = file, .folder = slash ? (size_t)(slash - path) + 1 : 0, .error = error};
    Status status = read_text(path, &text, &length, error);
    cJSON *root = NULL;
    if (status == STATUS_OK) {
        const char *end = text;
        if (!safetensors_has_nul(text, length)) root = cJSON_ParseWithLengthOpts(text, length, &end, 0);
        if (!root || end + strspn(end, " \t\r\n") != text + length)
            status = status_fail(error, STATUS_INPUT, "%s: not JSON", path);
        else
            status = read_map(reading, root);
    }
    cJSON_Delete(root);
    for (int p = 0; p < file->part_count; p++)
        memory_free(reading->claimed[p]);
    memory_free(reading);
    memory_free(text);
    if (status != STATUS_OK) safetensors_close(file);
    return status;
}
