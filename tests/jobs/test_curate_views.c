/* test_curate_views.c - dedup and exclude by the real program on features with several views of each picture:
 * against all pairs, on any ranks, killed and taken up; and on drawn pictures from which crops were cut.
 */
#include "../support/curation_support.h"
#include "../support/process.h"
#include "../support/sscd_weights.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "base/rng.h"
#include "ckpt/descriptor_file.h"
#include "curation/curation_file.h"
#include "data/data_set.h"
#include "data/image_encode.h"
#include "data/image_views.h"
#include "index/index_rows.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { A = 150, B = 90, POOL = A + B, REFERENCES = 30, VIEWS = 3, D = 48, LIMIT_SECONDS = 60 };

#define LIST      "crop:0.7:1,mirror"
#define DEDUP_T   0.6
#define EXCLUDE_T 0.5

static TempFolder temp;
static float pool[POOL * VIEWS * D], references[REFERENCES * VIEWS * D]; /* of unit length */

/* --- pictures with planted views --- */

static void draw(uint64_t number, float *out)
{
    Rng rng = rng_at(7, RNG_TEST, 960, number);
    for (int j = 0; j < D; j++)
        out[j] = (float)rng_normal(&rng);
}

/* A cosine of about 0.9. */
static void draw_near(const float *base, uint64_t number, float *out)
{
    draw(number, out);
    for (int j = 0; j < D; j++)
        out[j] = base[j] + 0.48f * out[j];
}

static float *view_of(float *rows, int64_t picture, int view)
{
    return rows + (picture * VIEWS + view) * D;
}

static void fill(void)
{
    for (int64_t r = 0; r < POOL * VIEWS; r++)
        draw((uint64_t)r, pool + r * D);
    for (int64_t r = 0; r < REFERENCES * VIEWS; r++)
        draw((uint64_t)(5000 + r), references + r * D);
    for (int64_t i = 0; i < POOL; i++) {
        uint64_t number = (uint64_t)(9000 + i);
        if (i % 11 == 4) draw_near(view_of(pool, i - 4, 0), number, view_of(pool, i, 0)); /* a plain copy */
        if (i % 9 == 2) /* a view of it is another picture, which may come before or after */
            draw_near(view_of(pool, (i * 7 + 3) % POOL, 0), number, view_of(pool, i, 1 + (int)(i % 2)));
        if (i % 13 == 5) draw_near(view_of(pool, i - 1, 2), number, view_of(pool, i, 1)); /* of no account */
    }
    for (int64_t i = 0; i < REFERENCES; i++) {
        uint64_t number = (uint64_t)(9900 + i);
        if (i % 3 == 0) draw_near(view_of(pool, i * 8, i % 2 ? 2 : 0), number, view_of(references, i, 0));
        if (i % 3 == 1) draw_near(view_of(pool, i * 8, 0), number, view_of(references, i, 1));
        if (i % 3 == 2)
            draw_near(view_of(pool, i * 8, 1), number, view_of(references, i, 2)); /* no account */
    }
    for (int64_t r = 0; r < (POOL + REFERENCES) * VIEWS; r++) {
        float *row = r < POOL * VIEWS ? pool + r * D : references + (r - POOL * VIEWS) * D;
        double length = sqrt(index_rows_dot(row, row, D));
        for (int j = 0; j < D; j++)
            row[j] = (float)((double)row[j] / length);
    }
}

static void write_views(const char *name, const float *rows, int64_t first, int64_t n, const char *list)
{
    CurationSupportViews data = {
        .values = rows, .first = first, .n = n, .views = VIEWS, .d = D, .list = list};
    curation_support_write_views(&data, temp_folder_in(&temp, "%s", name).text);
}

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
    fill();
    write_views("a.h5", pool, 0, A, LIST);
    write_views("b.h5", pool + A * VIEWS * D, A, B, LIST);
    write_views("references.h5", references, POOL, REFERENCES, LIST);
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_views, .init = set_up, .fini = tear_down, .timeout = 300);

