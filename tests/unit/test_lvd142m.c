/* test_lvd142m.c - the paper's Table 15 as a curation YAML: its rows, its sum, and settings that exist. */
#include "config/config.h"
#include "curation/curation_plan.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static CurationPlan load(void)
{
    CurationPlan plan;
    Error error = {0};
    cr_assert_eq(curation_plan_load(&plan, "jobs/configs/curation/lvd142m.yaml", "/data", &error), STATUS_OK,
                 "%s", error.text);
    return plan;
}

static const PlanSet *find(const CurationPlan *plan, const char *name)
{
    for (int i = 0; i < plan->query_count; i++)
        if (strcmp(plan->query_sets[i].name, name) == 0) return &plan->query_sets[i];
    cr_assert_fail("no query set %s", name);
    return NULL;
}

Test(lvd142m, rows_and_images_are_those_of_the_paper)
{
    CurationPlan plan = load();
    cr_assert_eq(plan.query_count, 27);
    int64_t sum = 0, as_is = 0, sample = 0, capped = 0;
    int clusters = 0, tasks[4] = {0};
    static const char *const names[] = {"fine-grained", "segmentation", "depth", "retrieval"};
    for (int i = 0; i < plan.query_count; i++) {
        const PlanSet *set = &plan.query_sets[i];
        bool is_cluster = strcmp(set->mode, "cluster") == 0;
        cr_assert(set->task && set->published > 0, "%s", set->name);
        cr_expect(set->as_is || is_cluster || strcmp(set->mode, "sample") == 0, "%s: %s", set->name,
                  set->mode);
        sum += set->published;
        if (set->as_is) as_is += set->published;
        if (strcmp(set->mode, "sample") == 0) sample += set->published;
        clusters += is_cluster;
        capped += is_cluster && set->published == 1000000;
        for (int t = 0; t < 4; t++)
            tasks[t] += is_cluster && strcmp(set->task, names[t]) == 0;
    }
    cr_expect_eq(sum, 142109386, "%lld", (long long)sum);
    cr_expect_eq(as_is, 14197086 + 1434262 + 1580470);
    cr_expect_eq(sample, 56788344 + 40997344 + 6321880);
    cr_expect(clusters == 21 && capped == 19, "%d clusters, %lld at the cap", clusters, (long long)capped);
    cr_expect(tasks[0] == 10 && tasks[1] == 3 && tasks[2] == 3 && tasks[3] == 5);
    curation_plan_fini(&plan);
}

/* Collisions stay in the counts: rows are neighbours times pictures. */
Test(lvd142m, sampled_rows_are_neighbours_of_each_picture)
{
    CurationPlan plan = load();
    cr_expect_eq(find(&plan, "imagenet22k_sample")->published, 4 * find(&plan, "imagenet22k")->published);
    cr_expect_eq(find(&plan, "landmarks_v2_sample")->published, 4 * find(&plan, "landmarks_v2")->published);
    const PlanSet *set = find(&plan, "imagenet1k_sample");
    cr_expect_eq(set->published, 32 * 1281167);
    cr_assert_eq(set->settings.count, 1);
    cr_expect_str_eq(set->settings.texts[0], "curation.retrieve.neighbours=32");
    curation_plan_fini(&plan);
}

Test(lvd142m, every_setting_is_a_key_and_the_papers_number)
{
    CurationPlan plan = load();
    Config config;
    config_init(&config);
    Error error = {0};
    for (int i = 0; i < plan.settings.count; i++)
        cr_expect_eq(config_override(&config, plan.settings.texts[i], &error), STATUS_OK, "%s", error.text);
    cr_expect(config.curation.neighbours == 64 && config.curation.cluster.k == 100000);
    cr_expect_float_eq(config.curation.dedup.threshold, 0.6, 1e-12);
    cr_expect_float_eq(config.curation.exclude.threshold, 0.45, 1e-12);
    cr_expect(config.curation.retrieve.neighbours == 4 && config.curation.retrieve.min_queries == 3 &&
              config.curation.retrieve.per_cluster == 10000 && config.curation.retrieve.cap == 1000000);
    config_fini(&config);
    cr_expect_str_eq(plan.pool.texts[0], "hdf5:/data/pool/*.h5");
    cr_expect(plan.has_retrieval && plan.copy_detection.model && plan.retrieval.model);
    curation_plan_fini(&plan);
}
