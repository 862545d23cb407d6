/* test_evaluate_dense.c - segmentation and depth by the real program, on a checkpoint of one iteration. */
#include "../support/pair_folder.h"
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60 };

#define TRAIN_DATA "synthetic:classes=2,size=32,count=60,seed=3"
#define VAL_DATA   "synthetic:classes=2,size=32,count=9,seed=4"
#define SETTINGS                                                                                        \
    "evaluation.dense_size=40", "evaluation.dense_crop=36", "evaluation.dense_batch_size=4",            \
        "evaluation.dense_iterations=20", "evaluation.linear_last_blocks=[1,2]", "train.num_workers=0", \
        "compute.threads=1"

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

/* FOLDER/NAME.json of a run that ended well; cJSON_Delete. */
static cJSON *run_json(int ranks, const char *const *words, const TempFolder *folder, const char *name)
{
    run_well(ranks, words);
    char *text = temp_folder_read(folder, name);
    cJSON *tree = cJSON_Parse(text);
    cr_assert(cJSON_IsObject(tree), "%s: %s", name, text);
    temp_folder_free_text(text);
    return tree;
}

static double figure(const cJSON *tree, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(tree, name);
    cr_assert(cJSON_IsNumber(item), "no number %s", name);
    return item->valuedouble;
}

static TempPath make_run(const TempFolder *folder)
{
    TempPath path = temp_folder_in(folder, "run");
    run_well(0,
             WORDS("pretrain", "--output-dir", path.text,
                   "train.dataset_path=synthetic:size=32,count=60,seed=1", "train.batch_size_per_gpu=4",
                   "train.OFFICIAL_EPOCH_LENGTH=1", "train.num_workers=0", "optim.epochs=1",
                   "optim.warmup_epochs=0", "optim.freeze_last_layer_epochs=0",
                   "teacher.warmup_teacher_temp_epochs=0", "student.arch=vit_custom", "student.embed_dim=32",
                   "student.depth=2", "student.num_heads=2", "student.patch_size=8", "student.layerscale=1.0",
                   "crops.global_crops_size=32", "crops.local_crops_size=16", "crops.local_crops_number=1",
                   "dino.head_n_prototypes=32", "dino.head_hidden_dim=32", "dino.head_bottleneck_dim=16",
                   "evaluation.eval_period_iterations=0"));
    return path;
}

/* Figures of all classifiers, and the table of the best. */
static void expect_same(const cJSON *a, const cJSON *b, double tolerance)
{
    const cJSON *ours = cJSON_GetObjectItem(a, "classifiers"),
                *theirs = cJSON_GetObjectItem(b, "classifiers");
    int count = cJSON_GetArraySize(ours);
    cr_assert(count > 0 && count == cJSON_GetArraySize(theirs));
    for (int i = 0; i < count; i++) {
        const cJSON *one = cJSON_GetArrayItem(ours, i), *other = cJSON_GetArrayItem(theirs, i);
        cr_expect_float_eq(figure(one, "loss"), figure(other, "loss"), 1e-3 * tolerance);
        cr_expect_float_eq(figure(one, "val_miou"), figure(other, "val_miou"), tolerance);
    }
}

