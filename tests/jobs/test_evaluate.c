/* test_evaluate.c - extract and evaluate by the real program, on a checkpoint of two iterations. */
#include "../support/pair_folder.h"
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "base/rng.h"
#include "data/data_set.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60, ARGUMENTS = 40, TEXT = 256 };

#define TRAIN_DATA "synthetic:size=32,count=120,seed=3"
#define VAL_DATA   "synthetic:size=32,count=40,seed=4"

/* Words of a command line. */
typedef struct {
    const char *words[ARGUMENTS];
    int count;
} Line;

static void add(Line *line, const char *word)
{
    cr_assert(line->count + 1 < ARGUMENTS);
    line->words[line->count++] = word;
}

static void add_all(Line *line, const char *const *words)
{
    for (; *words; words++)
        add(line, *words);
}

static ProcessResult run(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    return result;
}

static void run_well(int ranks, const char *const *words)
{
    ProcessResult result = run(ranks, words);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

/* The last line of stdout as JSON; cJSON_Delete. */
static cJSON *run_json(int ranks, const char *const *words)
{
    ProcessResult result = run(ranks, words);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    size_t length = strlen(result.out);
    cr_assert(length > 0 && result.out[length - 1] == '\n');
    result.out[length - 1] = '\0';
    const char *last = strrchr(result.out, '\n');
    cJSON *tree = cJSON_Parse(last ? last + 1 : result.out);
    cr_assert(cJSON_IsObject(tree), "%s", result.out);
    process_result_fini(&result);
    return tree;
}

static double figure(const cJSON *tree, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(tree, name);
    cr_assert(cJSON_IsNumber(item), "no number %s", name);
    return item->valuedouble;
}

/* FOLDER/run: a run folder with a checkpoint and two evaluations. */
static void make_run(const TempFolder *folder, char path[TEXT])
{
    snprintf(path, TEXT, "%s/run", folder->path);
    const char *const words[] = {"pretrain",
                                 "--output-dir",
                                 path,
                                 "train.dataset_path=synthetic:size=32,count=60,seed=1",
                                 "train.batch_size_per_gpu=4",
                                 "train.OFFICIAL_EPOCH_LENGTH=2",
                                 "train.num_workers=0",
                                 "optim.epochs=1",
                                 "optim.warmup_epochs=0",
                                 "optim.freeze_last_layer_epochs=0",
                                 "teacher.warmup_teacher_temp_epochs=0",
                                 "student.arch=vit_custom",
                                 "student.embed_dim=32",
                                 "student.depth=2",
                                 "student.num_heads=2",
                                 "student.patch_size=8",
                                 "student.layerscale=1.0",
                                 "crops.global_crops_size=32",
                                 "crops.local_crops_size=16",
                                 "crops.local_crops_number=1",
                                 "dino.head_n_prototypes=32",
                                 "dino.head_hidden_dim=32",
                                 "dino.head_bottleneck_dim=16",
                                 "evaluation.eval_period_iterations=1",
                                 "evaluation.train_dataset_path=" TRAIN_DATA,
                                 "evaluation.val_dataset_path=" VAL_DATA,
                                 "evaluation.crop_size=32",
                                 "evaluation.resize_size=32",
                                 "evaluation.batch_size=16",
                                 "evaluation.knn_k=[1,5]",
                                 NULL};
    run_well(0, words);
}

static void extract(const char *run_folder, const char *data, const char *output, int ranks)
{
    const char *const words[] = {"extract", "--model",      run_folder, "--data",
                                 data,      "--output-dir", output,     NULL};
    run_well(ranks, words);
}

Test(evaluate, checkpoint_and_its_features_give_the_same_figures, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT], train[TEXT], val[TEXT];
    make_run(&folder, model);
    snprintf(train, sizeof train, "%s/train.h5", folder.path);
    snprintf(val, sizeof val, "%s/deep/er/val.h5", folder.path);
    extract(model, TRAIN_DATA, train, 0);
    extract(model, VAL_DATA, val, 2);

    const char *const on_images[] = {"evaluate",     "knn",          "--model",   model,    "--untrained",
                                     "--raw-pixels", "--output-dir", folder.path, "--json", NULL};
    const char *const on_features[] = {
        "evaluate", "knn", "--train-features", train, "--val-features", val, "evaluation.knn_k=[1,5]",
        "--json",   NULL};
    cJSON *images = run_json(0, on_images), *features = run_json(3, on_features);
    const char *const names[] = {"knn_top1_k1", "knn_top1_k5", "knn_top5_k5", "knn_top1_per_class_k5"};
    for (int i = 0; i < 4; i++)
        cr_expect_float_eq(figure(images, names[i]), figure(features, names[i]), 1e-9, "%s", names[i]);
    cr_expect_eq(figure(images, "train_images"), 120);
    cr_expect_eq(figure(images, "val_images"), 40);
    cr_expect_float_eq(figure(images, "chance_top1"), 10.0, 1e-9);
    cr_expect(cJSON_GetObjectItem(images, "untrained") && cJSON_GetObjectItem(images, "raw_pixels"));

    char *written = temp_folder_read(&folder, "knn.json");
    cJSON *file = cJSON_Parse(written);
    cr_expect_float_eq(figure(file, "knn_top1_k5"), figure(images, "knn_top1_k5"), 1e-9);
    char result[TEXT];
    snprintf(result, sizeof result, "%s/knn.h5", folder.path);
    const char *const validate[] = {"validate", result, NULL};
    run_well(0, validate);
    temp_folder_free_text(written);
    cJSON_Delete(file);
    cJSON_Delete(images);
    cJSON_Delete(features);
    temp_folder_destroy(&folder);
}

