/* test_h5_schema.c - schemas parse, right files pass, and every kind of wrong or damaged file is refused by
 * one line that names the object. The wrong ones are made with libhdf5 itself: our own layer cannot write
 * them. */
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "base/rng.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

static char folder[] = "/tmp/dinobatch_schema_XXXXXX";
static char path[64];

static void make_folder(void)
{
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.h5", folder);
}

static void remove_folder(void)
{
    TempFolder temp;
    snprintf(temp.path, sizeof temp.path, "%s", folder);
    temp_folder_destroy(&temp);
}

TestSuite(h5_schema, .init = make_folder, .fini = remove_folder, .timeout = 30);

#define OK(expression)                                         \
    do {                                                       \
        Status ok_status_ = (expression);                      \
        cr_assert_eq(ok_status_, STATUS_OK, "%s", error.text); \
    } while (0)

static void refused(H5CheckDepth depth, const char *text)
{
    Error error = {0};
    Status status = h5_check_file(path, NULL, depth, NULL, &error);
    cr_assert_eq(status, STATUS_INPUT, "accepted, expected: %s", text);
    cr_assert(strstr(error.text, text), "expected \"%s\" in: %s", text, error.text);
    cr_assert_null(strchr(error.text, '\n'));
}

static void accepted(void)
{
    Error error = {0};
    OK(h5_check_file(path, NULL, H5_CHECK_CHECKSUMS, NULL, &error));
}

/* All attributes that a schema asks for. */
static void write_attributes(const H5File *file, const H5Schema *schema)
{
    Error error = {0};
    OK(h5_schema_stamp(schema, file, &error));
    for (int i = 0; i < schema->attribute_count; i++) {
        const H5SchemaAttribute *a = &schema->attributes[i];
        const int64_t ints[8] = {0};
        const double doubles[8] = {0};
        if (a->type == H5_TYPE_TEXT) OK(h5_attribute_write_text(file, "/", a->name, "words", &error));
        if (a->type == H5_TYPE_I64) OK(h5_attribute_write_ints(file, "/", a->name, ints, a->count, &error));
        if (a->type == H5_TYPE_F64)
            OK(h5_attribute_write_doubles(file, "/", a->name, doubles, a->count, &error));
    }
}

/* What the wrong files leave out or do otherwise. */
typedef struct {
    const char *without; /* an object */
    int64_t extra_label; /* labels longer than the rest */
    bool overlapping;    /* offsets that go back */
    bool wrong_crc;
} Dataset;

enum { N = 4, IMAGE = 100 };

static void put(const H5File *file, const Dataset *how, const char *object, H5Type type, int64_t count,
                const void *data)
{
    Error error = {0};
    if (how->without && strcmp(how->without, object) == 0) return;
    OK(h5_dataset_put(file, object, type, 1, &count, data, &error));
}

/* A data set file of N pictures. */
static void write_dataset(Dataset how)
{
    Error error = {0};
    H5Schema schema;
    H5File file;
    h5_schema_load(&schema, "dataset");
    OK(h5_file_create(&file, path, &error));
    write_attributes(&file, &schema);
    unsigned char bytes[N * IMAGE];
    uint64_t offsets[N + 1] = {0};
    uint32_t crcs[N];
    const int64_t labels[N + 1] = {0, 1, 0, -1, 0};
    for (int i = 0; i < N * IMAGE; i++)
        bytes[i] = (unsigned char)(i * 7);
    for (int i = 0; i < N; i++) {
        offsets[i + 1] = (uint64_t)(i + 1) * IMAGE;
        crcs[i] = (uint32_t)crc32(0, bytes + i * IMAGE, IMAGE);
    }
    if (how.overlapping) offsets[2] = 50;
    if (how.wrong_crc) crcs[2] ^= 1;
    H5Info info = {.type = H5_TYPE_U8, .ndim = 1, .shape = {N * IMAGE}, .layout = H5_LAYOUT_CONTIGUOUS};
    OK(h5_dataset_create(&file, "/bytes", &info, &error));
    OK(h5_dataset_write_rows(&file, "/bytes", 0, N * IMAGE, bytes, &error));
    put(&file, &how, "/offsets", H5_TYPE_U64, N + 1, offsets);
    put(&file, &how, "/crc32", H5_TYPE_U32, N, crcs);
    put(&file, &how, "/labels", H5_TYPE_I64, N + how.extra_label, labels);
    const char *const texts[N] = {"a/1.jpg", "b/2.jpg", "a/3.jpg", "?"};
    OK(h5_dataset_put_text(&file, "/keys", N, texts, &error));
    OK(h5_dataset_put_text(&file, "/classes", 2, texts, &error));
    OK(h5_file_commit(&file, &error));
}

