/* assemble.c - see assemble.h. */
#include "curation/assemble.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "curation/assembled_set.h"
#include "data/data_pack.h"
#include "run/progress.h"
#include "run/version.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const AssembleRequest *request;
    const CurationRun *run;
    Assembly *result;
    AssembledSet set;
} Assembling;

/* --- what goes in --- */

static Status add_parts(Assembling *a, Error *error)
{
    const AssembleRequest *request = a->request;
    assembled_set_init(&a->set, request->pool_count + request->part_count, request->part_count);
    for (int i = 0; i < request->pool_count; i++)
        TRY(assembled_set_open_pool(&a->set, request->pool[i], error));
    for (int i = 0; i < request->part_count; i++) {
        const AssemblePart *part = &request->parts[i];
        if (part->retrieved && request->pool_count == 0)
            return status_fail(error, STATUS_INPUT, "%s: pictures of the pool are needed: give --data SPEC",
                               part->retrieved);
        TRY(part->retrieved ? assembled_set_add_retrieved(&a->set, part->retrieved, error)
                            : assembled_set_add_as_is(&a->set, part->name, part->data, error));
    }
    if (a->set.count == 0) return status_fail(error, STATUS_INPUT, "there is not one picture to assemble");
    return STATUS_OK;
}

/* Collective over COMM. */
static Status find_pictures(Assembling *a, Error *error)
{
    if (!a->set.inputs) return STATUS_OK;
    if (a->request->feature_count > 0)
        return assembled_set_find(&a->set, a->request->features, a->request->feature_count, a->run->comm,
                                  error);
    int count;
    char *inputs = memory_strdup(a->set.inputs);
    const char **paths = retrieval_file_split(inputs, &count);
    Status status = assembled_set_find(&a->set, paths, count, a->run->comm, error);
    memory_free(paths);
    memory_free(inputs);
    return status;
}

/* --- shards --- */

/* Removes the folder of shards, if it is there. */
static Status remove_folder(const char *folder, Error *error)
{
    data_pack_remove_shards(folder);
    if (rmdir(folder) == 0 || errno == ENOENT) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: cannot be replaced: %s", folder, strerror(errno));
}

static Status replace_folder(const char *folder, const char *by, Error *error)
{
    TRY(remove_folder(folder, error));
    if (rename(by, folder) == 0) return STATUS_OK;
    return status_fail(error, STATUS_FAILED, "%s: cannot be renamed to %s: %s", by, folder, strerror(errno));
}

/* Of all that the shards depend on but the pictures' bytes. */
static uint64_t digest_of(const Assembling *a)
{
    const AssembleRequest *request = a->request;
    const AssembledSet *set = &a->set;
    uint64_t digest = curation_run_digest(set->digest, "assemble %lld", (long long)request->shard_bytes);
    for (int i = 0; i < request->pool_count; i++)
        digest = rng_hash_text(digest, request->pool[i]);
    for (int i = 0; i < request->part_count; i++) {
        const char *data = request->parts[i].data ? request->parts[i].data : "";
        digest = curation_run_digest(digest, "%s %s", set->rows[i].name, set->rows[i].mode);
        digest = rng_hash_text(digest, data);
    }
    for (int64_t i = 0; i < set->count; i++) {
        const AssembledOrigin *origin = &set->origins[i];
        int64_t of[6] = {set->places[i].set, set->places[i].index, origin->query, origin->neighbour,
                         origin->part};
        memcpy(&of[5], &origin->similarity, sizeof origin->similarity);
        digest = rng_hash_bytes(digest, of, sizeof of);
    }
    return digest;
}

static void note_packed(Assembling *a, const DataPackResult *packed)
{
    for (int64_t i = 0; i < packed->corrupt; i++)
        a->set.rows[a->set.origins[packed->corrupt_indices[i]].part].unreadable++;
    a->result->images = packed->images;
    a->result->bytes = packed->bytes;
    a->result->shards = packed->shards;
}

/* Collective over COMM. */
static Status pack(Assembling *a, const char *folder, const PackState *state, Error *error)
{
    const CurationRun *run = a->run;
    DataSet *chosen = data_set_create_chosen((const DataSet *const *)a->set.sets, a->set.prefixes,
                                             a->set.places, a->set.count);
    ProgressPhases phases = {.log = run->log};
    DataPackParams params = {.source = "curate assemble",
                             .folder = folder,
                             .shard_bytes = a->request->shard_bytes,
                             .version = version_number(),
                             .provenance = assembled_set_provenance,
                             .provenance_context = &a->set,
                             .state = *state,
                             .log = run->log,
                             .progress = progress_phases_tell,
                             .progress_context = &phases};
    DataPackResult packed;
    Status status = data_pack_run(&params, chosen, run->comm, &packed, error);
    progress_phases_end(&phases);
    if (comm_rank(run->comm) == 0) data_pack_name_corrupt(&packed, chosen, run->log);
    if (status == STATUS_OK) note_packed(a, &packed);
    data_pack_fini(&packed);
    data_set_destroy(chosen);
    return status;
}