/* Few images of each class vote: the same picks on any number of ranks. */
static void expect_same_picks(const TempFolder *folder, const char *train, const char *val)
{
    const char *const words[] = {"evaluate",
                                 "knn",
                                 "--train-features",
                                 train,
                                 "--val-features",
                                 val,
                                 "--output-dir",
                                 folder->path,
                                 "evaluation.knn_k=[20,1]",
                                 "evaluation.n_per_class_list=[5,-1,2]",
                                 "evaluation.n_tries=3",
                                 "--json",
                                 NULL};
    static const char *const names[] = {
        "knn_top1_k1_of_5_per_class",
        "knn_top1_k5_of_5_per_class",
        "knn_top1_k5_of_5_per_class_spread",
        "knn_top5_k1_of_2_per_class",
        "knn_top1_k20",
        "knn_top1_per_class_k2_of_2_per_class",
    };
    cJSON *alone = run_json(0, words), *three = run_json(3, words);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect_float_eq(figure(alone, names[i]), figure(three, names[i]), 1e-9, "%s", names[i]);
    cr_expect_gt(figure(alone, "knn_top1_k5_of_5_per_class_spread"), 0.0);
    cr_expect_null(cJSON_GetObjectItem(alone, "knn_top1_k20_of_5_per_class"), "more than the bank has");
    cJSON_Delete(alone);
    cJSON_Delete(three);
}

/* The same on images, on their features, and on any number of ranks. */
Test(evaluate, logistic_regression_and_few_images, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT], train[TEXT], val[TEXT];
    make_run(&folder, model);
    snprintf(train, sizeof train, "%s/train.h5", folder.path);
    snprintf(val, sizeof val, "%s/val.h5", folder.path);
    extract(model, TRAIN_DATA, train, 2);
    extract(model, VAL_DATA, val, 0);
    const char *const on_images[] = {"evaluate", "logreg",       "--model",   model,
                                     "--json",   "--output-dir", folder.path, "evaluation.logreg_c_count=4",
                                     NULL};
    const char *const on_features[] = {"evaluate",
                                       "logreg",
                                       "--train-features",
                                       train,
                                       "--val-features",
                                       val,
                                       "--json",
                                       "evaluation.logreg_c_count=4",
                                       NULL};
    cJSON *images = run_json(2, on_images);
    cr_expect_eq(figure(images, "held_out_images"), 12);
    cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(images, "sweep")), 4);
    for (int ranks = 0; ranks <= 3; ranks += 3) {
        cJSON *features = run_json(ranks, on_features);
        static const char *const names[] = {"logreg_top1", "logreg_top5", "logreg_top1_per_class", "c"};
        for (int i = 0; i < 4; i++)
            cr_expect_float_eq(figure(images, names[i]), figure(features, names[i]), 1e-9, "%s, %d ranks",
                               names[i], ranks);
        double objective = figure(images, "objective");
        cr_expect_float_eq(objective, figure(features, "objective"), 1e-6 * objective);
        cJSON_Delete(features);
    }
    char result[TEXT];
    snprintf(result, sizeof result, "%s/logreg.h5", folder.path);
    const char *const validate[] = {"validate", result, NULL};
    run_well(0, validate);
    expect_same_picks(&folder, train, val);
    cJSON_Delete(images);
    temp_folder_destroy(&folder);
}

