/* test_h5_hostile.c - valid HDF5 files of every kind with a wrong structure or wrong numbers: refused in one
 * line that names the file, by what jobs read them by.
 */
#include "../support/h5_damage.h"
#include "../support/h5_kinds.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 64, DATASETS_MAX = 12 };

typedef struct {
    TempFolder temp;
    TempPath path;
    Comm *comm;
    H5KindsKind kind;
    H5Victim whole;
} Setting;

static void begin(Setting *s, H5KindsKind kind)
{
    uint64_t digest;
    Error error = {0};
    *s = (Setting){.temp = temp_folder_create(), .comm = comm_self_create(), .kind = kind};
    s->path = temp_folder_in(&s->temp, "%s.h5", h5_kinds_name(kind));
    h5_kinds_write(kind, s->path.text, s->comm);
    h5_damage_learn(&s->whole, s->path.text);
    cr_assert_eq(h5_kinds_read(kind, s->path.text, &digest, s->comm, &error), STATUS_OK, "%s", error.text);
}

static void end(Setting *s)
{
    h5_damage_fini(&s->whole);
    comm_destroy(s->comm);
    temp_folder_destroy(&s->temp);
}

/* The whole file again, open for changes. */
static hid_t reopen(const Setting *s)
{
    h5_damage_undo(&s->whole);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    hid_t file = H5Fopen(s->path.text, H5F_ACC_RDWR, fapl);
    H5Pclose(fapl);
    cr_assert(file >= 0, "%s", s->path.text);
    return file;
}

/* Closes the file and reads it; `part` of the line, or NULL. */
static void refused(const Setting *s, hid_t file, const char *what, const char *part)
{
    uint64_t digest;
    Error error = {0};
    cr_assert(H5Fclose(file) >= 0);
    Status status = h5_kinds_read(s->kind, s->path.text, &digest, s->comm, &error);
    cr_expect_eq(status, STATUS_INPUT, "%s, %s: %d %s", h5_kinds_name(s->kind), what, status, error.text);
    cr_expect(strstr(error.text, s->path.text) && !strchr(error.text, '\n'), "%s: %s", what, error.text);
    if (part) cr_expect(strstr(error.text, part), "%s: '%s' not in: %s", what, part, error.text);
}

/* --- other objects in the place of a data set --- */

