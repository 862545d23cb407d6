/* hierarchical_kmeans.c - see hierarchical_kmeans.h. */
#include "index/hierarchical_kmeans.h"

#include "base/check.h"
#include "base/memory.h"

#include <string.h>

/* --- the tree --- */

static Status check(const int64_t *sizes, int levels, Error *error)
{
    if (levels < 1 || levels > HIERARCHICAL_KMEANS_LEVELS)
        return status_fail(error, STATUS_INPUT, "%d levels of clusters, 1 to %d are possible", levels,
                           HIERARCHICAL_KMEANS_LEVELS);
    for (int l = 1; l < levels; l++)
        if (sizes[l] >= sizes[l - 1])
            return status_fail(error, STATUS_INPUT, "level %d has %lld clusters, which is not less than %lld",
                               l, (long long)sizes[l], (long long)sizes[l - 1]);
    return STATUS_OK;
}

static Status iterate(KmeansState *state, const IndexRows *rows, const KmeansOptions *options,
                      int64_t iterations, const Ops *ops, Comm *comm, Error *error)
{
    TRY(kmeans_start(state, rows, options, ops, comm, error));
    while (state->iteration < iterations)
        TRY(kmeans_iterate(state, rows, options, ops, comm, error));
    return STATUS_OK;
}

/* The centroids of level l - 1, which all ranks have, dealt to ranks and clustered. */
static Status cluster_centroids(HierarchicalKmeans *tree, int l, const KmeansOptions *options,
                                int64_t iterations, const Ops *ops, Comm *comm, Error *error)
{
    const KmeansState *below = &tree->level[l - 1];
    int64_t first = index_range_first(below->k, comm_rank(comm), comm_size(comm));
    int64_t count = index_range_first(below->k, comm_rank(comm) + 1, comm_size(comm)) - first;
    IndexRows rows = index_rows_memory("centroids", below->centroids + first * below->d, count, below->d);
    TRY(index_rows_place(&rows, comm, error));
    int32_t *parent = memory_alloc_array((size_t)below->k, sizeof *parent);
    tree->parent[l - 1] = parent;
    KmeansState *state = &tree->level[l];
    double inertia;
    TRY(iterate(state, &rows, options, iterations, ops, comm, error));
    TRY(kmeans_assign(state, &rows, options, parent + first, NULL, &inertia, ops, comm, error));

    int64_t *all = memory_alloc_array((size_t)below->k, sizeof *all);
    for (int64_t c = first; c < first + count; c++)
        all[c] = parent[c];
    comm_all_reduce(comm, all, below->k, DTYPE_I64, COMM_SUM, NULL);
    for (int64_t c = 0; c < below->k; c++)
        parent[c] = (int32_t)all[c];
    memory_free(all);
    return STATUS_OK;
}

Status hierarchical_kmeans_grow(HierarchicalKmeans *tree, KmeansState *lowest, const IndexRows *rows,
                                const int64_t *sizes, int levels, int64_t iterations,
                                const KmeansOptions *options, const Ops *ops, Comm *comm, Error *error)
{
    *tree = (HierarchicalKmeans){.level = {*lowest}};
    *lowest = (KmeansState){0};
    TRY(comm_agree(comm, check(sizes, levels, error), error));
    CHECK(tree->level[0].k == sizes[0]);
    tree->levels = levels;
    tree->assignment = memory_alloc_array((size_t)rows->count, sizeof *tree->assignment);
    TRY(kmeans_assign(&tree->level[0], rows, options, tree->assignment, NULL, &tree->inertia, ops, comm,
                      error));
    tree->population = memory_alloc_array((size_t)sizes[0], sizeof *tree->population);
    for (int64_t i = 0; i < rows->count; i++)
        tree->population[tree->assignment[i]]++;
    comm_all_reduce(comm, tree->population, sizes[0], DTYPE_I64, COMM_SUM, NULL);
    for (int l = 1; l < levels; l++) {
        KmeansOptions above = {.k = sizes[l],
                               .spherical = options->spherical,
                               .init = KMEANS_INIT_PLUS_PLUS,
                               .seed = options->seed + (uint64_t)l};
        TRY(cluster_centroids(tree, l, &above, iterations, ops, comm, error));
    }
    return STATUS_OK;
}

Status hierarchical_kmeans_run(HierarchicalKmeans *tree, const IndexRows *rows, const int64_t *sizes,
                               int levels, int64_t iterations, const KmeansOptions *options, const Ops *ops,
                               Comm *comm, Error *error)
{
    *tree = (HierarchicalKmeans){0};
    TRY(comm_agree(comm, check(sizes, levels, error), error));
    KmeansOptions lowest = *options;
    KmeansState state;
    lowest.k = sizes[0];
    Status status = iterate(&state, rows, &lowest, iterations, ops, comm, error);
    if (status == STATUS_OK)
        return hierarchical_kmeans_grow(tree, &state, rows, sizes, levels, iterations, &lowest, ops, comm,
                                        error);
    kmeans_fini(&state);
    return status;
}

void hierarchical_kmeans_fini(HierarchicalKmeans *tree)
{
    for (int l = 0; l < HIERARCHICAL_KMEANS_LEVELS; l++) {
        kmeans_fini(&tree->level[l]);
        memory_free(tree->parent[l]);
    }
    memory_free(tree->assignment);
    memory_free(tree->population);
    *tree = (HierarchicalKmeans){0};
}
