/* golden_read.c - the reading half of golden.h, on HDF5. */
#include "golden_support.h"

#include <criterion/criterion.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void golden_format_path(char *path, const char *format, va_list arguments)
{
    int length = vsnprintf(path, GOLDEN_MAX_PATH, format, arguments);
    cr_assert(length >= 0 && length < GOLDEN_MAX_PATH, "path too long: %s", path);
    if (path[0] == '/') memmove(path, path + 1, strlen(path));
}

#define FORMAT_PATH(path, format)                     \
    char path[GOLDEN_MAX_PATH];                       \
    do {                                              \
        va_list arguments_;                           \
        va_start(arguments_, format);                 \
        golden_format_path(path, format, arguments_); \
        va_end(arguments_);                           \
    } while (0)

void *golden_keep(Golden *golden, int64_t count, int64_t bytes)
{
    if (golden->block_count == golden->block_room) {
        golden->block_room = 2 * golden->block_room + 64;
        golden->blocks = realloc(golden->blocks, (size_t)golden->block_room * sizeof *golden->blocks);
        cr_assert(golden->blocks != NULL);
    }
    void *block = calloc((size_t)count + 1, (size_t)bytes);
    cr_assert(block != NULL);
    golden->blocks[golden->block_count++] = block;
    return block;
}

_Noreturn void golden_stop(const Golden *golden, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cr_assert_fail("%s.h5: %s", golden->stem, text);
    abort(); /* not reached: the assertion ends the test */
}

static bool path_exists(Golden *golden, const char *path)
{
    if (path[0] == '\0') return true;
    char part[GOLDEN_MAX_PATH];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part, '/');; slash = strchr(slash + 1, '/')) {
        if (slash) *slash = '\0';
        if (H5Lexists(golden->file, part, H5P_DEFAULT) <= 0) return false;
        if (!slash) return true;
        *slash = '/';
    }
}

bool golden_has(Golden *golden, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return path_exists(golden, path);
}

static GoldenShape shape_of(hid_t space)
{
    GoldenShape shape = {.count = 1};
    hsize_t dims[H5S_MAX_RANK];
    shape.ndim = H5Sget_simple_extent_dims(space, dims, NULL);
    cr_assert(shape.ndim >= 0 && shape.ndim <= GOLDEN_MAX_DIMS);
    for (int i = 0; i < shape.ndim; i++) {
        shape.dim[i] = (int64_t)dims[i];
        shape.count *= shape.dim[i];
    }
    return shape;
}

