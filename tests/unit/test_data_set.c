/* test_data_set.c - folders, archives and shards with awkward and hostile contents; selections; packing. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/data_pack.h"
#include "data/data_set.h"
#include "data/image_encode.h"
#include "data/synthetic_draw.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static TempFolder folder; /* of the running test; Criterion gives each test a process of its own */

static void make_folder(void)
{
    folder = temp_folder_create();
}

static void remove_folder(void)
{
    temp_folder_destroy(&folder);
}

TestSuite(data_set, .init = make_folder, .fini = remove_folder, .timeout = 20);

static const char *at(const char *relative)
{
    static char paths[4][4096]; /* a few may be in use in one expression */
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, 4096, "%s/%s", folder.path, relative);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* A small PNG that differs from number to number. */
static DataBuffer picture(int number)
{
    DataBuffer buffer = {0};
    uint8_t pixels[6 * 5 * 3];
    for (int i = 0; i < 6 * 5 * 3; i++)
        pixels[i] = (uint8_t)(i * 7 + number);
    cr_assert_eq(image_encode_png(&buffer, pixels, 6, 5, 3, NULL), STATUS_OK);
    return buffer;
}

static void put(const char *relative, int number)
{
    DataBuffer buffer = picture(number);
    write_bytes(at(relative), buffer.bytes, buffer.size);
    data_buffer_destroy(&buffer);
}

static DataSet *open_set(const char *kind, const char *relative)
{
    char spec[4200];
    snprintf(spec, sizeof spec, "%s:%s", kind, at(relative));
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s: %s", spec, error.text);
    return set;
}

/* Opening fails as input, with a line that holds `words`. */
static void expect_refusal(const char *kind, const char *relative, const char *words)
{
    char spec[4200];
    snprintf(spec, sizeof spec, "%s:%s", kind, at(relative));
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_INPUT, "%s", spec);
    cr_assert_null(set);
    cr_assert_not_null(strstr(error.text, words), "\"%s\" does not say \"%s\"", error.text, words);
}

static void expect_key(const DataSet *set, int64_t index, const char *key, int64_t label)
{
    char text[DATA_SET_KEY_MAX];
    data_set_key(set, index, text, sizeof text);
    cr_assert_str_eq(text, key);
    cr_assert_eq(data_set_label(set, index), label, "%s", key);
}

/* Number with which picture() made image `index`. */
static int number_of(const DataSet *set, int64_t index)
{
    Image image = {0};
    DataBuffer buffer = {0};
    Error error = {0};
    cr_assert_eq(data_set_load_image(set, index, &image, &buffer, &error), STATUS_OK, "%s", error.text);
    cr_assert(image.width == 6 && image.height == 5);
    int number = image.rgb[0];
    image_destroy(&image);
    data_buffer_destroy(&buffer);
    return number;
}

/* --- folders --- */

static void make_classes(void)
{
    mkdir(at("set"), 0777);
    mkdir(at("set/dog"), 0777);
    mkdir(at("set/cat"), 0777);
    mkdir(at("set/cat/more"), 0777);
    mkdir(at("set/empty"), 0777);
    put("set/dog/b.png", 1);
    put("set/dog/a.JPG", 2);
    put("set/cat/z.jpeg", 3);
    put("set/cat/more/y.JpE", 4);
    put("set/loose.PNG", 5);
    put("set/dog/notes.txt", 6);
    put("set/dog/png", 7);
}

Test(data_set, folder_order_classes_and_endings)
{
    make_classes();
    DataSet *set = open_set("folder", "set/");
    cr_assert_eq(data_set_count(set), 5);
    cr_assert_eq(data_set_class_count(set), 3);
    cr_assert_str_eq(data_set_class_name(set, 0), "cat");
    cr_assert_str_eq(data_set_class_name(set, 2), "empty");
    expect_key(set, 0, "loose.PNG", -1);
    expect_key(set, 1, "cat/z.jpeg", 0);
    expect_key(set, 2, "cat/more/y.JpE", 0);
    expect_key(set, 3, "dog/a.JPG", 1);
    expect_key(set, 4, "dog/b.png", 1);
    int expected[] = {5, 3, 4, 2, 1};
    for (int i = 0; i < 5; i++)
        cr_assert_eq(number_of(set, i), expected[i]);
    char location[DATA_SET_KEY_MAX];
    data_set_location(set, 3, location, sizeof location);
    cr_assert_str_eq(location, at("set/dog/a.JPG"));
    data_set_destroy(set);
}

