/* case_index.c - search, components and k-means give on several ranks what they give on one: every rank also
 * computes the whole by itself and compares its part. */
#include "../support/index_support.h"
#include "../support/ops_support.h"
#include "base/memory.h"
#include "base/rng.h"
#include "index/balanced_sample.h"
#include "index/knn_graph.h"
#include "mpi_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POOL = 903, QUERIES = 131, D = 20, K = 12, IDS = 5000 };

static const IndexSupportData POOL_DATA = {.d = D, .clusters = 25, .spread = 0.6, .copies = 9, .seed = 31};
static const IndexSupportData QUERY_DATA = {.d = D, .clusters = 25, .spread = 0.7, .seed = 31};

/* --- comm_all_to_all --- */

/* What `from` sends to `to`: so many numbers, and which. */
static int64_t length(const MpiCase *c, int from, int to, int64_t scale)
{
    return c->size > 1 && (from + to) % 3 == 2 ? 0 : scale * ((from * 7 + to * 3) % 5) + from;
}

static void exchange(MpiCase *c, int64_t scale)
{
    int64_t *sent = memory_alloc_array((size_t)c->size, sizeof *sent), total = 0, at = 0;
    int64_t *come = memory_alloc_array((size_t)c->size, sizeof *come), wrong = 0;
    for (int r = 0; r < c->size; r++)
        total += sent[r] = length(c, c->rank, r, scale);
    int64_t *in = memory_alloc_array((size_t)total, sizeof *in);
    for (int r = 0; r < c->size; r++)
        for (int64_t i = 0; i < sent[r]; i++)
            in[at++] = (c->rank * 100 + r) * 1000000 + i;
    int64_t sum = comm_exchange_counts(c->comm, come, sent);
    int64_t *out = memory_alloc_array((size_t)sum, sizeof *out);
    comm_all_to_all(c->comm, out, come, in, sent, DTYPE_I64);
    at = 0;
    for (int r = 0; r < c->size; r++) {
        EXPECT(c, come[r] == length(c, r, c->rank, scale));
        for (int64_t i = 0; i < come[r]; i++)
            wrong += out[at++] != (r * 100 + c->rank) * 1000000 + i;
    }
    EXPECT(c, at == sum && wrong == 0);
    memory_free(sent);
    memory_free(come);
    memory_free(in);
    memory_free(out);
}

Status case_index_exchange(MpiCase *c)
{
    comm_set_checking(c->comm, true); /* counts may differ between ranks */
    exchange(c, 0);
    exchange(c, 1);
    exchange(c, 1000);
    exchange(c, 600000); /* several messages */
    return STATUS_OK;
}

/* --- search --- */

/* Neighbours of this rank's queries, and whether they come in order. */
typedef struct {
    MpiCase *c;
    Neighbour *all; /* [queries, k] from query `first` on */
    int64_t first, next;
} Kept;

static Status keep(void *context, const ShardSearchRound *round, Error *error)
{
    (void)error;
    Kept *kept = context;
    EXPECT(kept->c, round->count == 0 || round->first == kept->next);
    memcpy(kept->all + (round->first - kept->first) * round->k, round->neighbours,
           (size_t)(round->count * round->k) * sizeof *kept->all);
    kept->next += round->count;
    return STATUS_OK;
}

static Neighbour *search(MpiCase *c, Comm *comm, const ShardIndexOptions *options, const ShardSearch *wanted)
{
    OpsLimits limits = shard_index_limits(D);
    Ops *ops = ops_support_open(&limits, 1);
    IndexRows pool = index_support_rows(&POOL_DATA, "pool", POOL, comm);
    IndexRows queries = index_support_rows(&QUERY_DATA, "queries", QUERIES, comm);
    const IndexRows *asking = wanted->not_itself ? &pool : &queries;
    Kept kept = {.c = c,
                 .all = memory_alloc_array((size_t)(asking->count * wanted->k), sizeof(Neighbour)),
                 .first = asking->first,
                 .next = asking->first};
    ShardIndex *index = NULL;
    EXPECT(c, shard_index_create(&index, &pool, options, ops, comm, &c->error) == STATUS_OK);
    EXPECT(c, shard_search_run(index, asking, wanted, keep, &kept, ops, comm, &c->error) == STATUS_OK);
    EXPECT(c, kept.next == asking->first + asking->count);
    shard_index_destroy(index);
    memory_free(pool.context);
    memory_free(queries.context);
    ops_support_close(ops);
    return kept.all;
}

/* Neighbours that differ between all ranks and one alone. */
static int64_t search_both(MpiCase *c, const ShardIndexOptions *options, const ShardSearch *wanted)
{
    Comm *self = comm_self_create();
    Neighbour *together = search(c, c->comm, options, wanted), *alone = search(c, self, options, wanted);
    int64_t total = wanted->not_itself ? POOL : QUERIES, wrong = 0;
    int64_t first = index_range_first(total, c->rank, c->size);
    int64_t end = index_range_first(total, c->rank + 1, c->size);
    for (int64_t i = 0; i < (end - first) * wanted->k; i++) {
        Neighbour a = together[i], b = alone[first * wanted->k + i];
        wrong += a.id != b.id || a.similarity != b.similarity;
    }
    memory_free(together);
    memory_free(alone);
    comm_destroy(self);
    return wrong;
}