/* A short grid of 2 x 2 x 13 classifiers; steps is "evaluation.linear_iterations=N". */
static void add_linear(Line *line, const char *model, const char *output, const char *steps)
{
    const char *const words[] = {"evaluate",
                                 "linear",
                                 "--model",
                                 model,
                                 "--test-data",
                                 VAL_DATA,
                                 "--test-data",
                                 TRAIN_DATA,
                                 "evaluation.linear_last_blocks=[1,2]",
                                 "evaluation.linear_batch_size=12",
                                 "evaluation.linear_grid=paper",
                                 steps,
                                 "--output-dir",
                                 output,
                                 "--json",
                                 NULL};
    add_all(line, words);
}

static const cJSON *classifier(const cJSON *tree, int c)
{
    const cJSON *all = cJSON_GetObjectItem(tree, "classifiers");
    cr_assert_eq(cJSON_GetArraySize(all), 2 * 2 * 13);
    return cJSON_GetArrayItem(all, c);
}

/* What the classifiers of both trees reached differs by `off` at most. */
static void expect_same_linear(const cJSON *a, const cJSON *b, double off)
{
    for (int c = 0; c < 52; c++) {
        const cJSON *x = classifier(a, c), *y = classifier(b, c);
        cr_expect_float_eq(figure(x, "loss"), figure(y, "loss"), off * figure(x, "loss"), "classifier %d", c);
        /* a picture of the 40 between two classes may fall to the other side */
        cr_expect_float_eq(figure(x, "val_top1"), figure(y, "val_top1"), off > 0 ? 2.6 : 0.0, "classifier %d",
                           c);
    }
}

Test(evaluate, linear_grid_on_any_number_of_ranks, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT];
    make_run(&folder, model);
    Line line = {0};
    add_linear(&line, model, folder.path, "evaluation.linear_iterations=15");
    cJSON *alone = run_json(0, line.words);
    for (int ranks = 2; ranks <= 3; ranks++) {
        cJSON *together = run_json(ranks, line.words);
        expect_same_linear(alone, together, 1e-4);
        cJSON_Delete(together);
    }
    double best = 0.0;
    for (int c = 0; c < 52; c++)
        if (figure(classifier(alone, c), "val_top1") > best) best = figure(classifier(alone, c), "val_top1");
    cr_expect_float_eq(figure(alone, "linear_top1"), best, 1e-9);
    const cJSON *tests = cJSON_GetObjectItem(alone, "tests");
    cr_assert_eq(cJSON_GetArraySize(tests), 2);
    cr_expect_float_eq(figure(cJSON_GetArrayItem(tests, 0), "linear_top1"), best, 1e-9, "the same pictures");
    cr_expect_eq(figure(cJSON_GetArrayItem(tests, 1), "images"), 120);
    cr_expect_float_eq(figure(classifier(alone, 12), "learning_rate"), 0.5, 1e-12, "the paper's last");
    char result[TEXT];
    snprintf(result, sizeof result, "%s/linear.h5", folder.path);
    const char *const validate[] = {"validate", result, NULL};
    run_well(0, validate);
    cJSON_Delete(alone);
    temp_folder_destroy(&folder);
}

