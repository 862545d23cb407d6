/* test_safetensors.c - the format as written and read; every way in which a header can lie. */
#include "../support/temp_folder.h"

#include "base/dtype.h"
#include "base/memory.h"
#include "ckpt/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A file of that header, its own length in front, and `bytes` bytes of `fill` behind it. */
static void write_file(const TempFolder *folder, const char *header, size_t bytes, int fill)
{
    uint64_t length = strlen(header);
    char *whole = memory_alloc(sizeof length + length + bytes);
    memcpy(whole, &length, sizeof length);
    memcpy(whole + sizeof length, header, length);
    memset(whole + sizeof length + length, fill, bytes);
    temp_folder_write_bytes(folder, "a.safetensors", whole, sizeof length + length + bytes);
    memory_free(whole);
}

static void expect_refused(const TempFolder *folder, const char *part)
{
    TempPath path = temp_folder_in(folder, "a.safetensors");
    SafetensorsFile file;
    Error error = {0};
    cr_expect_eq(safetensors_open(&file, path.text, &error), STATUS_INPUT, "%s: was taken", part);
    cr_expect_not_null(strstr(error.text, part), "\"%s\" is not in \"%s\"", part, error.text);
    cr_expect_not_null(strstr(error.text, "a.safetensors"), "%s", error.text);
    cr_expect_null(strchr(error.text, '\n'));
}

#define ENTRY(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

Test(safetensors, hostile_headers_are_refused)
{
    static const struct {
        const char *header, *part;
        size_t bytes;
    } cases[] = {
        {"[]", "not JSON", 0},
        {"{\"a\":", "not JSON", 0},
        {"{} x", "not JSON", 0},
        {" {}", "not JSON", 0},
        {"{\"a\":1}", "a: expected one each of dtype", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "a: expected one each of dtype", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1]}}", "a: expected one each of dtype", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"shape\":[9]}}",
         "a: expected one each of", 4},
        {"{" ENTRY("a", "F33", "[1]", "0", "4") "}", "a: dtype is F33", 4},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", "a: dtype is no text", 4},
        {"{" ENTRY("a", "F32", "7", "0", "4") "}", "a: shape is no list", 4},
        {"{" ENTRY("a", "F32", "[-1]", "0", "4") "}", "a: shape holds no whole number", 4},
        {"{" ENTRY("a", "F32", "[1.5]", "0", "4") "}", "a: shape holds no whole number", 4},
        {"{" ENTRY("a", "F32", "[\"1\"]", "0", "4") "}", "a: shape holds no whole number", 4},
        {"{" ENTRY("a", "F32", "[9223372036854775808]", "0", "4") "}", "a: shape holds no whole number", 4},
        {"{" ENTRY("a", "F32", "[1e999]", "0", "4") "}", "a: shape holds no whole number", 4},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", "0", "4") "}", "a: shape is too large", 4},
        {"{" ENTRY("a", "F32", "[4503599627370496,512]", "0", "4") "}", "a: shape is too large", 4},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", "a: shape has more than 8", 4},
        {"{" ENTRY("a", "F32", "[1]", "0", "8") "}", "a: data_offsets [0, 8] are outside", 4},
        {"{" ENTRY("a", "F32", "[1]", "4", "0") "}", "a: data_offsets [4, 0] are outside", 4},
        {"{" ENTRY("a", "F32", "[1]", "-4", "0") "}", "a: data_offsets is not two whole", 4},
        {"{" ENTRY("a", "F32", "[1]", "0", "9e15") "}", "are outside", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "a: data_offsets is not two", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", "a: data_offsets is not two",
         4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"x\":0,\"y\":\"z\"}}}",
         "a: data_offsets is not two", 4},
        {"{" ENTRY("a", "F32", "[2]", "0", "4") "}", "a: data_offsets span 4 bytes, its shape and type 8", 4},
        {"{" ENTRY("a", "F16", "[1]", "0", "2") "," ENTRY("b", "F32", "[1]", "2", "6") "}",
         "b: begins at byte 2, which is not aligned", 6},
        {"{" ENTRY("a", "F32", "[2]", "0", "8") "," ENTRY("b", "F32", "[2]", "4", "12") "}", "b: overlaps a",
         12},
        {"{" ENTRY("a", "F32", "[1]", "0", "4") "," ENTRY("b", "F32", "[1]", "0", "4") "}", "b: overlaps a",
         4},
        {"{" ENTRY("a", "F32", "[1]", "0", "4") "," ENTRY("b", "F32", "[1]", "8", "12") "}",
         "b: 4 bytes before it belong to no tensor", 12},
        {"{" ENTRY("a", "F32", "[1]", "0", "4") "}", "3 bytes at its end belong to no tensor", 7},
        {"{" ENTRY("a", "F32", "[1]", "0", "4") "," ENTRY("a", "F32", "[1]", "4", "8") "}",
         "a: is there twice", 8},
        {"{" ENTRY("a", "F32", "[1]", "0", "4") "," ENTRY("\\u0061", "F32", "[1]", "4", "8") "}",
         "a: is there twice", 8},
        {"{" ENTRY("a\\u0000b", "F32", "[1]", "0", "4") "}", "not JSON", 4},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "__metadata__ is there twice", 0},
        {"{\"__metadata__\":3}", "__metadata__ is there twice, or no object", 0},
    };
    TempFolder folder = temp_folder_create();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(&folder, cases[i].header, cases[i].bytes, 0);
        expect_refused(&folder, cases[i].part);
    }
    temp_folder_destroy(&folder);
}

