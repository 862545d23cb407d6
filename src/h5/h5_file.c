/* h5_file.c - opening, walking and finishing HDF5 files. */
#include "h5/h5_file.h"

#include "base/atomic_file.h"
#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_driver.h"
#include "h5/h5_guard.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NAME_BYTES = 255 };

/* Access properties: plain POSIX files; no flock, which network file systems refuse and renames replace. */
static hid_t access_properties(bool writing)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    if (writing)
        CHECK(h5_driver_use(fapl) >= 0);
    else
        H5Pset_fapl_sec2(fapl);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_file_locking(fapl, false, true);
    if (writing) H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_V18);
    return fapl;
}

static void forget(H5File *file)
{
    memory_free(file->path);
    memory_free(file->temporary);
    *file = (H5File){.id = -1};
}

Status h5_file_create(H5File *file, const char *path, Error *error)
{
    size_t size = strlen(path) + 5;
    *file = (H5File){.id = -1, .path = memory_strdup(path), .temporary = memory_alloc(size), .writing = true};
    snprintf(file->temporary, size, "%s.tmp", path);
    /* a full disk is better found now than when the file is closed */
    Status status = atomic_file_probe_space(file->temporary, 1 << 20, error);
    if (status == STATUS_OK) {
        h5_guard_enter();
        hid_t fapl = access_properties(true), fcpl = H5Pcreate(H5P_FILE_CREATE);
        H5Pset_obj_track_times(fcpl, false);
        file->id = H5Fcreate(file->temporary, H5F_ACC_TRUNC, fcpl, fapl);
        H5Pclose(fcpl);
        H5Pclose(fapl);
        if (file->id < 0) status = h5_guard_fail(error, STATUS_FAILED, file, NULL, "cannot create");
        h5_guard_leave();
    }
    if (status != STATUS_OK) forget(file);
    return status;
}

/* Offsets count from the start of the file only where there is no user block in front. */
static Status check_no_user_block(const H5File *file, Error *error)
{
    hsize_t bytes = 1;
    hid_t fcpl = H5Fget_create_plist(file->id);
    herr_t result = fcpl < 0 ? -1 : H5Pget_userblock(fcpl, &bytes);
    if (fcpl >= 0) H5Pclose(fcpl);
    if (result < 0 || bytes != 0)
        return h5_guard_fail(error, STATUS_INPUT, file, NULL,
                             "has a user block, which our formats never have");
    return STATUS_OK;
}

static Status open_existing(H5File *file, const char *path, bool writable, Error *error)
{
    *file = (H5File){.id = -1, .writing = writable};
    struct stat info;
    if (stat(path, &info) != 0) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return status_fail(error, STATUS_INPUT, "%s: not a regular file", path);
    if (access(path, R_OK) != 0) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    file->path = memory_strdup(path);
    file->bytes = info.st_size;
    h5_guard_enter();
    Status status = STATUS_OK;
    hid_t fapl = access_properties(writable);
    file->id = H5Fopen(path, writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl);
    H5Pclose(fapl);
    if (file->id < 0)
        status = h5_guard_fail(error, STATUS_INPUT, file, NULL, "not a whole HDF5 file");
    else
        status = check_no_user_block(file, error);
    if (status != STATUS_OK && file->id >= 0) H5Fclose(file->id);
    h5_guard_leave();
    if (status != STATUS_OK) forget(file);
    return status;
}

Status h5_file_open(H5File *file, const char *path, Error *error)
{
    return open_existing(file, path, false, error);
}

Status h5_file_open_writable(H5File *file, const char *path, Error *error)
{
    return open_existing(file, path, true, error);
}

/* Closes libhdf5's side; the names stay. */
static Status close_handle(H5File *file, Error *error)
{
    if (file->id < 0) return STATUS_OK;
    h5_guard_enter();
    Status status = STATUS_OK;
    int failure = 0;
    if (file->writing) h5_driver_tell(file->id, &failure);
    if (H5Fclose(file->id) < 0)
        status = h5_guard_fail(error, STATUS_FAILED, file, NULL, "cannot be closed");
    else if (failure != 0)
        status = h5_guard_not_written(error, file, failure);
    file->id = -1;
    h5_guard_leave();
    return status;
}

Status h5_file_close(H5File *file, Error *error)
{
    Status status = close_handle(file, error);
    forget(file);
    return status;
}

Status h5_file_close_temporary(H5File *file, Error *error)
{
    CHECK(file->temporary);
    return h5_file_close(file, error);
}

Status h5_file_commit(H5File *file, Error *error)
{
    CHECK(file->temporary && file->id >= 0);
    Status status = close_handle(file, error);
    if (status == STATUS_OK) status = atomic_file_commit(file->temporary, file->path, error);
    if (status != STATUS_OK) unlink(file->temporary);
    forget(file);
    return status;
}

void h5_file_abandon(H5File *file)
{
    close_handle(file, NULL);
    if (file->temporary) unlink(file->temporary);
    forget(file);
}

/* --- walking ------------------------------------------------------------------------------------------- */

