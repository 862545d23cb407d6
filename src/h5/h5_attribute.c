/* h5_attribute.c - reading and writing attributes. */
#include "h5/h5_attribute.h"

#include "base/memory.h"
#include "h5/h5_guard.h"

#include <hdf5.h>
#include <string.h>

/* A new attribute on an open object; below 0 on failure. */
static hid_t make(hid_t object, const char *name, hid_t type, int64_t count)
{
    hsize_t dims[1] = {(hsize_t)count};
    hid_t space = count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, dims, NULL);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Sclose(space);
    return attribute;
}

static bool same_form(hid_t attribute, hid_t type, int64_t count)
{
    hid_t space = H5Aget_space(attribute);
    hid_t stored = H5Aget_type(attribute);
    bool same = H5Sget_simple_extent_npoints(space) == count && H5Tequal(stored, type) > 0;
    H5Sclose(space);
    H5Tclose(stored);
    return same;
}

static Status write_values(const H5File *file, const char *object, const char *name, H5Type type,
                           size_t item_bytes, int64_t count, const void *values, Error *error)
{
    h5_guard_enter();
    hid_t type_id = h5_guard_type(type, item_bytes);
    /* by way of the open object: libhdf5 1.10.8 cannot write what H5Aopen_by_name opened */
    hid_t owner = H5Oopen(file->id, object, H5P_DEFAULT);
    htri_t exists = owner < 0 ? -1 : H5Aexists(owner, name);
    hid_t attribute = -1;
    if (exists > 0) attribute = H5Aopen(owner, name, H5P_DEFAULT);
    if (exists == 0) attribute = make(owner, name, type_id, count);
    bool written = attribute >= 0 && (exists == 0 || same_form(attribute, type_id, count)) &&
                   H5Awrite(attribute, type_id, values) >= 0;
    Status status = STATUS_OK;
    if (!written) {
        h5_guard_fail(error, STATUS_FAILED, file, object, "cannot write");
        status = status_prefix(error, STATUS_FAILED, "attribute %s", name);
    }
    if (attribute >= 0) H5Aclose(attribute);
    if (owner >= 0) H5Oclose(owner);
    H5Tclose(type_id);
    h5_guard_leave();
    return status;
}

Status h5_attribute_write_text(const H5File *file, const char *object, const char *name, const char *text,
                               Error *error)
{
    size_t bytes = strlen(text) ? strlen(text) : 1; /* fixed-length text has at least one byte */
    return write_values(file, object, name, H5_TYPE_TEXT, bytes, 1, text, error);
}

Status h5_attribute_write_ints(const H5File *file, const char *object, const char *name,
                               const int64_t *values, int64_t count, Error *error)
{
    return write_values(file, object, name, H5_TYPE_I64, 0, count, values, error);
}

Status h5_attribute_write_doubles(const H5File *file, const char *object, const char *name,
                                  const double *values, int64_t count, Error *error)
{
    return write_values(file, object, name, H5_TYPE_F64, 0, count, values, error);
}

Status h5_attribute_write_u32(const H5File *file, const char *object, const char *name, uint32_t value,
                              Error *error)
{
    return write_values(file, object, name, H5_TYPE_U32, 0, 1, &value, error);
}

Status h5_attribute_write_int(const H5File *file, const char *object, const char *name, int64_t value,
                              Error *error)
{
    return h5_attribute_write_ints(file, object, name, &value, 1, error);
}

Status h5_attribute_write_double(const H5File *file, const char *object, const char *name, double value,
                                 Error *error)
{
    return h5_attribute_write_doubles(file, object, name, &value, 1, error);
}

/* Type and size of an open attribute; false when they cannot be told. */
static bool describe(hid_t attribute, H5AttributeInfo *info)
{
    hid_t type = H5Aget_type(attribute);
    hid_t space = H5Aget_space(attribute);
    bool known = type >= 0 && space >= 0 && H5Sis_simple(space) > 0;
    if (known) {
        info->type = h5_guard_classify(type);
        info->item_bytes = H5Tget_size(type);
        info->count = H5Sget_simple_extent_npoints(space);
        known = info->count >= 0;
    }
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return known;
}

