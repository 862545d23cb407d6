/* test_h5.c - files, data sets and attributes: round trips, atomicity, and refusing what we never write. */
#include "../support/temp_folder.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "features/features_file.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"
#include "h5/result_file.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static TempFolder temp;

static void make_folder(void)
{
    temp = temp_folder_create();
}

static void remove_folder(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(h5, .init = make_folder, .fini = remove_folder, .timeout = 30);

/* A name inside the folder. */
static TempPath in_folder(const char *name)
{
    return temp_folder_in(&temp, "%s", name);
}

static bool exists(const char *name)
{
    return access(in_folder(name).text, F_OK) == 0;
}

#define OK(expression)                                         \
    do {                                                       \
        Status ok_status_ = (expression);                      \
        cr_assert_eq(ok_status_, STATUS_OK, "%s", error.text); \
    } while (0)

Test(h5, round_trips_every_type_layout_and_rank)
{
    Error error = {0};
    H5File file;
    Rng rng = rng_at((uint64_t)getpid(), RNG_TEST, 1, 0);
    OK(h5_file_create(&file, in_folder("all.h5").text, &error));
    char object[64];
    static unsigned char data[9][2][60 * 8];
    for (int t = H5_TYPE_F16; t < H5_TYPE_TEXT; t++) {
        for (int layout = 0; layout < 2; layout++) {
            H5Info info = {.type = (H5Type)t, .ndim = 1 + t % 4, .layout = (H5Layout)layout};
            const int64_t shape[4] = {5, info.ndim > 1 ? 3 : 1, info.ndim > 2 ? 2 : 1, info.ndim > 3 ? 2 : 1};
            memcpy(info.shape, shape, sizeof shape);
            snprintf(object, sizeof object, "/%s/a/%d", h5_type_name((H5Type)t), layout);
            OK(h5_dataset_create(&file, object, &info, &error));
            for (size_t i = 0; i < sizeof data[0][0]; i++)
                data[t][layout][i] = (unsigned char)rng_u32(&rng);
            /* in two parts, the second first */
            size_t row = (size_t)(info.count / 5) * info.item_bytes;
            OK(h5_dataset_write_rows(&file, object, 2, 3, data[t][layout] + 2 * row, &error));
            OK(h5_dataset_write_rows(&file, object, 0, 2, data[t][layout], &error));
        }
    }
    OK(h5_file_commit(&file, &error));
    OK(h5_file_open(&file, in_folder("all.h5").text, &error));
    for (int t = H5_TYPE_F16; t < H5_TYPE_TEXT; t++) {
        for (int layout = 0; layout < 2; layout++) {
            H5Info info;
            void *out;
            snprintf(object, sizeof object, "/%s/a/%d", h5_type_name((H5Type)t), layout);
            OK(h5_dataset_get(&file, object, (H5Type)t, 1 + t % 4, &info, &out, &error));
            cr_assert_eq(info.layout, (H5Layout)layout);
            cr_assert_eq(memcmp(out, data[t][layout], (size_t)info.count * info.item_bytes), 0, "%s", object);
            cr_assert_eq(info.offset >= 0, layout == H5_LAYOUT_CONTIGUOUS);
            memory_free(out);
        }
    }
    OK(h5_file_close(&file, &error));
}

Test(h5, contiguous_data_lies_at_the_offset)
{
    Error error = {0};
    H5File file;
    int64_t written[100], found[100];
    for (int i = 0; i < 100; i++)
        written[i] = (int64_t)i * i * 1000003;
    OK(h5_file_create(&file, in_folder("flat.h5").text, &error));
    H5Info info = {.type = H5_TYPE_I64, .ndim = 1, .shape = {100}, .layout = H5_LAYOUT_CONTIGUOUS};
    OK(h5_dataset_create(&file, "/x", &info, &error));
    OK(h5_dataset_write_rows(&file, "/x", 0, 100, written, &error));
    OK(h5_file_commit(&file, &error));
    int fd = open(in_folder("flat.h5").text, O_RDONLY);
    cr_assert_eq(pread(fd, found, sizeof found, info.offset), (ssize_t)sizeof found);
    close(fd);
    cr_assert_eq(memcmp(written, found, sizeof found), 0);
}

Test(h5, text_keeps_its_bytes)
{
    Error error = {0};
    H5File file;
    const char *const texts[] = {"", "caf\xc3\xa9", "n02086240/n02086240_1.JPEG", "x"};
    OK(h5_file_create(&file, in_folder("text.h5").text, &error));
    OK(h5_dataset_put_text(&file, "/keys", 4, texts, &error));
    OK(h5_dataset_put_text(&file, "/none", 0, texts, &error));
    OK(h5_attribute_write_text(&file, "/", "empty", "", &error));
    OK(h5_attribute_write_text(&file, "/keys", "note", texts[1], &error));
    size_t long_bytes = 200000;
    char *long_text = memory_alloc(long_bytes + 1);
    memset(long_text, 'y', long_bytes);
    OK(h5_attribute_write_text(&file, "/", "config", long_text, &error));
    OK(h5_file_commit(&file, &error));
    OK(h5_file_open(&file, in_folder("text.h5").text, &error));
    H5Info info;
    void *out;
    OK(h5_dataset_get(&file, "/keys", H5_TYPE_TEXT, 1, &info, &out, &error));
    cr_assert_eq(info.item_bytes, strlen(texts[2]));
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(strncmp((char *)out + i * info.item_bytes, texts[i], info.item_bytes), 0);
    memory_free(out);
    OK(h5_dataset_get(&file, "/none", H5_TYPE_TEXT, 1, &info, &out, &error));
    cr_assert_eq(info.count, 0);
    memory_free(out);
    char *text;
    OK(h5_attribute_read_text(&file, "/", "empty", &text, &error));
    cr_assert_str_eq(text, "");
    memory_free(text);
    OK(h5_attribute_read_text(&file, "/keys", "note", &text, &error));
    cr_assert_str_eq(text, texts[1]);
    memory_free(text);
    OK(h5_attribute_read_text(&file, "/", "config", &text, &error));
    cr_assert_str_eq(text, long_text);
    memory_free(text);
    memory_free(long_text);
    OK(h5_file_close(&file, &error));
}

Test(h5, attributes_round_trip_and_complain)
{
    Error error = {0};
    H5File file;
    int64_t ints[3] = {INT64_MIN, -1, INT64_MAX}, ints_back[3];
    double doubles[2] = {0.1, -INFINITY}, doubles_back[2];
    OK(h5_file_create(&file, in_folder("attributes.h5").text, &error));
    OK(h5_file_create_group(&file, "/a/b", &error));
    OK(h5_attribute_write_ints(&file, "/a/b", "ints", ints, 3, &error));
    OK(h5_attribute_write_doubles(&file, "/", "doubles", doubles, 2, &error));
    OK(h5_attribute_write_u32(&file, "/a", "crc32", 0, &error));
    OK(h5_attribute_write_u32(&file, "/a", "crc32", 0xdeadbeefu, &error)); /* in place */
    cr_assert_eq(h5_attribute_write_ints(&file, "/a/b", "ints", ints, 2, &error), STATUS_FAILED);
    OK(h5_file_commit(&file, &error));
    OK(h5_file_open(&file, in_folder("attributes.h5").text, &error));
    OK(h5_attribute_read_ints(&file, "/a/b", "ints", ints_back, 3, &error));
    OK(h5_attribute_read_doubles(&file, "/", "doubles", doubles_back, 2, &error));
    uint32_t crc;
    OK(h5_attribute_read_u32(&file, "/a", "crc32", &crc, &error));
    cr_assert(memcmp(ints, ints_back, sizeof ints) == 0 &&
              memcmp(doubles, doubles_back, sizeof doubles) == 0);
    cr_assert_eq(crc, 0xdeadbeefu);
    cr_assert_eq(h5_attribute_read_ints(&file, "/", "doubles", ints_back, 2, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "attribute doubles is float64 [2], expected int64 [2]"), "%s", error.text);
    cr_assert_eq(h5_attribute_read_ints(&file, "/a/b", "nope", ints_back, 1, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "/a/b: attribute nope is missing"), "%s", error.text);
    H5AttributeInfo info;
    OK(h5_attribute_info(&file, "/", "nope", &info, &error));
    cr_assert_not(info.exists);
    OK(h5_file_close(&file, &error));
}

Test(h5, a_file_has_its_name_only_when_whole)
{
    Error error = {0};
    H5File file;
    OK(atomic_file_write_text(in_folder("a.h5").text, "the old one", &error));
    OK(h5_file_create(&file, in_folder("a.h5").text, &error));
    cr_assert(exists("a.h5.tmp"));
    h5_file_abandon(&file);
    cr_assert_not(exists("a.h5.tmp"));
    struct stat info;
    cr_assert(stat(in_folder("a.h5").text, &info) == 0 && info.st_size == 11);
    OK(h5_file_create(&file, in_folder("a.h5").text, &error));
    OK(h5_file_commit(&file, &error));
    cr_assert_not(exists("a.h5.tmp"));
    OK(h5_file_open(&file, in_folder("a.h5").text, &error));
    OK(h5_file_close(&file, &error));
    cr_assert_eq(h5_file_create(&file, "/proc/nowhere/a.h5", &error), STATUS_FAILED);
    cr_assert(strstr(error.text, "/proc/nowhere/a.h5.tmp"), "%s", error.text);
    h5_file_abandon(&file);
}

Test(h5, unusable_files_are_one_line)
{
    Error error = {0};
    H5File file;
    cr_assert_eq(h5_file_open(&file, in_folder("missing.h5").text, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "missing.h5: No such file"), "%s", error.text);
    cr_assert_eq(h5_file_open(&file, temp.path, &error), STATUS_INPUT);
    OK(atomic_file_write_text(in_folder("text.h5").text, "not HDF5 at all", &error));
    cr_assert_eq(h5_file_open(&file, in_folder("text.h5").text, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "not a whole HDF5 file"), "%s", error.text);
    OK(h5_file_create(&file, in_folder("cut.h5").text, &error));
    int64_t n = 10000;
    double *zeros = memory_alloc_array((size_t)n, sizeof *zeros);
    OK(h5_dataset_put(&file, "/x", H5_TYPE_F64, 1, &n, zeros, &error));
    memory_free(zeros);
    OK(h5_file_commit(&file, &error));
    struct stat info;
    cr_assert_eq(stat(in_folder("cut.h5").text, &info), 0);
    cr_assert_eq(truncate(in_folder("cut.h5").text, info.st_size - 1), 0);
    cr_assert_eq(h5_file_open(&file, in_folder("cut.h5").text, &error), STATUS_INPUT);
    cr_assert_null(strchr(error.text, '\n'));
}

Test(h5, walking_says_what_is_there)
{
    Error error = {0};
    H5File file;
    int64_t one = 1, value = 7;
    OK(h5_file_create(&file, in_folder("tree.h5").text, &error));
    OK(h5_dataset_put(&file, "/z/b", H5_TYPE_I64, 1, &one, &value, &error));
    OK(h5_dataset_put(&file, "/z/a", H5_TYPE_I64, 1, &one, &value, &error));
    OK(h5_file_create_group(&file, "/z/aa", &error));
    H5Names names;
    OK(h5_file_list(&file, "/z", &names, &error));
    cr_assert_eq(names.count, 3);
    cr_assert(!strcmp(names.names[0], "a") && !strcmp(names.names[1], "aa") && !strcmp(names.names[2], "b"));
    h5_names_fini(&names);
    const struct {
        const char *path;
        H5Kind kind;
    } expected[] = {{"/", H5_KIND_GROUP},       {"/z", H5_KIND_GROUP},     {"/z/b", H5_KIND_DATASET},
                    {"/z/b/c", H5_KIND_ABSENT}, {"/nope", H5_KIND_ABSENT}, {"/nope/x", H5_KIND_ABSENT}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        H5Kind kind;
        OK(h5_file_kind(&file, expected[i].path, &kind, &error));
        cr_assert_eq(kind, expected[i].kind, "%s", expected[i].path);
    }
    cr_assert_eq(h5_file_list(&file, "/z/b", &names, &error), STATUS_INPUT);
    h5_names_fini(&names);
    double wrong;
    cr_assert_eq(h5_dataset_read_rows(&file, "/z/b", H5_TYPE_F64, 0, 1, &wrong, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "/z/b: int64, expected float64"), "%s", error.text);
    cr_assert_eq(h5_dataset_read_rows(&file, "/z/b", H5_TYPE_I64, 1, 1, &value, &error), STATUS_INPUT);
    h5_file_abandon(&file);
}

static void *use_library(void *argument)
{
    Error error = {0};
    const char *path = argument;
    for (int i = 0; i < 20; i++) {
        H5File file;
        int64_t n = 1000, *values = memory_alloc_array(1000, sizeof *values);
        values[999] = i;
        if (h5_file_create(&file, path, &error) ||
            h5_dataset_put(&file, "/x", H5_TYPE_I64, 1, &n, values, &error) ||
            h5_file_commit(&file, &error) || h5_file_open(&file, path, &error) ||
            h5_dataset_read_rows(&file, "/x", H5_TYPE_I64, 0, n, values, &error) ||
            h5_file_close(&file, &error))
            return "a call failed";
        if (values[999] != i) return "wrong value";
        memory_free(values);
    }
    return NULL;
}

Test(h5, threads_take_turns)
{
    pthread_t threads[4];
    TempPath paths[4];
    for (int t = 0; t < 4; t++) {
        paths[t] = temp_folder_in(&temp, "%d.h5", t);
        pthread_create(&threads[t], NULL, use_library, paths[t].text);
    }
    for (int t = 0; t < 4; t++) {
        void *complaint;
        pthread_join(threads[t], &complaint);
        cr_assert_null(complaint, "%s", (char *)complaint);
    }
}

/* --- the kinds that one rank writes -------------------------------------------------------------------- */

static const FeaturesMeta FEATURES_META = {.model = "model.h5",
                                           .arch = "vit_small",
                                           .layer = "class_token",
                                           .data = "folder:x",
                                           .config = "a: 1\n",
                                           .version = "0",
                                           .input_size = 224};

Test(h5, features_in_pieces_come_back)
{
    enum { N = 1001, D = 37 };
    Error error = {0};
    static float values[N][D], back[N][D];
    static int64_t labels[N], labels_back[N];
    static char names[N][12];
    static const char *keys[N];
    Rng rng = rng_at((uint64_t)getpid(), RNG_TEST, 2, 0);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < D; j++)
            values[i][j] = (float)rng_normal(&rng);
        labels[i] = rng_integer(&rng, -1, 9);
        snprintf(names[i], sizeof names[i], "img_%d", i);
        keys[i] = names[i];
    }
    FeaturesFile features;
    OK(features_file_create(&features, in_folder("f.h5").text, N, D, 10, 11, &FEATURES_META, &error));
    const int cuts[] = {0, 1, 400, 999, N};
    for (int p = 3; p >= 0; p--) {
        int a = cuts[p], rows = cuts[p + 1] - cuts[p];
        OK(features_file_write(&features, a, rows, values[a], labels + a, keys + a, &error));
    }
    OK(features_file_commit(&features, &error));
    OK(h5_check_file(in_folder("f.h5").text, "features", H5_CHECK_CHECKSUMS, NULL, &error));
    OK(features_file_open(&features, in_folder("f.h5").text, &error));
    cr_assert(features.n == N && features.d == D && features.classes == 10 &&
              features.meta.input_size == 224);
    cr_assert_str_eq(features.meta.data, "folder:x");
    OK(features_file_read(&features, 0, 600, back[0], labels_back, &error));
    OK(features_file_read(&features, 600, N - 600, back[600], labels_back + 600, &error));
    cr_assert(memcmp(values, back, sizeof back) == 0 && memcmp(labels, labels_back, sizeof labels) == 0);
    char *read_keys = memory_alloc_array(3, features.key_bytes + 1);
    OK(features_file_read_keys(&features, 998, 3, read_keys, &error));
    cr_assert_str_eq(read_keys + 2 * (features.key_bytes + 1), "img_1000");
    memory_free(read_keys);
    features_file_close(&features);
}

