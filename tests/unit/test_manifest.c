/* test_manifest.c - what the manifest says at the start, at the end, and after another job in the same
 * folder. */
#include "../support/temp_folder.h"
#include "run/manifest.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char HOSTS[4][8] = {"n1", "n1", "n2", "n1"};
static char *ARGV[] = {"dinobatch", "pretrain", "optim.epochs=\"5\"", NULL};

static ManifestFacts facts(void)
{
    return (ManifestFacts){.argc = 3,
                           .argv = ARGV,
                           .launcher = "mpirun",
                           .device = "cpu",
                           .hosts = HOSTS[0],
                           .host_bytes = 8,
                           .ranks = 4,
                           .threads = 2,
                           .thread_level = "multiple"};
}

static cJSON *tree_of(const TempFolder *temp)
{
    char *text = temp_folder_read(temp, "manifest.json");
    cJSON *tree = cJSON_Parse(text);
    cr_assert(tree, "not JSON: %s", text);
    temp_folder_free_text(text);
    return tree;
}

static const char *text_at(const cJSON *tree, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(tree, key));
    return text ? text : "(none)";
}

Test(manifest, start_and_end)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "manifest.json");
    Manifest manifest;
    ManifestFacts what = facts();
    setenv("SLURM_JOB_ID", "4711", 1);
    cr_assert_eq(manifest_start(&manifest, path, &what, NULL), STATUS_OK);

    cJSON *tree = tree_of(&temp);
    cr_expect(cJSON_IsNull(cJSON_GetObjectItem(tree, "end")) &&
              cJSON_IsNull(cJSON_GetObjectItem(tree, "exit_status")));
    cr_expect_eq(strlen(text_at(tree, "start")), strlen("2026-11-23T00:45:10Z"));
    cr_expect_str_eq(text_at(tree, "device"), "cpu");
    cr_expect_str_eq(text_at(cJSON_GetObjectItem(tree, "slurm"), "SLURM_JOB_ID"), "4711");
    cr_expect(strstr(text_at(cJSON_GetObjectItem(tree, "libraries"), "hdf5"), "1."));
    cr_expect_str_eq(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "argv"), 2)), ARGV[2]);
    const cJSON *hosts = cJSON_GetObjectItem(tree, "hosts");
    cr_assert_eq(cJSON_GetArraySize(hosts), 3); /* runs in rank order */
    cr_expect_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(hosts, 0), "ranks")->valueint, 2);
    cr_expect_str_eq(text_at(cJSON_GetArrayItem(hosts, 1), "host"), "n2");
    cJSON_Delete(tree);

    cr_assert_eq(manifest_finish(&manifest, 75, NULL), STATUS_OK);
    tree = tree_of(&temp);
    cr_expect_eq(cJSON_GetObjectItem(tree, "exit_status")->valueint, 75);
    cr_expect(strcmp(text_at(tree, "end"), text_at(tree, "start")) >= 0);
    cJSON_Delete(tree);
    manifest_fini(&manifest);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

/* The first ends with 75, the second is killed (no end), the third finds a flat history of both. */
Test(manifest, earlier_runs_are_kept)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "manifest.json");
    ManifestFacts what = facts();
    unsetenv("SLURM_JOB_ID");
    for (int i = 0; i < 3; i++) {
        Manifest manifest;
        cr_assert_eq(manifest_start(&manifest, path, &what, NULL), STATUS_OK);
        if (i == 0) cr_assert_eq(manifest_finish(&manifest, 75, NULL), STATUS_OK);
        manifest_fini(&manifest);
    }
    cJSON *tree = tree_of(&temp);
    const cJSON *earlier = cJSON_GetObjectItem(tree, "earlier_runs");
    cr_assert_eq(cJSON_GetArraySize(earlier), 2);
    cr_expect_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(earlier, 0), "exit_status")->valueint, 75);
    cr_expect(cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetArrayItem(earlier, 1), "exit_status")));
    cr_expect_null(cJSON_GetObjectItem(cJSON_GetArrayItem(earlier, 1), "earlier_runs"));
    cr_expect(cJSON_IsNull(cJSON_GetObjectItem(tree, "slurm")));
    cJSON_Delete(tree);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

Test(manifest, damaged_files_do_no_harm)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "manifest.json");
    ManifestFacts what = facts();
    Manifest manifest;
    Error error = {0};
    temp_folder_write(&temp, "manifest.json", "{\"start\": ");
    cr_assert_eq(manifest_start(&manifest, path, &what, &error), STATUS_OK, "%s", error.text);
    temp_folder_write(&temp, "manifest.json", "[]");
    cr_expect_eq(manifest_finish(&manifest, 0, &error), STATUS_FAILED);
    cr_expect(strstr(error.text, "manifest.json"), "%s", error.text);
    manifest_fini(&manifest);
    cr_expect_eq(manifest_start(&manifest, "/nonexistent/manifest.json", &what, &error), STATUS_FAILED);
    cr_expect_null(manifest.path);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}

/* As jobs of an array do that share a folder. */
Test(manifest, jobs_at_the_same_time_do_not_meet, .timeout = 60)
{
    enum { JOBS = 4, TIMES = 20 };
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "manifest.json");
    ManifestFacts what = facts();
    pid_t jobs[JOBS];
    for (int j = 0; j < JOBS; j++) {
        jobs[j] = fork();
        cr_assert(jobs[j] >= 0);
        if (jobs[j] > 0) continue;
        bool good = true;
        for (int i = 0; i < TIMES; i++) {
            Manifest manifest;
            good &= manifest_start(&manifest, path, &what, NULL) == STATUS_OK;
            good &= manifest_finish(&manifest, 0, NULL) == STATUS_OK;
            manifest_fini(&manifest);
        }
        _exit(!good);
    }
    for (int j = 0; j < JOBS; j++) {
        int status;
        cr_assert_eq(waitpid(jobs[j], &status, 0), jobs[j]);
        cr_expect_eq(status, 0, "job %d failed", j);
    }
    cJSON_Delete(tree_of(&temp));
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
}
