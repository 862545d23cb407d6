/* h5_schema.c - checking an open file against its schema. */
#include "h5/h5_schema.h"

#include "base/memory.h"
#include "h5/h5_attribute.h"
#include "h5/h5_checksum.h"
#include "h5/h5_grids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATH_BYTES = 1024, MAX_DEPTH = 16, MAX_VISITS = 1 << 20, MAX_NAMED_DIMS = 16 };

/* A named size, as the first object that uses it set it. */
typedef struct {
    char name[16];
    int64_t size;
    const char *set_by;
} NamedDim;

/* A tensor of a tree: its path below the tree, and its shape. */
typedef struct {
    char *name; /* owned */
    int ndim;
    int64_t shape[H5_MAX_DIMS];
} Leaf;

typedef struct {
    Leaf *leaves; /* owned, sorted by name */
    int64_t count, capacity;
} Leaves;

typedef struct {
    const H5Schema *schema;
    const H5File *file;
    H5CheckDepth depth;
    Error *error;
    NamedDim dims[MAX_NAMED_DIMS];
    int dim_count;
    bool found[H5_SCHEMA_MAX_OBJECTS];
    Leaves leaves[H5_SCHEMA_MAX_OBJECTS]; /* of the trees */
    int64_t visits;                       /* hard links can form cycles: the walk is bounded */
} Checking;

static Status fail(Checking *c, const char *path, const char *what)
{
    return status_fail(c->error, STATUS_INPUT, "%s: %s: %s", c->file->path, path, what);
}

Status h5_schema_stamp(const H5Schema *schema, const H5File *file, Error *error)
{
    TRY(h5_attribute_write_text(file, "/", "format", schema->format, error));
    return h5_attribute_write_int(file, "/", "format_version", schema->version, error);
}

/* --- attributes ---------------------------------------------------------------------------------------- */

static Status check_stamp(Checking *c)
{
    char *format;
    TRY(h5_attribute_read_text(c->file, "/", "format", &format, c->error));
    bool same = strcmp(format, c->schema->format) == 0;
    Status status = STATUS_OK;
    if (!same)
        status = status_fail(c->error, STATUS_INPUT, "%s: format is %s, expected %s", c->file->path, format,
                             c->schema->format);
    memory_free(format);
    TRY(status);
    int64_t version;
    TRY(h5_attribute_read_ints(c->file, "/", "format_version", &version, 1, c->error));
    if (version != c->schema->version)
        return status_fail(c->error, STATUS_INPUT, "%s: format_version is %lld, this program reads %lld",
                           c->file->path, (long long)version, (long long)c->schema->version);
    return STATUS_OK;
}

static Status check_attribute(Checking *c, const H5SchemaAttribute *a)
{
    H5AttributeInfo info;
    TRY(h5_attribute_info(c->file, "/", a->name, &info, c->error));
    if (!info.exists && a->optional) return STATUS_OK;
    if (!info.exists)
        return status_fail(c->error, STATUS_INPUT, "%s: attribute %s is missing", c->file->path, a->name);
    if (info.type != a->type || info.count != a->count)
        return status_fail(c->error, STATUS_INPUT, "%s: attribute %s is %s [%lld], expected %s [%lld]",
                           c->file->path, a->name, h5_type_name(info.type), (long long)info.count,
                           h5_type_name(a->type), (long long)a->count);
    return STATUS_OK;
}

/* --- one data set -------------------------------------------------------------------------------------- */

static Status check_type(Checking *c, const H5SchemaObject *o, const char *path, const H5Info *info)
{
    for (int t = 0; t < o->type_count; t++)
        if (o->types[t] == info->type) return STATUS_OK;
    return status_fail(c->error, STATUS_INPUT, "%s: %s: type is %s, expected %s", c->file->path, path,
                       h5_type_name(info->type), h5_type_name(o->types[0]));
}

static Status check_dim(Checking *c, const H5SchemaObject *o, const H5SchemaDim *dim, int64_t size)
{
    int64_t expected = dim->plus;
    const char *set_by = "the schema";
    if (dim->name[0]) {
        int i = 0;
        while (i < c->dim_count && strcmp(c->dims[i].name, dim->name) != 0)
            i++;
        if (i == c->dim_count) {
            if (i == MAX_NAMED_DIMS) return fail(c, o->path, "too many named dims in the schema");
            c->dims[c->dim_count++] = (NamedDim){.size = size - dim->plus, .set_by = o->path};
            snprintf(c->dims[i].name, sizeof c->dims[i].name, "%s", dim->name);
            if (size < dim->plus) return fail(c, o->path, "too short");
        }
        expected = c->dims[i].size + dim->plus;
        set_by = c->dims[i].set_by;
    }
    if (size != expected)
        return status_fail(c->error, STATUS_INPUT, "%s: %s: size is %lld, but %lld by %s", c->file->path,
                           o->path, (long long)size, (long long)expected, set_by);
    return STATUS_OK;
}