Test(safetensors, lengths_that_are_not_the_files_are_refused)
{
    TempFolder folder = temp_folder_create();
    static const uint64_t lengths[] = {0, 1, 3, 100, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char bytes[10];
        memcpy(bytes, &lengths[i], sizeof lengths[i]);
        memcpy(bytes + 8, "{}", 2);
        temp_folder_write_bytes(&folder, "a.safetensors", bytes, sizeof bytes);
        expect_refused(&folder, "a header of ");
    }
    for (size_t size = 0; size < 10; size++) {
        temp_folder_write_bytes(&folder, "a.safetensors", "\2\0\0\0\0\0\0\0{}", size);
        expect_refused(&folder, "no file of at least 10 bytes");
    }
    /* a header beyond what is taken, all of it there: 20 MB of spaces */
    uint64_t huge = 20u << 20;
    char *bytes = memory_alloc(sizeof huge + huge);
    memset(bytes, ' ', sizeof huge + huge);
    memcpy(bytes, &huge, sizeof huge);
    memcpy(bytes + 8, "{}", 2);
    temp_folder_write_bytes(&folder, "a.safetensors", bytes, sizeof huge + huge);
    expect_refused(&folder, "16777216 at most");
    memory_free(bytes);
    SafetensorsFile file;
    Error error = {0};
    cr_expect_eq(safetensors_open(&file, folder.path, &error), STATUS_INPUT);
    cr_expect_eq(safetensors_open(&file, "/nonexistent.safetensors", &error), STATUS_INPUT);
    temp_folder_destroy(&folder);
}

Test(safetensors, deep_nesting_is_refused)
{
    TempFolder folder = temp_folder_create();
    size_t depth = 200000;
    char *header = memory_alloc(depth + 6);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', depth);
    write_file(&folder, header, 0, 0);
    expect_refused(&folder, "not JSON");
    memory_free(header);
    temp_folder_destroy(&folder);
}

Test(safetensors, what_is_written_comes_back)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "sub/b.safetensors");
    static const int64_t matrix[] = {2, 3}, none[] = {0, 4};
    const float values[] = {1.5f, -0.0f, 3e-42f, 3.4e38f, -7.0f, 0.1f}, scalar = 42.0f;
    const SafetensorsSource sources[] = {{"z.weight", 2, matrix, values, SAFETENSORS_F32},
                                         {"a\"\\\xc3\xa9", 0, NULL, &scalar, SAFETENSORS_F32},
                                         {"empty", 2, none, values, SAFETENSORS_F32}};
    Error error = {0};
    cr_assert_eq(safetensors_write(path.text, sources, 3, &error), STATUS_OK, "%s", error.text);
    SafetensorsFile file;
    cr_assert_eq(safetensors_open(&file, path.text, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(file.count, 3);
    cr_expect_eq(file.data % 8, 0, "the tensors begin aligned");
    const SafetensorsTensor *z = safetensors_find(&file, "z.weight");
    cr_assert(z && z->ndim == 2 && z->shape[0] == 2 && z->shape[1] == 3 && z->begin == 0);
    float back[6], one;
    cr_assert_eq(safetensors_read(&file, z, 0, 6, back, &error), STATUS_OK, "%s", error.text);
    cr_expect(memcmp(back, values, sizeof back) == 0);
    cr_assert_eq(safetensors_read(&file, z, 2, 3, back, &error), STATUS_OK);
    cr_expect(memcmp(back, values + 2, 3 * sizeof *back) == 0);
    const SafetensorsTensor *a = safetensors_find(&file, sources[1].name);
    cr_assert(a && a->ndim == 0 && a->count == 1);
    cr_assert_eq(safetensors_read(&file, a, 0, 1, &one, &error), STATUS_OK);
    cr_expect_eq(one, 42.0f);
    cr_expect_null(safetensors_find(&file, "z.weigh"));
    safetensors_close(&file);
    char *text = temp_folder_read(&folder, "sub/b.safetensors.tmp");
    cr_expect_str_eq(text, "", "no temporary file stays");
    temp_folder_free_text(text);
    cr_expect_eq(safetensors_write("/proc/no/such.safetensors", sources, 3, &error) == STATUS_OK, false);
    temp_folder_destroy(&folder);
}

/* Reads one tensor of two elements of that type, whose bytes are given. */
static Status read_two(const char *dtype, const void *bytes, size_t size, float values[2], Error *error)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "a.safetensors");
    char header[160], whole[200];
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%zu]}}   ",
             dtype, size);
    uint64_t length = strlen(header);
    memcpy(whole, &length, sizeof length);
    memcpy(whole + 8, header, length);
    memcpy(whole + 8 + length, bytes, size);
    temp_folder_write_bytes(&folder, "a.safetensors", whole, 8 + length + size);
    SafetensorsFile file;
    Status status = safetensors_open(&file, path.text, error);
    if (status == STATUS_OK) {
        status = safetensors_read(&file, &file.tensors[0], 0, 2, values, error);
        safetensors_close(&file);
    }
    temp_folder_destroy(&folder);
    return status;
}

