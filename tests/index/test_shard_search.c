/* test_shard_search.c - search on one process against all pairs in fp64; on several ranks: tests/mpi. */
#include "../support/index_support.h"
#include "../support/ops_support.h"
#include "base/memory.h"
#include "index/knn_graph.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { N = 1500, D = 24, K = 10, COPIES = 7 };

static const IndexSupportData DATA = {.d = D, .clusters = 30, .spread = 0.6, .copies = COPIES, .seed = 21};

typedef struct {
    Comm *comm;
    Ops *ops;
    IndexRows pool;
    float *unit; /* [N, D] */
    Error error;
} Fixture;

static Fixture fixture_create(int threads)
{
    Fixture f = {.comm = comm_self_create()};
    OpsLimits limits = shard_index_limits(D);
    f.ops = ops_support_open(&limits, threads);
    f.pool = index_support_rows(&DATA, "pool", N, f.comm);
    f.unit = memory_alloc_array(N * D, sizeof *f.unit);
    cr_assert_eq(index_rows_read(&f.pool, 0, N, INDEX_ROWS_UNIT, f.unit, &f.error), STATUS_OK);
    return f;
}

static void fixture_destroy(Fixture *f)
{
    memory_free(f->pool.context);
    memory_free(f->unit);
    ops_support_close(f->ops);
    comm_destroy(f->comm);
}

/* Neighbours of all queries, one behind the other. */
typedef struct {
    Neighbour *all; /* [queries, k] */
    int64_t next, rounds;
} Kept;

static Status keep(void *context, const ShardSearchRound *round, Error *error)
{
    (void)error;
    Kept *kept = context;
    cr_assert_eq(round->first, kept->next);
    memcpy(kept->all + round->first * round->k, round->neighbours,
           (size_t)(round->count * round->k) * sizeof *kept->all);
    kept->next += round->count;
    kept->rounds++;
    return STATUS_OK;
}

static Neighbour *search(Fixture *f, const ShardIndexOptions *options, const ShardSearch *wanted)
{
    ShardIndex *index = NULL;
    cr_assert_eq(shard_index_create(&index, &f->pool, options, f->ops, f->comm, &f->error), STATUS_OK, "%s",
                 f->error.text);
    Kept kept = {.all = memory_alloc_array((size_t)(N * wanted->k), sizeof(Neighbour))};
    cr_assert_eq(shard_search_run(index, &f->pool, wanted, keep, &kept, f->ops, f->comm, &f->error),
                 STATUS_OK, "%s", f->error.text);
    cr_assert_eq(kept.next, N);
    shard_index_destroy(index);
    return kept.all;
}

/* The same by all pairs, naively. */
static Neighbour *search_naively(const Fixture *f, const ShardSearch *wanted)
{
    Neighbour *lists = memory_alloc_array((size_t)(N * wanted->k), sizeof *lists), *all;
    all = memory_alloc_array(N, sizeof *all);
    for (int64_t q = 0; q < N; q++) {
        int64_t n = 0;
        for (int64_t p = 0; p < N; p++) {
            float similarity = (float)index_rows_dot(f->unit + q * D, f->unit + p * D, D);
            if ((wanted->not_itself && p == q) || !((double)similarity > wanted->above)) continue;
            all[n++] = (Neighbour){.id = p, .similarity = similarity};
        }
        neighbour_list_sort(all, n);
        neighbour_list_clear(lists + q * wanted->k, wanted->k);
        memcpy(lists + q * wanted->k, all, (size_t)(n < wanted->k ? n : wanted->k) * sizeof *all);
    }
    memory_free(all);
    return lists;
}

static int64_t differences(const Neighbour *a, const Neighbour *b, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += a[i].id != b[i].id || a[i].similarity != b[i].similarity;
    return count;
}

static void expect_exact(const ShardIndexOptions *options, const ShardSearch *wanted, int threads)
{
    Fixture f = fixture_create(threads);
    Neighbour *naive = search_naively(&f, wanted), *ours = search(&f, options, wanted);
    cr_expect_eq(differences(naive, ours, N * wanted->k), 0, "%s: %lld differ", options->factory,
                 (long long)differences(naive, ours, N * wanted->k));
    memory_free(naive);
    memory_free(ours);
    fixture_destroy(&f);
}

