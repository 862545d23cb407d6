/* curation_state.c - see curation_state.h. */
#include "curation/curation_state.h"

#include "base/clock.h"
#include "base/memory.h"
#include "run/signals.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static Status read_table(const CurationInput *input, const CurationTable *table, Error *error)
{
    H5Info info;
    int ndim = table->columns ? 2 : 1;
    int64_t count = table->rows * (table->columns ? table->columns : 1);
    void *values;
    TRY(h5_dataset_get(&input->file, table->object, table->type, ndim, &info, &values, error));
    bool fits = info.shape[0] == table->rows && info.count == count;
    Status status = STATUS_OK;
    if (fits) status = curation_file_check_finite(input, table->object, table->type, values, count, error);
    if (fits) memcpy(table->values, values, (size_t)count * info.item_bytes);
    memory_free(values);
    if (fits) return status;
    return status_fail(error, STATUS_INPUT, "%s: %s is of another shape", input->file.path, table->object);
}

static Status read_number(const CurationInput *input, CurationNumber *number, Error *error)
{
    TRY(curation_file_read_int(input, number->name, &number->value, error));
    if (number->value >= 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: attribute %s is %lld, expected 0 or more", input->file.path,
                       number->name, (long long)number->value);
}

/* This rank's run of an array. */
static Status read_array(const CurationInput *input, const CurationState *state, const CurationArray *array,
                         Error *error)
{
    int64_t first = state->first, count = state->count, *mine = array->mine;
    if (array->type != H5_TYPE_I64)
        return curation_file_read(input, array->object, array->type, first, count, mine, error);
    bool own = array->end == CURATION_OWN_ROW;
    TRY(curation_file_read_indices(input, array->object, first, count, array->low,
                                   own ? state->total : array->end, mine, error));
    for (int64_t i = 0; i < count && own; i++)
        if (mine[i] > first + i)
            return status_fail(error, STATUS_INPUT, "%s: %s[%lld] is %lld, expected no later row",
                               input->file.path, array->object, (long long)(first + i), (long long)mine[i]);
    return STATUS_OK;
}

/* STATUS_INPUT: cannot be used. */
static Status read_state(CurationState *state, Error *error)
{
    CurationInput input;
    const char *object = state->array_count ? state->arrays[0].object : state->tables[0].object;
    TRY(curation_file_open(&input, state->path, object, error));
    Status status = STATUS_OK;
    if (input.digest != state->meta.digest || input.n != state->total)
        status = status_fail(error, STATUS_INPUT, "%s is of other features or settings", state->path);
    for (int i = 0; i < state->number_count && status == STATUS_OK; i++)
        status = read_number(&input, &state->numbers[i], error);
    for (int i = 0; i < state->array_count && status == STATUS_OK; i++)
        status = read_array(&input, state, &state->arrays[i], error);
    for (int i = 0; i < state->table_count && status == STATUS_OK; i++)
        status = read_table(&input, &state->tables[i], error);
    curation_file_close(&input);
    return status;
}

Status curation_state_restore(CurationState *state, bool resume, bool *found, Comm *comm, Log *log,
                              Error *error)
{
    *found = false;
    state->saved = clock_seconds();
    int64_t exists = resume && access(state->path, F_OK) == 0;
    comm_broadcast(comm, &exists, 1, DTYPE_I64, 0, NULL);
    if (!exists) return STATUS_OK;
    Status status = comm_agree(comm, read_state(state, error), error);
    if (status == STATUS_INPUT)
        log_warning(log, "%s; starting anew", error->text);
    else if (status != STATUS_OK)
        return status;
    else {
        *found = true;
        log_info(log, "going on from %s", state->path);
    }
    return STATUS_OK;
}

/* Collective over COMM. */
static Status save(CurationState *state, Comm *comm, Error *error)
{
    CurationFile file;
    curation_file_create(&file, state->path, state->total, &state->meta, comm);
    for (int i = 0; i < state->number_count; i++)
        curation_file_put_int(&file, state->numbers[i].name, state->numbers[i].value);
    for (int i = 0; i < state->array_count; i++)
        curation_file_put_rows(&file, state->arrays[i].object, state->arrays[i].type, state->arrays[i].mine,
                               state->count);
    for (int i = 0; i < state->table_count; i++) {
        const CurationTable *table = &state->tables[i];
        if (table->columns)
            curation_file_put_table(&file, table->object, table->values, table->rows, table->columns);
        else
            curation_file_put_array(&file, table->object, table->type, table->values, table->rows);
    }
    TRY(curation_file_commit(&file, error));
    state->saved = clock_seconds();
    return STATUS_OK;
}

Status curation_state_pause(CurationState *state, Comm *comm, Log *log, Error *error)
{
    int64_t wanted[2] = {signals_stop_requested(),
                         clock_seconds() - state->saved >= 60.0 * state->save_minutes};
    comm_all_reduce(comm, wanted, 2, DTYPE_I64, COMM_MAX, NULL);
    if (!wanted[0] && !wanted[1]) return STATUS_OK;
    TRY(save(state, comm, error));
    if (!wanted[0]) return STATUS_OK;
    log_info(log, "asked to stop: saved %s", state->path);
    return status_fail(error, STATUS_REQUEUE, "stopped on request; %s has what it takes to go on",
                       state->path);
}

void curation_state_remove(const CurationState *state, const Comm *comm)
{
    if (comm_rank(comm) != 0) return;
    unlink(state->path);
    size_t size = strlen(state->path) + sizeof ".tmp";
    char *unfinished = memory_alloc(size); /* of a run that was killed while it saved */
    snprintf(unfinished, size, "%s.tmp", state->path);
    unlink(unfinished);
    memory_free(unfinished);
}
