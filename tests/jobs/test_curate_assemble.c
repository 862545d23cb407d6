/* test_curate_assemble.c - the data set that a curation comes to, and pictures of what it found, by the real
 * program.
 */
#include "../support/curate_steps.h"

#include "base/memory.h"
#include "h5/h5_dataset.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static TempFolder temp;

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_assemble, .init = set_up, .fini = tear_down, .timeout = 180);

#define POOL_DATA  "synthetic:classes=3,size=16,count=9,seed=1"
#define AS_IS_DATA "synthetic:classes=2,size=16,count=4,seed=2"

#define SAMPLE "curation.retrieve.mode=sample", "curation.retrieve.neighbours=2"

/* A column of the assembled set's only shard; memory_free. */
static void *column(const char *out, const char *object, H5Type type, H5Info *info)
{
    H5File file;
    Error error = {0};
    void *values = NULL;
    TempPath path = temp_folder_in(&temp, "%s/dataset/shard_00000.h5", out);
    cr_assert_eq(h5_file_open(&file, path.text, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(h5_dataset_get(&file, object, type, 1, info, &values, &error), STATUS_OK, "%s", error.text);
    h5_file_close(&file, NULL);
    return values;
}

static void expect_texts(const char *out, const char *object, const char *const *expected, int64_t n)
{
    H5Info info;
    char *values = column(out, object, H5_TYPE_TEXT, &info);
    cr_assert_eq(info.count, n);
    for (int64_t i = 0; i < n; i++) {
        char text[64] = "";
        memcpy(text, values + (size_t)i * info.item_bytes, info.item_bytes);
        cr_expect_str_eq(text, expected[i], "%s[%lld] is %s", object, (long long)i, text);
    }
    memory_free(values);
}

/* The picture's bytes are those of the set that it is from. */
static void expect_picture(const char *out, int64_t i, const char *spec, int64_t index)
{
    TempPath shards = temp_folder_in(&temp, "%s/dataset/*.h5", out);
    char hdf5[400];
    snprintf(hdf5, sizeof hdf5, "hdf5:%s", shards.text);
    DataSet *set = NULL, *from = NULL;
    DataBuffer got = {0}, expected = {0};
    Error error = {0};
    Status status = data_set_create(&set, hdf5, &error);
    if (status == STATUS_OK) status = data_set_create(&from, spec, &error);
    if (status == STATUS_OK) status = data_set_read(set, i, &got, &error);
    if (status == STATUS_OK) status = data_set_read(from, index, &expected, &error);
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
    cr_assert_eq(got.size, expected.size);
    cr_expect_arr_eq(got.bytes, expected.bytes, got.size);
    data_buffer_destroy(&got);
    data_buffer_destroy(&expected);
    data_set_destroy(set);
    data_set_destroy(from);
}

/* Set a brings in pool rows 0, 1, 3, 4 with 2 collisions; set b, at 0 and 183 degrees, 0, 1, 5 and 6, of
 * which two are there; in between stands a set as it is. */
static void write_parts(TempPath *pool)
{
    DataSet *set;
    cr_assert_eq(data_set_create(&set, POOL_DATA, NULL), STATUS_OK);
    *pool =
        curate_steps_write_angles(&temp, "pool.h5", (double[]){0, 10, 20, 90, 95, 180, 185, 270, 45}, 9, set);
    data_set_destroy(set);
    TempPath a = curate_steps_write_angles(&temp, "a.h5", (double[]){1, 4, 91}, 3, NULL);
    TempPath b = curate_steps_write_angles(&temp, "b.h5", (double[]){0, 183}, 2, NULL);
    curate_steps_run_well(&temp, 0, "retrieve", "parts",
                          WORDS("--features", pool->text, "--queries", a.text, "--name", "a", SAMPLE));
    curate_steps_run_well(&temp, 0, "retrieve", "parts",
                          WORDS("--features", pool->text, "--queries", b.text, "--name", "b", SAMPLE));
}

Test(curate_assemble, an_assembled_set_knows_where_its_pictures_are_from)
{
    TempPath pool;
    write_parts(&pool);
    TempPath a = temp_folder_in(&temp, "parts/retrieve_a.h5"),
             b = temp_folder_in(&temp, "parts/retrieve_b.h5");
#define PARTS "--part", a.text, "--part", "whole=" AS_IS_DATA, "--part", b.text, "--data", POOL_DATA
    curate_steps_run_well(&temp, 0, "assemble", "one", WORDS(PARTS));
    const char *sources[] = {"pool",  "pool",  "pool",  "pool", "whole",
                             "whole", "whole", "whole", "pool", "pool"};
    const char *sets[] = {"a", "a", "a", "a", "", "", "", "", "b", "b"};
    const char *modes[] = {"sample", "sample", "sample", "sample", "as is",
                           "as is",  "as is",  "as is",  "sample", "sample"};
    expect_texts("one", "/source", sources, 10);
    expect_texts("one", "/query_set", sets, 10);
    expect_texts("one", "/mode", modes, 10);
    H5Info info;
    int64_t *query = column("one", "/query", H5_TYPE_I64, &info);
    int64_t *neighbour = column("one", "/neighbour", H5_TYPE_I64, &info);
    float *similarity = column("one", "/similarity", H5_TYPE_F32, &info);
    cr_expect_arr_eq(query, ((int64_t[]){0, 1, 2, 2, -1, -1, -1, -1, 1, 1}), 10 * sizeof *query);
    cr_expect_arr_eq(neighbour, ((int64_t[]){0, 1, 0, 1, -1, -1, -1, -1, 0, 1}), 10 * sizeof *neighbour);
    cr_expect_float_eq((double)similarity[1], cos(6 * M_PI / 180), 1e-6);
    cr_expect_eq(similarity[4], 1.0f);
    memory_free(query);
    memory_free(neighbour);
    memory_free(similarity);
    const int64_t rows[] = {0, 1, 3, 4};
    for (int64_t i = 0; i < 4; i++) {
        expect_picture("one", i, POOL_DATA, rows[i]);
        expect_picture("one", 4 + i, AS_IS_DATA, i);
    }
    char *table = temp_folder_read(&temp, "one/composition.csv");
    cr_expect_str_eq(table, "set,mode,images,retrieved,after_the_cap,repeats,unreadable,stored,share\n"
                            "a,sample,3,6,6,2,0,4,0.400000\n"
                            "whole,as is,4,4,4,0,0,4,0.400000\n"
                            "b,sample,2,4,4,2,0,2,0.200000\n"
                            "total,,9,14,14,4,0,10,1.000000\n");
    temp_folder_free_text(table);
    TempPath shard = temp_folder_in(&temp, "one/dataset/shard_00000.h5");
    ProcessResult result = process_run_dinobatch(0, WORDS("validate", shard.text), CURATE_STEPS_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

Test(curate_assemble, ranks_assemble_the_same_and_again)
{
    TempPath pool;
    write_parts(&pool);
    TempPath a = temp_folder_in(&temp, "parts/retrieve_a.h5"),
             b = temp_folder_in(&temp, "parts/retrieve_b.h5");
    TempPath left = temp_folder_in(&temp, "out/dataset.partial");
    curate_steps_run_well(&temp, 0, "assemble", "out",
                          WORDS("--part", b.text, "--data", POOL_DATA, "--features", pool.text));
    cr_assert_eq(mkdir(left.text, 0777), 0);
    temp_folder_write(&temp, "out/dataset.partial/shard_00099.h5", "a killed run left this");
    curate_steps_run_well(&temp, 3, "assemble", "out", WORDS(PARTS, "--shard-size", "1K"));
    cr_expect_neq(access(left.text, F_OK), 0);
    curate_steps_run_well(&temp, 0, "assemble", "alone", WORDS(PARTS, "--shard-size", "1K"));
    for (int i = 0; i < 3; i++) {
        TempPath x = temp_folder_in(&temp, "out/dataset/shard_%05d.h5", i);
        TempPath y = temp_folder_in(&temp, "alone/dataset/shard_%05d.h5", i);
        ProcessResult result = process_run(WORDS("h5diff", x.text, y.text), CURATE_STEPS_SECONDS);
        cr_expect_eq(result.exit_status, 0, "shard %d: %s", i, result.out);
        process_result_fini(&result);
    }
    cr_expect_neq(access(temp_folder_in(&temp, "out/dataset/shard_00099.h5").text, F_OK), 0);
    curate_steps_run_well(&temp, 2, "assemble", "list", WORDS(PARTS, "--list"));
    char *list = temp_folder_read(&temp, "list/pictures.csv");
    int lines = 0;
    for (const char *c = list; *c; c++)
        lines += *c == '\n';
    cr_expect_eq(lines, 11, "%s", list);
    cr_expect(strstr(list, ",pool,a,sample,1,1,0.994522\n"), "%s", list);
    cr_expect(strstr(list, ",whole,,as is,-1,-1,1.000000\n"), "%s", list);
    temp_folder_free_text(list);
}

/* --- stopped and killed --- */

static void expect_same_shard(const char *out, int shard)
{
    TempPath x = temp_folder_in(&temp, "%s/dataset/shard_%05d.h5", out, shard);
    TempPath y = temp_folder_in(&temp, "whole/dataset/shard_%05d.h5", shard);
    ProcessResult result = process_run(WORDS("h5diff", x.text, y.text), CURATE_STEPS_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s, shard %d: %s", out, shard, result.out);
    process_result_fini(&result);
}

/* TEMP/out is what the undisturbed run has, and nothing else. */
static void expect_whole(const char *out)
{
    char name[64];
    snprintf(name, sizeof name, "%s/composition.csv", out);
    char *table = temp_folder_read(&temp, name);
    cr_expect(strstr(table, "\nwhole,as is,300,300,300,0,0,300,1.000000\n"), "%s", table);
    temp_folder_free_text(table);
    cr_expect_eq(access(temp_folder_in(&temp, "%s/dataset/shard_00059.h5", out).text, F_OK), 0);
    cr_expect_neq(access(temp_folder_in(&temp, "%s/dataset/shard_00060.h5", out).text, F_OK), 0);
    cr_expect_neq(access(temp_folder_in(&temp, "%s/dataset.partial", out).text, F_OK), 0);
    cr_expect_neq(access(temp_folder_in(&temp, "%s/assemble.partial", out).text, F_OK), 0);
    for (int shard = 0; shard < 60; shard += 17)
        expect_same_shard(out, shard);
}

static ino_t inode_of(const char *out, const char *folder)
{
    struct stat facts;
    TempPath path = temp_folder_in(&temp, "%s/%s/shard_00001.h5", out, folder);
    cr_assert_eq(stat(path.text, &facts), 0, "%s", path.text);
    return facts.st_ino;
}

Test(curate_assemble, a_killed_or_stopped_assembly_goes_on)
{
#define MANY "--part", "whole=synthetic:classes=2,size=16,count=300,seed=2", "--shard-size", "4K"
    curate_steps_run_well(&temp, 0, "assemble", "whole", WORDS(MANY));
    expect_whole("whole");
    curate_steps_kill(&temp, "assemble", "killed", "writing 3/60", WORDS(MANY));
    cr_expect_neq(access(temp_folder_in(&temp, "killed/dataset").text, F_OK), 0);
    cr_expect_neq(access(temp_folder_in(&temp, "killed/composition.csv").text, F_OK), 0);
    ino_t before = inode_of("killed", "dataset.partial");
    curate_steps_go_on(&temp, 3, "assemble", "killed", WORDS(MANY));
    expect_whole("killed");
    cr_expect_eq(inode_of("killed", "dataset"), before, "a complete shard was written again");

    Process process = curate_steps_start(&temp, 0, "assemble", "stopped", WORDS(MANY));
    cr_assert(process_wait_for_error_text(&process, "reading 256/300", CURATE_STEPS_SECONDS));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, CURATE_STEPS_SECONDS);
    cr_assert_eq(result.exit_status, 75, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    curate_steps_go_on(&temp, 0, "assemble", "stopped", WORDS(MANY));
    expect_whole("stopped");

    /* Over a complete one, and then other pictures over what was left by these. */
    curate_steps_kill(&temp, "assemble", "killed", "writing 3/60", WORDS(MANY));
    expect_same_shard("killed", 59);
    result = curate_steps_run(
        &temp, 0, "assemble", "killed",
        WORDS("--part", "whole=synthetic:classes=2,size=16,count=300,seed=3", "--shard-size", "4K"));
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_null(strstr(result.err, "going on from"), "%s", result.err);
    process_result_fini(&result);
    expect_picture("killed", 5, "synthetic:classes=2,size=16,count=300,seed=3", 5);
}

/* --- pictures --- */

static void expect_drawn(const char *const *words, const char *path, int64_t width, int64_t height)
{
    ProcessResult result = process_run_dinobatch(0, words, CURATE_STEPS_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    unsigned char bytes[24];
    cr_assert_eq(fread(bytes, 1, sizeof bytes, file), sizeof bytes);
    fclose(file);
    cr_expect_eq(bytes[18] * 256 + bytes[19], width, "%d wide", bytes[18] * 256 + bytes[19]);
    cr_expect_eq(bytes[22] * 256 + bytes[23], height, "%d high", bytes[22] * 256 + bytes[23]);
}

Test(curate_assemble, sheets_are_drawn)
{
    TempPath pool;
    write_parts(&pool);
    TempPath a = temp_folder_in(&temp, "parts/retrieve_a.h5"), png = temp_folder_in(&temp, "a.png");
    TempPath dedup = temp_folder_in(&temp, "parts/dedup.h5");
    /* the queries' keys are p0, p1, p2, which no set has */
    ProcessResult result =
        process_run_dinobatch(0,
                              WORDS("visualize", "neighbours", "--curation", a.text, "--data", POOL_DATA,
                                    "--queries", AS_IS_DATA, "--output", png.text),
                              CURATE_STEPS_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "--queries: no picture has the key 'p0'"), "%s", result.err);
    process_result_fini(&result);
    /* margins of 13, a first cell, 12 beside it, then cells with 10 between; lines of class and similarity */
    curate_steps_run_well(&temp, 0, "retrieve", "parts",
                          WORDS("--features", pool.text, "--queries", pool.text, "--name", "c", SAMPLE));
    TempPath c = temp_folder_in(&temp, "parts/retrieve_c.h5");
    expect_drawn(WORDS("visualize", "neighbours", "--curation", c.text, "--data", POOL_DATA, "--queries",
                       POOL_DATA, "--output", png.text, "--drawn", "20", "--count", "4"),
                 png.text, 26 + 20 + 12 + 2 * 30, 10 + 4 * (36 + 30));
    curate_steps_run_well(&temp, 0, "dedup", "parts",
                          WORDS("--features", pool.text, "curation.dedup.threshold=0.99"));
    expect_drawn(WORDS("visualize", "duplicates", "--curation", dedup.text, "--data", POOL_DATA, "--output",
                       png.text, "--drawn", "20"),
                 png.text, 26 + 20 + 12 + 30, 10 + 2 * 36);
}

/* --- what is refused --- */

Test(curate_assemble, bad_input_is_refused_with_one_line)
{
    TempPath pool = curate_steps_write_angles(&temp, "pool.h5", (double[]){0, 10, 20}, 3, NULL);
    curate_steps_run_well(&temp, 0, "retrieve", "fine",
                          WORDS("--features", pool.text, "--queries", pool.text, "--name", "a", SAMPLE));
    TempPath a = temp_folder_in(&temp, "fine/retrieve_a.h5");
    curate_steps_expect_refused(&temp, "assemble", WORDS("--list"), "needs --part");
    curate_steps_expect_refused(&temp, "assemble",
                                WORDS("--part", "x=" AS_IS_DATA, "--part", "x=" AS_IS_DATA),
                                "two parts are called x");
    curate_steps_expect_refused(&temp, "assemble", WORDS("--part", "pool=" AS_IS_DATA),
                                "cannot be called 'pool'");
    curate_steps_expect_refused(&temp, "assemble", WORDS("--part", a.text), "give --data SPEC");
    curate_steps_expect_refused(&temp, "assemble", WORDS("--part", a.text, "--data", POOL_DATA),
                                "no picture of the pool has the key 'p");
}