Test(shard_search, flat_search_is_exact_to_the_bit)
{
    ShardIndexOptions flat = {.factory = "Flat"};
    expect_exact(&flat, &(ShardSearch){.k = K, .above = -INFINITY}, 2);
    expect_exact(&flat, &(ShardSearch){.k = K, .above = 0.8, .not_itself = true, .queries = 129}, 1);
    expect_exact(&flat, &(ShardSearch){.k = 1, .above = -INFINITY, .not_itself = true, .queries = 1}, 1);
}

Test(shard_search, all_lists_are_exact_to_the_bit)
{
    ShardIndexOptions lists = {.factory = "IVF16,Flat", .nprobe = 16, .seed = 1};
    expect_exact(&lists, &(ShardSearch){.k = K, .above = 0.5, .not_itself = true, .queries = 200}, 1);
    expect_exact(&lists, &(ShardSearch){.k = K, .above = -INFINITY, .not_itself = true}, 4);
    lists = (ShardIndexOptions){.factory = "IVF2,Flat", .nprobe = 2, .seed = 1}; /* threads share a list */
    expect_exact(&lists, &(ShardSearch){.k = K, .above = -INFINITY}, 3);
}

/* Mean share of the naive neighbours that are found. */
static double recall(const Neighbour *truth, const Neighbour *found, int64_t k)
{
    int64_t hits = 0, all = 0;
    for (int64_t q = 0; q < N; q++)
        for (int64_t i = 0; i < k && truth[q * k + i].id >= 0; i++, all++)
            for (int64_t j = 0; j < k; j++)
                hits += truth[q * k + i].id == found[q * k + j].id;
    return (double)hits / (double)all;
}

Test(shard_search, few_lists_and_codes_find_most)
{
    Fixture f = fixture_create(1);
    ShardSearch wanted = {.k = K, .above = -INFINITY, .not_itself = true};
    Neighbour *truth = search_naively(&f, &wanted);
    double before = 0.0;
    for (int64_t nprobe = 1; nprobe <= 16; nprobe *= 4) {
        Neighbour *found =
            search(&f, &(ShardIndexOptions){.factory = "IVF32,Flat", .nprobe = nprobe, .seed = 1}, &wanted);
        double share = recall(truth, found, K);
        cr_expect_geq(share, before, "%lld lists: %.3f", (long long)nprobe, share);
        before = share;
        memory_free(found);
    }
    cr_expect_gt(before, 0.97, "%.4f", before);
    Neighbour *codes =
        search(&f, &(ShardIndexOptions){.factory = "IVF8,PQ12", .nprobe = 8, .seed = 1}, &wanted);
    Neighbour *refined = search(
        &f, &(ShardIndexOptions){.factory = "IVF8,PQ12", .nprobe = 8, .refine = 4, .seed = 1}, &wanted);
    double rough = recall(truth, codes, K), fine = recall(truth, refined, K);
    cr_expect(fine > 0.95 && fine > rough, "PQ %.4f, refined %.4f", rough, fine);
    for (int64_t i = 0; i < N * K; i++) { /* similarities of refined neighbours are those of the rows */
        double exact = index_rows_dot(f.unit + i / K * D, f.unit + refined[i].id * D, D);
        cr_assert_eq(refined[i].similarity, (float)exact);
    }
    memory_free(codes);
    memory_free(refined);
    memory_free(truth);
    fixture_destroy(&f);
}

/* --- graph --- */

typedef struct {
    int64_t edges, rounds, rows, stop_at;
    ComponentLabels labels;
    Comm *comm;
    double least;
} Graph;