/* FOLDER/{a,b}/images: pictures of 32 x 32, the same ones in colour and grey as PIL makes them. */
static void draw_classes(const char *folder, bool gray)
{
    enum { SIDE = 32, PICTURES = 12 };
    Rng rng = rng_at(5, RNG_TEST, 0, 0);
    uint8_t rgb[SIDE * SIDE * 3];
    char path[TEXT + 8], name[16];
    for (int i = 0; i < 2 * PICTURES; i++) {
        snprintf(path, sizeof path, "%s/%c", folder, i < PICTURES ? 'a' : 'b');
        snprintf(name, sizeof name, "p%02d", i);
        if (i % PICTURES == 0) cr_assert(pair_folder_make(path, "masks"));
        double level[3] = {rng_uniform(&rng, 0, 200), rng_uniform(&rng, 0, 200), i < PICTURES ? 0 : 200};
        for (int at = 0; at < SIDE * SIDE * 3; at += 3) {
            for (int c = 0; c < 3; c++)
                rgb[at + c] = (uint8_t)(level[c] + rng_uniform(&rng, 0, 55));
            if (gray)
                rgb[at] = rgb[at + 1] = rgb[at + 2] =
                    (uint8_t)((rgb[at] * 19595 + rgb[at + 1] * 38470 + rgb[at + 2] * 7471 + 32768) >> 16);
        }
        cr_assert(pair_folder_add_picture(path, name, rgb, SIDE, SIDE));
    }
}

/* The figures of an evaluation of a network of grey crops. */
static cJSON *evaluate_grey(const char *what, const char *model, const char *train, const char *val)
{
    const char *const words[] = {"evaluate",
                                 what,
                                 "--model",
                                 model,
                                 "--train-data",
                                 train,
                                 "--val-data",
                                 val,
                                 "crops.grayscale_probability=1",
                                 "evaluation.linear_last_blocks=[1,2]",
                                 "evaluation.linear_batch_size=12",
                                 "evaluation.linear_grid=paper",
                                 "evaluation.linear_iterations=15",
                                 "--json",
                                 NULL};
    return run_json(0, words);
}

Test(evaluate, a_network_of_grey_crops_sees_no_colour, .timeout = 120)
{
    static const struct {
        const char *job, *figures[3];
    } cases[] = {{"knn", {"knn_top1_k1", "knn_top1_k5", NULL}},
                 {"logreg", {"logreg_top1", "logreg_top1_per_class", NULL}},
                 {"retrieval", {"retrieval_map_classes", NULL}},
                 {"linear", {"linear_top1", NULL}}};
    TempFolder folder = temp_folder_create();
    static const char *const names[] = {"bank", "gray", "color"};
    char model[TEXT], path[3][TEXT], spec[3][TEXT + 8];
    make_run(&folder, model);
    for (int n = 0; n < 3; n++) {
        snprintf(path[n], TEXT, "%s/%s", folder.path, names[n]);
        snprintf(spec[n], sizeof spec[n], "folder:%s", path[n]);
        cr_assert(mkdir(path[n], 0777) == 0);
        draw_classes(path[n], n < 2);
    }
    for (int i = 0; i < 4; i++) {
        cJSON *a = evaluate_grey(cases[i].job, model, spec[0], spec[1]);
        cJSON *b = evaluate_grey(cases[i].job, model, spec[0], spec[2]);
        for (int f = 0; cases[i].figures[f]; f++)
            cr_expect_eq(figure(a, cases[i].figures[f]), figure(b, cases[i].figures[f]), "%s",
                         cases[i].figures[f]);
        if (i == 3) expect_same_linear(a, b, 0.0);
        cJSON_Delete(a);
        cJSON_Delete(b);
    }
    temp_folder_destroy(&folder);
}

Test(evaluate, a_stopped_linear_training_goes_on_bit_for_bit, .timeout = 120)
{
    static const char steps[] = "evaluation.linear_iterations=200";
    TempFolder folder = temp_folder_create();
    char model[TEXT], whole_folder[TEXT], stopped_folder[TEXT];
    make_run(&folder, model);
    snprintf(whole_folder, sizeof whole_folder, "%s/whole", folder.path);
    snprintf(stopped_folder, sizeof stopped_folder, "%s/stopped", folder.path);
    Line whole_line = {0}, line = {0};
    add_linear(&whole_line, model, whole_folder, steps);
    add_linear(&line, model, stopped_folder, steps);
    cJSON *whole = run_json(2, whole_line.words);

    Process process = process_start_dinobatch(2, line.words);
    cr_assert(process_wait_for_error_text(&process, "training 6/200", 60));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 75, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    cJSON *resumed = run_json(2, line.words);
    cr_expect(figure(resumed, "steps") > 0 && figure(resumed, "steps") < 195);
    expect_same_linear(whole, resumed, 0.0);
    cr_expect_neq(access(temp_folder_in(&folder, "stopped/linear.partial").text, F_OK), 0);
    cJSON_Delete(whole);
    cJSON_Delete(resumed);
    temp_folder_destroy(&folder);
}