Test(data_set, folder_with_odd_names_and_links)
{
    mkdir(at("set"), 0777);
    mkdir(at("set/dir.jpg"), 0777);
    char longest[300];
    memset(longest, 'n', 255);
    strcpy(longest + 251, ".jpg");
    const char *names[] = {"-rf.jpg",       "a b.jpg",       "comma,\"quote\".jpg",
                           "latin\xE9.jpg", "new\nline.jpg", longest};
    int count = sizeof names / sizeof *names;
    for (int i = 0; i < count; i++) {
        char relative[400];
        snprintf(relative, sizeof relative, "set/dir.jpg/%s", names[i]);
        put(relative, i + 1);
    }
    cr_assert_eq(symlink("nowhere", at("set/dangling.jpg")), 0);
    cr_assert_eq(symlink("..", at("set/dir.jpg/loop")), 0);
    cr_assert_eq(symlink("dir.jpg/-rf.jpg", at("set/link.png")), 0);
    cr_assert_eq(mkfifo(at("set/pipe.jpg"), 0666), 0);
    DataSet *set = open_set("folder", "set");
    cr_assert_eq(data_set_count(set), count + 1);
    cr_assert_eq(data_set_skipped(set), 3);
    DataBuffer text = {0};
    for (int64_t i = 0; data_set_note(set, i); i++)
        data_buffer_append(&text, data_set_note(set, i), strlen(data_set_note(set, i)));
    data_buffer_append(&text, "", 1);
    const char *notes = (const char *)text.bytes;
    cr_assert_not_null(strstr(notes, "dangling.jpg: dangling link; skipped"), "%s", notes);
    cr_assert_not_null(strstr(notes, "link back to a folder"), "%s", notes);
    cr_assert_not_null(strstr(notes, "pipe.jpg: not a regular file"), "%s", notes);
    data_buffer_destroy(&text);
    expect_key(set, 0, "link.png", -1);
    cr_assert_eq(number_of(set, 0), 1);
    for (int i = 0; i < count; i++)
        cr_assert(number_of(set, i + 1) > 0);
    data_set_destroy(set);
}

Test(data_set, what_cannot_be_opened_is_named)
{
    mkdir(at("empty"), 0777);
    mkdir(at("text"), 0777);
    put("text/readme.txt", 1);
    expect_refusal("folder", "missing", "missing: No such file");
    expect_refusal("folder", "empty", "empty: no image");
    expect_refusal("folder", "text", "text: no image");
    expect_refusal("folder", "text/readme.txt", "Not a directory");
    expect_refusal("tar", "missing.tar", "missing.tar: no such file");
    expect_refusal("tar", "text", "is a folder");
    expect_refusal("hdf5", "missing_*.h5", "no such file");
    expect_refusal("hdf5", "text/readme.txt", "readme.txt");
    expect_refusal("zip", "text", "expected folder:DIR");
    expect_refusal("folder", "text;limit=0", "expected a number from 1");
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, "ImageNet:split=DEV:root=/tmp", &error), STATUS_INPUT);
    cr_assert_not_null(strstr(error.text, "TRAIN"), "%s", error.text);
    cr_assert_eq(data_set_create(&set, "", &error), STATUS_INPUT);
}