static Status take_edges(void *context, const KnnGraphRound *round, Error *error)
{
    Graph *graph = context;
    if (round->round == graph->stop_at) return status_fail(error, STATUS_REQUEUE, "asked to stop");
    cr_assert_lt(round->round, round->rounds);
    graph->rounds++;
    graph->rows += round->count;
    graph->edges += round->n;
    for (int64_t i = 0; i < round->n; i++) {
        const IndexEdge *edge = &round->edges[i];
        cr_assert(edge->a != edge->b && edge->a >= round->first && edge->a < round->first + round->count);
        graph->least = fmin(graph->least, (double)edge->similarity);
    }
    return component_labels_unite(&graph->labels, round->edges, round->n, graph->comm, error);
}

Test(knn_graph, copies_are_found_and_a_stopped_run_goes_on)
{
    Fixture f = fixture_create(1);
    ShardIndex *index = NULL;
    cr_assert_eq(
        shard_index_create(&index, &f.pool, &(ShardIndexOptions){.factory = "Flat"}, f.ops, f.comm, &f.error),
        STATUS_OK);
    Graph graph = {.comm = f.comm, .least = 2.0, .stop_at = 5};
    component_labels_init(&graph.labels, N, f.comm);
    KnnGraph wanted = {.k = 4, .threshold = 0.99999, .queries = 100};
    cr_expect_eq(knn_graph_run(index, &wanted, take_edges, &graph, f.ops, f.comm, &f.error), STATUS_REQUEUE);
    cr_assert_eq(graph.rows, 500);
    IndexRows rest = index_rows_part(&f.pool, graph.rows, N - graph.rows);
    wanted.from = &rest;
    graph.stop_at = -1;
    cr_expect_eq(knn_graph_run(index, &wanted, take_edges, &graph, f.ops, f.comm, &f.error), STATUS_OK);
    component_labels_finish(&graph.labels, f.comm);
    cr_expect_eq(graph.rounds, 15);
    cr_expect_gt(graph.least, 0.99999);
    int64_t pairs = 0;
    for (int64_t i = 0; i < N; i++) {
        bool copy = i % COPIES == 1;
        pairs += copy;
        cr_expect_eq(graph.labels.label[i], copy ? i - 1 : i);
    }
    cr_expect_eq(graph.edges, 2 * pairs);
    component_labels_fini(&graph.labels);
    shard_index_destroy(index);
    fixture_destroy(&f);
}

typedef struct {
    IndexEdge edges[32];
    int64_t n, rounds, pictures;
} Edges;

static Status list_edges(void *context, const KnnGraphRound *round, Error *error)
{
    Edges *list = context;
    (void)error;
    cr_assert_eq(round->first, list->pictures);
    list->pictures += round->count;
    list->rounds++;
    for (int64_t i = 0; i < round->n; i++)
        list->edges[list->n++] = round->edges[i];
    return STATUS_OK;
}

/* Three pictures of two views each, and the whole ones in the index: the k rows that either view is most
 * like, each once, never the picture itself, nearest first. */
Test(knn_graph, views_share_their_pictures_neighbours)
{
    Fixture f = fixture_create(1);
    const float whole[] = {1, 0, 0, 1, 0.6f, 0.8f};
    const float views[] = {1, 0, 0.28f, 0.96f, 0, 1, 0, 1, 0.6f, 0.8f, 0.96f, 0.28f};
    IndexRows pool = index_rows_memory("whole", whole, 3, 2), from = index_rows_memory("views", views, 6, 2);
    ShardIndex *index = NULL;
    cr_assert_eq(
        shard_index_create(&index, &pool, &(ShardIndexOptions){.factory = "Flat"}, f.ops, f.comm, &f.error),
        STATUS_OK);
    const IndexEdge all[] = {{0, 1, 0.96f}, {0, 2, 0.936f}, {1, 2, 0.8f}, {2, 0, 0.96f}, {2, 1, 0.8f}};
    for (int64_t k = 1; k <= 2; k++) {
        Edges edges = {.n = 0};
        KnnGraph wanted = {.k = k, .threshold = 0.5, .from = &from, .views = 2, .queries = 1};
        cr_assert_eq(knn_graph_run(index, &wanted, list_edges, &edges, f.ops, f.comm, &f.error), STATUS_OK);
        cr_assert(edges.rounds == 3 && edges.pictures == 3 && edges.n == (k == 1 ? 3 : 5));
        for (int64_t i = 0, at = 0; i < 5; i++) {
            if (k == 1 && i > 0 && all[i].a == all[i - 1].a) continue;
            const IndexEdge *edge = &edges.edges[at++];
            cr_expect(edge->a == all[i].a && edge->b == all[i].b, "k %lld edge %lld", (long long)k,
                      (long long)i);
            cr_expect_float_eq(edge->similarity, all[i].similarity, 1e-6);
        }
    }
    shard_index_destroy(index);
    fixture_destroy(&f);
}