static Status check_dims(Checking *c, const H5SchemaObject *o, const H5Info *info)
{
    if (info->ndim != o->ndim)
        return status_fail(c->error, STATUS_INPUT, "%s: %s: %d dimensions, expected %d", c->file->path,
                           o->path, info->ndim, o->ndim);
    for (int d = 0; d < o->ndim; d++)
        TRY(check_dim(c, o, &o->dims[d], info->shape[d]));
    return STATUS_OK;
}

/* A data set's type, storage and, where wanted, bytes. */
static Status check_data(Checking *c, const H5SchemaObject *o, const char *path, const H5Info *info)
{
    TRY(check_type(c, o, path, info));
    if (o->checksum == H5_CHECKSUM_ATTRIBUTE) {
        uint32_t crc;
        if (info->layout != H5_LAYOUT_CONTIGUOUS) return fail(c, path, "expected contiguous storage");
        TRY(h5_attribute_read_u32(c->file, path, "crc32", &crc, c->error));
        if (c->depth == H5_CHECK_CHECKSUMS) return h5_checksum_by_attribute(c->file, path, info, c->error);
    }
    if (o->checksum == H5_CHECKSUM_FLETCHER32) TRY(h5_dataset_check_chunks(c->file, path, c->error));
    if (o->checksum == H5_CHECKSUM_FLETCHER32 && c->depth == H5_CHECK_CHECKSUMS)
        return h5_checksum_by_reading(c->file, path, info, c->error);
    return STATUS_OK; /* items need their offsets checked first: check_items */
}

/* --- walking the file ---------------------------------------------------------------------------------- */

static void add_leaf(Leaves *leaves, const char *name, const H5Info *info)
{
    if (leaves->count == leaves->capacity) {
        int64_t capacity = leaves->capacity ? 2 * leaves->capacity : 256;
        leaves->leaves = memory_grow(leaves->leaves, (size_t)leaves->count * sizeof(Leaf),
                                     (size_t)capacity * sizeof(Leaf));
        leaves->capacity = capacity;
    }
    Leaf *leaf = &leaves->leaves[leaves->count++];
    *leaf = (Leaf){.name = memory_strdup(name), .ndim = info->ndim};
    memcpy(leaf->shape, info->shape, sizeof leaf->shape);
}

/* The schema's object at or above `path`; *exact tells which. -1: neither, nor a group on the way to one. */
static int object_of(const H5Schema *schema, const char *path, bool *exact, bool *on_the_way)
{
    *exact = *on_the_way = false;
    size_t length = strlen(path);
    for (int i = 0; i < schema->object_count; i++) {
        const H5SchemaObject *o = &schema->objects[i];
        size_t own = strlen(o->path);
        *exact = strcmp(o->path, path) == 0;
        if (*exact || (o->is_tree && length > own && strncmp(o->path, path, own) == 0 && path[own] == '/'))
            return i;
        if (own > length && strncmp(o->path, path, length) == 0 && o->path[length] == '/') *on_the_way = true;
    }
    return -1;
}

static Status walk(Checking *c, const char *group, int depth);

static Status visit(Checking *c, const char *path, int depth)
{
    bool exact, on_the_way;
    int index = object_of(c->schema, path, &exact, &on_the_way);
    if (index < 0 && !on_the_way) return fail(c, path, "does not belong in this format");
    if (++c->visits > MAX_VISITS) return fail(c, path, "more objects than any of our files has");
    H5Kind kind;
    TRY(h5_file_kind(c->file, path, &kind, c->error));
    if (index < 0 || (c->schema->objects[index].is_tree && kind == H5_KIND_GROUP)) {
        if (kind != H5_KIND_GROUP) return fail(c, path, "expected a group");
        if (index >= 0) c->found[index] = true;
        return walk(c, path, depth + 1);
    }
    const H5SchemaObject *o = &c->schema->objects[index];
    if (kind != H5_KIND_DATASET || (o->is_tree && exact))
        return fail(c, path, o->is_tree && exact ? "expected a group" : "expected a data set");
    H5Info info;
    TRY(h5_dataset_info(c->file, path, &info, c->error));
    c->found[index] = true;
    if (o->is_tree)
        add_leaf(&c->leaves[index], path + strlen(o->path) + 1, &info);
    else
        TRY(check_dims(c, o, &info));
    return check_data(c, o, path, &info);
}

static Status walk(Checking *c, const char *group, int depth)
{
    if (depth > MAX_DEPTH) return fail(c, group, "groups nested deeper than in any of our files");
    H5Names names;
    Status status = h5_file_list(c->file, group, &names, c->error);
    for (int64_t i = 0; i < names.count && status == STATUS_OK; i++) {
        char path[MAX_PATH_BYTES];
        const char *base = strcmp(group, "/") == 0 ? "" : group;
        int length = snprintf(path, sizeof path, "%s/%s", base, names.names[i]);
        status = length < (int)sizeof path ? visit(c, path, depth) : fail(c, group, "absurdly long names");
    }
    h5_names_fini(&names);
    return status;
}

