/* job_synth.c - writes the procedural labelled data set: image files or HDF5 shards, masks, and the truth; or
 * drawn descriptors with duplicates in known places.
 *
 *   dinobatch synth --output-dir DIR [--data synthetic:OPTIONS] [--format folder|hdf5] [--jpeg QUALITY]
 *                   [--masks]
 *   dinobatch synth --output-dir FILE.h5 --features OPTIONS
 */
#include "data/data_pack.h"
#include "data/data_spec.h"
#include "data/synthetic_export.h"
#include "data/synthetic_set.h"
#include "features/synthetic_features.h"
#include "job.h"
#include "job_threads.h"
#include "run/run_folder.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_synth_options[] = {
    {"data", "SPEC", "synthetic:classes=10,size=64,count=5000,seed=0,duplicates=0 (the defaults)", false},
    {"format", "folder|hdf5", "image files by class (default), or shards as `pack` writes them", false},
    {"jpeg", "QUALITY", "JPEG of this quality, 1 to 100, instead of PNG (folder only)", false},
    {"masks", NULL, "also the segmentation mask of every image", false},
    {"features", "OPTIONS",
     "a features file instead, with duplicates as labels: "
     "rows=100000,columns=512,clusters=1000,duplicates=0.3,copies=4,seed=0 (the defaults)",
     false},
    {0},
};

typedef struct {
    SyntheticExportParams export;
    const char *options; /* of the set, without "synthetic:" */
    bool hdf5;
} Request;

static Status parse(const JobContext *context, Request *request, Error *error)
{
    *request = (Request){.export = {.folder = context->options->output_dir,
                                    .masks = options_get(context->options, "masks") != NULL}};
    if (!request->export.folder) return status_fail(error, STATUS_INPUT, "synth needs --output-dir DIR");
    const char *data = options_get(context->options, "data");
    const char *prefix = "synthetic:";
    if (!data) data = prefix;
    if (strncmp(data, prefix, strlen(prefix)) != 0)
        return status_fail(error, STATUS_INPUT, "--data %s: expected synthetic:OPTIONS", data);
    request->options = data + strlen(prefix);
    TRY(synthetic_set_parse(&request->export.images, request->options, error));
    const char *format = options_get(context->options, "format");
    request->hdf5 = format && strcmp(format, "hdf5") == 0;
    if (format && !request->hdf5 && strcmp(format, "folder") != 0)
        return status_fail(error, STATUS_INPUT, "--format %s: expected folder or hdf5", format);
    const char *jpeg = options_get(context->options, "jpeg");
    if (!jpeg) return STATUS_OK;
    int64_t quality = data_spec_number(jpeg, strlen(jpeg));
    if (quality < 1 || quality > 100 || request->hdf5)
        return status_fail(error, STATUS_INPUT, "--jpeg %s: expected 1 to 100, with --format folder", jpeg);
    request->export.jpeg_quality = (int)quality;
    return STATUS_OK;
}

static Status write_shards(JobContext *context, Request *request, Error *error)
{
    char spec[512];
    snprintf(spec, sizeof spec, "synthetic:%s", request->options);
    DataSet *set = NULL;
    TRY(comm_agree(context->comm, data_set_create(&set, spec, error), error));
    DataPackParams params = {.source = spec,
                             .folder = request->export.folder,
                             .shard_bytes = (int64_t)1 << 30,
                             .version = version_number(),
                             .masks = request->export.masks};
    DataPackResult result;
    Status status = data_pack_run(&params, set, context->comm, &result, error);
    data_pack_fini(&result);
    data_set_destroy(set);
    return status;
}

static void print_result(const JobContext *context, const Request *request)
{
    if (comm_rank(context->comm) != 0) return;
    const SyntheticExportParams *export = &request->export;
    char spec[4096];
    snprintf(spec, sizeof spec, "%s:%s/%s", request->hdf5 ? "hdf5" : "folder", export->folder,
             request->hdf5 ? "*.h5" : "images");
    if (!context->json) {
        printf("%s: %lld images of %lld classes; read it as %s\n", export->folder,
               (long long)export->images.count, (long long)export->images.classes, spec);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "output_dir", export->folder);
    cJSON_AddNumberToObject(tree, "images", (double)export->images.count);
    cJSON_AddNumberToObject(tree, "classes", (double)export->images.classes);
    cJSON_AddStringToObject(tree, "data", spec);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* By rank 0. */
static Status write_features(const JobContext *context, const char *spec, const char *path, Error *error)
{
    SyntheticFeatures features;
    if (!path) return status_fail(error, STATUS_INPUT, "synth --features needs --output-dir FILE.h5");
    TRY(synthetic_features_parse(&features, spec, error));
    bool speaks = comm_rank(context->comm) == 0;
    Status status = STATUS_OK;
    if (speaks)
        status = synthetic_features_write(&features, path, spec, version_number(),
                                          job_threads(context, context->config), context->log, error);
    TRY(comm_agree(context->comm, status, error));
    if (!speaks) return STATUS_OK;
    long long objects = (long long)synthetic_features_objects(&features);
    if (context->json)
        printf("{\"job\":\"synth\",\"rows\":%lld,\"columns\":%lld,\"objects\":%lld}\n",
               (long long)features.rows, (long long)features.columns, objects);
    else
        printf("%s: %lld rows of %lld, of %lld objects\n", path, (long long)features.rows,
               (long long)features.columns, objects);
    return STATUS_OK;
}

Status job_synth(JobContext *context, Error *error)
{
    const char *features = options_get(context->options, "features");
    if (features) return write_features(context, features, context->options->output_dir, error);
    Request request;
    TRY(parse(context, &request, error));
    Comm *comm = context->comm;
    bool speaks = comm_rank(comm) == 0;
    TRY(comm_agree(comm, speaks ? run_folder_make_path(request.export.folder, error) : STATUS_OK, error));
    TRY(run_start_manifest(context->run, request.export.folder, "manifest.json", "cpu", error));
    TRY(request.hdf5 ? write_shards(context, &request, error)
                     : synthetic_export_images(&request.export, comm, error));
    TRY(comm_agree(comm, speaks ? synthetic_export_truth(&request.export, error) : STATUS_OK, error));
    print_result(context, &request);
    return STATUS_OK;
}
