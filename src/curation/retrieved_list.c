/* retrieved_list.c - see retrieved_list.h. */
#include "curation/retrieved_list.h"

#include "base/memory.h"

void retrieved_list_init(RetrievedList *list, int64_t capacity)
{
    size_t n = (size_t)capacity;
    *list = (RetrievedList){.row = memory_alloc_array(n, sizeof *list->row),
                            .query = memory_alloc_array(n, sizeof *list->query),
                            .neighbour = memory_alloc_array(n, sizeof *list->neighbour),
                            .cluster = memory_alloc_array(n, sizeof *list->cluster),
                            .similarity = memory_alloc_array(n, sizeof *list->similarity),
                            .first = memory_alloc_array(n, sizeof *list->first)};
}

void retrieved_list_fini(RetrievedList *list)
{
    memory_free(list->row);
    memory_free(list->query);
    memory_free(list->neighbour);
    memory_free(list->cluster);
    memory_free(list->similarity);
    memory_free(list->first);
    memory_free(list->query_cluster);
    *list = (RetrievedList){0};
}
