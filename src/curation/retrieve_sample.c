/* retrieve_sample.c - see retrieve_sample.h. */
#include "curation/retrieve_sample.h"

#include "base/memory.h"
#include "curation/graph_walk.h"
#include "index/id_exchange.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_LOOKED_FOR = -2 }; /* in the place of a neighbour */

/* Place p of query q is slot q * n + p; this rank's queries, and so its slots, are a run. */
typedef struct {
    const FeatureSource *pool, *queries;
    const CurationRun *run;
    int64_t n;         /* neighbours of a query */
    int64_t *id;       /* [slots] of the pool's set; -1: none; owned */
    float *similarity; /* [slots] owned */
    uint8_t *done;     /* [queries of this rank] owned */
    CurationState *state;
} Sampling;

/* --- search --- */

static Status take(void *context, const KnnGraphRound *round, Error *error)
{
    Sampling *s = context;
    (void)error;
    int64_t first = s->queries->rows.first, n = s->n;
    for (int64_t i = (round->first - first) * n; i < (round->first - first + round->count) * n; i++)
        s->id[i] = -1;
    int64_t place = 0;
    for (int64_t i = 0; i < round->n; i++) {
        const IndexEdge *edge = &round->edges[i];
        place = i > 0 && edge->a == edge[-1].a ? place + 1 : 0;
        int64_t slot = (edge->a - first) * n + place;
        s->id[slot] = edge->b;
        s->similarity[slot] = edge->similarity;
    }
    return STATUS_OK;
}

static Status start(Sampling *s, const char *path, Error *error)
{
    const CurationRun *run = s->run;
    const Config *config = run->config;
    const IndexRows *rows = &s->queries->rows;
    size_t slots = (size_t)(rows->count * s->n);
    s->id = memory_alloc_array(slots, sizeof *s->id);
    s->similarity = memory_alloc_array(slots, sizeof *s->similarity);
    s->done = memory_alloc((size_t)rows->count);
    CurationMeta meta = curation_run_meta(run, "retrieve", s->pool);
    meta.digest = curation_run_digest(
        s->pool->set_digest, "retrieve %llu %lld %s %lld %lld %lld %lld",
        (unsigned long long)s->queries->set_digest, (long long)s->n, config->curation.index,
        (long long)config->curation.nprobe, (long long)config->curation.refine,
        (long long)config->curation.train_rows, (long long)config->curation.seed);
    *s->state = (CurationState){.path = path,
                                .meta = meta,
                                .total = rows->total * s->n,
                                .first = rows->first * s->n,
                                .count = rows->count * s->n,
                                .save_minutes = config->curation.save_minutes,
                                .arrays = {{"/row", H5_TYPE_I64, s->id, NOT_LOOKED_FOR, s->pool->rows.total},
                                           {"/similarity", H5_TYPE_F32, s->similarity, 0, 0}},
                                .array_count = 2};
    bool found;
    TRY(curation_state_restore(s->state, run->resume, &found, run->comm, run->log, error));
    for (size_t i = 0; !found && i < slots; i++)
        s->id[i] = NOT_LOOKED_FOR;
    for (int64_t q = 0; q < rows->count; q++)
        s->done[q] = s->id[q * s->n] != NOT_LOOKED_FOR;
    return STATUS_OK;
}

static Status walk(Sampling *s, Error *error)
{
    const CurationRun *run = s->run;
    if (graph_walk_left(&s->queries->rows, s->done, run->comm) == 0) return STATUS_OK;
    ShardIndex *index;
    TRY(curation_run_make_index(run, &s->pool->rows, run->config->curation.index, &index, error));
    GraphWalk graph = {.index = index,
                       .from = &s->queries->rows,
                       .done = s->done,
                       .graph = {.k = s->n,
                                 .threshold = -INFINITY,
                                 .others = true,
                                 .queries = run->config->curation.block_queries},
                       .sink = take,
                       .context = s,
                       .state = s->state,
                       .what = "retrieve"};
    Status status = graph_walk_run(&graph, run->ops, run->comm, run->log, error);
    shard_index_destroy(index);
    return status;
}

/* --- collisions --- */

/* A picture brought in, as id_exchange.h wants it. */
typedef struct {
    int64_t id, slot;
    int64_t bits; /* of the similarity */
} Hit;