Test(evaluate, the_run_evaluates_itself_as_the_job_does, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT];
    make_run(&folder, model);
    char *written = temp_folder_read(&folder, "run/eval/training_1/knn.json");
    cJSON *during = cJSON_Parse(written);
    cr_assert(cJSON_IsObject(during), "%s", written);
    const char *const after[] = {"evaluate", "knn", "--model", model, "--json", NULL};
    cJSON *job = run_json(0, after);
    cr_expect_float_eq(figure(during, "knn_top1_k5"), figure(job, "knn_top1_k5"), 1e-3);
    temp_folder_free_text(written);
    cJSON_Delete(during);
    cJSON_Delete(job);
    temp_folder_destroy(&folder);
}

/* A truth of one query, the first picture of VAL_DATA, whose positives are pictures `easy` and `hard` of
 * TRAIN_DATA. */
static void write_truth(const TempFolder *folder, const char *name, int64_t easy, int64_t hard)
{
    enum { KEY = 128 };
    char keys[3][KEY], text[2 * TEXT];
    Error error = {0};
    DataSet *database = NULL, *queries = NULL;
    cr_assert_eq(data_set_create(&database, TRAIN_DATA, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(data_set_create(&queries, VAL_DATA, &error), STATUS_OK, "%s", error.text);
    data_set_key(queries, 0, keys[0], KEY);
    data_set_key(database, easy, keys[1], KEY);
    data_set_key(database, hard, keys[2], KEY);
    snprintf(text, sizeof text,
             "{\"queries\": [{\"query\": \"%s\", \"easy\": [\"%s\"], \"hard\": [\"%s\"]}]}", keys[0], keys[1],
             keys[2]);
    temp_folder_write(folder, name, text);
    data_set_destroy(database);
    data_set_destroy(queries);
}

Test(evaluate, retrieval_is_the_same_on_images_on_features_and_on_any_ranks, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT], train[TEXT], val[TEXT], truth[TEXT], result[TEXT];
    make_run(&folder, model);
    snprintf(train, sizeof train, "%s/train.h5", folder.path);
    snprintf(val, sizeof val, "%s/val.h5", folder.path);
    snprintf(truth, sizeof truth, "%s/truth.json", folder.path);
    snprintf(result, sizeof result, "%s/retrieval.h5", folder.path);
    extract(model, TRAIN_DATA, train, 0);
    extract(model, VAL_DATA, val, 0);
    write_truth(&folder, "truth.json", 5, 77);
    const char *const images[] = {"evaluate", "retrieval", "--model", model, "--json", NULL};
    const char *const classes[] = {
        "evaluate", "retrieval", "--train-features", train, "--json", "--val-features", val, NULL};
    const char *const by_truth[] = {
        "evaluate", "retrieval", "--train-features", train,          "--val-features", val,
        "--truth",  truth,       "--json",           "--output-dir", folder.path,      NULL};
    cJSON *of_images = run_json(2, images);
    cr_expect_eq(figure(of_images, "database_images"), 120);
    cr_expect_eq(figure(of_images, "queries_classes"), 40);
    double medium = NAN;
    for (int ranks = 0; ranks <= 3; ranks += ranks ? 1 : 2) {
        cJSON *of_features = run_json(ranks, classes), *of_truth = run_json(ranks, by_truth);
        cr_expect_float_eq(figure(of_features, "retrieval_map_classes"),
                           figure(of_images, "retrieval_map_classes"), 1e-9, "%d ranks", ranks);
        cr_expect_float_eq(figure(of_features, "retrieval_mp10_classes"),
                           figure(of_images, "retrieval_mp10_classes"), 1e-9, "%d ranks", ranks);
        if (ranks == 0) medium = figure(of_truth, "retrieval_map_medium");
        cr_expect_eq(figure(of_truth, "retrieval_map_medium"), medium, "%d ranks", ranks);
        cr_expect(medium > 0 && medium < 100);
        cr_expect_eq(figure(of_truth, "positives_hard"), 1);
        cJSON_Delete(of_features);
        cJSON_Delete(of_truth);
    }
    cJSON_Delete(of_images);
    const char *const validate[] = {"validate", result, NULL};
    run_well(0, validate);

    /* the query's key is none of the database's, and the other way round */
    const char *const swapped[] = {
        "evaluate", "retrieval", "--train-features", val, "--val-features", train, "--truth", truth, NULL};
    ProcessResult refused = run(2, swapped);
    cr_expect_eq(refused.exit_status, 2, "%s", refused.err);
    cr_expect(strstr(refused.err, truth) && strstr(refused.err, "is not in"), "%s", refused.err);
    process_result_fini(&refused);
    temp_folder_destroy(&folder);
}

Test(evaluate, refuses_what_cannot_work_with_one_line, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    char model[TEXT], train[TEXT];
    make_run(&folder, model);
    snprintf(train, sizeof train, "%s/train.h5", folder.path);
    extract(model, TRAIN_DATA, train, 0);
    const struct {
        const char *words[8];
        const char *said;
        int ranks;
    } cases[] = {
        {{"evaluate", "magic"}, "evaluate magic: expected one of knn, linear, ", 0},
        {{"evaluate", "knn"}, "--model", 0},
        {{"evaluate", "logreg"}, "--model", 0},
        {{"evaluate", "linear", "--train-features", train},
         "linear takes no --train-features, which is of knn, ",
         0},
        {{"evaluate", "linear"}, "--model", 0},
        {{"evaluate", "logreg", "--model", model, "--truth", "t.json"}, "--truth, which is of retrieval", 2},
        {{"evaluate", "knn", "--model", model, "--test-data", VAL_DATA}, "no --test-data", 0},
        {{"evaluate", "linear", "--model", model}, "linear_last_blocks", 0},
        {{"evaluate", "linear", "--model", model, "evaluation.linear_last_blocks=[1]", "--test-data",
          "folder:/nonexistent"},
         "/nonexistent",
         0},
        {{"evaluate", "linear", "--model", model, "evaluation.linear_last_blocks=[1]",
          "evaluation.linear_batch_size=3"},
         "linear_batch_size",
         2},
        {{"evaluate", "logreg", "--model", model, "--raw-pixels"}, "--raw-pixels", 0},
        {{"evaluate", "logreg", "--train-features", train}, "--val-features", 2},
        {{"evaluate", "knn", "--model", "/nonexistent/model.h5"}, "/nonexistent/model.h5", 2},
        {{"evaluate", "knn", "--model", train}, train, 0},
        {{"evaluate", "knn", "--model", model, "student.patch_size=16"}, "student.patch_size", 2},
        {{"evaluate", "knn", "--model", model, "evaluation.knn_k=[121]"}, "evaluation.knn_k", 0},
        {{"evaluate", "knn", "--model", model, "evaluation.n_per_class_list=[0]"}, "n_per_class_list", 0},
        {{"evaluate", "knn", "--model", model, "evaluation.crop_size=30"}, "evaluation.crop_size", 0},
        {{"evaluate", "knn", "--model", model, "--which", "pupil"}, "pupil", 0},
        {{"evaluate", "knn", "--model", model, "--train-data", "folder:/nonexistent"}, "/nonexistent", 0},
        {{"evaluate", "knn", "--train-features", train}, "--val-features", 0},
        {{"evaluate", "knn", "--model", model, "--truth", "t.json"}, "--truth", 0},
        {{"evaluate", "retrieval"}, "--model", 0},
        {{"evaluate", "retrieval", "--train-features", train}, "--val-features", 0},
        {{"evaluate", "retrieval", "--model", model, "--truth", "/nonexistent/t.json"},
         "/nonexistent/t.json",
         2},
        {{"extract", "--model", model, "--data", TRAIN_DATA}, "--output-dir", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Line line = {0};
        add_all(&line, cases[i].words);
        ProcessResult result = run(cases[i].ranks, line.words);
        cr_expect_eq(result.exit_status, 2, "case %zu: exit %d\n%s", i, result.exit_status, result.err);
        cr_expect(strstr(result.err, cases[i].said), "case %zu: '%s' not in:\n%s", i, cases[i].said,
                  result.err);
        cr_expect_null(strstr(result.err, "bug:"), "case %zu:\n%s", i, result.err);
        process_result_fini(&result);
    }
    temp_folder_destroy(&folder);
}
