/* job_pack.c - any data set into HDF5 shards; corrupt images are named, counted and left out.
 *
 *   dinobatch pack --data SPEC --output-dir DIR [--shard-size BYTES] [--shorter-side PIXELS]
 */
#include "job_pack.h"

#include "base/memory.h"
#include "data/data_pack.h"
#include "data/data_spec.h"
#include "data/image/image_limits.h"
#include "run/progress.h"
#include "run/run_folder.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_pack_options[] = {
    {"data", "SPEC",
     "the data set to pack: folder:DIR, tar:FILE, ...; part of it: ;offset=K;stride=K;limit=N;per_class=N;"
     "spread=N",
     false},
    {"shorter-side", "PIXELS",
     "make larger pictures this small, as JPEG of quality 95 (default: keep their bytes)", false},
    {"shard-size", "BYTES", "encoded bytes of a shard, with K, M or G as you like (default 1G)", false},
    {0},
};

/* "512M" to bytes; -1: not a size. */
static int64_t parse_size(const char *text)
{
    static const char units[] = "KMG";
    size_t length = strlen(text);
    int shift = 0;
    const char *unit = length ? strchr(units, text[length - 1]) : NULL;
    if (unit) {
        shift = 10 * (int)(unit - units + 1);
        length--;
    }
    int64_t value = data_spec_number(text, length);
    return value < 1 || value > INT64_MAX >> shift ? -1 : value << shift;
}

Status job_pack_shard_bytes(const JobContext *context, int64_t *bytes, Error *error)
{
    const char *size = options_get(context->options, "shard-size");
    *bytes = size ? parse_size(size) : (int64_t)1 << 30;
    if (*bytes >= 1) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--shard-size %s: expected bytes", size);
}

static void print_result(const JobContext *context, const DataPackResult *result, const char *folder)
{
    if (comm_rank(context->comm) != 0) return;
    if (!context->json) {
        printf("%s: %lld images in %lld shards, %lld bytes, %lld corrupt left out; read it as hdf5:%s/*.h5\n",
               folder, (long long)result->images, (long long)result->shards, (long long)result->bytes,
               (long long)result->corrupt, folder);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "output_dir", folder);
    cJSON_AddNumberToObject(tree, "images", (double)result->images);
    cJSON_AddNumberToObject(tree, "shards", (double)result->shards);
    cJSON_AddNumberToObject(tree, "bytes", (double)result->bytes);
    cJSON_AddNumberToObject(tree, "corrupt", (double)result->corrupt);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

Status job_pack(JobContext *context, Error *error)
{
    const char *spec = options_get(context->options, "data");
    const char *folder = context->options->output_dir;
    int64_t shard_bytes;
    if (!spec || !folder)
        return status_fail(error, STATUS_INPUT, "pack needs --data SPEC and --output-dir DIR");
    TRY(job_pack_shard_bytes(context, &shard_bytes, error));
    const char *side = options_get(context->options, "shorter-side");
    int64_t shorter_side = side ? data_spec_number(side, strlen(side)) : 0;
    if (side && (shorter_side < 1 || shorter_side > IMAGE_LIMITS_MAX_SIDE))
        return status_fail(error, STATUS_INPUT, "--shorter-side %s: expected pixels", side);
    Comm *comm = context->comm;
    TRY(comm_agree(comm, comm_rank(comm) == 0 ? run_folder_make_path(folder, error) : STATUS_OK, error));
    TRY(run_start_manifest(context->run, folder, "manifest.json", "cpu", error));
    DataSet *set = NULL;
    Status status = comm_agree(comm, data_set_create(&set, spec, error), error);
    if (status == STATUS_OK) {
        for (int64_t i = 0; data_set_note(set, i); i++)
            log_warning(context->log, "%s", data_set_note(set, i));
        ProgressPhases phases = {.log = context->log};
        DataPackParams params = {.source = spec,
                                 .folder = folder,
                                 .shard_bytes = shard_bytes,
                                 .shorter_side = shorter_side,
                                 .masks = data_set_has_masks(set) && !shorter_side,
                                 .version = version_number(),
                                 .progress = progress_phases_tell,
                                 .progress_context = &phases};
        DataPackResult result;
        status = data_pack_run(&params, set, comm, &result, error);
        progress_phases_end(&phases);
        if (comm_rank(comm) == 0) data_pack_name_corrupt(&result, set, context->log);
        if (status == STATUS_OK) print_result(context, &result, folder);
        data_pack_fini(&result);
    }
    data_set_destroy(set);
    return status;
}
