/* test_pack.c - `synth` and `pack` from the command line: what they print, and what they leave beside the
 * shards. */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 40, PATH_BYTES = 512 };

static ProcessResult run(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    return result;
}

/* The manifest of the folder names the job and says that it ended well. */
static void expect_manifest(const char *folder, const char *job)
{
    char path[PATH_BYTES + 16], text[16384] = "";
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    FILE *file = fopen(path, "r");
    cr_assert(file, "%s is missing", path);
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    cr_assert(size > 0);
    cJSON *tree = cJSON_Parse(text);
    cr_assert(tree, "%s", text);
    const cJSON *word = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "argv"), 1);
    const cJSON *status = cJSON_GetObjectItem(tree, "exit_status");
    cr_expect(cJSON_IsString(word) && strcmp(word->valuestring, job) == 0, "%s", text);
    cr_expect(cJSON_IsNumber(status) && status->valueint == 0, "%s", text);
    cJSON_Delete(tree);
}

Test(pack, drawn_pictures_become_smaller_shards_on_two_ranks, .timeout = 90)
{
    TempFolder temp = temp_folder_create();
    char drawn[PATH_BYTES], packed[PATH_BYTES], spec[PATH_BYTES + 64];
    snprintf(drawn, sizeof drawn, "%s/drawn", temp.path);
    snprintf(packed, sizeof packed, "%s/packed", temp.path);
    snprintf(spec, sizeof spec, "folder:%s/images;offset=2;stride=3", drawn);
    const char *synth[] = {"synth",        "--data", "synthetic:classes=2,size=48,count=11",
                           "--output-dir", drawn,    NULL};
    ProcessResult result = run(0, synth);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    expect_manifest(drawn, "synth");
    process_result_fini(&result);

    const char *pack[] = {"pack", "--data", spec, "--output-dir", packed, "--shorter-side",
                          "16",   "--json", NULL};
    result = run(2, pack);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect(strstr(result.out, "\"images\":3,\"shards\":1"), "%s", result.out);
    cr_expect(strstr(result.err, "images/s"), "%s", result.err);
    expect_manifest(packed, "pack");
    process_result_fini(&result);
    temp_folder_destroy(&temp);
}

Test(pack, refuses_a_side_that_is_none, .timeout = 60)
{
    const char *words[] = {
        "pack", "--data", "synthetic:count=2", "--output-dir", "/nonexistent", "--shorter-side", "0", NULL};
    ProcessResult result = run(0, words);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "--shorter-side 0: expected pixels"), "%s", result.err);
    process_result_fini(&result);
}