Test(data_set, a_vanished_or_damaged_image_is_named)
{
    make_classes();
    DataSet *set = open_set("folder", "set");
    unlink(at("set/loose.PNG"));
    write_bytes(at("set/cat/z.jpeg"), "no image", 8);
    Image image = {0};
    DataBuffer buffer = {0};
    for (int64_t i = 0; i < 2; i++) {
        Error error = {0};
        cr_assert_eq(data_set_load_image(set, i, &image, &buffer, &error), STATUS_INPUT);
        cr_assert_not_null(strstr(error.text, i ? "set/cat/z.jpeg: " : "set/loose.PNG: No such file"), "%s",
                           error.text);
    }
    image_destroy(&image);
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
}

Test(data_set, selections_apply_from_left_to_right)
{
    mkdir(at("set"), 0777);
    for (int c = 0; c < 3; c++) {
        char name[32];
        snprintf(name, sizeof name, "set/%d", c);
        mkdir(at(name), 0777);
        for (int i = 0; i < 7; i++) {
            snprintf(name, sizeof name, "set/%d/%d.png", c, i);
            put(name, 10 * c + i);
        }
    }
    static const struct {
        const char *suffix;
        int count, numbers[6];
    } cases[] = {{";limit=2", 2, {0, 1}},
                 {";stride=10", 3, {0, 13, 26}},
                 {";stride=2;limit=5", 5, {0, 2, 4, 6, 11}},
                 {";limit=5;stride=2", 3, {0, 2, 4}},
                 {";limit=100;stride=100", 1, {0}},
                 {";per_class=2", 6, {0, 1, 10, 11, 20, 21}},
                 {";stride=2;per_class=1", 3, {0, 11, 20}},
                 {";per_class=2;stride=2;limit=2", 2, {0, 10}},
                 {";offset=16", 5, {22, 23, 24, 25, 26}},
                 {";offset=1;stride=10", 2, {1, 14}},
                 {";stride=10;offset=1", 2, {13, 26}},
                 {";stride=4;offset=1;stride=2", 3, {4, 15, 26}},
                 {";per_class=2;offset=3;limit=2", 2, {11, 20}},
                 {";spread=4", 4, {0, 5, 13, 21}},
                 {";offset=1;stride=2;spread=4", 4, {1, 5, 14, 21}},
                 {";per_class=2;spread=4;offset=1", 3, {1, 11, 20}},
                 {";limit=3;spread=7;stride=2", 2, {0, 2}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char name[64];
        snprintf(name, sizeof name, "set%s", cases[k].suffix);
        DataSet *set = open_set("folder", name);
        cr_assert_eq(data_set_count(set), cases[k].count, "%s", name);
        for (int i = 0; i < cases[k].count; i++)
            cr_assert_eq(number_of(set, i), cases[k].numbers[i], "%s %d", name, i);
        data_set_destroy(set);
    }
}

Test(data_set, a_selection_of_nothing_is_an_error)
{
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, "synthetic:count=5;offset=5;stride=2", &error), STATUS_INPUT);
    cr_assert_null(set);
    cr_assert_not_null(strstr(error.text, "no image is left of 5"), "%s", error.text);
}

Test(data_set, imagenet_specs_lead_to_the_split_and_the_archives)
{
    mkdir(at("root"), 0777);
    mkdir(at("root/train"), 0777);
    mkdir(at("root/train/n01"), 0777);
    put("root/train/n01/x.JPEG", 3);
    char spec[256];
    snprintf(spec, sizeof spec, "ImageNet:split=TRAIN:root=%s:extra=/nowhere", at("root"));
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    expect_key(set, 0, "n01/x.JPEG", 0);
    data_set_destroy(set);
}

/* --- archives --- */

typedef struct {
    DataBuffer bytes;
} Archive;

static void append_header(Archive *tar, const char *name, char type, size_t size, const char *magic)
{
    uint8_t block[512] = {0};
    strncpy((char *)block, name, 100);
    snprintf((char *)block + 100, 8, "%07o", 0644);
    snprintf((char *)block + 124, 12, "%011zo", size);
    snprintf((char *)block + 136, 12, "%011o", 0);
    block[156] = (uint8_t)type;
    memcpy(block + 257, magic, strlen(magic) + 1);
    memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum);
    data_buffer_append(&tar->bytes, block, 512);
}