/* Directions in a plane, in degrees; the graph of all of them with k = 4, with these options. */
static Edges graph_of_angles(const double *degrees, int64_t n, double threshold, double background_most)
{
    float values[16];
    for (int64_t i = 0; i < n; i++) {
        values[2 * i] = (float)cos(degrees[i] * M_PI / 180);
        values[2 * i + 1] = (float)sin(degrees[i] * M_PI / 180);
    }
    Fixture f = fixture_create(1);
    IndexRows pool = index_rows_memory("angles", values, n, 2);
    ShardIndex *index = NULL;
    cr_assert_eq(
        shard_index_create(&index, &pool, &(ShardIndexOptions){.factory = "Flat"}, f.ops, f.comm, &f.error),
        STATUS_OK);
    Edges edges = {.n = 0};
    KnnGraph wanted = {
        .k = 4, .threshold = threshold, .normalised = true, .background_most = background_most};
    cr_assert_eq(knn_graph_run(index, &wanted, list_edges, &edges, f.ops, f.comm, &f.error), STATUS_OK);
    shard_index_destroy(index);
    fixture_destroy(&f);
    return edges;
}

/* Row 0 has neighbours at 10, 20, 60 and 90 degrees: its background is the mean of the cosines to the last
 * two. */
Test(knn_graph, normalised_edges_are_as_high_as_they_are_above_the_background)
{
    const double degrees[] = {0, 10, 20, 60, 90};
    Edges edges = graph_of_angles(degrees, 5, 0.68, 1.0);
    double background = (cos(M_PI / 3) + 0) / 2;
    cr_expect(edges.edges[0].a == 0 && edges.edges[0].b == 1);
    cr_expect_float_eq(edges.edges[0].similarity, cos(M_PI / 18) - background, 1e-6);
    cr_expect(edges.edges[1].a == 0 && edges.edges[1].b == 2);
    cr_expect_float_eq(edges.edges[1].similarity, cos(M_PI / 9) - background, 1e-6);
    cr_assert_eq(edges.n, 3, "of the others 90 degrees alone is far from all but one");
    cr_expect(edges.edges[2].a == 4 && edges.edges[2].b == 3);
}

/* With more copies than neighbours, copies are the background: only its bound lets them see each other. */
Test(knn_graph, a_bound_of_the_background_keeps_large_groups)
{
    const double degrees[] = {0, 0, 0, 0, 0, 0, 90};
    cr_expect_eq(graph_of_angles(degrees, 7, 0.2, 1.0).n, 0);
    Edges edges = graph_of_angles(degrees, 7, 0.2, 0.5);
    cr_expect_eq(edges.n, 6 * 4);
    for (int64_t i = 0; i < edges.n; i++)
        cr_expect_float_eq(edges.edges[i].similarity, 0.5, 1e-6);
}

/* More equal rows than neighbours are asked for: all of them are one component. */
Test(knn_graph, many_equal_rows_are_one_component)
{
    enum { MANY = 400 };
    Fixture f = fixture_create(1);
    float values[MANY * 4];
    for (int i = 0; i < MANY * 4; i++)
        values[i] = i / 4 % 2 ? (float)(i % 4 == 0) : (float)(i % 4 == 1); /* two directions in turn */
    IndexRows pool = index_rows_memory("equal", values, MANY, 4);
    ShardIndex *index = NULL;
    cr_assert_eq(
        shard_index_create(&index, &pool, &(ShardIndexOptions){.factory = "Flat"}, f.ops, f.comm, &f.error),
        STATUS_OK);
    Graph graph = {.comm = f.comm, .stop_at = -1};
    component_labels_init(&graph.labels, MANY, f.comm);
    KnnGraph wanted = {.threshold = 0.6, .queries = 64};
    cr_assert_eq(knn_graph_run(index, &wanted, take_edges, &graph, f.ops, f.comm, &f.error), STATUS_OK);
    component_labels_finish(&graph.labels, f.comm);
    cr_expect_eq(graph.edges, (int64_t)MANY * KNN_GRAPH_K);
    for (int i = 0; i < MANY; i++)
        cr_expect_eq(graph.labels.label[i], i % 2);
    component_labels_fini(&graph.labels);
    shard_index_destroy(index);
    fixture_destroy(&f);
}

