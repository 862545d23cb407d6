/* evaluation_history.c - see evaluation_history.h. */
#include "report/evaluation_history.h"

#include "base/memory.h"
#include "base/text_file.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096, FILE_MOST = 1 << 16 };

/* The place of k in the history, or -1 when there is no room for it. */
static int place_of_k(EvaluationHistory *history, int64_t k)
{
    for (int i = 0; i < history->k_count; i++)
        if (history->k[i] == k) return i;
    if (history->k_count == EVALUATION_HISTORY_KS) return -1;
    history->k[history->k_count] = k;
    for (int64_t i = 0; i < history->count; i++)
        history->points[i].top1[history->k_count] = NAN;
    return history->k_count++;
}

static Status parse_point(EvaluationHistory *history, EvaluationPoint *point, const char *path, Error *error)
{
    char *text;
    size_t size;
    TRY(text_file_read(path, FILE_MOST, &text, &size, error));
    cJSON *tree = cJSON_ParseWithLength(text, size);
    memory_free(text);
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return status_fail(error, STATUS_INPUT, "%s: not a JSON object", path);
    }
    for (const cJSON *item = tree->child; item; item = item->next) {
        long long k;
        int end = 0;
        if (!cJSON_IsNumber(item) || sscanf(item->string, "knn_top1_k%lld%n", &k, &end) != 1) continue;
        if (item->string[end] != '\0') continue;
        int place = place_of_k(history, k);
        if (place >= 0) point->top1[place] = item->valuedouble;
    }
    cJSON_Delete(tree);
    return STATUS_OK;
}

static Status add_point(EvaluationHistory *history, const char *path, int64_t iteration, Error *error)
{
    EvaluationPoint point = {.iteration = iteration};
    for (int i = 0; i < EVALUATION_HISTORY_KS; i++)
        point.top1[i] = NAN;
    TRY(parse_point(history, &point, path, error));
    size_t bytes = (size_t)history->count * sizeof point;
    history->points = memory_grow(history->points, bytes, bytes + sizeof point);
    history->points[history->count++] = point;
    return STATUS_OK;
}

static int by_iteration(const void *a, const void *b)
{
    int64_t x = ((const EvaluationPoint *)a)->iteration, y = ((const EvaluationPoint *)b)->iteration;
    return (x > y) - (x < y);
}

Status evaluation_history_read(EvaluationHistory *history, const char *folder, Error *error)
{
    *history = (EvaluationHistory){0};
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/eval", folder);
    DIR *dir = opendir(path);
    if (!dir) return STATUS_OK;
    Status status = STATUS_OK;
    for (const struct dirent *entry = readdir(dir); entry && status == STATUS_OK; entry = readdir(dir)) {
        long long iteration;
        int end = 0;
        if (sscanf(entry->d_name, "training_%lld%n", &iteration, &end) != 1 || entry->d_name[end]) continue;
        int length = snprintf(path, sizeof path, "%s/eval/%s/knn.json", folder, entry->d_name);
        FILE *file = length < PATH_ROOM ? fopen(path, "r") : NULL;
        if (!file) continue; /* a run without k-NN keeps checkpoints alone there */
        fclose(file);
        status = add_point(history, path, iteration, error);
    }
    closedir(dir);
    if (history->count) qsort(history->points, (size_t)history->count, sizeof *history->points, by_iteration);
    return status;
}

void evaluation_history_fini(EvaluationHistory *history)
{
    memory_free(history->points);
    *history = (EvaluationHistory){0};
}