static void append_contents(Archive *tar, const void *bytes, size_t size)
{
    static const uint8_t zeros[1024];
    data_buffer_append(&tar->bytes, bytes, size);
    data_buffer_append(&tar->bytes, zeros, (512 - size % 512) % 512);
}

static void append_picture(Archive *tar, const char *name, int number)
{
    DataBuffer image = picture(number);
    append_header(tar, name, '0', image.size, "ustar");
    append_contents(tar, image.bytes, image.size);
    data_buffer_destroy(&image);
}

static void append_extension(Archive *tar, char type, const char *text, size_t size)
{
    append_header(tar, "././@LongLink", type, size, "ustar");
    append_contents(tar, text, size);
}

static void end_archive(Archive *tar, const char *relative)
{
    static const uint8_t zeros[1024];
    data_buffer_append(&tar->bytes, zeros, 1024);
    write_bytes(at(relative), tar->bytes.bytes, tar->bytes.size);
    data_buffer_destroy(&tar->bytes);
}

Test(data_set, tar_members_long_names_and_classes)
{
    Archive tar = {0};
    append_header(&tar, "./top/dog/", '5', 0, "ustar");
    append_picture(&tar, "./top/dog/1.jpg", 1);
    char longest[260] = "top/cat/";
    memset(longest + 8, 'x', 200);
    strcpy(longest + 208, ".png");
    append_extension(&tar, 'L', longest, strlen(longest) + 1);
    append_picture(&tar, "cut", 2);
    char record[64];
    snprintf(record, sizeof record, "%d path=top/dog/p\xE9.png\n", 23);
    append_extension(&tar, 'x', record, strlen(record));
    append_picture(&tar, "short", 3);
    append_picture(&tar, "loose.jpeg", 4);
    append_picture(&tar, "top/dog/readme.txt", 5);
    append_header(&tar, "top/dog/link.jpg", '2', 0, "ustar");
    end_archive(&tar, "a.tar");
    append_picture(&tar, "other/dog/9.jpg", 9);
    end_archive(&tar, "b.tar");
    DataSet *set = open_set("tar", "*.tar");
    cr_assert_eq(data_set_count(set), 5);
    cr_assert_eq(data_set_class_count(set), 2);
    cr_assert_str_eq(data_set_class_name(set, 1), "dog");
    expect_key(set, 0, "top/dog/1.jpg", 1);
    expect_key(set, 1, longest, 0);
    expect_key(set, 2, "top/dog/p\xE9.png", 1);
    expect_key(set, 3, "loose.jpeg", -1);
    expect_key(set, 4, "other/dog/9.jpg", 1);
    int expected[] = {1, 2, 3, 4, 9};
    for (int i = 0; i < 5; i++)
        cr_assert_eq(number_of(set, i), expected[i]);
    cr_assert_eq(data_set_skipped(set), 1);
    data_set_destroy(set);
}

Test(data_set, imagenet22k_archives_name_their_class)
{
    Archive tar = {0};
    append_picture(&tar, "n02_1.JPEG", 1);
    end_archive(&tar, "n02.tar");
    append_picture(&tar, "n01_1.JPEG", 2);
    end_archive(&tar, "n01.tar");
    char spec[256];
    snprintf(spec, sizeof spec, "ImageNet22k:root=%s", folder.path);
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(data_set_class_count(set), 2);
    expect_key(set, 0, "n01_1.JPEG", 0);
    cr_assert_str_eq(data_set_class_name(set, 1), "n02");
    data_set_destroy(set);
}

