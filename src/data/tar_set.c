/* tar_set.c - an index of image members: 12 bytes and the name each. */
#include "data/tar_set.h"

#include "base/memory.h"
#include "data/data_set.h"
#include "data/item_runs.h"
#include "data/shard_files.h"
#include "data/tar_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    ShardFiles files;
    ItemRuns runs;     /* one per stretch of members of one folder; label: number in `folder_classes` */
    TextTable names;   /* of members, without folder */
    uint64_t *offsets; /* [count] */
    uint32_t *sizes;   /* [count] */
    int64_t count, capacity;
    bool class_by_archive;
} TarSet;

static void append_place(TarSet *set, int64_t offset, int64_t size)
{
    if (set->count == set->capacity) {
        int64_t capacity = 2 * set->capacity + 1024;
        set->offsets = memory_grow(set->offsets, (size_t)set->count * sizeof *set->offsets,
                                   (size_t)capacity * sizeof *set->offsets);
        set->sizes = memory_grow(set->sizes, (size_t)set->count * sizeof *set->sizes,
                                 (size_t)capacity * sizeof *set->sizes);
        set->capacity = capacity;
    }
    set->offsets[set->count] = (uint64_t)offset;
    set->sizes[set->count] = (uint32_t)size;
    set->count++;
}

/* Why a member whose name is an image's is passed over; NULL: it is not. */
static const char *refusal(const TarMember *member)
{
    if (member->kind == TAR_LINK) return "a link inside an archive";
    if (member->kind != TAR_FILE) return "not a regular file";
    if (member->size > DATA_KIND_MAX_BYTES) return "too many bytes for an image";
    if (strlen(member->name) + 1 > DATA_SET_KEY_MAX / 2) return "its name is too long";
    return NULL;
}

static void add_member(TarSet *set, int64_t file, const TarMember *member, DataNotes *notes)
{
    const char *path = member->name;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (!data_kind_is_image_name(path)) return;
    const char *reason = refusal(member);
    if (reason) {
        char location[DATA_SET_KEY_MAX];
        snprintf(location, sizeof location, "%s:%s", shard_files_path(&set->files, file), path);
        data_notes_add(notes, location, reason);
        return;
    }
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char folder[DATA_SET_KEY_MAX];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 0, path);
    int64_t last = set->runs.count - 1;
    if (last < 0 || set->runs.runs[last].source != file ||
        strcmp(text_table_get(&set->runs.folders, last), folder) != 0)
        item_runs_append(&set->runs, (ItemRun){.first = set->count, .label = -1, .source = file}, folder);
    text_table_append(&set->names, name, strlen(name));
    append_place(set, member->offset, member->size);
}

static Status index_archive(TarSet *set, int64_t file, DataNotes *notes, Error *error)
{
    const char *path = shard_files_path(&set->files, file);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    TarReader reader;
    TarMember member;
    bool found = true;
    Status status = tar_reader_init(&reader, descriptor, path, error);
    while (status == STATUS_OK && found) {
        status = tar_reader_next(&reader, &member, &found, error);
        if (status == STATUS_OK && found) add_member(set, file, &member, notes);
    }
    tar_reader_fini(&reader);
    close(descriptor);
    return status;
}

/* --- classes --- */

/* Name of the class of a run into name[size]; false: it has none. */
static bool class_of(const TarSet *set, int64_t run, char *name, size_t size)
{
    const char *folder = text_table_get(&set->runs.folders, run);
    const char *from = folder;
    int length = (int)strlen(folder);
    if (!length && set->class_by_archive) {
        from = shard_files_path(&set->files, set->runs.runs[run].source);
        length = (int)strlen(from);
        if (length > 4 && strcmp(from + length - 4, ".tar") == 0) length -= 4;
    }
    if (!length) return false;
    int start = length;
    while (start > 0 && from[start - 1] != '/')
        start--;
    snprintf(name, size, "%.*s", length - start, from + start);
    return *name != '\0';
}

typedef struct {
    char *name;
    int64_t run;
} RunClass;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const RunClass *)a)->name, ((const RunClass *)b)->name);
}

/* Sorts the runs by class name, numbers the names, and writes the numbers back to the runs. */
static void number_classes(TarSet *set, TextTable *classes)
{
    int64_t named = 0;
    RunClass *order = memory_alloc_array((size_t)set->runs.count, sizeof *order);
    for (int64_t run = 0; run < set->runs.count; run++) {
        char name[DATA_SET_KEY_MAX];
        if (class_of(set, run, name, sizeof name))
            order[named++] = (RunClass){.name = memory_strdup(name), .run = run};
    }
    qsort(order, (size_t)named, sizeof *order, by_name);
    for (int64_t i = 0; i < named; i++) {
        if (i == 0 || strcmp(order[i - 1].name, order[i].name) != 0)
            text_table_append(classes, order[i].name, strlen(order[i].name));
        set->runs.runs[order[i].run].label = classes->count - 1;
    }
    for (int64_t i = 0; i < named; i++)
        memory_free(order[i].name);
    memory_free(order);
}

/* --- the kind's functions --- */

static int64_t tar_label(const void *self, int64_t item)
{
    const TarSet *set = self;
    return set->runs.runs[item_runs_find(&set->runs, item)].label;
}

static void tar_key(const void *self, int64_t item, char *text, size_t size)
{
    const TarSet *set = self;
    item_runs_path(&set->runs, item_runs_find(&set->runs, item), text_table_get(&set->names, item), text,
                   size);
}

static const ItemRun *run_of(const TarSet *set, int64_t item)
{
    return &set->runs.runs[item_runs_find(&set->runs, item)];
}

static void tar_location(const void *self, int64_t item, char *text, size_t size)
{
    const TarSet *set = self;
    int used = snprintf(text, size, "%s:", shard_files_path(&set->files, run_of(set, item)->source));
    if (used > 0 && (size_t)used < size) tar_key(self, item, text + used, size - (size_t)used);
}

static Status tar_read(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    const TarSet *set = self;
    data_buffer_resize(buffer, set->sizes[item]);
    return shard_files_read(&set->files, run_of(set, item)->source, (int64_t)set->offsets[item],
                            buffer->bytes, buffer->size, error);
}

static void tar_destroy(void *self)
{
    TarSet *set = self;
    shard_files_fini(&set->files);
    item_runs_destroy(&set->runs);
    text_table_destroy(&set->names);
    memory_free(set->offsets);
    memory_free(set->sizes);
    memory_free(set);
}

Status tar_set_open(DataKind *kind, const char *pattern, bool class_by_archive, DataNotes *notes,
                    Error *error)
{
    TarSet *set = memory_alloc(sizeof *set);
    set->class_by_archive = class_by_archive;
    *kind = (DataKind){.self = set,
                       .label = tar_label,
                       .key = tar_key,
                       .location = tar_location,
                       .read = tar_read,
                       .destroy = tar_destroy};
    TRY(shard_files_init(&set->files, pattern, error));
    for (int64_t file = 0; file < set->files.paths.count; file++)
        TRY(index_archive(set, file, notes, error));
    kind->count = set->count;
    if (!set->count)
        return status_fail(error, STATUS_INPUT, "%s: no image in it (.jpg .jpeg .jpe .png)", pattern);
    number_classes(set, &kind->classes);
    return STATUS_OK;
}