Test(evaluate_dense, segmentation_on_any_ranks_and_kinds_of_data, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    TempPath model = make_run(&folder), out = temp_folder_in(&folder, "out");
    const char *const first[] = {"evaluate",
                                 "segmentation",
                                 "--model",
                                 model.text,
                                 "--untrained",
                                 "--train-data",
                                 TRAIN_DATA,
                                 "--val-data",
                                 VAL_DATA,
                                 "--test-data",
                                 VAL_DATA,
                                 "--output-dir",
                                 out.text,
                                 SETTINGS,
                                 "evaluation.dense_test_scales=[100,150]",
                                 "evaluation.dense_test_flip=true",
                                 NULL};
    cJSON *alone = run_json(0, first, &folder, "out/segmentation.json");
    cr_expect_eq(figure(alone, "classes"), 3);
    cr_expect_eq(figure(alone, "pixels"), 9 * 32 * 32);
    double sum = 0.0;
    const cJSON *row, *cell;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(alone, "confusion")) cJSON_ArrayForEach(cell, row) sum +=
        cell->valuedouble;
    cr_expect_eq(sum, 9 * 32 * 32);
    const cJSON *test = cJSON_GetArrayItem(cJSON_GetObjectItem(alone, "tests"), 0);
    cr_expect_float_eq(figure(alone, "miou"), figure(test, "miou"), 1e-9, "the same set twice");
    cr_expect_gt(figure(alone, "pixel_accuracy"), 50.0);
    cr_expect_gt(figure(cJSON_GetObjectItem(alone, "untrained"), "miou"), 0.0);
    run_well(0, WORDS("validate", temp_folder_in(&folder, "out/segmentation.h5").text));

    /* The same pictures from shards, on two ranks. */
    TempPath train = temp_folder_in(&folder, "train"), val = temp_folder_in(&folder, "val");
    run_well(0,
             WORDS("synth", "--data", TRAIN_DATA, "--masks", "--format", "hdf5", "--output-dir", train.text));
    run_well(0, WORDS("pack", "--data", VAL_DATA, "--output-dir", val.text));
    TempPath train_spec = temp_folder_in(&folder, "train/*.h5"),
             val_spec = temp_folder_in(&folder, "val/*.h5");
    char train_data[400], val_data[400];
    snprintf(train_data, sizeof train_data, "hdf5:%s", train_spec.text);
    snprintf(val_data, sizeof val_data, "hdf5:%s", val_spec.text);
    TempPath two = temp_folder_in(&folder, "two");
    const char *const second[] = {"evaluate",
                                  "segmentation",
                                  "--model",
                                  model.text,
                                  "--train-data",
                                  train_data,
                                  "--val-data",
                                  val_data,
                                  "--output-dir",
                                  two.text,
                                  SETTINGS,
                                  "evaluation.dense_test_scales=[100,150]",
                                  "evaluation.dense_test_flip=true",
                                  NULL};
    cJSON *ranks = run_json(2, second, &folder, "two/segmentation.json");
    expect_same(alone, ranks, 0.1);
    cJSON_Delete(alone);
    cJSON_Delete(ranks);
    temp_folder_destroy(&folder);
}

Test(evaluate_dense, a_stopped_training_goes_on_bit_for_bit, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    TempPath model = make_run(&folder), whole = temp_folder_in(&folder, "whole"),
             stopped = temp_folder_in(&folder, "stopped");
    const char *words[] = {"evaluate",
                           "segmentation",
                           "--model",
                           model.text,
                           "--train-data",
                           TRAIN_DATA,
                           "--val-data",
                           VAL_DATA,
                           SETTINGS,
                           "evaluation.dense_iterations=200",
                           "evaluation.linear_last_blocks=[2]",
                           "evaluation.linear_learning_rate=0.05",
                           "--output-dir",
                           whole.text,
                           NULL};
    cJSON *a = run_json(2, words, &folder, "whole/segmentation.json");
    for (size_t i = 0; words[i]; i++)
        if (words[i] == whole.text) words[i] = stopped.text;
    Process process = process_start_dinobatch(2, words);
    cr_assert(process_wait_for_error_text(&process, "training 6/200", 60));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 75, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    cJSON *b = run_json(2, words, &folder, "stopped/segmentation.json");
    cr_expect(figure(b, "steps") > 0 && figure(b, "steps") < 195);
    expect_same(a, b, 0.0);
    cr_expect_neq(access(temp_folder_in(&folder, "stopped/segmentation.partial").text, F_OK), 0);
    cJSON_Delete(a);
    cJSON_Delete(b);
    temp_folder_destroy(&folder);
}