/* --- what is right --- */

static double cosine(const float *a, const float *b)
{
    return (double)(float)index_rows_dot(a, b, D);
}

/* The best of the views of `a` and the whole of `b`. */
static double one_way(float *a, int64_t i, float *b, int64_t j)
{
    double most = -2.0;
    for (int view = 0; view < VIEWS; view++)
        most = fmax(most, cosine(view_of(a, i, view), view_of(b, j, 0)));
    return most;
}

typedef struct {
    int64_t group[POOL];
    int64_t edges; /* from each end whose views see the other */
} Graph;

/* By all pairs. */
static Graph graph_of(double threshold, bool views)
{
    Graph graph = {.edges = 0};
    for (int64_t i = 0; i < POOL; i++)
        graph.group[i] = i;
    for (int64_t i = 0; i < POOL; i++)
        for (int64_t j = 0; j < POOL; j++) {
            double near =
                views ? one_way(pool, i, pool, j) : cosine(view_of(pool, i, 0), view_of(pool, j, 0));
            if (i == j || !(near > threshold)) continue;
            graph.edges++;
            int64_t from = graph.group[i], to = graph.group[j], low = from < to ? from : to;
            for (int64_t p = 0; p < POOL; p++)
                if (graph.group[p] == from || graph.group[p] == to) graph.group[p] = low;
        }
    return graph;
}

typedef struct {
    int64_t group[POOL], reference[POOL];
    uint8_t keep[POOL];
    float similarity[POOL];
    int64_t edges, rows;
} Decision;

static Decision read_decision(const char *out, const char *step)
{
    Decision d;
    memset(&d, 0, sizeof d);
    CurationInput input;
    Error error = {0};
    TempPath path = temp_folder_in(&temp, "%s/%s.h5", out, step);
    cr_assert_eq(curation_file_open(&input, path.text, "/keep", &error), STATUS_OK, "%s", error.text);
    d.rows = input.n;
    cr_assert_eq(d.rows, POOL);
    Status status = curation_file_read(&input, "/keep", H5_TYPE_U8, 0, POOL, d.keep, &error);
    if (status == STATUS_OK)
        status = curation_file_read(&input, "/group", H5_TYPE_I64, 0, POOL, d.group, &error);
    if (status == STATUS_OK && strcmp(step, "exclude") == 0) {
        status = curation_file_read(&input, "/reference", H5_TYPE_I64, 0, POOL, d.reference, &error);
        if (status == STATUS_OK)
            status = curation_file_read(&input, "/similarity", H5_TYPE_F32, 0, POOL, d.similarity, &error);
    }
    int64_t views = 0;
    if (status == STATUS_OK) status = curation_file_read_int(&input, "edges", &d.edges, &error);
    if (status == STATUS_OK) status = curation_file_read_int(&input, "views", &views, &error);
    cr_assert(status == STATUS_OK && views == VIEWS, "%s", error.text);
    curation_file_close(&input);
    return d;
}

static void expect_same(const char *out, const char *other, const char *step)
{
    Decision a = read_decision(out, step), b = read_decision(other, step);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0, "%s and %s differ", out, other);
}

/* --- running --- */

enum { WORDS_MOST = 40 };

typedef struct {
    TempPath paths[4];
    const char *words[WORDS_MOST];
} Command;

/* `dinobatch curate STEP` on the pool, with the references where the step wants them, into the folder `out`.
 */