Test(h5, half_precision_features_are_widened)
{
    Error error = {0};
    const uint16_t halves[8] = {0x0000, 0x8000, 0x3c00, 0xc500, 0x7bff, 0x0001, 0x7c00, 0x03ff};
    const float expected[8] = {0.f, -0.f, 1.f, -5.f, 65504.f, 0x1p-24f, INFINITY, 1023 * 0x1p-24f};
    FeaturesFile features;
    H5File file;
    const char *key = "k";
    int64_t label = 0, shape[2] = {1, 8};
    float zeros[8] = {0}, back[8];
    OK(features_file_create(&features, in_folder("32.h5").text, 1, 8, 1, 1, &FEATURES_META, &error));
    OK(features_file_write(&features, 0, 1, zeros, &label, &key, &error));
    /* the same file, but for its /features */
    OK(h5_file_create(&file, in_folder("16.h5").text, &error));
    OK(h5_attribute_write_text(&file, "/", "format", "dinobatch-features", &error));
    OK(h5_attribute_write_int(&file, "/", "format_version", 1, &error));
    const char *const texts[] = {"model", "arch", "layer", "data", "config", "version"};
    for (int i = 0; i < 6; i++)
        OK(h5_attribute_write_text(&file, "/", texts[i], "t", &error));
    OK(h5_attribute_write_int(&file, "/", "input_size", 1, &error));
    OK(h5_attribute_write_int(&file, "/", "classes", 1, &error));
    OK(h5_dataset_put(&file, "/features", H5_TYPE_F16, 2, shape, halves, &error));
    OK(h5_dataset_put(&file, "/labels", H5_TYPE_I64, 1, shape, &label, &error));
    OK(h5_dataset_put_text(&file, "/keys", 1, &key, &error));
    OK(h5_file_commit(&file, &error));
    features_file_abandon(&features);
    OK(features_file_open(&features, in_folder("16.h5").text, &error));
    OK(features_file_read(&features, 0, 1, back, NULL, &error));
    cr_assert_eq(memcmp(back, expected, sizeof back), 0);
    features_file_close(&features);
}