/* One step: what the link at `path`, whose parent is known to be a group, leads to. */
static Status kind_of_link(const H5File *file, const char *path, H5Kind *kind, Error *error)
{
    htri_t exists = H5Lexists(file->id, path, H5P_DEFAULT);
    if (exists < 0) return h5_guard_fail(error, STATUS_INPUT, file, path, "unreadable link");
    *kind = H5_KIND_ABSENT;
    if (exists == 0) return STATUS_OK;
    H5L_info_t link;
    if (H5Lget_info(file->id, path, &link, H5P_DEFAULT) < 0)
        return h5_guard_fail(error, STATUS_INPUT, file, path, "unreadable link");
    if (link.type != H5L_TYPE_HARD)
        return h5_guard_fail(error, STATUS_INPUT, file, path,
                             "a soft or external link, which is not followed");
    H5O_info_t object;
    if (H5Oget_info_by_name2(file->id, path, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return h5_guard_fail(error, STATUS_INPUT, file, path, "unreadable object");
    *kind = object.type == H5O_TYPE_GROUP     ? H5_KIND_GROUP
            : object.type == H5O_TYPE_DATASET ? H5_KIND_DATASET
                                              : H5_KIND_OTHER;
    return STATUS_OK;
}

Status h5_guard_kind(const H5File *file, const char *object, H5Kind *kind, Error *error)
{
    *kind = H5_KIND_GROUP;
    if (strcmp(object, "/") == 0) return STATUS_OK;
    CHECK(object[0] == '/');
    char *path = memory_strdup(object);
    Status status = STATUS_OK;
    for (char *end = path + 1; status == STATUS_OK; end++) {
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        status = kind_of_link(file, path, kind, error);
        *end = kept;
        if (!kept) break;
        if (*kind != H5_KIND_GROUP) {
            *kind = H5_KIND_ABSENT;
            break;
        }
    }
    memory_free(path);
    return status;
}

Status h5_file_kind(const H5File *file, const char *object, H5Kind *kind, Error *error)
{
    h5_guard_enter();
    Status status = h5_guard_kind(file, object, kind, error);
    h5_guard_leave();
    return status;
}

typedef struct {
    H5Names *names;
    int64_t capacity;
    const char *trouble;
} Listing;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    (void)group;
    (void)info;
    Listing *listing = user;
    H5Names *names = listing->names;
    if (names->count >= H5_MAX_NAMES) listing->trouble = "more objects than any of our files has";
    if (strnlen(name, MAX_NAME_BYTES + 1) > MAX_NAME_BYTES) listing->trouble = "an absurdly long name";
    if (listing->trouble) return -1;
    if (names->count == listing->capacity) {
        int64_t capacity = listing->capacity ? 2 * listing->capacity : 32;
        names->names = memory_grow(names->names, (size_t)names->count * sizeof *names->names,
                                   (size_t)capacity * sizeof *names->names);
        listing->capacity = capacity;
    }
    names->names[names->count++] = memory_strdup(name);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Status h5_file_list(const H5File *file, const char *group, H5Names *names, Error *error)
{
    *names = (H5Names){0};
    Listing listing = {.names = names};
    h5_guard_enter();
    H5Kind kind;
    Status status = h5_guard_kind(file, group, &kind, error);
    if (status == STATUS_OK && kind != H5_KIND_GROUP)
        status = h5_guard_fail(error, STATUS_INPUT, file, group, "not a group");
    if (status == STATUS_OK && H5Literate_by_name(file->id, group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL,
                                                  add_name, &listing, H5P_DEFAULT) < 0)
        status = h5_guard_fail(error, STATUS_INPUT, file, group,
                               listing.trouble ? listing.trouble : "cannot be listed");
    h5_guard_leave();
    if (names->count) qsort(names->names, (size_t)names->count, sizeof *names->names, compare_names);
    return status;
}

void h5_names_fini(H5Names *names)
{
    for (int64_t i = 0; i < names->count; i++)
        memory_free(names->names[i]);
    memory_free(names->names);
    *names = (H5Names){0};
}

Status h5_guard_make_groups(const H5File *file, const char *path, bool also_last, Error *error)
{
    CHECK(path[0] == '/');
    char *prefix = memory_strdup(path);
    Status status = STATUS_OK;
    hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(gcpl, false); /* the same contents are the same bytes */
    for (char *end = prefix + 1; status == STATUS_OK; end++) {
        end += strcspn(end, "/");
        char kept = *end;
        if (!kept && !also_last) break;
        *end = '\0';
        if (H5Lexists(file->id, prefix, H5P_DEFAULT) <= 0) {
            hid_t group = H5Gcreate2(file->id, prefix, H5P_DEFAULT, gcpl, H5P_DEFAULT);
            if (group < 0 || H5Gclose(group) < 0)
                status = h5_guard_fail(error, STATUS_FAILED, file, prefix, "cannot make the group");
        }
        *end = kept;
        if (!kept) break;
    }
    H5Pclose(gcpl);
    memory_free(prefix);
    return status;
}

Status h5_file_create_group(const H5File *file, const char *group, Error *error)
{
    h5_guard_enter();
    Status status = h5_guard_make_groups(file, group, true, error);
    h5_guard_leave();
    return status;
}
