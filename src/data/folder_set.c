/* folder_set.c - a sorted walk that keeps runs of names. */
#include "data/folder_set.h"

#include "base/memory.h"
#include "data/data_set.h"
#include "data/item_runs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 64 };

typedef struct {
    char *root;
    ItemRuns runs;
    TextTable names; /* file names without folder, by item */
    char *masks;     /* folder of the masks, or NULL */
} FolderSet;

/* A folder that is being walked, linked to those around it: a loop comes back to one of them. */
typedef struct Ancestor {
    dev_t device;
    ino_t inode;
    int depth; /* 0 for the root */
    const struct Ancestor *above;
} Ancestor;

typedef struct {
    FolderSet *set;
    TextTable *classes;
    DataNotes *notes;
} Walk;

/* Names in one folder, apart by what they lead to. */
typedef struct {
    char **names; /* owned, each too */
    size_t count, capacity;
} Listing;

static void listing_append(Listing *listing, const char *name)
{
    if (listing->count == listing->capacity) {
        size_t capacity = 2 * listing->capacity + 16;
        listing->names = memory_grow(listing->names, listing->count * sizeof *listing->names,
                                     capacity * sizeof *listing->names);
        listing->capacity = capacity;
    }
    listing->names[listing->count++] = memory_strdup(name);
}

static void listing_fini(Listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        memory_free(listing->names[i]);
    memory_free(listing->names);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void listing_sort(Listing *listing)
{
    if (listing->count) qsort(listing->names, listing->count, sizeof *listing->names, by_bytes);
}

/* Puts one directory entry where it belongs; `path` is the folder's, for notes. */
static void classify(const Walk *walk, int folder, const char *path, const struct dirent *entry,
                     Listing *files, Listing *folders)
{
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return;
    bool is_file = entry->d_type == DT_REG, is_folder = entry->d_type == DT_DIR;
    const char *reason = "not a regular file";
    if (!is_file && !is_folder) {
        struct stat target;
        if (fstatat(folder, name, &target, 0) == 0) {
            is_file = S_ISREG(target.st_mode);
            is_folder = S_ISDIR(target.st_mode);
        } else {
            reason = entry->d_type == DT_LNK ? "dangling link" : strerror(errno);
        }
    }
    if (is_folder) {
        listing_append(folders, name);
    } else if (data_kind_is_image_name(name)) {
        if (is_file) {
            listing_append(files, name);
        } else {
            char full[DATA_SET_KEY_MAX + 256];
            snprintf(full, sizeof full, "%s/%s", path, name);
            data_notes_add(walk->notes, full, reason);
        }
    }
}

static Status list(const Walk *walk, const char *path, Ancestor *here, Listing *files, Listing *folders,
                   Error *error)
{
    DIR *stream = opendir(path);
    if (!stream) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    struct stat self;
    if (fstat(dirfd(stream), &self) == 0) {
        here->device = self.st_dev;
        here->inode = self.st_ino;
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) break;
        classify(walk, dirfd(stream), path, entry, files, folders);
    }
    int failed = errno;
    closedir(stream);
    if (failed) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(failed));
    listing_sort(files);
    listing_sort(folders);
    return STATUS_OK;
}

static void add_files(FolderSet *set, const Listing *files, const char *relative, int64_t label)
{
    if (!files->count) return;
    item_runs_append(&set->runs, (ItemRun){.first = set->names.count, .label = label}, relative);
    for (size_t i = 0; i < files->count; i++)
        text_table_append(&set->names, files->names[i], strlen(files->names[i]));
}

static bool is_loop(const char *path, const Ancestor *above)
{
    struct stat self;
    if (stat(path, &self) != 0) return false;
    for (; above; above = above->above)
        if (above->device == self.st_dev && above->inode == self.st_ino) return true;
    return false;
}

static Status walk_folder(const Walk *walk, const char *relative, int64_t label, const Ancestor *above,
                          Error *error);

static Status walk_folders(const Walk *walk, const Listing *folders, const char *relative, int64_t label,
                           const Ancestor *here, Error *error)
{
    size_t root_length = strlen(walk->set->root);
    for (size_t i = 0; i < folders->count; i++) {
        const char *name = folders->names[i];
        if (!here->above) {
            label = walk->classes->count;
            text_table_append(walk->classes, name, strlen(name));
        }
        char path[DATA_SET_KEY_MAX];
        int length =
            snprintf(path, sizeof path, "%s/%s%s%s", walk->set->root, relative, *relative ? "/" : "", name);
        /* 256: the name of a file must still fit behind it. */
        if (length + 256 > (int)sizeof path || here->depth >= MAX_DEPTH)
            data_notes_add(walk->notes, path, "folders in folders too deep");
        else if (is_loop(path, here))
            data_notes_add(walk->notes, path, "link back to a folder that contains it");
        else
            TRY(walk_folder(walk, path + root_length + 1, label, here, error));
    }
    return STATUS_OK;
}