/* Opens the file with libhdf5, to do to it what our layer does not. */
static hid_t open_raw(void)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(file >= 0);
    return file;
}

static void add_dataset(hid_t file, const char *name, hid_t type, hsize_t count, hid_t dcpl)
{
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    cr_assert(dataset >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
}

Test(h5_schema, every_embedded_schema_parses)
{
    static H5Schema schema;
    int count = 0;
    for (const H5SchemaText *entry = h5_schema_texts; entry->name; entry++, count++) {
        Error error = {0};
        OK(h5_schema_parse(&schema, entry->name, entry->text, &error));
        cr_assert_eq(strncmp(schema.format, "dinobatch-", 10), 0);
        for (int i = 0; i < schema.object_count; i++) /* what objects refer to must be there */
            for (int k = 0; k < 4; k++) {
                const H5SchemaObject *o = &schema.objects[i];
                const char *other = k == 0 ? o->with : k == 1 ? o->same_as : k == 2 ? o->offsets : o->crc;
                bool known = !other[0];
                for (int j = 0; j < schema.object_count; j++)
                    known |= strcmp(schema.objects[j].path, other) == 0;
                cr_assert(known, "%s: %s: %s", entry->name, o->path, other);
            }
    }
    cr_assert_eq(count, 6);
}

Test(h5_schema, a_wrong_schema_names_its_line)
{
    static const struct {
        const char *text, *line;
    } wrong[] = {{"format: a\nformat_version: x\n", "s:2:"},
                 {"format: a\nformat_version: 1\nobjects:\n  /x: {types: [int65], dims: [n]}\n", "s:4:"},
                 {"format: a\nformat_version: 1\nobjects:\n  /x: {types: [int64], dims: [n-1]}\n", "s:4:"},
                 {"format: a\nformat_version: 1\nobjects:\n  /x: {types: [int64]}\n", "s:4:"},
                 {"format: a\ncolour: red\n", "s:2:"},
                 {"format: [a\n", "s:"},
                 {"", "s: empty"}};
    static H5Schema schema;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Error error = {0};
        cr_assert_eq(h5_schema_parse(&schema, "s", wrong[i].text, &error), STATUS_INPUT, "%zu", i);
        cr_assert_eq(strncmp(error.text, wrong[i].line, strlen(wrong[i].line)), 0, "%zu: %s", i, error.text);
    }
}

Test(h5_schema, data_sets_are_checked_to_the_byte)
{
    write_dataset((Dataset){0});
    accepted();
    write_dataset((Dataset){.without = "/labels"});
    refused(H5_CHECK_STRUCTURE, "/labels: missing");
    write_dataset((Dataset){.extra_label = 1});
    refused(H5_CHECK_STRUCTURE, "/labels: size is 5, but 4 by");
    write_dataset((Dataset){.overlapping = true});
    refused(H5_CHECK_CHECKSUMS, "/offsets: item 1 lies outside /bytes");
    write_dataset((Dataset){.wrong_crc = true});
    refused(H5_CHECK_CHECKSUMS, "/bytes: item 2 is damaged");
}

Test(h5_schema, fletcher32_finds_a_flipped_byte)
{
    write_dataset((Dataset){0});
    hid_t file = open_raw();
    hid_t dataset = H5Dopen2(file, "/labels", H5P_DEFAULT);
    hid_t space = H5Dget_space(dataset);
    hsize_t start[1] = {0}, stored;
    haddr_t address;
    unsigned mask;
    cr_assert(H5Dget_chunk_info(dataset, space, 0, start, &mask, &address, &stored) >= 0);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    int fd = open(path, O_RDWR);
    cr_assert_eq(pwrite(fd, "\x01", 1, (off_t)address + 3), 1);
    close(fd);
    refused(H5_CHECK_CHECKSUMS, "/labels: damaged");
}

