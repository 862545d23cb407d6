/* job_visualize_neighbours.c - contact sheets of queries and the pictures nearest to them, by cosine: of
 * features files, or of features that a model makes now; or of what a curation retrieved.
 *
 * All ranks make and search features of what is searched; rank 0 has the queries, a handful, and draws.
 */
#include "base/memory.h"
#include "eval/eval_model.h"
#include "eval/eval_sets.h"
#include "eval/knn.h"
#include "features/features_file.h"
#include "index/index_rows.h"
#include "job_threads.h"
#include "job_visualize_sheets.h"
#include "ops/ops_options.h"

#include <math.h>
#include <string.h>

/* A search and its two sides. */
typedef struct {
    const JobContext *context;
    const VisualizeSheetRequest *request;
    bool among_themselves;  /* the queries are some of what is searched, and do not find themselves */
    FeatureRows bank;       /* this rank's */
    int64_t *bank_pictures; /* [bank.total] number of each row's picture in its album; NULL: the row; owned */
    FeatureRows queries;    /* on rank 0 */
    int64_t *query_pictures;        /* [queries.count] number of each in its album; owned */
    VisualizeAlbum searched, asked; /* on rank 0 */
} Search;

static void search_fini(Search *search)
{
    feature_rows_fini(&search->bank);
    feature_rows_fini(&search->queries);
    memory_free(search->bank_pictures);
    memory_free(search->query_pictures);
    visualize_album_fini(&search->searched);
    visualize_album_fini(&search->asked);
}

/* Places of `count` queries, or of all, evenly spread over n; memory_free. */
static int64_t *spread(int64_t *count, int64_t n)
{
    if (*count > n) *count = n;
    int64_t *places = memory_alloc_array((size_t)*count, sizeof *places);
    for (int64_t i = 0; i < *count; i++)
        places[i] = i * n / *count;
    return places;
}

/* --- the search --- */

/* The sheet of rank 0's queries and their neighbours[queries, k]. */
static void fill_sheet(VisualizeSheet *sheet, const Search *search, const KnnNeighbour *neighbours, int64_t k)
{
    visualize_sheet_init(sheet, search->queries.count, search->request->columns);
    for (int64_t q = 0; q < search->queries.count; q++) {
        visualize_sheet_begin(sheet);
        visualize_sheet_add(sheet, (VisualizeSheetEntry){search->query_pictures[q], true, NAN});
        for (int64_t i = 0; i < k; i++) {
            const KnnNeighbour *found = &neighbours[q * k + i];
            int64_t picture = search->bank_pictures ? search->bank_pictures[found->index] : found->index;
            if (search->among_themselves && picture == search->query_pictures[q]) continue;
            visualize_sheet_add(sheet, (VisualizeSheetEntry){picture, false, (double)found->similarity});
        }
        visualize_sheet_end(sheet);
    }
}

static Status normalize(Search *search, const Ops *ops, Error *error)
{
    TRY(knn_normalize(ops, search->bank.values, search->bank.count, search->bank.d, error));
    return knn_normalize(ops, search->queries.values, search->queries.count, search->bank.d, error);
}

static KnnRows rows_of(const FeatureRows *rows, int64_t d)
{
    return (KnnRows){
        .count = rows->count, .first = rows->first, .d = d, .values = rows->values, .labels = rows->labels};
}

/* On features that are there. Collective over COMM. */
static Status search_and_draw(Search *search, Ops *ops, Error *error)
{
    Comm *comm = search->context->comm;
    /* the query itself may be among them, and is the first cell of its row anyway */
    int64_t k = search->request->columns < search->bank.total ? search->request->columns : search->bank.total;
    KnnRows bank = rows_of(&search->bank, search->bank.d), queries = rows_of(&search->queries, bank.d);
    KnnNeighbour *neighbours = memory_alloc_array((size_t)(queries.count * k), sizeof *neighbours);
    Status status = comm_agree(comm, normalize(search, ops, error), error);
    if (status == STATUS_OK) status = knn_search(neighbours, ops, comm, &bank, &queries, k, error);
    if (status == STATUS_OK && comm_rank(comm) == 0) {
        VisualizeSheet sheet;
        fill_sheet(&sheet, search, neighbours, k);
        status = visualize_sheet_draw(search->context, search->request, &sheet, &search->searched,
                                      &search->asked, error);
        visualize_sheet_fini(&sheet);
    }
    memory_free(neighbours);
    return comm_agree(comm, status, error);
}