/* A data set at `path` of that type, shape and storage, which is closed. */
static void make(hid_t file, const char *path, hid_t type, int ndim, const hsize_t *dims, hid_t dcpl)
{
    hid_t space = ndim ? H5Screate_simple(ndim, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t dataset = H5Dcreate2(file, path, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    cr_assert(dataset >= 0, "%s", path);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(dcpl);
}

static hid_t allocated(void)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    return dcpl;
}

/* What a data set was before it was taken away. */
typedef struct {
    hid_t type;
    int ndim;
    hsize_t dims[4];
} Form;

static void as_nothing(hid_t file, const char *path, const Form *form)
{
    (void)file, (void)path, (void)form;
}

static void as_group(hid_t file, const char *path, const Form *form)
{
    (void)form;
    H5Gclose(H5Gcreate2(file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void as_soft_link(hid_t file, const char *path, const Form *form)
{
    make(file, "/elsewhere", form->type, form->ndim, form->dims, allocated());
    H5Lcreate_soft("/elsewhere", file, path, H5P_DEFAULT, H5P_DEFAULT);
}

static void as_external_link(hid_t file, const char *path, const Form *form)
{
    (void)form;
    H5Lcreate_external("other.h5", path, file, path, H5P_DEFAULT, H5P_DEFAULT);
}

static void as_other_number(hid_t file, const char *path, const Form *form)
{
    make(file, path, H5T_STD_I16LE, form->ndim, form->dims, allocated());
}

static void as_big_endian(hid_t file, const char *path, const Form *form)
{
    make(file, path, H5T_STD_I64BE, form->ndim, form->dims, allocated());
}

static void as_compound(hid_t file, const char *path, const Form *form)
{
    hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(type, "x", 0, H5T_STD_I32LE);
    H5Tinsert(type, "y", 4, H5T_IEEE_F32LE);
    make(file, path, type, form->ndim, form->dims, allocated());
    H5Tclose(type);
}

static void as_variable_text(hid_t file, const char *path, const Form *form)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    make(file, path, type, form->ndim, form->dims, allocated());
    H5Tclose(type);
}

static void as_cube(hid_t file, const char *path, const Form *form)
{
    const hsize_t dims[] = {1, form->dims[0], 1, 1};
    make(file, path, form->type, 4, dims, allocated());
}

static void as_scalar(hid_t file, const char *path, const Form *form)
{
    make(file, path, form->type, 0, NULL, allocated());
}

/* One row more than the others have. */
static void as_longer(hid_t file, const char *path, const Form *form)
{
    hsize_t dims[4] = {form->dims[0] + 1, form->dims[1], form->dims[2], form->dims[3]};
    make(file, path, form->type, form->ndim, dims, allocated());
}

static void as_deflated(hid_t file, const char *path, const Form *form)
{
    hid_t dcpl = allocated();
    H5Pset_chunk(dcpl, form->ndim, form->dims);
    H5Pset_deflate(dcpl, 1);
    make(file, path, form->type, form->ndim, form->dims, dcpl);
}

/* Chunks that nothing was ever written to. */
static void as_holes(hid_t file, const char *path, const Form *form)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(dcpl, form->ndim, form->dims);
    H5Pset_fletcher32(dcpl);
    make(file, path, form->type, form->ndim, form->dims, dcpl);
}

static void as_huge(hid_t file, const char *path, const Form *form)
{
    hsize_t dims[4] = {(hsize_t)1 << 58, form->dims[1], form->dims[2], form->dims[3]};
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(dcpl, form->ndim, form->dims);
    H5Pset_fletcher32(dcpl);
    make(file, path, form->type, form->ndim, dims, dcpl);
}

static void as_compact(hid_t file, const char *path, const Form *form)
{
    hid_t dcpl = allocated();
    const hsize_t two[] = {2, 1, 1, 1};
    H5Pset_layout(dcpl, H5D_COMPACT);
    make(file, path, form->type, form->ndim, two, dcpl);
}

static void as_other_file(hid_t file, const char *path, const Form *form)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(dcpl, "/etc/passwd", 0, H5F_UNLIMITED);
    make(file, path, form->type, form->ndim, form->dims, dcpl);
}

/* Its size is said by other files, of which there are none. */
static void as_virtual(hid_t file, const char *path, const Form *form)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(form->ndim, form->dims, NULL);
    H5Pset_virtual(dcpl, space, "/dev/zero", path, space);
    make(file, path, form->type, form->ndim, form->dims, dcpl);
    H5Sclose(space);
}

typedef struct {
    const char *name;
    void (*make)(hid_t file, const char *path, const Form *form);
} Variant;

static const Variant VARIANTS[] = {{"missing", as_nothing},         {"a group", as_group},
                                   {"a soft link", as_soft_link},   {"an external link", as_external_link},
                                   {"int16", as_other_number},      {"big-endian", as_big_endian},
                                   {"compound", as_compound},       {"texts of any length", as_variable_text},
                                   {"of four dimensions", as_cube}, {"scalar", as_scalar},
                                   {"longer", as_longer},           {"deflated", as_deflated},
                                   {"full of holes", as_holes},     {"huge", as_huge},
                                   {"compact", as_compact},         {"in another file", as_other_file},
                                   {"virtual", as_virtual}};

enum { VARIANT_COUNT = sizeof VARIANTS / sizeof *VARIANTS };

typedef struct {
    char names[DATASETS_MAX][128];
    int count;
} Datasets;

static herr_t note(hid_t object, const char *name, const H5O_info_t *info, void *user)
{
    (void)object;
    Datasets *found = user;
    if (info->type != H5O_TYPE_DATASET || found->count == DATASETS_MAX) return 0;
    snprintf(found->names[found->count++], sizeof found->names[0], "/%s", name);
    return 0;
}

static void replace(const Setting *s, const char *path, const Variant *variant)
{
    char what[256];
    snprintf(what, sizeof what, "%s %s", path, variant->name);
    hid_t file = reopen(s), dataset = H5Dopen2(file, path, H5P_DEFAULT);
    hid_t space = H5Dget_space(dataset);
    Form form = {.type = H5Dget_type(dataset), .dims = {1, 1, 1, 1}};
    form.ndim = H5Sget_simple_extent_dims(space, form.dims, NULL);
    H5Sclose(space);
    H5Dclose(dataset);
    cr_assert(H5Ldelete(file, path, H5P_DEFAULT) >= 0);
    variant->make(file, path, &form);
    H5Tclose(form.type);
    refused(s, file, what, NULL);
}

