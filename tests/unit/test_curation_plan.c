/* A curation's YAML file: what it says, from which folder, and what is refused. */
#include "curation/curation_plan.h"

#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char WHOLE[] = "name: small\n"
                            "pool: folder:pool\n"
                            "evaluation_sets:\n"
                            "  - {name: val, data: 'hdf5:/data/val.h5'}\n"
                            "query_sets:\n"
                            "  - name: food\n"
                            "    data: tar:food.tar;limit=5\n"
                            "    task: fine-grained\n"
                            "    published: 1000000\n"
                            "    mode: cluster\n"
                            "    settings: [curation.retrieve.per_cluster=2, 'curation.retrieve.cap=7']\n"
                            "  - {name: whole, data: 'synthetic:count=5', as_is: true}\n"
                            "copy_detection: {model: 'sscd:w/sscd.h5', whiten: true}\n"
                            "retrieval: {pretrain: [a.yaml, /b.yaml], settings: [optim.epochs=3]}\n"
                            "truth: truth\n"
                            "settings: [curation.dedup.threshold=0.7]\n";

Test(curation_plan, everything_is_read_and_paths_are_of_the_files_folder)
{
    TempFolder folder = temp_folder_create();
    temp_folder_write(&folder, "c.yaml", WHOLE);
    CurationPlan plan;
    Error error = {0};
    cr_assert_eq(curation_plan_load(&plan, temp_folder_in(&folder, "c.yaml").text, NULL, &error), STATUS_OK,
                 "%s", error.text);
    cr_expect_str_eq(plan.name, "small");
    char wanted[512];
    snprintf(wanted, sizeof wanted, "folder:%s/pool", folder.path);
    cr_expect_str_eq(plan.pool.texts[0], wanted);
    cr_assert_eq(plan.evaluation_count, 1);
    cr_expect_str_eq(plan.evaluation_sets[0].data, "hdf5:/data/val.h5", "an absolute path stays");
    cr_assert_eq(plan.query_count, 2);
    snprintf(wanted, sizeof wanted, "tar:%s/food.tar;limit=5", folder.path);
    cr_expect_str_eq(plan.query_sets[0].data, wanted);
    cr_expect_str_eq(plan.query_sets[0].task, "fine-grained");
    cr_expect_eq(plan.query_sets[0].published, 1000000);
    cr_expect_not(plan.query_sets[0].as_is);
    cr_assert_eq(plan.query_sets[0].settings.count, 2);
    cr_expect_str_eq(plan.query_sets[0].settings.texts[1], "curation.retrieve.cap=7");
    cr_expect_str_eq(plan.query_sets[0].mode, "cluster");
    cr_expect_str_eq(plan.query_sets[1].mode, "auto");
    cr_expect_str_eq(plan.query_sets[1].data, "synthetic:count=5");
    cr_expect(plan.query_sets[1].as_is);
    snprintf(wanted, sizeof wanted, "sscd:%s/w/sscd.h5", folder.path);
    cr_expect_str_eq(plan.copy_detection.model, wanted);
    cr_expect(plan.copy_detection.whiten);
    cr_expect(plan.has_retrieval && !plan.retrieval.model);
    cr_assert_eq(plan.retrieval.pretrain.files.count, 2);
    snprintf(wanted, sizeof wanted, "%s/a.yaml", folder.path);
    cr_expect_str_eq(plan.retrieval.pretrain.files.texts[0], wanted);
    cr_expect_str_eq(plan.retrieval.pretrain.files.texts[1], "/b.yaml");
    cr_expect_str_eq(plan.settings.texts[0], "curation.dedup.threshold=0.7");
    curation_plan_fini(&plan);
    temp_folder_destroy(&folder);
}

/* The plan of "name: a, pool: folder:p" and these lines. */
static CurationPlan plan_of(const char *lines, const char *root)
{
    TempFolder folder = temp_folder_create();
    char text[1024];
    snprintf(text, sizeof text, "name: a\npool: folder:p\n%s", lines);
    temp_folder_write(&folder, "c.yaml", text);
    CurationPlan plan;
    Error error = {0};
    cr_assert_eq(curation_plan_load(&plan, temp_folder_in(&folder, "c.yaml").text, root, &error), STATUS_OK,
                 "%s", error.text);
    temp_folder_destroy(&folder);
    return plan;
}

Test(curation_plan, a_training_may_stand_in_the_file_itself)
{
    CurationPlan plan =
        plan_of("copy_detection:\n  pretrain: {optim: {epochs: 3}, crops: {global_crops_scale: "
                "[0.4, 1.0]}}\n",
                NULL);
    cr_expect(plan.copy_detection.trained && plan.copy_detection.pretrain.files.count == 0);
    cr_assert_eq(plan.copy_detection.pretrain.keys.count, 2);
    cr_expect_str_eq(plan.copy_detection.pretrain.keys.texts[0], "optim.epochs=3");
    cr_expect_str_eq(plan.copy_detection.pretrain.keys.texts[1], "crops.global_crops_scale=[0.4, 1.0]");
    curation_plan_fini(&plan);
}