static const void *read_dataset(Golden *golden, GoldenShape *shape, const char *path, hid_t type)
{
    if (!path_exists(golden, path)) golden_stop(golden, "%s: no such data set", path);
    hid_t dataset = H5Dopen2(golden->file, path, H5P_DEFAULT);
    if (dataset < 0) golden_stop(golden, "%s: cannot be opened", path);
    hid_t space = H5Dget_space(dataset);
    GoldenShape mine = shape_of(space);
    void *values = golden_keep(golden, mine.count, (int64_t)H5Tget_size(type));
    if (mine.count > 0 && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        golden_stop(golden, "%s: cannot be read", path);
    H5Sclose(space);
    H5Dclose(dataset);
    if (shape) *shape = mine;
    return values;
}

const double *golden_read_f64(Golden *golden, GoldenShape *shape, const char *path)
{
    return read_dataset(golden, shape, path, H5T_NATIVE_DOUBLE);
}

const float *golden_f32(Golden *golden, GoldenShape *shape, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return read_dataset(golden, shape, path, H5T_NATIVE_FLOAT);
}

const double *golden_f64(Golden *golden, GoldenShape *shape, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return read_dataset(golden, shape, path, H5T_NATIVE_DOUBLE);
}

const int64_t *golden_i64(Golden *golden, GoldenShape *shape, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return read_dataset(golden, shape, path, H5T_NATIVE_INT64);
}

const uint8_t *golden_u8(Golden *golden, GoldenShape *shape, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return read_dataset(golden, shape, path, H5T_NATIVE_UINT8);
}

double golden_scalar(Golden *golden, const char *format, ...)
{
    FORMAT_PATH(path, format);
    GoldenShape shape;
    const double *value = golden_read_f64(golden, &shape, path);
    if (shape.count != 1) golden_stop(golden, "%s: not a scalar", path);
    return value[0];
}

/* --- attributes
 * --------------------------------------------------------------------------------------------- */

static hid_t open_attr(Golden *golden, const char *path, const char *name)
{
    const char *object = path[0] == '\0' ? "/" : path;
    if (!path_exists(golden, path) || H5Aexists_by_name(golden->file, object, name, H5P_DEFAULT) <= 0)
        return -1;
    return H5Aopen_by_name(golden->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
}

static const double *attr_values(Golden *golden, const char *path, const char *name, int64_t *count)
{
    hid_t attr = open_attr(golden, path, name);
    if (attr < 0) return NULL;
    hid_t space = H5Aget_space(attr);
    *count = shape_of(space).count;
    double *values = golden_keep(golden, *count, sizeof *values);
    if (H5Aread(attr, H5T_NATIVE_DOUBLE, values) < 0) golden_stop(golden, "%s: %s: not a number", path, name);
    H5Sclose(space);
    H5Aclose(attr);
    return values;
}

bool golden_read_attr(Golden *golden, const char *path, const char *name, double *value)
{
    int64_t count;
    const double *values = attr_values(golden, path, name, &count);
    if (values == NULL || count != 1) return false;
    *value = values[0];
    return true;
}

bool golden_has_attr(Golden *golden, const char *name, const char *format, ...)
{
    FORMAT_PATH(path, format);
    hid_t attr = open_attr(golden, path, name);
    if (attr >= 0) H5Aclose(attr);
    return attr >= 0;
}

double golden_attr(Golden *golden, const char *name, const char *format, ...)
{
    FORMAT_PATH(path, format);
    double value = 0.0;
    if (!golden_read_attr(golden, path, name, &value)) golden_stop(golden, "%s: no attribute %s", path, name);
    return value;
}

const double *golden_attr_array(Golden *golden, const char *name, int64_t *count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    int64_t found = 0;
    const double *values = attr_values(golden, path, name, &found);
    if (values == NULL) golden_stop(golden, "%s: no attribute %s", path, name);
    if (count) *count = found;
    return values;
}

const char *golden_attr_text(Golden *golden, const char *name, const char *format, ...)
{
    FORMAT_PATH(path, format);
    hid_t attr = open_attr(golden, path, name);
    if (attr < 0) golden_stop(golden, "%s: no attribute %s", path, name);
    hid_t type = H5Aget_type(attr);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0)
        golden_stop(golden, "%s: attribute %s is not a fixed-length text", path, name);
    char *text = golden_keep(golden, (int64_t)H5Tget_size(type), 1);
    if (H5Aread(attr, type, text) < 0) golden_stop(golden, "%s: attribute %s: cannot be read", path, name);
    H5Tclose(type);
    H5Aclose(attr);
    return text;
}

/* --- names
 * ---------------------------------------------------------------------------------------------------- */

typedef struct {
    Golden *golden;
    const char *prefix;
    const char **names;
    int64_t count, room;
    bool all; /* data sets at any depth by full path, rather than direct members by name */
} NameList;

static herr_t add_name(NameList *list, const char *name)
{
    if (list->count == list->room) {
        int64_t room = 2 * list->room + 32;
        const char **names = golden_keep(list->golden, room, sizeof *names);
        if (list->count > 0) memcpy(names, list->names, (size_t)list->count * sizeof *names);
        list->names = names;
        list->room = room;
    }
    char *copy = golden_keep(list->golden, GOLDEN_MAX_PATH, 1);
    const char *joint = list->all && list->prefix[0] != '\0' ? "/" : "";
    snprintf(copy, GOLDEN_MAX_PATH, "%s%s%s", list->all ? list->prefix : "", joint, name);
    list->names[list->count++] = copy;
    return 0;
}

static herr_t on_member(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    (void)group, (void)info;
    return add_name(context, name);
}

static herr_t on_object(hid_t group, const char *name, const H5O_info_t *info, void *context)
{
    (void)group;
    return info->type == H5O_TYPE_DATASET ? add_name(context, name) : 0;
}

static const char *const *list_names(Golden *golden, const char *path, bool all, int64_t *count)
{
    if (!path_exists(golden, path)) golden_stop(golden, "%s: no such group", path);
    NameList list = {.golden = golden, .prefix = path, .all = all};
    const char *object = path[0] == '\0' ? "/" : path;
    hid_t group = H5Gopen2(golden->file, object, H5P_DEFAULT);
    if (group < 0) golden_stop(golden, "%s: not a group", path);
    herr_t done = all ? H5Ovisit2(group, H5_INDEX_NAME, H5_ITER_INC, on_object, &list, H5O_INFO_BASIC)
                      : H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, on_member, &list);
    H5Gclose(group);
    if (done < 0) golden_stop(golden, "%s: cannot be listed", path);
    if (list.names == NULL) list.names = golden_keep(golden, 1, sizeof *list.names);
    if (count) *count = list.count;
    return list.names;
}

const char *const *golden_members(Golden *golden, int64_t *count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return list_names(golden, path, false, count);
}

const char *const *golden_datasets(Golden *golden, int64_t *count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return list_names(golden, path, true, count);
}