/* --- features files --- */

static Status open_features(FeaturesFile *file, const char *path, Error *error)
{
    TRY(features_file_open(file, path, error));
    if (file->meta.views <= 1 && !file->meta.upside_down) return STATUS_OK;
    Status status =
        status_fail(error, STATUS_INPUT, "%s: is of %s; visualize neighbours wants features without", path,
                    file->meta.upside_down ? "pictures upside down" : "views of pictures");
    features_file_close(file);
    return status;
}

static Status read_bank(Search *search, const char *path, Error *error)
{
    Comm *comm = search->context->comm;
    FeaturesFile file;
    TRY(open_features(&file, path, error));
    int64_t first = index_range_first(file.n, comm_rank(comm), comm_size(comm));
    int64_t end = index_range_first(file.n, comm_rank(comm) + 1, comm_size(comm));
    feature_rows_init(&search->bank, end - first, file.d);
    search->bank.count = end - first;
    Status status =
        features_file_read(&file, first, end - first, search->bank.values, search->bank.labels, error);
    features_file_close(&file);
    return status;
}

static Status read_queries(Search *search, const char *path, Error *error)
{
    FeatureRows *queries = &search->queries;
    FeaturesFile file;
    TRY(open_features(&file, path, error));
    int64_t count = search->request->count;
    Status status = STATUS_OK;
    if (file.d != search->bank.d)
        status = status_fail(error, STATUS_INPUT, "%s: rows of %lld numbers, those searched have %lld", path,
                             (long long)file.d, (long long)search->bank.d);
    search->query_pictures = spread(&count, file.n);
    feature_rows_init(queries, count, file.d);
    for (; queries->count < count && status == STATUS_OK; queries->count++)
        status = features_file_read(&file, search->query_pictures[queries->count], 1,
                                    queries->values + queries->count * file.d,
                                    queries->labels + queries->count, error);
    features_file_close(&file);
    return status;
}

/* Rank 0's part beside its rows of what is searched. */
static Status open_asked(Search *search, const char *train, const char *val, Error *error)
{
    const JobContext *context = search->context;
    const char *asked = val ? val : train;
    bool has_queries = options_get(context->options, "queries") != NULL;
    TRY(read_queries(search, asked, error));
    TRY(visualize_album_open(&search->searched, context, "data", memory_strdup(train), error));
    return visualize_album_open(&search->asked, context, has_queries ? "queries" : "data",
                                memory_strdup(asked), error);
}

static Status on_features(Search *search, const char *train, Error *error)
{
    const JobContext *context = search->context;
    const char *val = options_get(context->options, "val-features");
    search->among_themselves = !val;
    Status status = read_bank(search, train, error);
    if (status == STATUS_OK && comm_rank(context->comm) == 0) status = open_asked(search, train, val, error);
    TRY(comm_agree(context->comm, status, error));
    feature_rows_number(&search->bank, context->comm);
    OpsLimits limits = knn_limits(search->bank.d);
    OpsOptions options;
    TRY(ops_options_from(&options, context->config, context->device, job_threads(context, context->config),
                         error));
    Ops *ops = ops_create(context->device, &limits, &options);
    status = search_and_draw(search, ops, error);
    ops_destroy(ops);
    return status;
}

/* --- a model --- */

/* Which pictures the rows of all ranks are of. Collective over COMM. */
static void share_pictures(Search *search)
{
    const FeatureRows *bank = &search->bank;
    search->bank_pictures = memory_alloc_array((size_t)bank->total, sizeof *search->bank_pictures);
    memcpy(search->bank_pictures + bank->first, bank->indices, (size_t)bank->count * sizeof *bank->indices);
    comm_all_reduce(search->context->comm, search->bank_pictures, bank->total, DTYPE_I64, COMM_SUM, NULL);
}

/* Data sets are numbered by themselves here: `limit` as of eval_sets_open_data, 0: all of it. */
static Status open_set(VisualizeAlbum *album, const char *option, const char *spec, int64_t limit,
                       Error *error)
{
    *album = (VisualizeAlbum){.option = option, .sets = memory_alloc(sizeof *album->sets)};
    TRY(eval_sets_open_data(&album->sets[0], spec, limit, error));
    album->count = 1;
    return STATUS_OK;
}