Test(curation_plan, a_pool_may_have_parts)
{
    TempFolder folder = temp_folder_create();
    temp_folder_write(&folder, "c.yaml",
                      "name: a\npool: [tar:a.tar, 'hdf5:/b.h5']\ncopy_detection: {model: m.h5}\n");
    CurationPlan plan;
    Error error = {0};
    cr_assert_eq(curation_plan_load(&plan, temp_folder_in(&folder, "c.yaml").text, "root", &error), STATUS_OK,
                 "%s", error.text);
    cr_assert_eq(plan.pool.count, 2);
    cr_expect_str_eq(plan.pool.texts[0], "tar:root/a.tar");
    cr_expect_str_eq(plan.pool.texts[1], "hdf5:/b.h5");
    curation_plan_fini(&plan);
    temp_folder_write(&folder, "c.yaml", "name: a\npool: []\ncopy_detection: {model: m.h5}\n");
    cr_expect_eq(curation_plan_load(&plan, temp_folder_in(&folder, "c.yaml").text, NULL, &error),
                 STATUS_INPUT);
    cr_expect(strstr(error.text, "c.yaml:2: pool: expected a value, or a list"), "%s", error.text);
    curation_plan_fini(&plan);
    temp_folder_destroy(&folder);
}

Test(curation_plan, baselines_are_no_paths_and_a_root_is_for_data_and_models)
{
    CurationPlan plan = plan_of("copy_detection: {model: untrained, pretrain: {optim: {epochs: 3}}}\n"
                                "retrieval: {model: raw-pixels}\n",
                                "/data/set");
    cr_expect_str_eq(plan.pool.texts[0], "folder:/data/set/p");
    cr_expect_str_eq(plan.copy_detection.model, "untrained");
    cr_expect_not(plan.copy_detection.trained);
    cr_expect_eq(plan.copy_detection.pretrain.keys.count, 1);
    cr_expect_str_eq(plan.retrieval.model, "raw-pixels");
    curation_plan_fini(&plan);
    plan = plan_of("copy_detection: {model: m.h5}\nretrieval: {pretrain: [/a.yaml]}\n", "root");
    cr_expect_str_eq(plan.copy_detection.model, "root/m.h5");
    cr_expect_str_eq(plan.retrieval.pretrain.files.texts[0], "/a.yaml");
    curation_plan_fini(&plan);
}

Test(curation_plan, what_is_wrong_is_named_with_its_line)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"name: [", ":2: not YAML"},
        {"name: a\npool: folder:p\n", "copy_detection is not given"},
        {"name: a\npol: folder:p\n", ":2: unknown key pol; did you mean pool"},
        {"name: a\nname: b\n", ":2: name is given twice"},
        {"name: a\npool: folder:p\ncopy_detection: {model: untrained}\n",
         ":3: copy_detection: expected pretrain"},
        {"name: a\npool: folder:p\ncopy_detection: {whiten: true}\n", ":3: copy_detection: expected either"},
        {"name: a\nquery_sets: {a: b}\n", ":2: query_sets: expected a list of"},
        {"name: a\nquery_sets:\n  - {name: a}\n", ":3: data is not given"},
        {"name: a\nquery_sets:\n  - {name: a, data: 'folder:x'}\n  - {name: a, data: 'folder:y'}\n",
         ":4: name: expected another name than a,"},
        {"name: a\nquery_sets:\n  - {name: a/b, data: 'folder:x'}\n", ":3: name: expected a word"},
        {"name: a\nquery_sets:\n  - {name: a, data: 'folder:x', as_is: maybe}\n", ":3: as_is: expected true"},
        {"name: a\nquery_sets:\n  - {name: a, data: 'folder:x', published: -1}\n",
         ":3: published: expected a whole number"},
        {"name: a\ncopy_detection: {model: a, pretrain: [b]}\n", ":2: copy_detection: expected either"},
        {"name: a\ncopy_detection: {whiten: true}\n", ":2: copy_detection: expected either"},
        {"name: a\nquery_sets:\n  - {name: a, data: 'folder:x', mode: samples}\n",
         ":3: mode: expected sample"},
        {"name: a\nsettings: x=y\n", ":2: settings: expected a list"},
        {"- a\n", ":1: expected keys and values"},
        {"", "expected keys and values"},
    };
    TempFolder folder = temp_folder_create();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        temp_folder_write(&folder, "c.yaml", cases[i].text);
        CurationPlan plan;
        Error error = {0};
        cr_expect_eq(curation_plan_load(&plan, temp_folder_in(&folder, "c.yaml").text, NULL, &error),
                     STATUS_INPUT, "case %zu", i);
        cr_expect(strstr(error.text, cases[i].says), "case %zu: %s", i, error.text);
        cr_expect(strstr(error.text, "c.yaml"), "case %zu: %s", i, error.text);
        curation_plan_fini(&plan);
    }
    temp_folder_destroy(&folder);
}