/* Every variant of the first data set, some of each other. */
static void try_objects(const Setting *s)
{
    Datasets found = {0};
    hid_t file = reopen(s);
    H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, note, &found, H5O_INFO_BASIC);
    H5Fclose(file);
    cr_assert(found.count > 0);
    for (int d = 0; d < found.count; d++)
        for (int v = 0; v < VARIANT_COUNT; v++)
            if (d == 0 || (d + v) % 9 == 0) replace(s, found.names[d], &VARIANTS[v]);
}

/* --- attributes --- */

typedef struct {
    char names[NAMES_MAX][64];
    int count;
} Attributes;

static herr_t note_attribute(hid_t object, const char *name, const H5A_info_t *info, void *user)
{
    (void)object, (void)info;
    Attributes *found = user;
    cr_assert(found->count < NAMES_MAX);
    snprintf(found->names[found->count++], sizeof found->names[0], "%s", name);
    return 0;
}

static void put_attribute(hid_t file, const char *name, hid_t type, hsize_t count)
{
    hid_t space = H5Screate_simple(1, &count, NULL);
    H5Aclose(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
}

/* Every other attribute goes, and becomes seven numbers; the others become of another type. */
static void try_attributes(const Setting *s)
{
    Attributes found = {0};
    hid_t file = reopen(s);
    H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, note_attribute, &found);
    H5Fclose(file);
    cr_assert(found.count > 2);
    for (int i = 0; i < found.count; i++)
        for (int v = i % 2; v < 3; v += 2) {
            char what[96];
            const char *name = found.names[i];
            if (v == 0 && strcmp(name, "bad_steps") == 0) continue; /* files of earlier versions lack it */
            snprintf(what, sizeof what, "attribute %s, variant %d", name, v);
            file = reopen(s);
            H5Adelete(file, name);
            if (v == 1) put_attribute(file, name, H5T_STD_I16LE, 1);
            if (v == 2) put_attribute(file, name, H5T_IEEE_F64LE, 7);
            refused(s, file, what, NULL);
        }
}

ParameterizedTestParameters(h5_hostile, a_wrong_structure)
{
    static H5KindsKind kinds[] = {H5_KINDS_FEATURES,  H5_KINDS_SHARD, H5_KINDS_CHECKPOINT, H5_KINDS_DECISIONS,
                                  H5_KINDS_RETRIEVAL, H5_KINDS_STATE, H5_KINDS_RESULT};
    return cr_make_param_array(H5KindsKind, kinds, sizeof kinds / sizeof *kinds);
}

ParameterizedTest(H5KindsKind *kind, h5_hostile, a_wrong_structure, .timeout = 120)
{
    Setting s;
    begin(&s, *kind);
    try_objects(&s);
    try_attributes(&s);
    end(&s);
}

/* --- numbers that nobody wrote --- */

typedef struct {
    const char *object; /* a data set of int64, uint64 or float32; or NULL: */
    const char *attribute;
    int place;
    double value;
    const char *said; /* in the line */
} Wrong;

