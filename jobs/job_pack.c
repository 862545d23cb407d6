/* job_pack.c - any data set into HDF5 shards; corrupt images are named, counted and left out.
 *
 *   dinobatch pack --data SPEC --output-dir DIR [--shard-size BYTES] [--shorter-side PIXELS]
 */
#include "base/memory.h"
#include "data/data_pack.h"
#include "data/data_spec.h"
#include "data/image/image_limits.h"
#include "job.h"
#include "run/progress.h"
#include "run/run_folder.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NAMED = 1000 }; /* corrupt images with a line of their own */

const OptionSpec job_pack_options[] = {
    {"data", "SPEC",
     "the data set to pack: folder:DIR, tar:FILE, ...; part of it: ;offset=K;stride=K;limit=N;per_class=N",
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

typedef struct {
    Log *log;
    Progress progress;
    char what[32]; /* of `progress`; empty before the first */
} Teller;

static void tell(void *context, const char *what, const char *unit, int64_t done, int64_t total)
{
    Teller *teller = context;
    if (strcmp(teller->what, what) != 0) {
        if (*teller->what) progress_end(&teller->progress);
        snprintf(teller->what, sizeof teller->what, "%s", what);
        teller->progress = progress_begin(teller->log, teller->what, 0, total, total / 20);
        teller->progress.unit = unit;
    }
    progress_update(&teller->progress, done, "");
}

/* One line for each image that was left out. The reason is found by reading it again. */
static void name_corrupt(JobContext *context, const DataSet *set, const DataPackResult *result)
{
    if (comm_rank(context->comm) != 0) return;
    Image image = {0};
    DataBuffer buffer = {0};
    for (int64_t i = 0; i < result->corrupt && i < MAX_NAMED; i++) {
        Error reason = {0};
        if (data_set_load_image(set, result->corrupt_indices[i], &image, &buffer, &reason) != STATUS_OK)
            log_warning(context->log, "%s; left out", reason.text);
    }
    if (result->corrupt > MAX_NAMED)
        log_warning(context->log, "%lld more corrupt images were left out",
                    (long long)(result->corrupt - MAX_NAMED));
    image_destroy(&image);
    data_buffer_destroy(&buffer);
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
    const char *size = options_get(context->options, "shard-size");
    if (!spec || !folder)
        return status_fail(error, STATUS_INPUT, "pack needs --data SPEC and --output-dir DIR");
    int64_t shard_bytes = size ? parse_size(size) : (int64_t)1 << 30;
    if (shard_bytes < 1) return status_fail(error, STATUS_INPUT, "--shard-size %s: expected bytes", size);
    const char *side = options_get(context->options, "shorter-side");
    int64_t shorter_side = side ? data_spec_number(side, strlen(side)) : 0;
    if (side && (shorter_side < 1 || shorter_side > IMAGE_LIMITS_MAX_SIDE))
        return status_fail(error, STATUS_INPUT, "--shorter-side %s: expected pixels", side);
    Comm *comm = context->comm;
    TRY(comm_agree(comm, comm_rank(comm) == 0 ? run_folder_make_path(folder, error) : STATUS_OK, error));
    TRY(run_start_manifest(context->run, folder, "cpu", error));
    DataSet *set = NULL;
    Status status = comm_agree(comm, data_set_create(&set, spec, error), error);
    if (status == STATUS_OK) {
        for (int64_t i = 0; data_set_note(set, i); i++)
            log_warning(context->log, "%s", data_set_note(set, i));
        Teller teller = {.log = context->log};
        DataPackParams params = {.source = spec,
                                 .folder = folder,
                                 .shard_bytes = shard_bytes,
                                 .shorter_side = shorter_side,
                                 .version = version_number(),
                                 .progress = tell,
                                 .progress_context = &teller};
        DataPackResult result;
        status = data_pack_run(&params, set, comm, &result, error);
        if (*teller.what) progress_end(&teller.progress);
        name_corrupt(context, set, &result);
        if (status == STATUS_OK) print_result(context, &result, folder);
        data_pack_fini(&result);
    }
    data_set_destroy(set);
    return status;
}