Test(data_set, hostile_archives_are_refused)
{
    Archive tar = {0};
    append_picture(&tar, "a/1.jpg", 1);
    append_header(&tar, "a/2.jpg", '0', 1 << 20, "ustar");
    end_archive(&tar, "beyond.tar");
    expect_refusal("tar", "beyond.tar", "ends beyond the archive");

    append_picture(&tar, "a/1.jpg", 1);
    tar.bytes.bytes[3] ^= 1;
    end_archive(&tar, "checksum.tar");
    expect_refusal("tar", "checksum.tar", "no tar header at byte 0");

    append_extension(&tar, 'x', "99999999 path=a.jpg\n", 20);
    append_picture(&tar, "a/1.jpg", 1);
    end_archive(&tar, "record.tar");
    expect_refusal("tar", "record.tar", "malformed pax record");

    append_extension(&tar, 'x', "29 size=99999999999999999999\n", 29);
    append_picture(&tar, "a/1.jpg", 1);
    end_archive(&tar, "size.tar");
    expect_refusal("tar", "size.tar", "malformed pax record");

    append_extension(&tar, 'x', "27 size=999999999999999999\n", 27);
    append_picture(&tar, "a/1.jpg", 1);
    end_archive(&tar, "size2.tar");
    expect_refusal("tar", "size2.tar", "ends beyond the archive");

    append_header(&tar, "L", 'L', 1 << 17, "ustar");
    data_buffer_resize(&tar.bytes, 1 << 18);
    end_archive(&tar, "name.tar");
    expect_refusal("tar", "name.tar", "oversized extension");

    append_header(&tar, "a/1.jpg", '0', 100, "ustar");
    write_bytes(at("cut.tar"), tar.bytes.bytes, 300);
    data_buffer_destroy(&tar.bytes);
    expect_refusal("tar", "cut.tar", "cut header");

    write_bytes(at("packed.tar"), "\x1f\x8b\x08 and more", 12);
    expect_refusal("tar", "packed.tar", "compressed with gzip");
    write_bytes(at("nothing.tar"), "", 0);
    expect_refusal("tar", "nothing.tar", "no image");
}

/* Random damage never crashes, and members that are found lie inside the file. */
Test(data_set, damaged_archives_do_no_harm)
{
    Archive tar = {0};
    for (int i = 0; i < 4; i++)
        append_picture(&tar, "a/b.jpg", i);
    append_extension(&tar, 'x', "22 path=top/dog/p.png\n", 22);
    append_picture(&tar, "c", 5);
    Rng rng = rng_at(1, RNG_TEST, 0, 0);
    for (int round = 0; round < 300; round++) {
        DataBuffer copy = {0};
        data_buffer_append(&copy, tar.bytes.bytes, tar.bytes.size);
        for (int k = 0; k < 3; k++)
            copy.bytes[rng_integer(&rng, 0, (int64_t)copy.size - 1)] = (uint8_t)rng_u32(&rng);
        write_bytes(at("damaged.tar"), copy.bytes, (size_t)rng_integer(&rng, 1, (int64_t)copy.size));
        data_buffer_destroy(&copy);
        DataSet *set;
        Error error = {0};
        char spec[256];
        snprintf(spec, sizeof spec, "tar:%s", at("damaged.tar"));
        Status status = data_set_create(&set, spec, &error);
        cr_assert(status == STATUS_OK || status == STATUS_INPUT);
        for (int64_t i = 0; set && i < data_set_count(set); i++) {
            DataBuffer buffer = {0};
            cr_assert_eq(data_set_read(set, i, &buffer, &error), STATUS_OK, "%s", error.text);
            data_buffer_destroy(&buffer);
        }
        data_set_destroy(set);
    }
    data_buffer_destroy(&tar.bytes);
}

/* --- shards --- */

static DataPackResult pack(const DataSet *set, int64_t shard_bytes, Status expected)
{
    Comm *comm = comm_self_create();
    DataPackParams params = {
        .source = "folder:somewhere", .folder = at("shards"), .shard_bytes = shard_bytes, .version = "test"};
    DataPackResult result;
    Error error = {0};
    mkdir(at("shards"), 0777);
    cr_assert_eq(data_pack_run(&params, set, comm, &result, &error), expected, "%s", error.text);
    comm_destroy(comm);
    return result;
}

