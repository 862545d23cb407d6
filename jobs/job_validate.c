/* job_validate.c - checks a file against its schema and its checksums.
 *
 * One line says what the file is, or what is wrong with it and where; damaged files cannot crash the job.
 */
#include "h5/h5_check.h"
#include "job.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void print_json(const char *path, Status status, const H5Report *report, const char *message)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "file", path);
    cJSON_AddBoolToObject(tree, "valid", status == STATUS_OK);
    if (status == STATUS_OK) {
        cJSON_AddStringToObject(tree, "format", report->format);
        cJSON_AddNumberToObject(tree, "format_version", (double)report->version);
        cJSON_AddNumberToObject(tree, "bytes", (double)report->bytes);
    } else {
        cJSON_AddStringToObject(tree, "error", message);
    }
    char *text = cJSON_PrintUnformatted(tree);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

Status job_validate(JobContext *context, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        const char *path = context->options->words[0];
        H5Report report;
        Error found = {0};
        status = h5_check_file(path, NULL, H5_CHECK_CHECKSUMS, &report, &found);
        if (status == STATUS_OK)
            printf("%s: a valid %s, version %lld, %lld bytes\n", path, report.format,
                   (long long)report.version, (long long)report.bytes);
        else if (error)
            *error = found;
        if (context->json) print_json(path, status, &report, found.text);
    }
    return comm_agree(context->comm, status, error);
}