Test(h5, results_come_back)
{
    Error error = {0};
    const Figure figures[2] = {{"knn_top1", "%", 81.25, 79.0, "paper, table 4"},
                               {"rate", "images/s", 12.5, NAN, ""}};
    const Result written = {.job = "evaluate knn",
                            .subject = "model_0000009.h5",
                            .config = "x: 1",
                            .version = "0",
                            .figures = figures,
                            .count = 2};
    OK(result_file_write(in_folder("r.h5").text, &written, &error));
    OK(h5_check_file(in_folder("r.h5").text, NULL, H5_CHECK_CHECKSUMS, NULL, &error));
    Result back;
    OK(result_file_read(in_folder("r.h5").text, &back, &error));
    cr_assert_eq(back.count, 2);
    cr_assert_str_eq(back.job, "evaluate knn");
    for (int i = 0; i < 2; i++) {
        cr_assert_str_eq(back.figures[i].name, figures[i].name);
        cr_assert_str_eq(back.figures[i].unit, figures[i].unit);
        cr_assert_str_eq(back.figures[i].source, figures[i].source);
        cr_assert_eq(memcmp(&back.figures[i].value, &figures[i].value, sizeof(double)), 0);
    }
    cr_assert(back.figures[0].published == 79.0 && isnan(back.figures[1].published));
    result_file_fini(&back);
    cr_assert_eq(features_file_open(&(FeaturesFile){0}, in_folder("r.h5").text, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, "format is dinobatch-result, expected dinobatch-features"), "%s",
              error.text);
}