Test(data_set, packed_shards_give_the_same_bytes_labels_and_keys)
{
    make_classes();
    mkdir(at("set/odd\xFF"), 0777);
    put("set/odd\xFF/o.png", 8);
    write_bytes(at("set/dog/broken.png"), "no image", 8);
    DataSet *set = open_set("folder", "set");
    DataBuffer a = {0}, b = {0};
    cr_assert_eq(data_set_read(set, 0, &a, NULL), STATUS_OK);
    DataPackResult result = pack(set, (int64_t)(2 * a.size), STATUS_OK);
    cr_assert_eq(result.images, 6);
    cr_assert_eq(result.corrupt, 1);
    cr_assert_eq(result.corrupt_indices[0], 5);
    cr_assert_eq(result.shards, 3);
    data_pack_fini(&result);
    DataSet *shards = open_set("hdf5", "shards/*.h5");
    cr_assert_eq(data_set_count(shards), 6);
    cr_assert_eq(data_set_class_count(shards), 4);
    cr_assert_str_eq(data_set_class_name(shards, 3), "odd\\xFF");
    for (int64_t i = 0; i < 6; i++) {
        int64_t from = i < 5 ? i : i + 1;
        cr_assert_eq(data_set_read(set, from, &a, NULL), STATUS_OK);
        cr_assert_eq(data_set_read(shards, i, &b, NULL), STATUS_OK);
        cr_assert(a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0);
        char key[DATA_SET_KEY_MAX];
        data_set_key(set, from, key, sizeof key);
        expect_key(shards, i, i < 5 ? key : "odd\\xFF/o.png", data_set_label(set, from));
    }
    result = pack(set, 1000, STATUS_INPUT); /* the folder has shards already */
    data_pack_fini(&result);
    data_buffer_destroy(&a);
    data_buffer_destroy(&b);
    data_set_destroy(set);
    data_set_destroy(shards);
}

Test(data_set, a_flipped_byte_in_a_shard_is_a_corrupt_image)
{
    make_classes();
    DataSet *set = open_set("folder", "set");
    DataBuffer image = {0}, file = {0};
    cr_assert_eq(data_set_read(set, 2, &image, NULL), STATUS_OK);
    DataPackResult result = pack(set, 1 << 20, STATUS_OK);
    data_pack_fini(&result);
    FILE *stream = fopen(at("shards/shard_00000.h5"), "r+b");
    data_buffer_resize(&file, 1 << 16);
    file.size = fread(file.bytes, 1, 1 << 16, stream);
    uint8_t *found = memmem(file.bytes, file.size, image.bytes, image.size);
    cr_assert_not_null(found);
    fseek(stream, found - file.bytes + 50, SEEK_SET);
    fputc(found[50] ^ 4, stream);
    fclose(stream);
    DataSet *shards = open_set("hdf5", "shards/shard_00000.h5");
    for (int64_t i = 0; i < 5; i++) {
        Error error = {0};
        Status status = data_set_read(shards, i, &image, &error);
        cr_assert_eq(status, i == 2 ? STATUS_INPUT : STATUS_OK);
        if (i == 2) cr_assert_not_null(strstr(error.text, "cat/more/y.JpE: its bytes"), "%s", error.text);
    }
    data_buffer_destroy(&image);
    data_buffer_destroy(&file);
    data_set_destroy(set);
    data_set_destroy(shards);
}

Test(data_set, packing_only_corrupt_images_is_an_error)
{
    mkdir(at("set"), 0777);
    write_bytes(at("set/a.jpg"), "no image", 8);
    write_bytes(at("set/b.jpg"), "", 0);
    DataSet *set = open_set("folder", "set");
    DataPackResult result = pack(set, 1000, STATUS_INPUT);
    cr_assert_eq(result.corrupt, 2);
    data_pack_fini(&result);
    data_set_destroy(set);
}