Test(safetensors, types_become_fp32_and_what_is_not_finite_is_refused)
{
    float values[2];
    Error error = {0};
    const uint16_t half[] = {0x3c00, 0xc000}, brain[] = {0x3f80, 0xc000}, half_nan[] = {0x3c00, 0x7e00};
    const double wide[] = {0.1, -2.0}, beyond[] = {1.0, 1e300};
    const float infinite[] = {INFINITY, 0.0f}, nan[] = {0.0f, NAN};
    const int64_t whole[] = {1, 2};
    cr_assert_eq(read_two("F16", half, sizeof half, values, &error), STATUS_OK, "%s", error.text);
    cr_expect(values[0] == 1.0f && values[1] == -2.0f);
    cr_assert_eq(read_two("BF16", brain, sizeof brain, values, &error), STATUS_OK, "%s", error.text);
    cr_expect(values[0] == 1.0f && values[1] == -2.0f);
    cr_assert_eq(read_two("F64", wide, sizeof wide, values, &error), STATUS_OK, "%s", error.text);
    cr_expect(values[0] == 0.1f && values[1] == -2.0f);
    cr_expect_eq(read_two("I64", whole, sizeof whole, values, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "t: expected F32"), "%s", error.text);
    cr_expect_eq(read_two("F16", half_nan, sizeof half_nan, values, &error), STATUS_INPUT);
    cr_expect_eq(read_two("F64", beyond, sizeof beyond, values, &error), STATUS_INPUT);
    cr_expect_eq(read_two("F32", infinite, sizeof infinite, values, &error), STATUS_INPUT);
    cr_expect_eq(read_two("F32", nan, sizeof nan, values, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "t: element 1 is NaN"), "%s", error.text);
}

Test(safetensors, sixteen_bits_are_rounded_and_come_back_as_they_were)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "a.safetensors");
    static const SafetensorsType types[] = {SAFETENSORS_F16, SAFETENSORS_BF16};
    const float values[] = {0.1f, -65504.0f, 1e-7f, -0.0f, 3.14159f};
    float large[] = {1.0f, 1.0f, 65520.0f, 1.0f, 3.4e38f};
    static const int64_t five[] = {5};
    Error error = {0};
    for (int i = 0; i < 2; i++) {
        float back[5];
        SafetensorsSource source = {"t", 1, five, values, types[i]};
        cr_assert_eq(safetensors_write(path.text, &source, 1, &error), STATUS_OK, "%s", error.text);
        SafetensorsFile file;
        cr_assert_eq(safetensors_open(&file, path.text, &error), STATUS_OK, "%s", error.text);
        cr_assert(file.tensors[0].type == types[i] && file.tensors[0].bytes == 10);
        cr_assert_eq(safetensors_read(&file, &file.tensors[0], 0, 5, back, &error), STATUS_OK);
        safetensors_close(&file);
        for (int k = 0; k < 5; k++)
            cr_expect_eq(back[k], i ? dtype_f32_from_bf16(dtype_bf16_from_f32(values[k]))
                                    : dtype_f32_from_f16(dtype_f16_from_f32(values[k])));
        source.values = large;
        cr_expect_eq(safetensors_write(path.text, &source, 1, &error), STATUS_INPUT);
        cr_expect_not_null(strstr(error.text, i ? "t: element 4 is 3.4e+38, beyond BF16"
                                                : "t: element 2 is 65520, beyond F16"),
                           "%s", error.text);
    }
    temp_folder_destroy(&folder);
}

