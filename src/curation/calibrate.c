/* calibrate.c - see calibrate.h. */
#include "curation/calibrate.h"

#include "base/memory.h"
#include "index/knn_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a probe's neighbours only so many can matter: averages far below one are asked for. */
enum { NEAREST = 4 };

typedef struct {
    const FeatureSource *pool, *probes;
    bool own; /* the index is over the pool, which has each probe's own upright picture */
    bool normalised;
    int64_t neighbours; /* of a probe in the pool */
    int64_t total;      /* probes */
    double *nearest;    /* [total, NEAREST] similarities that count; -2: none; owned */
    double *background; /* [total] owned */
    char *keys;         /* two of pool and probes; owned */
} Probing;

enum { NONE = -2 };

/* --- probes --- */

static Status is_own(const Probing *p, int64_t probe, int64_t row, bool *own, Error *error)
{
    char *probe_key = p->keys, *pool_key = p->keys + p->probes->key_bytes + 1;
    TRY(feature_source_read_key(p->probes, probe, probe_key, error));
    TRY(feature_source_read_key(p->pool, row, pool_key, error));
    *own = strcmp(probe_key, pool_key) == 0;
    return STATUS_OK;
}

/* One probe's n edges, nearest first. */
static Status take_probe(Probing *p, const IndexEdge *edges, int64_t n, Error *error)
{
    int64_t probe = edges[0].a;
    double background = knn_graph_background(edges, n), *nearest = p->nearest + probe * NEAREST;
    p->background[probe] = background;
    for (int64_t i = 0, kept = 0; i < n && kept < NEAREST; i++) {
        bool own = false;
        if (p->own) TRY(is_own(p, probe, edges[i].b, &own, error));
        if (own) break;
        nearest[kept++] = (double)edges[i].similarity - (p->normalised ? background : 0.0);
    }
    return STATUS_OK;
}

static Status take_round(void *context, const KnnGraphRound *round, Error *error)
{
    for (int64_t i = 0, end; i < round->n; i = end) {
        for (end = i + 1; end < round->n && round->edges[end].a == round->edges[i].a;)
            end++;
        TRY(take_probe(context, round->edges + i, end - i, error));
    }
    return STATUS_OK;
}

/* Every rank has its probes' numbers; then all have all. */
static void gather(Probing *p, Comm *comm)
{
    comm_all_reduce(comm, p->nearest, p->total * NEAREST, DTYPE_F64, COMM_MAX, NULL);
    comm_all_reduce(comm, p->background, p->total, DTYPE_F64, COMM_MAX, NULL);
}

static int descending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a > b ? -1 : a < b;
}

/* The least threshold above which `share` similarities a probe are left, and the bound of backgrounds.
 * best[total]: each probe's nearest; sorts the arrays. */
static CalibratedSearch conclude(Probing *p, double share, double *best)
{
    for (int64_t i = 0; i < p->total; i++)
        best[i] = p->nearest[i * NEAREST];
    int64_t n = p->total * NEAREST, allowed = (int64_t)floor(share * (double)p->total);
    if (allowed > n - 1) allowed = n - 1;
    qsort(p->nearest, (size_t)n, sizeof *p->nearest, descending);
    qsort(p->background, (size_t)p->total, sizeof *p->background, descending);
    return (CalibratedSearch){.threshold = fmin(fmax(p->nearest[allowed], -1.0), 1.0),
                              .background_most = p->background[p->total / 100]};
}

/* All probes against `rows` by an index of that kind. Collective over COMM. */
static Status probe(Probing *p, const CurationRun *run, const FeatureSource *set, const char *factory,
                    Error *error)
{
    for (int64_t i = 0; i < p->total * NEAREST; i++)
        p->nearest[i] = NONE;
    for (int64_t i = 0; i < p->total; i++)
        p->background[i] = NONE;
    ShardIndex *index;
    TRY(curation_run_make_index(run, &set->rows, factory, &index, error));
    int64_t k = curation_run_neighbours(run, set->name, set->rows.total);
    if (p->own) p->neighbours = k;
    KnnGraph graph = {.k = k,
                      .threshold = -INFINITY,
                      .from = &p->probes->view_rows,
                      .others = true,
                      .views = p->probes->views,
                      .queries = run->config->curation.block_queries};
    Status status = knn_graph_run(index, &graph, take_round, p, run->ops, run->comm, error);
    shard_index_destroy(index);
    if (status == STATUS_OK) gather(p, run->comm);
    return status;
}

/* --- the file --- */

static void put_search(CurationFile *file, const char *names[2], const CalibratedSearch *search)
{
    curation_file_put_double(file, names[0], search->threshold);
    curation_file_put_double(file, names[1], search->background_most);
}

static const char *POOL_NAMES[] = {"dedup_threshold", "dedup_background_most"};
static const char *REFERENCE_NAMES[] = {"exclude_threshold", "exclude_background_most"};