Status case_index_search(MpiCase *c)
{
    ShardIndexOptions flat = {.factory = "Flat"};
    ShardIndexOptions lists = {.factory = "IVF12,Flat", .nprobe = 3, .seed = 5};
    EXPECT(c, search_both(c, &flat, &(ShardSearch){.k = K, .above = -INFINITY, .queries = 50}) == 0);
    EXPECT(c, search_both(c, &flat, &(ShardSearch){.k = K, .above = 0.7, .not_itself = true}) == 0);
    EXPECT(c, search_both(c, &flat, &(ShardSearch){.k = 400, .above = -INFINITY, .queries = 7}) == 0);
    EXPECT(c, search_both(c, &lists, &(ShardSearch){.k = K, .above = -INFINITY, .queries = 50}) == 0);
    EXPECT(c, search_both(c, &lists, &(ShardSearch){.k = K, .above = 0.5, .not_itself = true}) == 0);
    return STATUS_OK;
}

/* One rank's bad row is everybody's message. */
Status case_index_bad_row(MpiCase *c)
{
    OpsLimits limits = shard_index_limits(D);
    Ops *ops = ops_support_open(&limits, 1);
    IndexRows pool = index_support_rows(&POOL_DATA, "pool.h5", POOL, c->comm);
    if (c->rank == c->size - 1) ((float *)pool.context)[(pool.count - 2) * D + 3] = NAN;
    ShardIndex *index = NULL;
    ShardIndexOptions lists = {.factory = "IVF8,Flat", .nprobe = 1};
    EXPECT(c, shard_index_create(&index, &pool, &lists, ops, c->comm, &c->error) == STATUS_INPUT);
    EXPECT(c, strstr(c->error.text, "pool.h5: row 901 holds a number that is not finite") != NULL);
    KmeansState state;
    KmeansOptions options = {.k = 2};
    Status status = kmeans_start(&state, &pool, &options, ops, c->comm, &c->error);
    c->error = (Error){0};
    if (status == STATUS_OK) status = kmeans_iterate(&state, &pool, &options, ops, c->comm, &c->error);
    EXPECT(c, status == STATUS_INPUT && strstr(c->error.text, "row 901") != NULL);
    kmeans_fini(&state);
    memory_free(pool.context);
    ops_support_close(ops);
    return STATUS_OK;
}

/* --- components --- */

static int64_t find(int64_t *parent, int64_t v)
{
    while (parent[v] != v)
        v = parent[v] = parent[parent[v]];
    return v;
}

typedef enum { CHAIN, CHAIN_BACK, STAR, STAR_AT_END, SPARSE, DENSE, TREE, EDGES_KINDS } Edges;

/* Edge i of a kind; the same on all ranks. */
static IndexEdge edge_of(Edges kind, int64_t i)
{
    Rng rng = rng_at(3, RNG_TEST, (uint64_t)kind, (uint64_t)i);
    int64_t a = rng_integer(&rng, 0, IDS - 1), b = rng_integer(&rng, 0, IDS - 1);
    switch (kind) {
    case CHAIN:
        return (IndexEdge){i % (IDS - 1), i % (IDS - 1) + 1, 0};
    case CHAIN_BACK:
        return (IndexEdge){IDS - 1 - i % (IDS - 1), IDS - 2 - i % (IDS - 1), 0};
    case STAR:
        return (IndexEdge){0, a, 0};
    case STAR_AT_END:
        return (IndexEdge){IDS - 1, a, 0};
    case TREE:
        return (IndexEdge){i % IDS, i % IDS / 2, 0};
    case DENSE:
        return (IndexEdge){a, b, 0};
    default:
        return (IndexEdge){a, a + (b - a) % 5, 0};
    }
}

/* Edges [first, end), dealt to ranks in turn, in batches, against a union-find of all of them. */
static void unite(MpiCase *c, Edges kind, int64_t count, int64_t batches)
{
    int64_t *parent = memory_alloc_array(IDS, sizeof *parent), wrong = 0;
    for (int64_t v = 0; v < IDS; v++)
        parent[v] = v;
    for (int64_t i = 0; i < count; i++) {
        IndexEdge edge = edge_of(kind, i);
        int64_t a = find(parent, edge.a), b = find(parent, edge.b);
        parent[a > b ? a : b] = a > b ? b : a;
    }
    ComponentLabels labels;
    component_labels_init(&labels, IDS, c->comm);
    IndexEdge *edges = memory_alloc_array((size_t)count, sizeof *edges);
    for (int64_t batch = 0; batch < batches; batch++) {
        int64_t n = 0;
        for (int64_t i = batch; i < count; i += batches)
            if ((i / batches + batch) % c->size == c->rank) edges[n++] = edge_of(kind, i);
        EXPECT(c, component_labels_unite(&labels, edges, n, c->comm, &c->error) == STATUS_OK);
    }
    component_labels_finish(&labels, c->comm);
    for (int64_t i = 0; i < labels.count; i++)
        wrong += labels.label[i] != find(parent, labels.first + i);
    EXPECT(c, wrong == 0);
    component_labels_fini(&labels);
    memory_free(edges);
    memory_free(parent);
}