Test(h5, a_full_disk_is_an_error)
{
    Error error = {0};
    cr_assert_eq(atomic_file_probe_space("/dev/full/x", 1, &error), STATUS_FAILED);
    cr_assert_eq(atomic_file_probe_space(in_folder("x").text, (int64_t)1 << 60, &error), STATUS_FAILED);
    cr_assert_not(exists("x"));
}

/* Many small parts, about 130 kB, in files that may grow to `bytes` from when they are made. */
static Status write_parts(const char *path, rlim_t bytes, Error *error)
{
    H5File file;
    struct rlimit old, limit;
    cr_assert_eq(h5_file_create(&file, path, error), STATUS_OK, "%s", error->text);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    Status status = STATUS_OK;
    for (int i = 0; i < 100 && status == STATUS_OK; i++) {
        char name[32];
        snprintf(name, sizeof name, "/group/%d/part", i);
        H5Info info = {.type = H5_TYPE_F32, .ndim = 1, .shape = {100}, .layout = H5_LAYOUT_CONTIGUOUS};
        status = h5_dataset_create(&file, name, &info, error);
        if (status == STATUS_OK) status = h5_attribute_write_u32(&file, name, "crc32", 1, error);
    }
    if (status == STATUS_OK)
        status = h5_file_commit(&file, error);
    else
        h5_file_abandon(&file);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    return status;
}

/* The library must get over it: it writes good files afterwards, and does not crash in the end. */
Test(h5, a_disk_that_fills_up_anywhere_in_a_file)
{
    Error error = {0};
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 1; bytes < 60000; bytes = bytes * 3 / 2 + 1) {
        cr_assert_eq(write_parts(in_folder("full.h5").text, bytes, &error), STATUS_FAILED, "%lu",
                     (unsigned long)bytes);
        cr_assert(strstr(error.text, "full.h5: cannot write: File too large"), "%s", error.text);
        cr_assert_not(exists("full.h5") || exists("full.h5.tmp"));
    }
    OK(write_parts(in_folder("good.h5").text, RLIM_INFINITY, &error));
    H5File file;
    uint32_t crc;
    OK(h5_file_open(&file, in_folder("good.h5").text, &error));
    OK(h5_attribute_read_u32(&file, "/group/99/part", "crc32", &crc, &error));
    cr_assert_eq(crc, 1);
    OK(h5_file_close(&file, &error));
    cr_assert_eq(H5close(), 0);
}