Test(evaluate_dense, depth_is_learnt_from_drawn_scenes, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    TempPath model = make_run(&folder), out = temp_folder_in(&folder, "out"),
             train = temp_folder_in(&folder, "train"), val = temp_folder_in(&folder, "val");
    cr_assert(pair_folder_draw_depth(train.text, 24, 45, 35, 1));
    cr_assert(pair_folder_draw_depth(val.text, 6, 45, 35, 2));
    char train_data[400], val_data[400];
    snprintf(train_data, sizeof train_data, "pairs:%s", train.text);
    snprintf(val_data, sizeof val_data, "pairs:%s", val.text);
    const char *const words[] = {"evaluate",
                                 "depth",
                                 "--model",
                                 model.text,
                                 "--train-data",
                                 train_data,
                                 "--val-data",
                                 val_data,
                                 "--output-dir",
                                 out.text,
                                 SETTINGS,
                                 "evaluation.dense_size=0",
                                 "evaluation.dense_crop=0",
                                 "evaluation.dense_scale=[1,1]",
                                 "evaluation.dense_iterations=80",
                                 "evaluation.depth_bins=32",
                                 NULL};
    cJSON *tree = run_json(0, words, &folder, "out/depth.json");
    /* Always the mean depth would be 1.6 m away. */
    cr_expect(figure(tree, "rmse") > 0.0 && figure(tree, "rmse") < 0.9, "%g m", figure(tree, "rmse"));
    cr_expect_gt(figure(tree, "delta1"), 70.0);
    cr_expect_eq(figure(tree, "images"), 6);
    run_well(0, WORDS("validate", temp_folder_in(&folder, "out/depth.h5").text));
    cJSON_Delete(tree);
    temp_folder_destroy(&folder);
}

/* `what` with that data ends with 2 and one line that holds `expected`. */
static void refused(const char *model, const char *what, const char *data, const char *setting,
                    const char *expected)
{
    ProcessResult result = run(0, WORDS("evaluate", what, "--model", model, "--train-data", data,
                                        "--val-data", data, SETTINGS, setting));
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    const char *line = strstr(result.err, "error: ");
    cr_expect(line && strstr(line, expected), "expected \"%s\" in\n%s", expected, result.err);
    cr_expect(!line || strchr(line, '\n') == line + strlen(line) - 1, "one line\n%s", result.err);
    process_result_fini(&result);
}

Test(evaluate_dense, bad_masks_are_named, .timeout = 120)
{
    enum { SIDE = 16 };
    TempFolder folder = temp_folder_create();
    TempPath model = make_run(&folder), pairs = temp_folder_in(&folder, "pairs");
    char data[400];
    snprintf(data, sizeof data, "pairs:%s", pairs.text);
    static const uint8_t rgb[SIDE * SIDE * 3];
    uint16_t gray[SIDE * SIDE] = {0};
    cr_assert(pair_folder_make(pairs.text, "labels"));
    cr_assert(pair_folder_add_picture(pairs.text, "a", rgb, SIDE, SIDE));
    const char *classes = "evaluation.segmentation_classes=3";
    refused(model.text, "segmentation", data, "evaluation.segmentation_classes=0", "segmentation_classes");
    refused(model.text, "segmentation", data, classes, "labels/a.png: No such file");
    gray[7] = 3;
    cr_assert(pair_folder_add_gray(pairs.text, "labels", "a", gray, SIDE, SIDE, 8));
    refused(model.text, "segmentation", data, classes, "images/a.png: its mask has class 3");
    refused(model.text, "depth", data, classes, "images/a.png: its mask has 8 bits a pixel, expected 16");
    cr_assert(pair_folder_add_gray(pairs.text, "labels", "a", gray, SIDE, SIDE, 16));
    refused(model.text, "segmentation", data, classes, "images/a.png: its mask has 16 bits");
    cr_assert(pair_folder_add_gray(pairs.text, "labels", "a", gray, SIDE / 2, SIDE, 8));
    refused(model.text, "segmentation", data, classes, "its mask has 8 x 16 pixels, the picture 16 x 16");
    cr_assert(pair_folder_add_picture(pairs.text, "b", rgb, SIDE, SIDE));
    refused(model.text, "segmentation", temp_folder_in(&folder, "pairs").text, classes,
            "expected folder:DIR");
    char images[400];
    snprintf(images, sizeof images, "folder:%s/images", pairs.text);
    refused(model.text, "segmentation", images, classes, "has no masks");
    refused(model.text, "segmentation", data, "evaluation.linear_last_blocks=[3]",
            "of the network's 2 blocks");
    temp_folder_destroy(&folder);
}