static void change(hid_t file, const Wrong *wrong)
{
    hid_t owner = wrong->object ? H5Dopen2(file, wrong->object, H5P_DEFAULT)
                                : H5Aopen(file, wrong->attribute, H5P_DEFAULT);
    double values[256];
    hid_t type = H5T_NATIVE_DOUBLE;
    if (wrong->object)
        cr_assert(H5Dread(owner, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0, "%s", wrong->object);
    else
        cr_assert(H5Aread(owner, type, values) >= 0, "%s", wrong->attribute);
    values[wrong->place] = wrong->value;
    cr_assert((wrong->object ? H5Dwrite(owner, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values)
                             : H5Awrite(owner, type, values)) >= 0);
    if (wrong->object)
        H5Dclose(owner);
    else
        H5Aclose(owner);
}

static void try_numbers(H5KindsKind kind, const Wrong *wrong, size_t count)
{
    Setting s;
    begin(&s, kind);
    for (size_t i = 0; i < count; i++) {
        hid_t file = reopen(&s);
        change(file, &wrong[i]);
        refused(&s, file, wrong[i].object ? wrong[i].object : wrong[i].attribute, wrong[i].said);
    }
    end(&s);
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

Test(h5_hostile, numbers_of_features)
{
    const Wrong wrong[] = {{NULL, "classes", 0, -1, "attribute classes is -1"},
                           {NULL, "views", 0, 0, "are not pictures of 0 views"},
                           {NULL, "views", 0, 5, "are not pictures of 5 views"},
                           {NULL, "format_version", 0, 2, "format_version is 2"}};
    try_numbers(H5_KINDS_FEATURES, wrong, COUNT(wrong));
}

Test(h5_hostile, numbers_of_shards)
{
    const Wrong wrong[] = {{"/offsets", NULL, 0, 8, "do not match their crc32"},
                           {"/offsets", NULL, 5, 0, "/offsets[4] is wrong"},
                           {"/offsets", NULL, 12, 1e9, "/offsets[11] is wrong"},
                           {"/offsets", NULL, 12, 1.8e19, "/offsets[11] is wrong"},
                           {"/labels", NULL, 2, 3, "/labels[2] is 3, but there are 3 classes"},
                           {"/labels", NULL, 2, -2, "/labels[2] is -2"},
                           {"/crc32", NULL, 7, 12345, "do not match their crc32"}};
    try_numbers(H5_KINDS_SHARD, wrong, COUNT(wrong));
}

Test(h5_hostile, numbers_of_checkpoints)
{
    const Wrong wrong[] = {{NULL, "iteration", 0, -2, "attribute iteration is -2"},
                           {NULL, "iteration", 0, 9e18, "attribute iteration is 9"},
                           {NULL, "optimizer_step", 0, -1, "attribute optimizer_step is -1"},
                           {NULL, "global_batch_size", 0, -4, "attribute global_batch_size is -4"},
                           {NULL, "bad_steps", 0, -1, "attribute bad_steps is -1"},
                           {NULL, "loss_scale", 0, 0, "attribute loss_scale is 0"},
                           {NULL, "loss_scale", 0, NAN, "attribute loss_scale is "},
                           {NULL, "mean", 1, INFINITY, "mean and std are no normalisation"},
                           {NULL, "std", 2, 0, "mean and std are no normalisation"},
                           {NULL, "std", 0, NAN, "mean and std are no normalisation"},
                           {NULL, "patch_size", 0, 14, "attribute patch_size is 14, but 8 by its config"},
                           {NULL, "embed_dim", 0, 32, "attribute embed_dim is 32, but 16 by its config"},
                           {NULL, "n_registers", 0, 4, "attribute n_registers is 4, but 0 by its config"},
                           {NULL, "global_crops_size", 0, 32, "global_crops_size is 32, but 16 by its con"},
                           {"/teacher/backbone/norm/weight", NULL, 3, 2, "norm/weight: damaged: crc32 is"}};
    try_numbers(H5_KINDS_CHECKPOINT, wrong, COUNT(wrong));
}

Test(h5_hostile, numbers_of_decisions)
{
    const Wrong wrong[] = {{"/group", NULL, 4, 12, "/group[4] is 12, expected -1 to 11"},
                           {"/group", NULL, 4, -2, "/group[4] is -2, expected -1 to 11"},
                           {NULL, "threshold", 0, NAN, "attribute threshold is not finite"},
                           {NULL, "rows", 0, 11, "expected 11 rows, as the file says, got 12"},
                           {NULL, "rows", 0, -1, "expected -1 rows, as the file says, got 12"}};
    try_numbers(H5_KINDS_DECISIONS, wrong, COUNT(wrong));
}

Test(h5_hostile, numbers_of_retrievals)
{
    const Wrong wrong[] = {{"/row", NULL, 1, 12, "picture 1 is of row 12"},
                           {"/row", NULL, 1, -1, "picture 1 is of row -1"},
                           {"/query", NULL, 2, 2, "picture 2 is of row 4 and query 2"},
                           {"/neighbour", NULL, 0, -2, "picture 0 is neighbour -2"},
                           {"/neighbour", NULL, 0, 5e9, "picture 0 is neighbour 5000000000"},
                           {"/similarity", NULL, 1, NAN, "similarity "},
                           {NULL, "pool_rows", 0, -1, "pool_rows is -1"},
                           {NULL, "pool_rows", 0, 4e18, "pool_rows is 4"},
                           {NULL, "query_rows", 0, 3, "/query_cluster: expected 3 numbers, got 2"},
                           {NULL, "query_rows", 0, -3, "query_rows -3"}};
    try_numbers(H5_KINDS_RETRIEVAL, wrong, COUNT(wrong));
}

Test(h5_hostile, numbers_of_states)
{
    const Wrong wrong[] = {{"/label", NULL, 3, 4, "/label[3] is 4, expected no later row"},
                           {"/label", NULL, 3, -1, "/label[3] is -1, expected 0 to 11"},
                           {"/label", NULL, 3, 1e15, "/label[3] is 1"},
                           {"/centroids", NULL, 2, NAN, "/centroids holds a number that is not finite"},
                           {NULL, "edges", 0, -1, "attribute edges is -1"}};
    try_numbers(H5_KINDS_STATE, wrong, COUNT(wrong));
}