/* Opens attribute `name` into *attribute and describes it; a missing one leaves -1 and is no error. */
static Status open_described(const H5File *file, const char *object, const char *name, hid_t *attribute,
                             H5AttributeInfo *info, Error *error)
{
    *attribute = -1;
    *info = (H5AttributeInfo){0};
    H5Kind kind;
    TRY(h5_guard_kind(file, object, &kind, error));
    if (kind != H5_KIND_GROUP && kind != H5_KIND_DATASET)
        return h5_guard_fail(error, STATUS_INPUT, file, object, "missing");
    htri_t exists = H5Aexists_by_name(file->id, object, name, H5P_DEFAULT);
    if (exists == 0) return STATUS_OK;
    if (exists > 0) *attribute = H5Aopen_by_name(file->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (*attribute < 0 || !describe(*attribute, info)) {
        h5_guard_fail(error, STATUS_INPUT, file, object, "unreadable");
        return status_prefix(error, STATUS_INPUT, "attribute %s", name);
    }
    info->exists = true;
    return STATUS_OK;
}

Status h5_attribute_info(const H5File *file, const char *object, const char *name, H5AttributeInfo *info,
                         Error *error)
{
    hid_t attribute;
    h5_guard_enter();
    Status status = open_described(file, object, name, &attribute, info, error);
    if (attribute >= 0) H5Aclose(attribute);
    h5_guard_leave();
    return status;
}

/* The values of an open attribute whose form `info` says; `out` has room. */
static Status read_open(const H5File *file, const char *object, const char *name, hid_t attribute, void *out,
                        Error *error)
{
    hid_t type = H5Aget_type(attribute);
    Status status = STATUS_OK;
    if (H5Aread(attribute, type, out) < 0) {
        h5_guard_fail(error, STATUS_INPUT, file, object, "unreadable");
        status = status_prefix(error, STATUS_INPUT, "attribute %s", name);
    }
    H5Tclose(type);
    return status;
}

static Status wrong_form(const H5File *file, const char *object, const char *name,
                         const H5AttributeInfo *info, H5Type type, int64_t count, Error *error)
{
    if (!info->exists)
        return status_fail(error, STATUS_INPUT, "%s: %s: attribute %s is missing", file->path, object, name);
    return status_fail(error, STATUS_INPUT, "%s: %s: attribute %s is %s [%lld], expected %s [%lld]",
                       file->path, object, name, h5_type_name(info->type), (long long)info->count,
                       h5_type_name(type), (long long)count);
}

static Status read_values(const H5File *file, const char *object, const char *name, H5Type type,
                          int64_t count, void *values, Error *error)
{
    hid_t attribute;
    H5AttributeInfo info;
    h5_guard_enter();
    Status status = open_described(file, object, name, &attribute, &info, error);
    if (status == STATUS_OK && (!info.exists || info.type != type || info.count != count))
        status = wrong_form(file, object, name, &info, type, count, error);
    if (status == STATUS_OK) status = read_open(file, object, name, attribute, values, error);
    if (attribute >= 0) H5Aclose(attribute);
    h5_guard_leave();
    return status;
}

Status h5_attribute_read_text(const H5File *file, const char *object, const char *name, char **text,
                              Error *error)
{
    *text = NULL;
    hid_t attribute;
    H5AttributeInfo info;
    h5_guard_enter();
    Status status = open_described(file, object, name, &attribute, &info, error);
    if (status == STATUS_OK && (!info.exists || info.type != H5_TYPE_TEXT || info.count != 1))
        status = wrong_form(file, object, name, &info, H5_TYPE_TEXT, 1, error);
    if (status == STATUS_OK && info.item_bytes > H5_MAX_ATTRIBUTE_BYTES)
        status =
            status_fail(error, STATUS_INPUT, "%s: %s: attribute %s is too long", file->path, object, name);
    if (status == STATUS_OK) {
        *text = memory_alloc(info.item_bytes + 1);
        status = read_open(file, object, name, attribute, *text, error);
    }
    if (status != STATUS_OK) {
        memory_free(*text);
        *text = NULL;
    }
    if (attribute >= 0) H5Aclose(attribute);
    h5_guard_leave();
    return status;
}

Status h5_attribute_read_ints(const H5File *file, const char *object, const char *name, int64_t *values,
                              int64_t count, Error *error)
{
    return read_values(file, object, name, H5_TYPE_I64, count, values, error);
}

Status h5_attribute_read_doubles(const H5File *file, const char *object, const char *name, double *values,
                                 int64_t count, Error *error)
{
    return read_values(file, object, name, H5_TYPE_F64, count, values, error);
}

Status h5_attribute_read_u32(const H5File *file, const char *object, const char *name, uint32_t *value,
                             Error *error)
{
    return read_values(file, object, name, H5_TYPE_U32, 1, value, error);
}

/* H5Aiterate's visit: below 0 ends the walk as a failure. */
static herr_t read_any(hid_t owner, const char *name, const H5A_info_t *facts, void *unused)
{
    (void)facts;
    (void)unused;
    H5AttributeInfo info = {0};
    hid_t attribute = H5Aopen(owner, name, H5P_DEFAULT);
    if (attribute < 0) return -1;
    bool good = describe(attribute, &info);
    bool ours = good && info.type != H5_TYPE_OTHER && info.item_bytes <= H5_MAX_ATTRIBUTE_BYTES &&
                info.count <= H5_MAX_ATTRIBUTE_BYTES / (int64_t)info.item_bytes;
    if (ours) {
        void *values = memory_alloc_array((size_t)info.count, info.item_bytes);
        hid_t type = H5Aget_type(attribute);
        good = H5Aread(attribute, type, values) >= 0;
        H5Tclose(type);
        memory_free(values);
    }
    H5Aclose(attribute);
    return good ? 0 : -1;
}

Status h5_attribute_check_all(const H5File *file, const char *object, Error *error)
{
    H5Kind kind;
    h5_guard_enter();
    Status status = h5_guard_kind(file, object, &kind, error);
    if (status == STATUS_OK && H5Aiterate_by_name(file->id, object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL,
                                                  read_any, NULL, H5P_DEFAULT) < 0)
        status = h5_guard_fail(error, STATUS_INPUT, file, object, "an attribute is unreadable");
    h5_guard_leave();
    return status;
}