/* --- what only the whole file tells -------------------------------------------------------------------- */

static int index_of(const H5Schema *schema, const char *path)
{
    for (int i = 0; i < schema->object_count; i++)
        if (strcmp(schema->objects[i].path, path) == 0) return i;
    return -1;
}

static Status check_presence(Checking *c)
{
    for (int i = 0; i < c->schema->object_count; i++) {
        const H5SchemaObject *o = &c->schema->objects[i];
        int partner = o->with[0] ? index_of(c->schema, o->with) : -1;
        bool wanted = partner >= 0 ? c->found[partner] : !o->optional;
        for (int k = 0; k < o->unless_count; k++) {
            int other = index_of(c->schema, o->unless[k]);
            if (other >= 0 && c->found[other]) wanted = false;
        }
        if (wanted && !c->found[i]) return fail(c, o->path, "missing");
        if (partner >= 0 && !wanted && c->found[i])
            return status_fail(c->error, STATUS_INPUT, "%s: %s: is there without %s", c->file->path, o->path,
                               o->with);
        if (o->is_tree && c->found[i] && c->leaves[i].count == 0) return fail(c, o->path, "holds no tensor");
    }
    return STATUS_OK;
}

static int compare_leaves(const void *a, const void *b)
{
    return strcmp(((const Leaf *)a)->name, ((const Leaf *)b)->name);
}

static Status check_same(Checking *c, int a, int b)
{
    const Leaves *mine = &c->leaves[a], *theirs = &c->leaves[b];
    const char *path = c->schema->objects[a].path, *other = c->schema->objects[b].path;
    for (int64_t i = 0; i < mine->count || i < theirs->count; i++) {
        const Leaf *x = i < mine->count ? &mine->leaves[i] : NULL;
        const Leaf *y = i < theirs->count ? &theirs->leaves[i] : NULL;
        int order = !x ? 1 : !y ? -1 : compare_leaves(x, y);
        if (order != 0)
            return status_fail(c->error, STATUS_INPUT, "%s: %s/%s: is missing", c->file->path,
                               order < 0 ? other : path, order < 0 ? x->name : y->name);
        if (x->ndim != y->ndim || memcmp(x->shape, y->shape, sizeof x->shape) != 0)
            return status_fail(c->error, STATUS_INPUT, "%s: %s/%s: its shape is not that of %s",
                               c->file->path, path, x->name, other);
    }
    return STATUS_OK;
}

static Status check_trees(Checking *c)
{
    for (int i = 0; i < c->schema->object_count; i++)
        if (c->leaves[i].count)
            qsort(c->leaves[i].leaves, (size_t)c->leaves[i].count, sizeof(Leaf), compare_leaves);
    for (int i = 0; i < c->schema->object_count; i++) {
        int other = index_of(c->schema, c->schema->objects[i].same_as);
        if (other >= 0 && c->found[i]) TRY(check_same(c, i, other));
    }
    return STATUS_OK;
}

static Status check_items(Checking *c)
{
    for (int i = 0; i < c->schema->object_count; i++) {
        const H5SchemaObject *o = &c->schema->objects[i];
        if (!c->found[i] || c->depth != H5_CHECK_CHECKSUMS) continue;
        H5Info info;
        if (o->grid[0] || o->checksum == H5_CHECKSUM_ITEMS)
            TRY(h5_dataset_info(c->file, o->path, &info, c->error));
        if (o->grid[0]) TRY(h5_grids_check(c->file, o, &info, c->error));
        if (o->checksum == H5_CHECKSUM_ITEMS) TRY(h5_checksum_by_items(c->file, o, &info, c->error));
    }
    return STATUS_OK;
}

static Status check_all(Checking *c)
{
    TRY(check_stamp(c));
    TRY(h5_attribute_check_all(c->file, "/", c->error)); /* readers know more names than the schema */
    for (int i = 0; i < c->schema->attribute_count; i++)
        TRY(check_attribute(c, &c->schema->attributes[i]));
    TRY(walk(c, "/", 0));
    TRY(check_presence(c));
    TRY(check_trees(c));
    return check_items(c);
}

Status h5_schema_check(const H5Schema *schema, const H5File *file, H5CheckDepth depth, Error *error)
{
    Checking *c = memory_alloc(sizeof *c);
    *c = (Checking){.schema = schema, .file = file, .depth = depth, .error = error};
    Status status = check_all(c);
    for (int i = 0; i < schema->object_count; i++) {
        for (int64_t k = 0; k < c->leaves[i].count; k++)
            memory_free(c->leaves[i].leaves[k].name);
        memory_free(c->leaves[i].leaves);
    }
    memory_free(c);
    return status;
}
