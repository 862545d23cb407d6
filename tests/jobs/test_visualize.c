/* test_visualize.c - every picture by the real program, on a run of two iterations, and what is refused. */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "data/image_encode.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { LIMIT_SECONDS = 60, ARGUMENTS = 32 };

#define POOL "synthetic:size=32,count=40,seed=3"

static TempFolder temp;

static void begin(void)
{
    temp = temp_folder_create();
}

static void end(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(visualize, .init = begin, .fini = end, .timeout = 120);

static void run_well(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

static TempPath make_run(const char *name)
{
    TempPath path = temp_folder_in(&temp, "%s", name);
    run_well(0,
             WORDS("pretrain", "--output-dir", path.text, "train.dataset_path=" POOL,
                   "train.batch_size_per_gpu=4", "train.OFFICIAL_EPOCH_LENGTH=2", "train.num_workers=0",
                   "optim.epochs=1", "optim.warmup_epochs=0", "optim.freeze_last_layer_epochs=0",
                   "teacher.warmup_teacher_temp_epochs=0", "student.arch=vit_custom", "student.embed_dim=32",
                   "student.depth=2", "student.num_heads=2", "student.patch_size=8",
                   "student.num_register_tokens=2", "crops.global_crops_size=32", "crops.local_crops_size=16",
                   "crops.local_crops_number=1", "dino.head_n_prototypes=32", "dino.head_hidden_dim=32",
                   "dino.head_bottleneck_dim=16", "evaluation.eval_period_iterations=0"));
    return path;
}

/* temp/pictures: upright, lying, grey, and damaged; no classes. */
static TempPath write_pictures(void)
{
    static const struct {
        const char *name;
        int64_t width, height;
        int channels, parts;
    } cases[] = {
        {"a.png", 30, 45, 3, 1}, {"b.png", 61, 20, 3, 1}, {"c.png", 24, 24, 1, 1}, {"d.png", 24, 24, 3, 2}};
    TempPath folder = temp_folder_in(&temp, "pictures");
    cr_assert_eq(mkdir(folder.text, 0777), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes = (size_t)(cases[i].width * cases[i].height * cases[i].channels);
        uint8_t *pixels = memory_alloc(bytes);
        for (size_t p = 0; p < bytes; p++)
            pixels[p] = (uint8_t)(p * (7 + i) % 251);
        DataBuffer buffer = {0};
        cr_assert_eq(
            image_encode_png(&buffer, pixels, cases[i].width, cases[i].height, cases[i].channels, NULL),
            STATUS_OK);
        char name[32];
        snprintf(name, sizeof name, "pictures/%s", cases[i].name);
        temp_folder_write_bytes(&temp, name, buffer.bytes, buffer.size / (size_t)cases[i].parts);
        data_buffer_destroy(&buffer);
        memory_free(pixels);
    }
    return folder;
}

static size_t read_bytes(const char *path, unsigned char *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    size_t size = fread(bytes, 1, room, file);
    fclose(file);
    return size;
}

/* Runs visualize WORDS --output and looks at the size of the picture. Without what went to stderr. */
static void expect_drawn(int ranks, const char *const *words, const char *output, int64_t width,
                         int64_t height)
{
    const char *line[ARGUMENTS] = {"visualize"};
    int n = 1;
    for (; words[n - 1]; n++)
        line[n] = words[n - 1];
    line[n++] = "--output";
    line[n] = output;
    run_well(ranks, line);
    unsigned char bytes[24];
    cr_assert_eq(read_bytes(output, bytes, sizeof bytes), sizeof bytes);
    cr_assert_eq(memcmp(bytes, "\x89PNG\r\n\x1a\n", 8), 0);
    cr_expect_eq(bytes[18] * 256 + bytes[19], width, "%s: %d wide", words[0], bytes[18] * 256 + bytes[19]);
    cr_expect_eq(bytes[22] * 256 + bytes[23], height, "%s: %d high", words[0], bytes[22] * 256 + bytes[23]);
}

static void draw_patches(const char *model)
{
    TempPath png = temp_folder_in(&temp, "a.png");
    char data[sizeof png.text + 16];
    snprintf(data, sizeof data, "folder:%s", write_pictures().text);
    /* 128 pixels are 16 patches, drawn 14 pixels wide each */
    expect_drawn(2, WORDS("pca", "--model", model, "--data", POOL, "--count", "3", "--columns", "2"),
                 png.text, 3 * 8 + 2 * 224, 3 * 8 + 4 * 224 + 2 * 4 + 8);
    expect_drawn(0, WORDS("attention", "--model", model, "--data", POOL, "--count", "1"), png.text,
                 8 + 4 * (224 + 8), 24 + 224 + 8);
    /* 4 x 6, 12 x 4 and 4 x 4 patches of 10 pixels; the damaged picture is left out */
    expect_drawn(0,
                 WORDS("pca", "--model", model, "--data", data, "--size", "33", "--drawn", "40",
                       "--foreground", "all"),
                 png.text, 4 * 8 + 40 + 120 + 40, 8 + 2 * 60 + 4 + 8);
    expect_drawn(0,
                 WORDS("attention", "--model", model, "--data", data, "--size", "33", "--drawn", "40",
                       "--no-captions", "--block", "1", "--mass", "0.6"),
                 png.text, 8 + 4 * (120 + 8), 8 + 60 + 8 + 40 + 8 + 40 + 8);
    expect_drawn(0,
                 WORDS("matches", "--model", model, "--data", data, "--count", "4", "--size", "33", "--drawn",
                       "40", "--foreground", "above", "--threshold", "-9"),
                 png.text, 8 + 40 + 24 + 120 + 8, 8 + 60 + 8);
}

static void expect_same(const char *a, const char *b)
{
    static unsigned char left[1 << 18], right[1 << 18];
    size_t size = read_bytes(a, left, sizeof left);
    cr_expect(size > 1000 && size < sizeof left && read_bytes(b, right, sizeof right) == size &&
                  memcmp(left, right, size) == 0,
              "%s and %s differ", a, b);
}

/* Of raw pixels, and of the network: of two iterations it finds everything alike. */
static void draw_neighbours(const char *model)
{
    TempPath pool = temp_folder_in(&temp, "pool.h5");
    TempPath a = temp_folder_in(&temp, "a.png"), b = temp_folder_in(&temp, "b.png");
    run_well(0, WORDS("extract", "--model", "raw-pixels", "--data", POOL, "--output-dir", pool.text,
                      "evaluation.crop_size=16", "evaluation.resize_size=16"));
    const char *const themselves[] = {"neighbours", "--train-features", pool.text, "--val-features",
                                      pool.text,    "--data",           POOL,      "--queries",
                                      POOL,         "--count",          "4",       "--columns",
                                      "5",          "--drawn",          "32",      NULL};
    const char *const others[] = {"neighbours", "--train-features", pool.text, "--data",  POOL, "--count",
                                  "4",          "--columns",        "4",       "--drawn", "32", NULL};
    expect_drawn(0, themselves, a.text, 26 + 32 + 12 + 4 * 42, 10 + 4 * (32 + 16 + 30));
    expect_drawn(3, themselves, b.text, 26 + 32 + 12 + 4 * 42, 10 + 4 * (32 + 16 + 30));
    expect_same(a.text, b.text);
    expect_drawn(0, others, a.text, 26 + 32 + 12 + 3 * 42, 10 + 4 * (32 + 16 + 30));
    /* without themselves: a bank of three has two others */
    expect_drawn(
        2, WORDS("neighbours", "--model", model, "--data", POOL ";limit=3", "--drawn", "32", "--no-captions"),
        a.text, 26 + 32 + 12 + 2 * 42, 10 + 3 * (32 + 16));
    expect_drawn(0,
                 WORDS("neighbours", "--model", model, "--data", POOL ";limit=3", "--queries",
                       POOL ";offset=7", "--drawn", "32", "--count", "2"),
                 a.text, 26 + 32 + 12 + 3 * 42, 10 + 2 * (32 + 16 + 30));
}

static void refuse(const char *model)
{
    TempPath pictures = temp_folder_in(&temp, "pictures"), missing = temp_folder_in(&temp, "no.h5");
    char data[sizeof pictures.text + 16];
    snprintf(data, sizeof data, "folder:%s;offset=3", pictures.text);
    const struct {
        const char *words[12], *said;
    } cases[] = {
        {{"magic"}, "visualize magic"},
        {{"pca", "--model", model}, "--data"},
        {{"attention", "--data", POOL}, "--model"},
        {{"pca", "--model", model, "--data", data}, "none of the pictures can be read"},
        {{"pca", "--model", model, "--data", POOL, "--size", "7"}, "--size 7"},
        {{"pca", "--model", model, "--data", POOL, "--foreground", "left"}, "--foreground left"},
        {{"pca", "--model", model, "--data", POOL, "--threshold", "high"}, "--threshold high"},
        {{"attention", "--model", model, "--data", POOL, "--block", "3"}, "--block 3"},
        {{"attention", "--model", model, "--data", POOL, "--mass", "1.5"}, "--mass 1.5"},
        {{"matches", "--model", model, "--data", POOL ";limit=1"}, "two pictures"},
        {{"curves"}, "--run"},
        {{"curves", "--run", model, "--run", temp.path}, "training_metrics.json"},
        {{"duplicates", "--data", POOL}, "--curation"},
        {{"neighbours", "--data", POOL}, "--model"},
        {{"neighbours", "--data", POOL, "--model", model, "--curation", "a.h5"}, "one of them"},
        {{"neighbours", "--model", model}, "--data"},
        {{"neighbours", "--train-features", missing.text, "--data", POOL}, "no.h5"},
        {{"neighbours", "--model", model, "--data", POOL, "--queries", data}, "none of the"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *line[ARGUMENTS] = {"visualize", "--output", "x.png"};
        for (int n = 0; cases[i].words[n]; n++)
            line[3 + n] = cases[i].words[n];
        ProcessResult result = process_run_dinobatch(0, line, LIMIT_SECONDS);
        cr_expect_eq(result.exit_status, 2, "case %zu: exit %d\n%s", i, result.exit_status, result.err);
        cr_expect(strstr(result.err, cases[i].said), "case %zu: '%s' not in:\n%s", i, cases[i].said,
                  result.err);
        cr_expect_null(strstr(result.err, "bug:"), "case %zu:\n%s", i, result.err);
        process_result_fini(&result);
    }
}

/* One run serves both. */
Test(visualize, draws_every_kind_and_refuses_the_rest_with_one_line)
{
    TempPath run = make_run("run one"), png = temp_folder_in(&temp, "curves.png");
    draw_patches(run.text);
    draw_neighbours(run.text);
    expect_drawn(0, WORDS("curves", "--run", run.text), png.text, 1640, 1000);
    expect_drawn(0, WORDS("curves", "--run", run.text, "--run", run.text), png.text, 1640, 1400);
    refuse(run.text);
}