/* Features of the queries, which rank 0 makes by itself. */
static Status extract_queries(Search *search, const FeatureExtractor *extractor, const Ops *ops, Error *error)
{
    const DataSet *set = search->asked.sets[0];
    int64_t count = search->request->count;
    int64_t *pictures = spread(&count, data_set_count(set));
    DataPlace *places = memory_alloc_array((size_t)count, sizeof *places);
    for (int64_t i = 0; i < count; i++)
        places[i] = (DataPlace){0, pictures[i]};
    DataSet *chosen = data_set_create_chosen(&set, (const char *[]){"query"}, places, count);
    Comm *alone = comm_self_create();
    Status status = feature_extractor_run(extractor, ops, alone, chosen, &search->queries, error);
    search->query_pictures = memory_alloc_array((size_t)count, sizeof *search->query_pictures);
    for (int64_t i = 0; i < search->queries.count && status == STATUS_OK; i++)
        search->query_pictures[i] = pictures[search->queries.indices[i]];
    comm_destroy(alone);
    data_set_destroy(chosen);
    memory_free(places);
    memory_free(pictures);
    return status;
}

/* Collective over COMM. */
static Status extract(Search *search, const EvalModel *model, const OpsOptions *options, Error *error)
{
    const JobContext *context = search->context;
    FeatureExtractor extractor = {.kind = FEATURE_CLASS_TOKEN,
                                  .input = eval_sets_input(&model->config),
                                  .backbone = &model->backbone,
                                  .log = context->log,
                                  .what = "features"};
    TRY(feature_extractor_check(&extractor, error));
    OpsLimits limits = feature_extractor_limits(&extractor);
    Ops *ops = ops_create(context->device, &limits, options);
    Status status =
        feature_extractor_run(&extractor, ops, context->comm, search->searched.sets[0], &search->bank, error);
    if (status == STATUS_OK) {
        share_pictures(search);
        if (comm_rank(context->comm) == 0) status = extract_queries(search, &extractor, ops, error);
        status = comm_agree(context->comm, status, error);
    }
    ops_destroy(ops);
    return status;
}

static Status open_sets(Search *search, const EvalModel *model, Error *error)
{
    const Options *options = search->context->options;
    const char *data = options_get(options, "data"), *queries = options_get(options, "queries");
    int64_t limit = model->config.evaluation.limit;
    search->among_themselves = !queries;
    TRY(open_set(&search->searched, "data", data, limit, error));
    return open_set(&search->asked, queries ? "queries" : "data", queries ? queries : data,
                    queries ? 0 : limit, error);
}

/* Collective over COMM. */
static Status on_model(Search *search, Error *error)
{
    const JobContext *context = search->context;
    CheckpointRole role;
    EvalModel model;
    TRY(eval_model_role(&role, options_get(context->options, "which"), error));
    Status status = eval_model_load(&model, options_get(context->options, "model"), role, context->options,
                                    context->comm, context->log, error);
    if (status == STATUS_OK) status = comm_agree(context->comm, open_sets(search, &model, error), error);
    OpsOptions options;
    if (status == STATUS_OK)
        status = comm_agree(context->comm,
                            ops_options_from(&options, &model.config, context->device,
                                             job_threads(context, &model.config), error),
                            error);
    if (status == STATUS_OK) {
        eval_model_place(&model, context->device);
        status = extract(search, &model, &options, error);
    }
    if (status == STATUS_OK) {
        OpsLimits limits = knn_limits(search->bank.d);
        Ops *ops = ops_create(context->device, &limits, &options);
        status = search_and_draw(search, ops, error);
        ops_destroy(ops);
    }
    eval_model_fini(&model);
    return status;
}

Status job_visualize_neighbours(JobContext *context, Error *error)
{
    static const char *const sources[] = {"curation", "train-features", "model"};
    VisualizeSheetRequest request;
    const char *given[3];
    int count = 0;
    for (int i = 0; i < 3; i++) {
        given[i] = options_get(context->options, sources[i]);
        count += given[i] != NULL;
    }
    if (count != 1)
        return status_fail(
            error, STATUS_INPUT,
            "visualize neighbours needs --model PATH, --train-features FILE or --curation FILE%s",
            count > 1 ? ", one of them" : "");
    TRY(visualize_sheet_parse(&request, context, "visualize neighbours", error));
    if (given[0]) return job_visualize_sheets_brought(context, &request, given[0], error);
    TRY(job_open_device(context, error));
    Search search = {.context = context, .request = &request};
    Status status = given[1] ? on_features(&search, given[1], error) : on_model(&search, error);
    search_fini(&search);
    return status;
}
