/* loader_core.c - see loader_core.h. */
#include "data/loader_core.h"

#include "base/memory.h"

void loader_core_init(LoaderCore *core, const DataSet *set, int workers, int64_t prefetch, int in_use)
{
    int64_t ahead = workers == 0 ? 0 : prefetch > 1 ? prefetch : 1;
    *core = (LoaderCore){
        .set = set, .threads = workers > 0 ? workers : 1, .workers = workers, .slots = (int)ahead + in_use};
    core->scratch = memory_alloc_array((size_t)core->threads, sizeof *core->scratch);
    for (int t = 0; t < core->threads; t++)
        core->scratch[t].augment = augment_scratch_create();
}

Status loader_core_start(LoaderCore *core, TaskRingParams tasks, Error *error)
{
    tasks.workers = core->workers;
    tasks.slots = core->slots;
    core->next_round = tasks.first_round;
    corrupt_list_deliver(data_set_corrupt(core->set), tasks.first_round - 1);
    return task_ring_create(&core->ring, &tasks, error);
}

void loader_core_fini(LoaderCore *core)
{
    task_ring_destroy(core->ring); /* first: its threads use the rest */
    for (int t = 0; t < core->threads; t++) {
        augment_scratch_destroy(core->scratch[t].augment);
        image_destroy(&core->scratch[t].image);
        image_destroy(&core->scratch[t].turned);
        data_buffer_destroy(&core->scratch[t].buffer);
        memory_free(core->scratch[t].masks);
    }
    memory_free(core->scratch);
    *core = (LoaderCore){0};
}

Status loader_core_note(LoaderCore *core, int64_t index, int64_t round, Status status, const Error *reason,
                        Error *error)
{
    if (status == STATUS_INPUT)
        corrupt_list_add(data_set_corrupt(core->set), index, round, reason->text);
    else if (status != STATUS_OK)
        return status_fail(error, status, "%s", reason->text);
    return STATUS_OK;
}

Status loader_core_next(LoaderCore *core, int *slot, double *wait_seconds, Error *error)
{
    TRY(task_ring_next(core->ring, slot, wait_seconds, error));
    if (*slot >= 0) corrupt_list_deliver(data_set_corrupt(core->set), core->next_round++);
    return STATUS_OK;
}