static Status write_file(const Calibration *result, const Probing *p, const float *best,
                         const FeatureSource *references, const CurationRun *run, Error *error)
{
    const Config *config = run->config;
    CurationMeta meta = curation_run_meta(run, "calibrate", p->pool);
    CurationFile file;
    curation_file_create(&file, result->path, p->total, &meta, run->comm);
    curation_file_put_text(&file, "probes", p->probes->inputs);
    curation_file_put_int(&file, "score_normalization", config->curation.score_normalization);
    curation_file_put_double(&file, "false_links", config->curation.calibrate.false_links);
    put_search(&file, POOL_NAMES, &result->pool);
    if (references) {
        curation_file_put_text(&file, "references", references->inputs);
        curation_file_put_double(&file, "false_references", config->curation.calibrate.false_references);
        put_search(&file, REFERENCE_NAMES, &result->references);
    }
    curation_run_put_search(run, &file, p->neighbours);
    curation_run_put_views(p->pool, &file);
    curation_file_put_rows(&file, "/similarity", H5_TYPE_F32, best + p->probes->rows.first,
                           p->probes->rows.count);
    return curation_file_commit(&file, error);
}

/* --- all --- */

static Status calibrate(Calibration *result, Probing *p, const FeatureSource *references,
                        const CurationRun *run, double *best, float *narrow, Error *error)
{
    const Config *config = run->config;
    TRY(probe(p, run, p->pool, config->curation.index, error));
    result->pool = conclude(p, config->curation.calibrate.false_links, best);
    for (int64_t i = 0; i < p->total; i++)
        narrow[i] = (float)best[i];
    p->own = false;
    if (references) {
        TRY(probe(p, run, references, config->curation.exclude.index, error));
        result->references = conclude(p, config->curation.calibrate.false_references, best);
    }
    return write_file(result, p, narrow, references, run, error);
}

static Status check(const FeatureSource *pool, const FeatureSource *other, const CurationRun *run,
                    Error *error)
{
    TRY(feature_source_check_same(pool, other, run->log, error));
    return feature_source_check_views(pool, other, error);
}

Status calibrate_run(Calibration *result, const FeatureSource *pool, const FeatureSource *probes,
                     const FeatureSource *references, const CurationRun *run, Error *error)
{
    *result = (Calibration){.probes = probes->rows.total, .has_references = references != NULL};
    TRY(curation_run_path(run, "calibrate.h5", result->path, error));
    TRY(check(pool, probes, run, error));
    if (references) TRY(check(pool, references, run, error));
    size_t total = (size_t)probes->rows.total;
    Probing probing = {.pool = pool,
                       .probes = probes,
                       .own = true,
                       .normalised = run->config->curation.score_normalization,
                       .total = probes->rows.total,
                       .nearest = memory_alloc_array(total * NEAREST, sizeof(double)),
                       .background = memory_alloc_array(total, sizeof(double)),
                       .keys = memory_alloc(pool->key_bytes + probes->key_bytes + 2)};
    double *best = memory_alloc_array(total, sizeof *best);
    float *narrow = memory_alloc_array(total, sizeof *narrow);
    Status status = calibrate(result, &probing, references, run, best, narrow, error);
    memory_free(narrow);
    memory_free(best);
    memory_free(probing.nearest);
    memory_free(probing.background);
    memory_free(probing.keys);
    return status;
}

/* --- using it --- */

static Status read_search(const CurationInput *input, const char *names[2], double *threshold, double *most,
                          Error *error)
{
    TRY(curation_file_read_double(input, names[0], threshold, error));
    return curation_file_read_double(input, names[1], most, error);
}

static Status apply(const CurationInput *input, const FeatureSource *pool, Config *config, Error *error)
{
    const char *path = input->file.path;
    int64_t normalised;
    if (input->digest != pool->digest)
        return status_fail(error, STATUS_INPUT, "%s: is of other features than %s", path, pool->name);
    TRY(curation_file_read_int(input, "score_normalization", &normalised, error));
    if ((normalised != 0) != config->curation.score_normalization)
        return status_fail(error, STATUS_INPUT, "%s: was made with curation.score_normalization=%s", path,
                           normalised ? "true" : "false");
    TRY(read_search(input, POOL_NAMES, &config->curation.dedup.threshold,
                    &config->curation.dedup.background_most, error));
    if (!curation_file_has(input, REFERENCE_NAMES[0])) return STATUS_OK;
    return read_search(input, REFERENCE_NAMES, &config->curation.exclude.threshold,
                       &config->curation.exclude.background_most, error);
}

Status calibrate_apply(const char *path, const FeatureSource *pool, Config *config, Error *error)
{
    CurationInput input;
    TRY(curation_file_open(&input, path, "/similarity", error));
    Status status = apply(&input, pool, config, error);
    curation_file_close(&input);
    return status;
}