Test(h5_schema, attributes_and_format_are_checked)
{
    write_dataset((Dataset){0});
    hid_t file = open_raw();
    cr_assert(H5Adelete(file, "source") >= 0);
    H5Fclose(file);
    refused(H5_CHECK_STRUCTURE, "attribute source is missing");
    Error error = {0};
    cr_assert_eq(h5_check_file(path, "features", H5_CHECK_STRUCTURE, NULL, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "format is dinobatch-dataset, expected dinobatch-features"), "%s",
              error.text);
    write_dataset((Dataset){0});
    file = open_raw();
    cr_assert(H5Adelete(file, "format_version") >= 0);
    H5Fclose(file);
    refused(H5_CHECK_STRUCTURE, "attribute format_version is missing");
    file = open_raw();
    cr_assert(H5Adelete(file, "format") >= 0);
    H5Fclose(file);
    refused(H5_CHECK_STRUCTURE, "attribute format is missing");
}

/* Puts something of another making in the place of /labels. */
static void replace_labels(void (*make)(hid_t file), const char *text)
{
    write_dataset((Dataset){.without = "/labels"});
    hid_t file = open_raw();
    make(file);
    H5Fclose(file);
    refused(H5_CHECK_CHECKSUMS, text);
}

static void as_group(hid_t file)
{
    H5Gclose(H5Gcreate2(file, "/labels", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void as_soft_link(hid_t file)
{
    H5Lcreate_soft("/offsets", file, "/labels", H5P_DEFAULT, H5P_DEFAULT);
}

static void as_external_link(hid_t file)
{
    H5Lcreate_external("/etc/passwd", "/x", file, "/labels", H5P_DEFAULT, H5P_DEFAULT);
}

static void as_external_data(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(dcpl, "/etc/passwd", 0, 32);
    add_dataset(file, "/labels", H5T_STD_I64LE, 4, dcpl);
    H5Pclose(dcpl);
}

static void as_deflated(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk = 4;
    H5Pset_chunk(dcpl, 1, &chunk);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    H5Pset_deflate(dcpl, 1);
    add_dataset(file, "/labels", H5T_STD_I64LE, 4, dcpl);
    H5Pclose(dcpl);
}

static void as_unallocated(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk = 1024;
    H5Pset_chunk(dcpl, 1, &chunk);
    H5Pset_fletcher32(dcpl);
    add_dataset(file, "/labels", H5T_STD_I64LE, (hsize_t)1 << 59, dcpl);
    H5Pclose(dcpl);
}

static void as_huge(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk = 1024;
    H5Pset_chunk(dcpl, 1, &chunk);
    add_dataset(file, "/labels", H5T_STD_I64LE, (hsize_t)1 << 61, dcpl);
    H5Pclose(dcpl);
}

static void as_variable_text(hid_t file)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    add_dataset(file, "/labels", type, 4, H5P_DEFAULT);
    H5Tclose(type);
}

static void as_big_endian(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    add_dataset(file, "/labels", H5T_STD_I64BE, 4, dcpl);
    H5Pclose(dcpl);
}

static void as_plain(hid_t file)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    add_dataset(file, "/labels", H5T_STD_I64LE, 4, dcpl);
    H5Pclose(dcpl);
}

static void as_scalar(hid_t file)
{
    hid_t space = H5Screate(H5S_SCALAR);
    H5Dclose(H5Dcreate2(file, "/labels", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
}

static void with_a_stranger(hid_t file)
{
    as_plain(file);
    H5Gclose(H5Gcreate2(file, "/aaa", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

Test(h5_schema, hostile_structure_is_refused)
{
    replace_labels(as_group, "/labels: expected a data set");
    replace_labels(as_soft_link, "/labels: a soft or external link");
    replace_labels(as_external_link, "/labels: a soft or external link");
    replace_labels(as_external_data, "/labels: its data lies in another file");
    replace_labels(as_deflated, "/labels: a filter other than Fletcher32");
    replace_labels(as_unallocated, "/labels: its data does not lie wholly in the file");
    replace_labels(as_huge, "/labels: absurdly large");
    replace_labels(as_variable_text, "/labels: ");
    replace_labels(as_big_endian, "/labels: type is other, expected int64");
    replace_labels(as_plain, "/labels: expected the Fletcher32 filter");
    replace_labels(as_scalar, "/labels: expected 1 to 4 dimensions");
    replace_labels(with_a_stranger, "/aaa: does not belong in this format");
}

/* A checkpoint of two small tensors per role. */
static void write_checkpoint(const char *without, int64_t teacher_rows)
{
    Error error = {0};
    H5Schema schema;
    H5File file;
    h5_schema_load(&schema, "checkpoint");
    OK(h5_file_create(&file, path, &error));
    write_attributes(&file, &schema);
    const char *const roles[] = {"/student", "/teacher", "/optimizer/exp_avg", "/optimizer/exp_avg_sq"};
    for (int r = 0; r < 4; r++) {
        for (int t = 0; t < 2; t++) {
            char object[64];
            snprintf(object, sizeof object, "%s/backbone/%s", roles[r], t ? "norm/weight" : "cls_token");
            if (without && strncmp(object, without, strlen(without)) == 0) continue;
            float values[12] = {1, 2, 3};
            H5Info info = {.type = H5_TYPE_F32, .ndim = 2, .shape = {2, 3}, .layout = H5_LAYOUT_CONTIGUOUS};
            if (r == 3) info.shape[0] = teacher_rows;
            OK(h5_dataset_create(&file, object, &info, &error));
            OK(h5_dataset_write_rows(&file, object, 0, info.shape[0], values, &error));
            uint32_t crc = (uint32_t)crc32(0, (const Bytef *)values, (uInt)info.count * 4);
            OK(h5_attribute_write_u32(&file, object, "crc32", crc, &error));
        }
    }
    OK(h5_file_commit(&file, &error));
}

Test(h5_schema, checkpoints_are_checked_as_trees)
{
    write_checkpoint(NULL, 2);
    accepted();
    write_checkpoint("/optimizer/exp_avg/backbone/norm", 2);
    refused(H5_CHECK_STRUCTURE, "/optimizer/exp_avg/backbone/norm/weight: is missing");
    write_checkpoint("/student/backbone/cls_token", 2);
    refused(H5_CHECK_STRUCTURE, "/student/backbone/cls_token: is missing");
    write_checkpoint(NULL, 4);
    refused(H5_CHECK_STRUCTURE,
            "/optimizer/exp_avg_sq/backbone/cls_token: its shape is not that of /student");
    write_checkpoint("/teacher", 2);
    refused(H5_CHECK_STRUCTURE, "/teacher: missing");
    write_checkpoint("/student", 2);
    refused(H5_CHECK_STRUCTURE, "/optimizer/exp_avg: is there without /student");
    write_checkpoint(NULL, 2);
    hid_t file = open_raw(); /* a cycle of groups */
    H5Lcreate_hard(file, "/student", file, "/student/backbone/loop", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    refused(H5_CHECK_STRUCTURE, "groups nested deeper");
}

/* Whatever is flipped: an answer, and where a checksum covers the byte, a refusal. */
Test(h5_schema, damaged_bytes_never_crash)
{
    write_dataset((Dataset){0});
    struct stat info;
    cr_assert_eq(stat(path, &info), 0);
    Rng rng = rng_at((uint64_t)time(NULL), RNG_TEST, 4, (uint64_t)getpid());
    int fd = open(path, O_RDWR), refusals = 0;
    for (int i = 0; i < 100; i++) {
        off_t place = (off_t)rng_integer(&rng, 0, info.st_size - 1);
        unsigned char old, damaged;
        cr_assert_eq(pread(fd, &old, 1, place), 1);
        damaged = (unsigned char)(old ^ (1u << rng_integer(&rng, 0, 7)));
        cr_assert_eq(pwrite(fd, &damaged, 1, place), 1);
        Error error = {0};
        Status status = h5_check_file(path, NULL, H5_CHECK_CHECKSUMS, NULL, &error);
        cr_assert(status == STATUS_OK || (status == STATUS_INPUT && error.text[0]), "byte %lld: %d",
                  (long long)place, status);
        refusals += status != STATUS_OK;
        cr_assert_eq(pwrite(fd, &old, 1, place), 1);
    }
    close(fd);
    accepted();
    cr_assert_gt(refusals, 2);
    for (off_t size = info.st_size - 1; size >= 0; size -= 1 + size / 6) {
        cr_assert_eq(truncate(path, size), 0);
        refused(H5_CHECK_STRUCTURE, path);
    }
}

/* A child that dies (here on a CHECK of ours) is an answer, too. */
Test(h5_schema, a_crash_while_checking_is_an_answer)
{
    write_dataset((Dataset){0});
    Error error = {0};
    cr_assert_eq(h5_check_file(path, "no such kind", H5_CHECK_STRUCTURE, NULL, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "x.h5: unreadable: the HDF5 library breaks on it (signal 6)"), "%s",
              error.text);
}