/* A table says that the data set beside it is complete. */
static Status remove_tables(const CurationRun *run, Error *error)
{
    static const char *const names[] = {"composition.csv", "composition.md"};
    for (int i = 0; i < 2; i++) {
        char path[CURATION_RUN_PATH];
        TRY(curation_run_path(run, names[i], path, error));
        unlink(path);
    }
    return STATUS_OK;
}

/* Collective over COMM. */
static Status write_shards(Assembling *a, Error *error)
{
    const CurationRun *run = a->run;
    Comm *comm = run->comm;
    bool writes = comm_rank(comm) == 0;
    char partial[CURATION_RUN_PATH], path[CURATION_RUN_PATH];
    TRY(curation_run_path(run, "dataset", a->result->path, error));
    TRY(curation_run_path(run, "dataset.partial", partial, error));
    TRY(curation_run_path(run, "assemble.partial", path, error));
    PackState state = {.path = path,
                       .digest = digest_of(a),
                       .resume = run->resume,
                       .save_minutes = run->config->curation.save_minutes};
    TRY(comm_agree(comm, writes ? atomic_file_make_folder(partial, error) : STATUS_OK, error));
    TRY(pack(a, partial, &state, error));
    Status status = writes ? remove_tables(run, error) : STATUS_OK;
    if (writes && status == STATUS_OK) status = replace_folder(a->result->path, partial, error);
    TRY(comm_agree(comm, status, error));
    pack_state_remove(&state, comm);
    return STATUS_OK;
}

/* --- the list --- */

/* A field of a CSV file: in quotes where it has to be. */
static void put_field(FILE *file, const char *text)
{
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static void put_line(const AssembledSet *set, int64_t i, FILE *file)
{
    char text[DATA_SET_KEY_MAX];
    const DataSet *from = set->sets[set->places[i].set];
    ShardProvenance provenance = assembled_set_provenance(set, i);
    data_set_key(from, set->places[i].index, text, sizeof text);
    put_field(file, text);
    fputc(',', file);
    data_set_location(from, set->places[i].index, text, sizeof text);
    put_field(file, text);
    fprintf(file, ",%s,%s,%s,%lld,%lld,%.6f\n", provenance.source, provenance.query_set, provenance.mode,
            (long long)provenance.query, (long long)provenance.neighbour, (double)provenance.similarity);
}

static Status write_list_file(const AssembledSet *set, const char *path, Error *error)
{
    char temporary[CURATION_RUN_PATH + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "we");
    if (!file) return status_fail(error, STATUS_FAILED, "%s: %s", temporary, strerror(errno));
    fputs("key,location,source,query_set,mode,query,neighbour,similarity\n", file);
    for (int64_t i = 0; i < set->count && !ferror(file); i++)
        put_line(set, i, file);
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        unlink(temporary);
        return status_fail(error, STATUS_FAILED, "%s: cannot be written: %s", path, strerror(errno));
    }
    return atomic_file_commit(temporary, path, error);
}

/* Collective over COMM. */
static Status write_list(Assembling *a, Error *error)
{
    Comm *comm = a->run->comm;
    TRY(curation_run_path(a->run, "pictures.csv", a->result->path, error));
    a->result->images = a->set.count;
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) status = remove_tables(a->run, error);
    if (comm_rank(comm) == 0 && status == STATUS_OK)
        status = write_list_file(&a->set, a->result->path, error);
    return comm_agree(comm, status, error);
}

/* --- all --- */

/* Takes over `text`. */
static Status write_text(const CurationRun *run, const char *name, char *text, Error *error)
{
    char path[CURATION_RUN_PATH];
    Status status = curation_run_path(run, name, path, error);
    if (status == STATUS_OK) status = atomic_file_write_text(path, text, error);
    memory_free(text);
    return status;
}

static Status write_tables(const Assembling *a, Error *error)
{
    const Assembly *result = a->result;
    TRY(write_text(a->run, "composition.md", composition_table_markdown(result->rows, result->count), error));
    return write_text(a->run, "composition.csv", composition_table_csv(result->rows, result->count), error);
}

static Status assemble(Assembling *a, Error *error)
{
    Comm *comm = a->run->comm;
    TRY(comm_agree(comm, add_parts(a, error), error));
    TRY(find_pictures(a, error));
    TRY(a->request->list ? write_list(a, error) : write_shards(a, error));
    a->result->count = a->set.part_count;
    a->result->rows = memory_alloc_array((size_t)a->set.part_count, sizeof *a->result->rows);
    memcpy(a->result->rows, a->set.rows, (size_t)a->set.part_count * sizeof *a->result->rows);
    return comm_agree(comm, comm_rank(comm) == 0 ? write_tables(a, error) : STATUS_OK, error);
}

Status assemble_run(Assembly *result, const AssembleRequest *request, const CurationRun *run, Error *error)
{
    *result = (Assembly){0};
    Assembling assembling = {.request = request, .run = run, .result = result};
    Status status = assemble(&assembling, error);
    assembled_set_fini(&assembling.set);
    return status;
}

void assemble_fini(Assembly *result)
{
    memory_free(result->rows);
    *result = (Assembly){0};
}