static Process start(int ranks, const char *step, const char *out, const char *const *more)
{
    Command c = {.paths = {temp_folder_in(&temp, "a.h5"), temp_folder_in(&temp, "b.h5"),
                           temp_folder_in(&temp, "%s", out), temp_folder_in(&temp, "references.h5")}};
    const char *words[] = {"curate",
                           step,
                           "compute.threads=1",
                           "curation.dedup.threshold=0.6",
                           "curation.exclude.threshold=0.5",
                           "--features",
                           c.paths[0].text,
                           "--features",
                           c.paths[1].text,
                           "--output-dir",
                           c.paths[2].text,
                           "--reference",
                           c.paths[3].text};
    int n = 0, count = strcmp(step, "exclude") == 0 ? 13 : 11;
    for (; n < count; n++)
        c.words[n] = words[n];
    for (; *more; more++)
        c.words[n++] = *more;
    return process_start_dinobatch(ranks, c.words);
}

static void run_well(int ranks, const char *step, const char *out, const char *const *more)
{
    Process process = start(ranks, step, out, more);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

/* Kills a rank at work and takes up what it left on other ranks. */
static void kill_and_go_on(const char *step, const char *out, const char *sign)
{
    Process process = start(2, step, out, WORDS("curation.block_queries=40", "curation.save_minutes=0"));
    cr_assert(process_wait_for_error_text(&process, sign, LIMIT_SECONDS));
    pid_t rank = process_of_rank(&process, 1, 5);
    cr_assert(rank > 0 && kill(rank, SIGKILL) == 0);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_neq(result.exit_status, 0);
    process_result_fini(&result);
    cr_assert_eq(access(temp_folder_in(&temp, "%s/%s.partial.h5", out, step).text, F_OK), 0);
    process = start(3, step, out, WORDS("--json"));
    result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    cr_expect(strstr(result.err, "going on from"), "%s", result.err);
    process_result_fini(&result);
}

#define IVF "curation.index=IVF4,Flat", "curation.nprobe=4", "curation.train_rows=200"

/* --- dedup --- */

Test(curate_views, dedup_is_right_on_any_ranks)
{
    Graph right = graph_of(DEDUP_T, true), plain = graph_of(DEDUP_T, false);
    int64_t groups = 0, plain_groups = 0;
    for (int64_t i = 0; i < POOL; i++) {
        groups += right.group[i] == i;
        plain_groups += plain.group[i] == i;
    }
    cr_assert(groups < plain_groups - 15 && plain_groups < POOL - 15, "%lld groups, %lld without views",
              (long long)groups, (long long)plain_groups);
    run_well(0, "dedup", "one", WORDS("--json"));
    Decision d = read_decision("one", "dedup");
    cr_expect_arr_eq(d.group, right.group, sizeof right.group);
    cr_expect_eq(d.edges, right.edges, "%lld edges, not %lld", (long long)d.edges, (long long)right.edges);
    for (int64_t i = 0; i < POOL; i++)
        cr_expect_eq(d.keep[i], right.group[i] == i);
    run_well(2, "dedup", "two", WORDS("curation.block_queries=100"));
    expect_same("two", "one", "dedup");
    run_well(3, "dedup", "lists", WORDS(IVF)); /* all lists are looked at */
    expect_same("lists", "one", "dedup");
    run_well(4, "dedup", "four", WORDS("curation.block_queries=1")); /* still a whole picture */
    expect_same("four", "one", "dedup");
    kill_and_go_on("dedup", "killed", "dedup");
    expect_same("killed", "one", "dedup");
    TempPath file = temp_folder_in(&temp, "one/dedup.h5"), features = temp_folder_in(&temp, "a.h5");
    ProcessResult result = process_run_dinobatch(0, WORDS("validate", file.text), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
    result = process_run_dinobatch(0, WORDS("validate", features.text), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

/* --- exclude --- */

static void expect_excluded(const char *out)
{
    Decision d = read_decision(out, "exclude");
    Graph graph = graph_of(EXCLUDE_T, true);
    bool gone[POOL] = {false};
    int64_t direct = 0;
    for (int64_t i = 0; i < POOL; i++) {
        int64_t reference = -1;
        double most = -2.0;
        for (int64_t r = 0; r < REFERENCES; r++) {
            double near = fmax(one_way(pool, i, references, r), one_way(references, r, pool, i));
            if (near > EXCLUDE_T && near > most) reference = r, most = near;
        }
        cr_expect_eq(d.reference[i], reference, "row %lld", (long long)i);
        if (reference >= 0) cr_expect_float_eq(d.similarity[i], most, 1e-6);
        if (reference >= 0) gone[graph.group[i]] = true;
        direct += reference >= 0;
    }
    cr_assert(direct >= 18 && direct < 60, "%lld", (long long)direct);
    cr_expect_arr_eq(d.group, graph.group, sizeof graph.group);
    cr_expect_eq(d.edges, graph.edges);
    for (int64_t i = 0; i < POOL; i++)
        cr_expect_eq(d.keep[i], !gone[graph.group[i]], "row %lld", (long long)i);
}

Test(curate_views, exclude_is_right_on_any_ranks)
{
    run_well(0, "exclude", "one", WORDS("--json"));
    expect_excluded("one");
    run_well(2, "exclude", "two", WORDS("curation.block_queries=50"));
    expect_same("two", "one", "exclude");
    run_well(3, "exclude", "lists",
             WORDS(IVF, "curation.exclude.index=IVF4,Flat", "curation.neighbours=100"));
    expect_same("lists", "one", "exclude");
    run_well(4, "exclude", "four", WORDS("--json"));
    expect_same("four", "one", "exclude");
    kill_and_go_on("exclude", "killed", "to views of references");
    expect_same("killed", "one", "exclude");
    run_well(0, "dedup", "dedup", WORDS("--json"));
    TempPath keep = temp_folder_in(&temp, "dedup/dedup.h5");
    run_well(0, "exclude", "kept", WORDS("--keep", keep.text));
    run_well(3, "exclude", "kept_by_three", WORDS("--keep", keep.text, "curation.block_queries=70"));
    expect_same("kept_by_three", "kept", "exclude");
    Decision all = read_decision("one", "exclude"), kept = read_decision("kept", "exclude"),
             before = read_decision("dedup", "dedup");
    for (int64_t i = 0; i < POOL; i++) /* what is like a reference is so among fewer rows, too */
        cr_expect_eq(kept.reference[i], before.keep[i] ? all.reference[i] : -1);
}

/* --- what is refused, and what another model may take up --- */

static void expect_refused(const char *const *words, const char *part)
{
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_not_null(strstr(result.err, part), "\"%s\" is not in:\n%s", part, result.err);
    process_result_fini(&result);
}

Test(curate_views, other_views_are_refused)
{
    TempPath a = temp_folder_in(&temp, "a.h5"), other = temp_folder_in(&temp, "other.h5"),
             out = temp_folder_in(&temp, "out");
    write_views("other.h5", references, POOL, REFERENCES, "crop:0.8:1,mirror");
    expect_refused(
        WORDS("curate", "exclude", "--features", a.text, "--reference", other.text, "--output-dir", out.text),
        "cannot be compared: views '" LIST "' and 'crop:0.8:1,mirror'");
    expect_refused(
        WORDS("curate", "dedup", "--features", a.text, "--features", other.text, "--output-dir", out.text),
        "other.h5 cannot be compared: views");
    expect_refused(WORDS("evaluate", "knn", "--train-features", a.text, "--val-features", a.text),
                   "a.h5: has 3 views of each picture");
}

/* The paper compares by one model and retrieves by another. Views are not seen there. */
Test(curate_views, what_was_kept_is_clustered_by_another_models_features)
{
    run_well(2, "dedup", "one", WORDS("--json"));
    Decision d = read_decision("one", "dedup");
    TempPath keep = temp_folder_in(&temp, "one/dedup.h5"), vit = temp_folder_in(&temp, "vit.h5"),
             out = temp_folder_in(&temp, "out");
    CurationSupportViews data = {
        .values = pool, .n = POOL, .views = VIEWS, .d = D, .list = "mirror,crop:0.5:1", .model = "vit.h5"};
    for (int other = 0; other < 2; other++) {
        data.first = other; /* other pictures */
        curation_support_write_views(&data, vit.text);
        const char *const *words = WORDS("curate", "cluster", "--features", vit.text, "--keep", keep.text,
                                         "--output-dir", out.text, "curation.cluster.k=3",
                                         "curation.cluster.iterations=2", "compute.threads=1", "--no-resume");
        if (other) {
            expect_refused(words, "dedup.h5 decides about other pictures than those of");
            continue;
        }
        ProcessResult result = process_run_dinobatch(2, words, LIMIT_SECONDS);
        cr_assert_eq(result.exit_status, 0, "%s", result.err);
        process_result_fini(&result);
        CurationInput input;
        int64_t assignment[POOL];
        Error error = {0};
        TempPath path = temp_folder_in(&temp, "out/cluster.h5");
        cr_assert_eq(curation_file_open(&input, path.text, "/assignment", &error), STATUS_OK, "%s",
                     error.text);
        cr_assert_eq(curation_file_read(&input, "/assignment", H5_TYPE_I64, 0, POOL, assignment, &error),
                     STATUS_OK);
        curation_file_close(&input);
        for (int64_t i = 0; i < POOL; i++)
            cr_expect_eq(assignment[i] >= 0, d.keep[i] != 0);
    }
}

/* --- pictures --- */

enum { PICTURES = 6, DIMS = 8 };

static void write_weights(const char *path)
{
    DescriptorMeta meta = {.config = {.arch = RESNET_18, .dims = DIMS, .gem_p = 3.0, .bn_eps = 1e-5},
                           .mean = {0.485, 0.456, 0.406},
                           .std = {0.229, 0.224, 0.225},
                           .source = "a formula"};
    ParamTable table;
    Resnet resnet;
    param_table_init(&table);
    resnet_build(&resnet, &meta.config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    sscd_weights_fill(&table, 1, flat);
    Comm *comm = comm_self_create();
    cr_assert_eq(descriptor_file_save(path, &meta, &table, flat, comm, NULL), STATUS_OK);
    comm_destroy(comm);
    memory_free(flat);
    param_table_fini(&table);
}

/* pictures/0.png .. 5.png, drawn, and 6.png, 7.png: a corner of the second, and the fourth mirrored. */
static void write_pictures(void)
{
    DataSet *set;
    Image image = {0};
    DataBuffer buffer = {0};
    cr_assert_eq(data_set_create(&set, "synthetic:classes=3,size=60,count=6,seed=4", NULL), STATUS_OK);
    ImageViews views;
    cr_assert_eq(image_views_parse(&views, "crop:0.7:2", NULL), STATUS_OK);
    for (int i = 0; i < PICTURES + 2; i++) {
        int from = i < PICTURES ? i : i == PICTURES ? 1 : 3;
        cr_assert_eq(data_set_load_image(set, from, &image, &buffer, NULL), STATUS_OK);
        ImageViewBox box = image_views_box(&views.view[i == PICTURES ? 3 : 0], image.height, image.width);
        uint8_t pixels[60 * 60 * 3];
        for (int64_t y = 0; y < box.height; y++)
            for (int64_t x = 0; x < box.width; x++) {
                int64_t column = i > PICTURES ? box.width - 1 - x : x;
                memcpy(pixels + 3 * (y * box.width + x),
                       image.rgb + 3 * ((box.top + y) * image.width + box.left + column), 3);
            }
        DataBuffer png = {0};
        cr_assert_eq(image_encode_png(&png, pixels, box.width, box.height, 3, NULL), STATUS_OK);
        temp_folder_write_bytes(&temp, temp_folder_in(&temp, "p%d.png", i).text + strlen(temp.path) + 1,
                                png.bytes, png.size);
        data_buffer_destroy(&png);
    }
    data_buffer_destroy(&buffer);
    image_destroy(&image);
    data_set_destroy(set);
}

static char *extract_and_dedup(const char *name, const char *const *more)
{
    TempPath out = temp_folder_in(&temp, "%s.h5", name), folder = temp_folder_in(&temp, "%s", name);
    TempPath weights = temp_folder_in(&temp, "sscd.h5");
    char model[400], data[400];
    snprintf(model, sizeof model, "sscd:%s", weights.text);
    snprintf(data, sizeof data, "folder:%s", temp.path);
    const char *words[WORDS_MOST] = {"extract",
                                     "--model",
                                     model,
                                     "--data",
                                     data,
                                     "--output-dir",
                                     out.text,
                                     "train.num_workers=1",
                                     "compute.threads=1",
                                     "evaluation.batch_size=8",
                                     "compute.device=cpu"};
    int ranks = *more ? 2 : 0;
    for (int n = 11; *more; more++)
        words[n++] = *more;
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    result =
        process_run_dinobatch(0,
                              WORDS("curate", "dedup", "--features", out.text, "--output-dir", folder.text,
                                    "curation.dedup.threshold=0.99999", "--json", "compute.threads=1"),
                              LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    char *told = memory_strdup(result.out);
    process_result_fini(&result);
    return told;
}

Test(curate_views, crops_of_drawn_pictures_are_found_by_views_alone)
{
    write_weights(temp_folder_in(&temp, "sscd.h5").text);
    write_pictures();
    char *without = extract_and_dedup("without", (const char *const[]){NULL});
    char *with = extract_and_dedup("with", WORDS("--views", "crop:0.7:2,mirror"));
    cr_expect(strstr(without, "\"rows\":8,") && strstr(without, "\"rows_kept\":8"), "%s", without);
    cr_expect(strstr(with, "\"rows\":8,") && strstr(with, "\"groups\":2,") && strstr(with, "\"rows_kept\":6"),
              "%s", with);
    memory_free(without);
    memory_free(with);
    FeaturesFile file, plain;
    Error error = {0};
    float whole[DIMS], view[DIMS];
    char key[2][300];
    cr_assert_eq(features_file_open(&file, temp_folder_in(&temp, "with.h5").text, &error), STATUS_OK, "%s",
                 error.text);
    cr_assert_eq(features_file_open(&plain, temp_folder_in(&temp, "without.h5").text, &error), STATUS_OK);
    cr_assert(file.n == 80 && file.meta.views == 10 && plain.n == 8 && plain.meta.views == 1);
    cr_expect_str_eq(file.meta.view_list, "mirror,crop:0.7:2");
    cr_expect_null(plain.meta.view_list);
    for (int i = 0; i < 8; i++) { /* view 0 is the whole picture */
        cr_assert_eq(features_file_read(&plain, i, 1, whole, NULL, &error), STATUS_OK);
        cr_assert_eq(features_file_read(&file, 10 * i, 1, view, NULL, &error), STATUS_OK);
        for (int j = 0; j < DIMS; j++)
            cr_expect_float_eq(whole[j], view[j], 1e-5);
        cr_assert_eq(features_file_read_keys(&plain, i, 1, key[0], &error), STATUS_OK);
        cr_assert_eq(features_file_read_keys(&file, 10 * i + 9, 1, key[1], &error), STATUS_OK);
        cr_expect_str_eq(key[0], key[1]);
    }
    features_file_close(&plain);
    features_file_close(&file);
    /* whitening is learned from views, too: 8 rows would be too few for 8 columns */
    TempPath white = temp_folder_in(&temp, "with.h5");
    char *told = extract_and_dedup("white", WORDS("--views", "mirror", "--whiten", white.text));
    cr_expect(strstr(told, "\"rows\":8,"), "%s", told);
    memory_free(told);
}