Status case_index_components(MpiCase *c)
{
    for (int kind = 0; kind < EDGES_KINDS; kind++) {
        unite(c, (Edges)kind, 0, 1);
        unite(c, (Edges)kind, IDS / 3, 1);
        unite(c, (Edges)kind, IDS, 1);
        unite(c, (Edges)kind, 2 * IDS, 7);
    }
    ComponentLabels labels;
    component_labels_init(&labels, 10, c->comm);
    IndexEdge bad = {3, c->rank == c->size - 1 ? 10 : 4, 0};
    EXPECT(c, component_labels_unite(&labels, &bad, 1, c->comm, &c->error) == STATUS_INPUT);
    EXPECT(c, strstr(c->error.text, "an edge from 3 to 10 among 10 rows") != NULL);
    component_labels_fini(&labels);
    component_labels_init(&labels, 0, c->comm);
    EXPECT(c, component_labels_unite(&labels, NULL, 0, c->comm, &c->error) == STATUS_OK);
    component_labels_finish(&labels, c->comm);
    component_labels_fini(&labels);
    return STATUS_OK;
}

/* --- k-means --- */

typedef struct {
    KmeansState state;
    double inertia;
    HierarchicalKmeans tree;
    int64_t first, count;
    uint8_t *keep;
} Clustered;

static void cluster(MpiCase *c, Comm *comm, const KmeansOptions *options, Clustered *out)
{
    enum { LEAVES = 30, TARGET = 200 };
    OpsLimits limits = shard_index_limits(D);
    Ops *ops = ops_support_open(&limits, 1);
    IndexRows pool = index_support_rows(&POOL_DATA, "pool", POOL, comm);
    out->first = pool.first;
    out->count = pool.count;
    EXPECT(c, kmeans_start(&out->state, &pool, options, ops, comm, &c->error) == STATUS_OK);
    while (out->state.iteration < 6)
        EXPECT(c, kmeans_iterate(&out->state, &pool, options, ops, comm, &c->error) == STATUS_OK);
    int32_t *assignment = memory_alloc_array((size_t)pool.count, sizeof *assignment);
    EXPECT(c, kmeans_assign(&out->state, &pool, options, assignment, NULL, &out->inertia, ops, comm,
                            &c->error) == STATUS_OK);
    memory_free(assignment);

    int64_t sizes[] = {LEAVES, 6, 2}, quota[LEAVES];
    EXPECT(c, hierarchical_kmeans_run(&out->tree, &pool, sizes, 3, 5, options, ops, comm, &c->error) ==
                  STATUS_OK);
    balanced_sample_quota(&out->tree, TARGET, quota);
    out->keep = memory_alloc((size_t)pool.count);
    balanced_sample_draw(out->keep, &pool, out->tree.assignment, quota, LEAVES, 4, comm);
    memory_free(pool.context);
    ops_support_close(ops);
}

static void clustered_fini(Clustered *clustered)
{
    kmeans_fini(&clustered->state);
    hierarchical_kmeans_fini(&clustered->tree);
    memory_free(clustered->keep);
}

static void cluster_both(MpiCase *c, const KmeansOptions *options)
{
    Comm *self = comm_self_create();
    Clustered together, alone;
    cluster(c, c->comm, options, &together);
    cluster(c, self, options, &alone);
    double worst = 0.0;
    for (int64_t i = 0; i < options->k * D; i++)
        worst = fmax(worst, fabs((double)together.state.centroids[i] - (double)alone.state.centroids[i]));
    EXPECT(c, worst < 1e-5);
    EXPECT(c, fabs(together.inertia - alone.inertia) <= 1e-6 * alone.inertia);
    EXPECT(c, memcmp(together.keep, alone.keep + together.first, (size_t)together.count) == 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < alone.count; i++)
        kept += alone.keep[i];
    EXPECT(c, kept == 200);
    clustered_fini(&together);
    clustered_fini(&alone);
    comm_destroy(self);
}

Status case_index_kmeans(MpiCase *c)
{
    cluster_both(c, &(KmeansOptions){.k = 20, .seed = 1});
    cluster_both(c, &(KmeansOptions){.k = 20, .spherical = true, .init = KMEANS_INIT_PLUS_PLUS, .seed = 2});
    cluster_both(c, &(KmeansOptions){.k = 20, .batch_rows = 300, .seed = 3});
    return STATUS_OK;
}