/* --- several files --- */

static void write_part(const TempFolder *folder, const char *part, const char *first, const char *second)
{
    static const int64_t two[] = {2};
    const float values[] = {(float)first[0], (float)second[0]};
    const SafetensorsSource sources[] = {{first, 1, two, values, SAFETENSORS_F32},
                                         {second, 1, two, values, SAFETENSORS_F16}};
    cr_assert_eq(safetensors_write(temp_folder_in(folder, "%s", part).text, sources, 2, NULL), STATUS_OK);
}

static Status open_index(const TempFolder *folder, const char *text, SafetensorsFile *file, Error *error)
{
    temp_folder_write(folder, "m.safetensors.index.json", text);
    *error = (Error){0};
    return safetensors_open(file, temp_folder_in(folder, "m.safetensors.index.json").text, error);
}

Test(safetensors, several_files_are_one)
{
    TempFolder folder = temp_folder_create();
    Error error;
    SafetensorsFile file;
    write_part(&folder, "m-1.safetensors", "d", "a");
    write_part(&folder, "m-2.safetensors", "c", "b");
    Status status = open_index(&folder,
                               "{\"metadata\": {\"total_size\": 24}, \"weight_map\": {\n"
                               "\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\",\n"
                               "\"c\": \"m-2.safetensors\", \"d\": \"m-1.safetensors\"}}\n",
                               &file, &error);
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
    cr_assert_eq(file.count, 4);
    for (int i = 0; i < 4; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        const SafetensorsTensor *tensor = safetensors_find(&file, name);
        float values[2];
        cr_assert_eq(tensor, &file.tensors[i]);
        cr_assert_eq(safetensors_read(&file, tensor, 0, 2, values, &error), STATUS_OK, "%s", error.text);
        cr_expect(values[0] == (i == 0 || i == 3 ? 'd' : 'c') && values[1] == (i == 0 || i == 3 ? 'a' : 'b'));
    }
    safetensors_close(&file);
    temp_folder_destroy(&folder);
}

#define MAP(entries) "{\"weight_map\":{" entries "}}"

Test(safetensors, a_hostile_index_is_refused)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "not JSON"},
        {"{} x", "not JSON"},
        {"[]", "there is no weight_map"},
        {"{\"weight_map\":[]}", "there is no weight_map"},
        {MAP("\"a\":7"), "a: expected a FILE.safetensors of the same folder"},
        {MAP("\"a\":\"../m-1.safetensors\""), "a: expected a FILE.safetensors"},
        {MAP("\"a\":\"/etc/m-1.safetensors\""), "a: expected a FILE.safetensors"},
        {MAP("\"a\":\".safetensors\""), "a: expected a FILE.safetensors"},
        {MAP("\"a\":\"m.safetensors.index.json\""), "a: expected a FILE.safetensors"},
        {MAP("\"a\":\"m-9.safetensors\""), "m-9.safetensors: cannot open"},
        {MAP("\"a\":\"bad.safetensors\""), "bad.safetensors: not safetensors"},
        {MAP("\"a\\u0000b\":\"m-1.safetensors\""), "not JSON"},
        {MAP("\"a\":\"m-1.safetensors\",\"x\":\"m-1.safetensors\""), "x: is not in "},
        {MAP("\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\""), "a: is there twice"},
        {MAP("\"a\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\",\"d\":\"m-1.safetensors\","
             "\"c\":\"m-2.safetensors\""),
         "a: is there twice"},
        {MAP("\"a\":\"m-1.safetensors\""), "m-1.safetensors is not in it"},
    };
    TempFolder folder = temp_folder_create();
    write_part(&folder, "m-1.safetensors", "a", "d");
    write_part(&folder, "m-2.safetensors", "a", "c");
    temp_folder_write(&folder, "bad.safetensors", "nothing of that kind");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SafetensorsFile file;
        Error error;
        cr_expect_eq(open_index(&folder, cases[i].text, &file, &error), STATUS_INPUT, "%s", cases[i].part);
        cr_expect_not_null(strstr(error.text, cases[i].part), "\"%s\" is not in \"%s\"", cases[i].part,
                           error.text);
        cr_expect_not_null(strstr(error.text, "m.safetensors.index.json"), "%s", error.text);
        cr_expect_null(file.path);
    }
    temp_folder_destroy(&folder);
}