/* --- what cannot be done --- */

static void expect_refused(Fixture *f, const IndexRows *pool, const ShardIndexOptions *options,
                           const IndexRows *queries, const ShardSearch *wanted, const char *text)
{
    ShardIndex *index = NULL;
    Kept kept = {.all = memory_alloc_array((size_t)(N * 32), sizeof(Neighbour))};
    f->error = (Error){0};
    Status status = shard_index_create(&index, pool, options, f->ops, f->comm, &f->error);
    if (status == STATUS_OK)
        status = shard_search_run(index, queries, wanted, keep, &kept, f->ops, f->comm, &f->error);
    cr_expect_eq(status, STATUS_INPUT, "%s", text);
    cr_expect(strstr(f->error.text, text), "'%s' not in: %s", text, f->error.text);
    shard_index_destroy(index);
    memory_free(kept.all);
}

Test(shard_search, refuses_what_it_cannot_do)
{
    Fixture f = fixture_create(1);
    ShardIndexOptions flat = {.factory = "Flat"}, lists = {.factory = "IVF16,Flat", .nprobe = 4};
    ShardSearch wanted = {.k = 3, .above = -INFINITY};
    float values[4 * D] = {1.0f};
    IndexRows bad = index_rows_memory("queries.h5", values, 4, D);
    IndexRows none = index_rows_memory("none", values, 0, D),
              narrow = index_rows_memory("narrow", values, 4, 8);
    expect_refused(&f, &f.pool, &flat, &bad, &wanted, "queries.h5: row 1 is zero");
    expect_refused(&f, &bad, &flat, &f.pool, &wanted, "queries.h5: row 1 is zero");
    for (int i = 1; i < 4; i++)
        values[i * D + i] = 1.0f;
    values[2 * D] = NAN;
    expect_refused(&f, &bad, &lists, &f.pool, &wanted, "queries.h5: row 2 holds");
    expect_refused(&f, &f.pool, &lists, &bad, &wanted, "queries.h5: row 2 holds");
    expect_refused(&f, &f.pool, &flat, &none, &wanted, "none: no queries");
    expect_refused(&f, &none, &flat, &f.pool, &wanted, "none: no rows");
    expect_refused(&f, &f.pool, &flat, &narrow, &wanted, "narrow has rows of 8 numbers, pool of 24");
    wanted = (ShardSearch){.k = N, .not_itself = true};
    expect_refused(&f, &f.pool, &flat, &f.pool, &wanted,
                   "1500 neighbours asked for, but pool has 1500 rows, the asking one among them");
    lists.nprobe = 0;
    expect_refused(&f, &f.pool, &lists, &f.pool, &wanted, "IVF16,Flat: a query has to look at one list");
    lists = (ShardIndexOptions){.factory = "IVF2000,Flat", .nprobe = 4};
    expect_refused(&f, &f.pool, &lists, &f.pool, &wanted,
                   "IVF2000,Flat: 2000 inverted lists cannot be learnt from 1500 rows");
    flat.gpu = true;
    expect_refused(&f, &f.pool, &flat, &f.pool, &wanted, "Flat search does not use GPUs");
    lists = (ShardIndexOptions){.factory = "IVF8,Flat", .nprobe = 4, .gpu = true};
    expect_refused(&f, &f.pool, &lists, &f.pool, &wanted, "FAISS_GPU=1");
    fixture_destroy(&f);
}
