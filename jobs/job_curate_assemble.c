/* job_curate_assemble.c - curate assemble --part RETRIEVED|NAME=SPEC... [--data SPEC]... [--features FILE]...
 * [--list] [--shard-size BYTES] --output-dir DIR
 */
#include "base/memory.h"
#include "curation/assemble.h"
#include "job_curate.h"
#include "job_pack.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

static void add_part_json(cJSON *parts, const CompositionRow *row)
{
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "set", row->name);
    cJSON_AddStringToObject(part, "mode", row->mode);
    cJSON_AddNumberToObject(part, "images", (double)row->images);
    cJSON_AddNumberToObject(part, "retrieved", (double)row->retrieved);
    cJSON_AddNumberToObject(part, "after_the_cap", (double)row->final);
    cJSON_AddNumberToObject(part, "repeats", (double)row->repeats);
    cJSON_AddNumberToObject(part, "unreadable", (double)row->unreadable);
    cJSON_AddNumberToObject(part, "stored", (double)composition_table_stored(row));
    cJSON_AddItemToArray(parts, part);
}

static void tell(const JobContext *context, const Assembly *result)
{
    if (comm_rank(context->comm) == 0) {
        char *table = composition_table_markdown(result->rows, result->count);
        printf("%s%s: %lld images", table, result->path, (long long)result->images);
        if (result->shards > 0)
            printf(" in %lld shards, %lld bytes; read it as hdf5:%s/*.h5", (long long)result->shards,
                   (long long)result->bytes, result->path);
        printf("\n");
        memory_free(table);
    }
    cJSON *tree = cJSON_CreateObject(), *parts = cJSON_AddArrayToObject(tree, "parts");
    cJSON_AddStringToObject(tree, "job", "curate assemble");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddNumberToObject(tree, "images", (double)result->images);
    cJSON_AddNumberToObject(tree, "shards", (double)result->shards);
    cJSON_AddNumberToObject(tree, "bytes", (double)result->bytes);
    for (int i = 0; i < result->count; i++)
        add_part_json(parts, &result->rows[i]);
    job_curate_tell(context, tree);
}

/* "NAME=SPEC", or a file. The name is cut off in place. */
static AssemblePart parse_part(char *text)
{
    char *equals = strchr(text, '=');
    if (!equals || memchr(text, '/', (size_t)(equals - text))) return (AssemblePart){.retrieved = text};
    *equals = '\0';
    return (AssemblePart){.name = text, .data = equals + 1};
}

Status job_curate_assemble(const JobContext *context, const CurationRun *run, Error *error)
{
    const char *const *texts;
    AssembleRequest request = {.part_count = options_get_all(context->options, "part", &texts),
                               .list = options_get(context->options, "list") != NULL};
    if (request.part_count == 0)
        return status_fail(error, STATUS_INPUT, "curate assemble needs --part FILE or --part NAME=SPEC");
    TRY(job_pack_shard_bytes(context, &request.shard_bytes, error));
    request.pool_count = options_get_all(context->options, "data", &request.pool);
    request.feature_count = options_get_all(context->options, "features", &request.features);
    AssemblePart *parts = memory_alloc_array((size_t)request.part_count, sizeof *parts);
    char **owned = memory_alloc_array((size_t)request.part_count, sizeof *owned);
    for (int i = 0; i < request.part_count; i++)
        parts[i] = parse_part(owned[i] = memory_strdup(texts[i]));
    request.parts = parts;
    Assembly result;
    Status status = assemble_run(&result, &request, run, error);
    if (status == STATUS_OK) tell(context, &result);
    assemble_fini(&result);
    for (int i = 0; i < request.part_count; i++)
        memory_free(owned[i]);
    memory_free(owned);
    memory_free(parts);
    return status;
}
