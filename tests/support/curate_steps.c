/* curate_steps.c - see curate_steps.h. */
#include "curate_steps.h"

#include "base/memory.h"
#include "features/features_file.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 40 };

/* The test ends here unless `holds`; without Criterion, which not all programs with this folder have. */
__attribute__((format(printf, 2, 3))) static void demand(bool holds, const char *format, ...)
{
    if (holds) return;
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    abort();
}

/* --- files --- */

static TempPath write_rows(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                           const char *spec, const char *const *keys, bool upside_down)
{
    TempPath path = temp_folder_in(temp, "%s", name);
    FeaturesMeta meta = {.model = "m.h5",
                         .arch = "vit",
                         .layer = "class_token",
                         .data = spec,
                         .config = "",
                         .version = "0",
                         .input_size = 14,
                         .upside_down = upside_down};
    float *values = memory_alloc_array((size_t)n, 2 * sizeof *values);
    int64_t *labels = memory_alloc_array((size_t)n, sizeof *labels);
    for (int64_t i = 0; i < n; i++) {
        values[2 * i] = (float)cos(degrees[i] * M_PI / 180.0);
        values[2 * i + 1] = (float)sin(degrees[i] * M_PI / 180.0);
    }
    FeaturesFile file;
    Error error = {0};
    Status status = features_file_create(&file, path.text, n, 2, 0, KEY_BYTES, &meta, &error);
    if (status == STATUS_OK && n > 0) status = features_file_write(&file, 0, n, values, labels, keys, &error);
    if (status == STATUS_OK) status = features_file_commit(&file, &error);
    demand(status == STATUS_OK, "%s", error.text);
    memory_free(labels);
    memory_free(values);
    return path;
}

TempPath curate_steps_write_keys(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                 const char *spec, const char *const *keys)
{
    return write_rows(temp, name, degrees, n, spec, keys, false);
}

TempPath curate_steps_write_probes(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                   const char *const *keys)
{
    return write_rows(temp, name, degrees, n, "angles", keys, true);
}

TempPath curate_steps_write_angles(const TempFolder *temp, const char *name, const double *degrees, int64_t n,
                                   const DataSet *set)
{
    char *text = memory_alloc_array((size_t)n, KEY_BYTES);
    const char **keys = memory_alloc_array((size_t)n, sizeof *keys);
    for (int64_t i = 0; i < n; i++) {
        keys[i] = text + i * KEY_BYTES;
        if (set)
            data_set_key(set, i, text + i * KEY_BYTES, KEY_BYTES);
        else
            snprintf(text + i * KEY_BYTES, KEY_BYTES, "p%lld", (long long)i);
    }
    TempPath path = curate_steps_write_keys(temp, name, degrees, n, "angles", keys);
    memory_free(keys);
    memory_free(text);
    return path;
}

RetrievalFile curate_steps_read_retrieval(const TempFolder *temp, const char *out, const char *name)
{
    RetrievalFile file;
    Error error = {0};
    TempPath path = temp_folder_in(temp, "%s/retrieve_%s.h5", out, name);
    demand(retrieval_file_read(&file, path.text, &error) == STATUS_OK, "%s", error.text);
    demand(strcmp(file.name, name) == 0, "it is of %s", file.name);
    return file;
}

/* --- running --- */

Process curate_steps_start(const TempFolder *temp, int ranks, const char *step, const char *out,
                           const char *const *more)
{
    TempPath folder = temp_folder_in(temp, "%s", out);
    const char *words[CURATE_STEPS_WORDS] = {"curate", step, "compute.threads=1", "--output-dir",
                                             folder.text};
    for (int n = 5; *more; more++)
        words[n++] = *more;
    return process_start_dinobatch(ranks, words);
}

ProcessResult curate_steps_run(const TempFolder *temp, int ranks, const char *step, const char *out,
                               const char *const *more)
{
    Process process = curate_steps_start(temp, ranks, step, out, more);
    return process_finish(&process, CURATE_STEPS_SECONDS);
}

void curate_steps_run_well(const TempFolder *temp, int ranks, const char *step, const char *out,
                           const char *const *more)
{
    ProcessResult result = curate_steps_run(temp, ranks, step, out, more);
    demand(result.exit_status == 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

void curate_steps_expect_refused(const TempFolder *temp, const char *step, const char *const *more,
                                 const char *part)
{
    ProcessResult result = curate_steps_run(temp, 0, step, "refused", more);
    demand(result.exit_status == 2, "exit %d\n%s", result.exit_status, result.err);
    demand(strstr(result.err, part) != NULL, "\"%s\" is not in:\n%s", part, result.err);
    process_result_fini(&result);
}

void curate_steps_kill(const TempFolder *temp, const char *step, const char *out, const char *sign,
                       const char *const *more)
{
    Process process = curate_steps_start(temp, 0, step, out, more);
    demand(process_wait_for_error_text(&process, sign, CURATE_STEPS_SECONDS), "never came to %s", sign);
    process_signal(&process, SIGKILL);
    ProcessResult result = process_finish(&process, CURATE_STEPS_SECONDS);
    demand(result.exit_status != 0, "it was ready before");
    process_result_fini(&result);
}

void curate_steps_go_on(const TempFolder *temp, int ranks, const char *step, const char *out,
                        const char *const *more)
{
    ProcessResult result = curate_steps_run(temp, ranks, step, out, more);
    demand(result.exit_status == 0, "exit %d\n%s", result.exit_status, result.err);
    demand(strstr(result.err, "going on from") != NULL, "%s", result.err);
    process_result_fini(&result);
}