/* `relative`: path of the folder inside the set, "" for the root. Recursion is bounded by MAX_DEPTH. */
static Status walk_folder(const Walk *walk, const char *relative, int64_t label, const Ancestor *above,
                          Error *error)
{
    char path[DATA_SET_KEY_MAX];
    snprintf(path, sizeof path, "%s%s%s", walk->set->root, *relative ? "/" : "", relative);
    Listing files = {0}, folders = {0};
    Ancestor here = {.depth = above ? above->depth + 1 : 0, .above = above};
    Status status = list(walk, path, &here, &files, &folders, error);
    if (status == STATUS_OK) {
        add_files(walk->set, &files, relative, label);
        listing_fini(&files);
        status = walk_folders(walk, &folders, relative, label, &here, error);
    } else {
        listing_fini(&files);
    }
    listing_fini(&folders);
    return status;
}

/* --- the kind's functions --- */

static int64_t folder_label(const void *self, int64_t item)
{
    const FolderSet *set = self;
    return set->runs.runs[item_runs_find(&set->runs, item)].label;
}

static void folder_key(const void *self, int64_t item, char *text, size_t size)
{
    const FolderSet *set = self;
    item_runs_path(&set->runs, item_runs_find(&set->runs, item), text_table_get(&set->names, item), text,
                   size);
}

static void folder_location(const void *self, int64_t item, char *text, size_t size)
{
    const FolderSet *set = self;
    int used = snprintf(text, size, "%s/", set->root);
    if (used > 0 && (size_t)used < size) folder_key(self, item, text + used, size - (size_t)used);
}

static Status read_file(int descriptor, DataBuffer *buffer, Error *error)
{
    struct stat file;
    if (fstat(descriptor, &file) != 0) return data_kind_io_error(error, errno);
    if (!S_ISREG(file.st_mode)) return status_fail(error, STATUS_INPUT, "not a regular file");
    if (file.st_size > DATA_KIND_MAX_BYTES)
        return status_fail(error, STATUS_INPUT, "%lld bytes are too many for an image",
                           (long long)file.st_size);
    data_buffer_resize(buffer, (size_t)file.st_size);
    size_t done = 0;
    while (done < buffer->size) {
        ssize_t got = read(descriptor, buffer->bytes + done, buffer->size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return data_kind_io_error(error, errno);
        if (got == 0) break; /* it became shorter: the decoder will see */
        done += (size_t)got;
    }
    buffer->size = done;
    return STATUS_OK;
}

static Status read_path(const char *path, DataBuffer *buffer, Error *error)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return data_kind_io_error(error, errno);
    Status status = read_file(descriptor, buffer, error);
    close(descriptor);
    return status;
}

static Status folder_read(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    char path[DATA_SET_KEY_MAX];
    folder_location(self, item, path, sizeof path);
    return read_path(path, buffer, error);
}

/* The picture's key below the folder of the masks, with the ending of a PNG. */
static Status folder_read_mask(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    const FolderSet *set = self;
    char key[DATA_SET_KEY_MAX], path[DATA_SET_KEY_MAX];
    folder_key(self, item, key, sizeof key);
    int stem = (int)(strrchr(key, '.') - key);
    int length = snprintf(path, sizeof path, "%s/%.*s.png", set->masks, stem, key);
    if (length >= (int)sizeof path) return status_fail(error, STATUS_INPUT, "mask: path is too long");
    Status status = read_path(path, buffer, error);
    return status == STATUS_OK ? status : status_prefix(error, status, "mask %s", path);
}

static void folder_destroy(void *self)
{
    FolderSet *set = self;
    item_runs_destroy(&set->runs);
    text_table_destroy(&set->names);
    memory_free(set->root);
    memory_free(set->masks);
    memory_free(set);
}

Status folder_set_open(DataKind *kind, const char *root, DataNotes *notes, Error *error)
{
    size_t length = strlen(root);
    while (length > 1 && root[length - 1] == '/')
        length--;
    if (length == 0 || length + 512 > DATA_SET_KEY_MAX)
        return status_fail(error, STATUS_INPUT, "folder:%s: path is %s", root, length ? "too long" : "empty");
    FolderSet *set = memory_alloc(sizeof *set);
    set->root = memory_strndup(root, length);
    *kind = (DataKind){.self = set,
                       .label = folder_label,
                       .key = folder_key,
                       .location = folder_location,
                       .read = folder_read,
                       .destroy = folder_destroy};
    Walk walk = {.set = set, .classes = &kind->classes, .notes = notes};
    TRY(walk_folder(&walk, "", -1, NULL, error));
    kind->count = set->names.count;
    if (!kind->count)
        return status_fail(error, STATUS_INPUT, "%s: no image in it (.jpg .jpeg .jpe .png)", set->root);
    return STATUS_OK;
}

Status folder_set_open_pairs(DataKind *kind, const char *root, DataNotes *notes, Error *error)
{
    static const char *const names[] = {"labels", "masks", "depth"};
    char path[DATA_SET_KEY_MAX];
    if (strlen(root) + 512 > sizeof path)
        return status_fail(error, STATUS_INPUT, "pairs:%s: path is too long", root);
    snprintf(path, sizeof path, "%s/images", root);
    TRY(folder_set_open(kind, path, notes, error));
    FolderSet *set = kind->self;
    struct stat folder;
    for (size_t i = 0; i < sizeof names / sizeof *names && !set->masks; i++) {
        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        if (stat(path, &folder) == 0 && S_ISDIR(folder.st_mode)) set->masks = memory_strdup(path);
    }
    if (!set->masks)
        return status_fail(error, STATUS_INPUT, "%s: no folder labels, masks or depth beside images", root);
    kind->read_mask = folder_read_mask;
    return STATUS_OK;
}