static int by_id(const void *left, const void *right)
{
    const Hit *a = left, *b = right;
    if (a->id != b->id) return a->id < b->id ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static float similarity_of(const Hit *hit)
{
    float value;
    memcpy(&value, &hit->bits, sizeof value);
    return value;
}

/* Of each row the most similar first, of equals the one of the lower query. */
static int best_of_row_first(const void *left, const void *right)
{
    const Hit *a = left, *b = right;
    if (a->id != b->id) return a->id < b->id ? -1 : 1;
    float x = similarity_of(a), y = similarity_of(b);
    if (x != y) return x > y ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static int by_slot(const void *left, const void *right)
{
    const Hit *a = left, *b = right;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* answers[n] to the hits on this rank's rows: 2 * pool row + 1 for the best of its row, else 2 * pool row. */
static void answer(const FeatureSource *pool, const Hit *hits, int64_t n, int64_t *answers)
{
    Hit *best = memory_alloc_array((size_t)n, sizeof *best);
    int64_t rows = 0;
    memcpy(best, hits, (size_t)n * sizeof *best);
    qsort(best, (size_t)n, sizeof *best, best_of_row_first);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || best[i].id != best[rows - 1].id) best[rows++] = best[i];
    qsort(best, (size_t)rows, sizeof *best, by_slot);
    for (int64_t i = 0; i < n; i++) {
        bool is_best = bsearch(&hits[i], best, (size_t)rows, sizeof *best, by_slot) != NULL;
        answers[i] = 2 * feature_source_pool_row(pool, hits[i].id - pool->rows.first) + is_best;
    }
    memory_free(best);
}

/* hits[n], sorted by id, with in answers[n] what the owners of the rows know of them. Collective over COMM.
 */
static int64_t resolve(const Sampling *s, Hit **hits, int64_t **answers)
{
    int64_t n = 0, slots = s->queries->rows.count * s->n, first = s->queries->rows.first * s->n;
    *hits = memory_alloc_array((size_t)slots, sizeof **hits);
    for (int64_t i = 0; i < slots; i++) {
        if (s->id[i] < 0) continue;
        (*hits)[n] = (Hit){.id = s->id[i], .slot = first + i};
        memcpy(&(*hits)[n++].bits, &s->similarity[i], sizeof(float));
    }
    qsort(*hits, (size_t)n, sizeof **hits, by_id);
    *answers = memory_alloc_array((size_t)n, sizeof **answers);
    IdExchange exchange;
    id_exchange_init(&exchange, (const int64_t *)(const void *)*hits, n, 3, s->pool->rows.total,
                     s->run->comm);
    int64_t *mine = memory_alloc_array((size_t)exchange.count, sizeof *mine);
    answer(s->pool, (const Hit *)(const void *)exchange.taken, exchange.count, mine);
    id_exchange_answer(&exchange, *answers, mine);
    id_exchange_fini(&exchange);
    memory_free(mine);
    return n;
}

/* The pictures in the order of the slots. Collective over COMM. */
static void list_pictures(const Sampling *s, RetrievedList *list)
{
    Hit *hits;
    int64_t *answers, n = resolve(s, &hits, &answers);
    bool removes = s->run->config->curation.retrieve.collisions == CONFIG_COLLISIONS_REMOVE;
    int64_t sums[2] = {n, 0};
    for (int64_t i = 0; i < n; i++) { /* the id is known by its slot, the answer takes its place */
        sums[1] += answers[i] % 2 == 0;
        hits[i].id = answers[i];
    }
    qsort(hits, (size_t)n, sizeof *hits, by_slot);
    retrieved_list_init(list, n);
    for (int64_t i = 0; i < n; i++) {
        if (removes && hits[i].id % 2 == 0) continue;
        int64_t at = list->count++;
        list->row[at] = hits[i].id / 2;
        list->first[at] = hits[i].id % 2 == 1;
        list->query[at] = hits[i].slot / s->n;
        list->neighbour[at] = hits[i].slot % s->n;
        list->similarity[at] = similarity_of(&hits[i]);
    }
    comm_all_reduce(s->run->comm, sums, 2, DTYPE_I64, COMM_SUM, NULL);
    list->retrieved = sums[0];
    list->collisions = sums[1];
    memory_free(hits);
    memory_free(answers);
}

Status retrieve_sample_run(RetrievedList *list, int64_t neighbours, const FeatureSource *pool,
                           const FeatureSource *queries, const char *state_path, CurationState *state,
                           const CurationRun *run, Error *error)
{
    *list = (RetrievedList){0};
    Sampling sampling = {.pool = pool, .queries = queries, .run = run, .n = neighbours, .state = state};
    Status status = start(&sampling, state_path, error);
    if (status == STATUS_OK) status = walk(&sampling, error);
    if (status == STATUS_OK) list_pictures(&sampling, list);
    memory_free(sampling.id);
    memory_free(sampling.similarity);
    memory_free(sampling.done);
    return status;
}
