/* eval_retrieval.c - see eval_retrieval.h. */
#include "eval/eval_retrieval.h"

#include "base/clock.h"
#include "base/memory.h"
#include "eval/average_precision.h"
#include "ops/ops_options.h"

#include <math.h>
#include <string.h>

const int64_t EVAL_RETRIEVAL_CUTS[RETRIEVAL_CUTS] = {1, 5, 10};

/* Which grades are positives; the other positives are left out. */
typedef struct {
    const char *name;
    bool easy, hard;
} Setting;

static const Setting BY_CLASSES[] = {{"classes", true, false}};
static const Setting BY_TRUTH[RETRIEVAL_SETTINGS] = {
    {"easy", true, false}, {"medium", true, true}, {"hard", false, true}};

typedef struct {
    const RetrievalSet *database, *queries;
    const RetrievalTruth *truth; /* NULL: labels decide */
    Comm *comm;
    int64_t first; /* query of the block under way */
    /* [RETRIEVAL_QUERY_BLOCK] of the block's queries */
    int64_t labels[RETRIEVAL_QUERY_BLOCK];
    int64_t hashes[RETRIEVAL_QUERY_BLOCK]; /* of their keys */
    EvalRetrievalResult *result;
    int64_t *places; /* of a query's positives; owned */
    int64_t capacity;
} Evaluation;

/* Labels and hashes of the block's queries, which lie on other ranks. */
static void start_block(void *context, int64_t first, int64_t count)
{
    Evaluation *eval = context;
    const RetrievalSet *queries = eval->queries;
    eval->first = first;
    memset(eval->labels, 0, sizeof eval->labels);
    memset(eval->hashes, 0, sizeof eval->hashes);
    for (int64_t i = 0; i < count; i++) {
        int64_t number = first + i;
        int64_t row = (eval->truth ? eval->truth->rows[number] : number) - queries->rows.first;
        if (row < 0 || row >= queries->rows.count) continue;
        eval->labels[i] = queries->labels[row];
        memcpy(&eval->hashes[i], &queries->hashes[row], sizeof *eval->hashes);
    }
    comm_all_reduce(eval->comm, eval->labels, count, DTYPE_I64, COMM_SUM, NULL);
    comm_all_reduce(eval->comm, eval->hashes, count, DTYPE_I64, COMM_SUM, NULL);
}

static void grade(const void *context, int64_t query, int64_t first, int64_t count, uint8_t *grades)
{
    const Evaluation *eval = context;
    const RetrievalSet *database = eval->database;
    int64_t at = query - eval->first;
    if (eval->truth)
        retrieval_truth_grade(eval->truth, query, database->rows.first + first, count, grades);
    else
        for (int64_t j = 0; j < count; j++)
            grades[j] = database->labels[first + j] == eval->labels[at] ? RETRIEVAL_EASY : RETRIEVAL_NEGATIVE;
    if (!eval->result->own_left_out) return;
    /* 64 bits are a key here: of a million pictures, two different ones are alike once in 3e7 data sets */
    uint64_t own;
    memcpy(&own, &eval->hashes[at], sizeof own);
    for (int64_t j = 0; j < count; j++)
        if (database->hashes[first + j] == own) grades[j] = RETRIEVAL_JUNK;
}

static void add_query(Evaluation *eval, const Setting *setting, const RetrievalHit *hits, int64_t count,
                      RetrievalScore *score)
{
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(hits[i].grade == RETRIEVAL_EASY ? setting->easy : setting->hard)) continue;
        eval->places[n] = hits[i].negatives + n;
        n++;
    }
    if (n == 0) return;
    score->queries++;
    score->positives += n;
    score->map +=
        eval->truth ? average_precision_trapezoid(eval->places, n) : average_precision_mean(eval->places, n);
    for (int c = 0; c < RETRIEVAL_CUTS; c++)
        score->precision[c] += average_precision_at(eval->places, n, EVAL_RETRIEVAL_CUTS[c]);
}

static void take(void *context, int64_t query, const RetrievalHit *hits, int64_t count)
{
    Evaluation *eval = context;
    const Setting *settings = eval->truth ? BY_TRUTH : BY_CLASSES;
    (void)query;
    if (count > eval->capacity) {
        memory_free(eval->places);
        eval->places = memory_alloc_array((size_t)count, sizeof *eval->places);
        eval->capacity = count;
    }
    for (int s = 0; s < eval->result->count; s++)
        add_query(eval, &settings[s], hits, count, &eval->result->scores[s]);
}

static Status rank_all(Evaluation *eval, int threads, Error *error)
{
    const RetrievalTruth *truth = eval->truth;
    RetrievalRanks ranks = {.database = &eval->database->rows,
                            .queries = &eval->queries->rows,
                            .query_rows = truth ? truth->rows : NULL,
                            .n = truth ? truth->count : eval->queries->rows.total,
                            .context = eval,
                            .block = start_block,
                            .grade = grade,
                            .take = take};
    eval->result->database = ranks.database->total;
    eval->result->queries = ranks.n;
    OpsLimits limits = retrieval_ranks_limits(ranks.database->d);
    Device *device = device_open_host();
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = threads});
    Status status = retrieval_ranks_run(&ranks, ops, eval->comm, error);
    ops_destroy(ops);
    device_close(device);
    return status;
}

Status eval_retrieval_run(const RetrievalSet *database, const RetrievalSet *queries, RetrievalTruth *truth,
                          bool same_data, int threads, Comm *comm, EvalRetrievalResult *result, Error *error)
{
    double start = clock_seconds();
    if (database->rows.d != queries->rows.d)
        return status_fail(error, STATUS_INPUT, "%s has %lld columns, %s %lld: not of one model",
                           database->name, (long long)database->rows.d, queries->name,
                           (long long)queries->rows.d);
    if (truth)
        TRY(retrieval_truth_resolve(truth, database, queries, comm, error));
    else {
        TRY(retrieval_set_check_labels(database, comm, error));
        TRY(retrieval_set_check_labels(queries, comm, error));
    }
    *result = (EvalRetrievalResult){.count = truth ? RETRIEVAL_SETTINGS : 1, .own_left_out = same_data};
    Evaluation *eval = memory_alloc(sizeof *eval);
    *eval = (Evaluation){
        .database = database, .queries = queries, .truth = truth, .comm = comm, .result = result};
    Status status = rank_all(eval, threads, error);
    for (int s = 0; s < result->count; s++) {
        RetrievalScore *score = &result->scores[s];
        double queries_counted = score->queries > 0 ? (double)score->queries : (double)NAN;
        score->setting = truth ? BY_TRUTH[s].name : BY_CLASSES[s].name;
        score->map /= queries_counted;
        for (int c = 0; c < RETRIEVAL_CUTS; c++)
            score->precision[c] /= queries_counted;
    }
    result->seconds = clock_seconds() - start;
    memory_free(eval->places);
    memory_free(eval);
    return status;
}
