/* manifest.c - the manifest as a cJSON tree, rewritten atomically. */
#include "run/manifest.h"

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/text_file.h"
#include "run/launcher.h"
#include "run/libraries.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MAX = 16 << 20, EARLIER_MAX = 100 };

/* The file as a tree; NULL when there is none or it is no JSON (then there is nothing worth keeping). */
static cJSON *read_tree(const char *path)
{
    char *text;
    size_t length;
    if (text_file_read(path, FILE_MAX, &text, &length, NULL) != STATUS_OK) return NULL;
    cJSON *tree = cJSON_ParseWithLength(text, length);
    memory_free(text);
    return tree;
}

static Status write_tree(const char *path, const cJSON *tree, Error *error)
{
    char *text = cJSON_Print(tree);
    if (!text) return status_fail(error, STATUS_FAILED, "%s: out of memory", path);
    char host[64] = "";
    size_t size = strlen(path) + sizeof host + 32;
    char *own = memory_alloc(size); /* jobs that run in one folder at the same time do not meet here */
    gethostname(host, sizeof host - 1);
    snprintf(own, size, "%s.%s.%ld", path, host, (long)getpid());
    Status status = atomic_file_write_text(own, text, error);
    if (status == STATUS_OK) status = atomic_file_commit(own, path, error);
    if (status != STATUS_OK) unlink(own);
    memory_free(own);
    cJSON_free(text);
    return status;
}

static void add_now(cJSON *tree, const char *key)
{
    char now[32];
    clock_utc(now, sizeof now);
    cJSON_AddStringToObject(tree, key, now);
}

static void add_code(cJSON *tree)
{
    cJSON_AddStringToObject(tree, "version", version_number());
    cJSON_AddStringToObject(tree, "git", version_git());
    cJSON_AddStringToObject(tree, "build", version_build());
    cJSON *list = cJSON_AddObjectToObject(tree, "libraries");
    Library libraries[LIBRARIES_MAX];
    int count = libraries_list(libraries);
    for (int i = 0; i < count; i++)
        cJSON_AddStringToObject(list, libraries[i].name, libraries[i].version);
}

/* Hosts in rank order, runs of ranks on one host together. */
static void add_place(cJSON *tree, const ManifestFacts *facts)
{
    cJSON_AddStringToObject(tree, "launcher", facts->launcher);
    cJSON_AddNumberToObject(tree, "ranks", facts->ranks);
    cJSON_AddNumberToObject(tree, "threads_per_rank", facts->threads);
    cJSON_AddStringToObject(tree, "mpi_thread_level", facts->thread_level);
    cJSON_AddStringToObject(tree, "device", facts->device);
    cJSON *hosts = cJSON_AddArrayToObject(tree, "hosts");
    cJSON *last = NULL;
    for (int r = 0; r < facts->ranks; r++) {
        const char *host = facts->hosts + (size_t)r * (size_t)facts->host_bytes;
        const cJSON *name = cJSON_GetObjectItem(last, "host");
        if (name && strcmp(name->valuestring, host) == 0) {
            cJSON *ranks = cJSON_GetObjectItem(last, "ranks");
            cJSON_SetNumberValue(ranks, ranks->valuedouble + 1);
            continue;
        }
        last = cJSON_CreateObject();
        cJSON_AddStringToObject(last, "host", host);
        cJSON_AddNumberToObject(last, "ranks", 1);
        cJSON_AddItemToArray(hosts, last);
    }
}

static void add_slurm(cJSON *tree)
{
    LauncherVariable variables[LAUNCHER_SLURM_MAX];
    int count = launcher_slurm(variables);
    if (count == 0) {
        cJSON_AddNullToObject(tree, "slurm");
        return;
    }
    cJSON *slurm = cJSON_AddObjectToObject(tree, "slurm");
    for (int i = 0; i < count; i++)
        cJSON_AddStringToObject(slurm, variables[i].name, variables[i].value);
}

/* Moves what stands in the file under "earlier_runs", oldest first. */
static void add_earlier(cJSON *tree, const char *path)
{
    cJSON *list = NULL, *old = read_tree(path);
    if (cJSON_IsObject(old)) {
        list = cJSON_DetachItemFromObject(old, "earlier_runs");
        if (!cJSON_IsArray(list)) {
            cJSON_Delete(list);
            list = cJSON_CreateArray();
        }
        cJSON_AddItemToArray(list, old);
        while (cJSON_GetArraySize(list) > EARLIER_MAX)
            cJSON_DeleteItemFromArray(list, 0);
    } else {
        cJSON_Delete(old);
        list = cJSON_CreateArray();
    }
    cJSON_AddItemToObject(tree, "earlier_runs", list);
}

Status manifest_start(Manifest *manifest, const char *path, const ManifestFacts *facts, Error *error)
{
    *manifest = (Manifest){.path = memory_strdup(path)};
    cJSON *tree = cJSON_CreateObject();
    add_code(tree);
    cJSON_AddItemToObject(tree, "argv",
                          cJSON_CreateStringArray((const char *const *)facts->argv, facts->argc));
    add_place(tree, facts);
    add_slurm(tree);
    add_now(tree, "start");
    cJSON_AddNullToObject(tree, "end");
    cJSON_AddNullToObject(tree, "exit_status");
    add_earlier(tree, path);
    Status status = write_tree(path, tree, error);
    cJSON_Delete(tree);
    if (status != STATUS_OK) manifest_fini(manifest);
    return status;
}

Status manifest_finish(const Manifest *manifest, int exit_status, Error *error)
{
    cJSON *tree = read_tree(manifest->path);
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return status_fail(error, STATUS_FAILED, "%s: damaged since the start of this job", manifest->path);
    }
    char now[32];
    clock_utc(now, sizeof now);
    cJSON_ReplaceItemInObject(tree, "end", cJSON_CreateString(now));
    cJSON_ReplaceItemInObject(tree, "exit_status", cJSON_CreateNumber(exit_status));
    Status status = write_tree(manifest->path, tree, error);
    cJSON_Delete(tree);
    return status;
}

void manifest_fini(Manifest *manifest)
{
    memory_free(manifest->path);
    *manifest = (Manifest){0};
}
