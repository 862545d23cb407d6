/* job_curate_score.c - a curation beside what is known of its pool.
 *
 *   dinobatch curate score --truth DIR --features POOL.h5... [--dedup dedup.h5 [--exclude exclude.h5]]
 *                          [--retrieved retrieve_NAME.h5]... [--prefix pool/] --output-dir DIR
 *
 * A row counts as removed for its likeness to an evaluation picture when the representative of its group was:
 * the others of the group share its fate, whichever step took them out.
 */
#include "base/memory.h"
#include "curation/curation_file.h"
#include "curation/curation_scores.h"
#include "curation/retrieval_scores.h"
#include "h5/result_file.h"
#include "job_curate.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

enum { FIGURES_MAX = 512, NAME_BYTES = 96 };

typedef struct {
    char names[FIGURES_MAX][NAME_BYTES];
    Figure figures[FIGURES_MAX];
    int64_t of[FIGURES_MAX]; /* how many it is a share of; 0: not told */
    int count;
} Report;

static void add(Report *report, const char *name, const char *part, double value, int64_t of)
{
    if (report->count == FIGURES_MAX) return;
    char *own = report->names[report->count];
    snprintf(own, NAME_BYTES, "%s%s", name, part);
    report->of[report->count] = of;
    report->figures[report->count++] =
        (Figure){.name = own, .unit = "share", .value = value, .published = NAN, .source = ""};
}

static void add_share(Report *report, const char *name, const char *part, ScoreShare share)
{
    if (share.of > 0) add(report, name, part, curation_scores_share(share), share.of);
}

static void add_levels(Report *report, const char *name, const ScoreShare *levels)
{
    for (int level = 0; level < CURATION_SCORES_LEVELS; level++) {
        char part[16];
        snprintf(part, sizeof part, "_level%d", level);
        add_share(report, name, part, levels[level]);
    }
}

/* --- reading --- */

/* What the steps decided about the pool's n rows. */
typedef struct {
    int64_t n;
    int64_t *group; /* [n] owned */
    uint8_t *keep;  /* [n] of dedup; owned */
    uint8_t *after; /* [n] of exclude; owned; NULL: no such step */
} Decisions;

static Status read_rows(const char *path, uint64_t digest, const char *object, H5Type type, int64_t n,
                        void *out, Error *error)
{
    CurationInput input;
    TRY(curation_file_open(&input, path, object, error));
    Status status = STATUS_OK;
    if (input.n != n || input.digest != digest)
        status = status_fail(error, STATUS_INPUT, "%s: is not about these features", path);
    if (status == STATUS_OK && type == H5_TYPE_I64)
        status = curation_file_read_indices(&input, object, 0, n, -1, n, out, error);
    else if (status == STATUS_OK)
        status = curation_file_read(&input, object, type, 0, n, out, error);
    curation_file_close(&input);
    return status;
}

static Status read_decisions(Decisions *decisions, const FeatureSource *pool, const Options *options,
                             Error *error)
{
    int64_t n = pool->pool_rows;
    const char *dedup = options_get(options, "dedup"), *exclude = options_get(options, "exclude");
    *decisions = (Decisions){.n = n,
                             .group = memory_alloc_array((size_t)n, sizeof(int64_t)),
                             .keep = memory_alloc((size_t)n),
                             .after = exclude ? memory_alloc((size_t)n) : NULL};
    TRY(read_rows(dedup, pool->digest, "/group", H5_TYPE_I64, n, decisions->group, error));
    TRY(read_rows(dedup, pool->digest, "/keep", H5_TYPE_U8, n, decisions->keep, error));
    if (!exclude) return STATUS_OK;
    return read_rows(exclude, pool->digest, "/keep", H5_TYPE_U8, n, decisions->after, error);
}

static void decisions_fini(Decisions *decisions)
{
    memory_free(decisions->group);
    memory_free(decisions->keep);
    memory_free(decisions->after);
}

/* removed[n]: the representative of its group stayed in dedup and went in exclude. A group's number is its
 * smallest row; -1 is that of rows that dedup was not given. */
static void find_removed(const Decisions *decisions, uint8_t *removed)
{
    uint8_t *gone = memory_alloc((size_t)decisions->n);
    for (int64_t i = 0; i < decisions->n; i++)
        if (decisions->keep[i] && !decisions->after[i] && decisions->group[i] >= 0)
            gone[decisions->group[i]] = 1;
    for (int64_t i = 0; i < decisions->n; i++)
        removed[i] = decisions->group[i] >= 0 && gone[decisions->group[i]];
    memory_free(gone);
}

static const char *prefix_of(const Options *options)
{
    const char *prefix = options_get(options, "prefix");
    return prefix ? prefix : "pool/";
}

static Status load_truth(CurationTruth *truth, const FeatureSource *pool, const Options *options,
                         Error *error)
{
    size_t room = pool->key_bytes + 1, n = (size_t)pool->pool_rows;
    char *text = memory_alloc_array(n, room);
    const char **keys = memory_alloc_array(n, sizeof *keys);
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        keys[i] = text + i * room;
        status = feature_source_read_key(pool, (int64_t)i, text + i * room, error);
    }
    if (status == STATUS_OK)
        status = curation_truth_load(truth, options_get(options, "truth"), prefix_of(options), keys,
                                     pool->pool_rows, error);
    memory_free(keys);
    memory_free(text);
    return status;
}

/* --- scores --- */

static void score_groups(Report *report, const CurationTruth *truth, const Decisions *decisions)
{
    GroupScores groups;
    curation_scores_groups(&groups, truth, decisions->group);
    add(report, "group_precision", "", groups.precision, 0);
    add(report, "group_recall", "", groups.recall, 0);
    add(report, "group_f1", "", groups.f1, 0);
    add_levels(report, "linked", groups.linked);
    for (int k = 0; k < groups.kinds; k++)
        add_share(report, "linked_", groups.kind[k].kind, groups.kind[k].linked);
    KeptScores kept;
    curation_scores_kept(&kept, truth, decisions->keep);
    add(report, "redundancy_removed", "", kept.redundancy_removed, 0);
    add(report, "sources_lost", "", kept.sources_lost, truth->sources);
}

static void score_leaks(Report *report, const CurationTruth *truth, const Decisions *decisions)
{
    uint8_t *removed = memory_alloc((size_t)decisions->n);
    LeakScores leaks;
    find_removed(decisions, removed);
    curation_scores_leaks(&leaks, truth, removed);
    add_share(report, "leak_recall", "", leaks.recall);
    add_share(report, "leak_precision", "", leaks.precision);
    add_share(report, "wrongly_removed", "", leaks.wrongly_removed);
    add_levels(report, "leak_recall", leaks.level);
    memory_free(removed);
}

/* Those of retrieve_NAME.h5 are NAME_class_precision@4 and so on. */
static void add_retrieval(Report *report, const RetrievalScores *scores)
{
    char part[64];
    int64_t queries = scores->queries;
    for (int i = 0; i < scores->count; i++) {
        const RetrievalScore *at = &scores->at[i];
        snprintf(part, sizeof part, "_class_precision@%lld", (long long)at->k);
        add(report, scores->name, part, at->class_precision, at->k * queries);
        snprintf(part, sizeof part, "_set_precision@%lld", (long long)at->k);
        add(report, scores->name, part, at->set_precision, at->k * queries);
    }
    add_share(report, scores->name, "_of_set", scores->of_set);
}

static Status score_retrievals(Report *report, const Options *options, Error *error)
{
    const char *const *paths;
    int count = options_get_all(options, "retrieved", &paths);
    Status status = STATUS_OK;
    for (int i = 0; i < count && status == STATUS_OK; i++) {
        RetrievalScores scores;
        status = retrieval_scores_read(&scores, paths[i], options_get(options, "truth"), prefix_of(options),
                                       error);
        if (status == STATUS_OK) add_retrieval(report, &scores);
        retrieval_scores_fini(&scores);
    }
    return status;
}

static void print_report(const JobContext *context, const Report *report)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate score");
    for (int i = 0; i < report->count; i++) {
        const Figure *figure = &report->figures[i];
        cJSON_AddNumberToObject(tree, figure->name, figure->value);
        printf("%-28s %.4f", figure->name, figure->value);
        if (report->of[i] > 0) printf("  of %lld", (long long)report->of[i]);
        printf("\n");
    }
    job_curate_tell(context, tree);
}

/* scores.h5 */
static Status write_report(const CurationRun *run, const Report *report, const FeatureSource *pool,
                           Error *error)
{
    char path[CURATION_RUN_PATH];
    TRY(curation_run_path(run, "scores.h5", path, error));
    Result result = {.job = "curate score",
                     .subject = pool->name,
                     .config = run->config_text,
                     .version = version_number(),
                     .figures = report->figures,
                     .count = report->count};
    return result_file_write(path, &result, error);
}

/* What dedup and exclude did. */
static Status score_decisions(Report *report, const FeatureSource *pool, const Options *options, Error *error)
{
    CurationTruth truth = {0};
    Decisions decisions = {0};
    Status status = read_decisions(&decisions, pool, options, error);
    if (status == STATUS_OK) status = load_truth(&truth, pool, options, error);
    if (status == STATUS_OK) score_groups(report, &truth, &decisions);
    if (status == STATUS_OK && decisions.after) score_leaks(report, &truth, &decisions);
    curation_truth_fini(&truth);
    decisions_fini(&decisions);
    return status;
}

/* Rank 0. */
static Status score(const JobContext *context, const CurationRun *run, const FeatureSource *pool,
                    Error *error)
{
    Report *report = memory_alloc(sizeof *report);
    Status status = STATUS_OK;
    if (options_get(context->options, "dedup"))
        status = score_decisions(report, pool, context->options, error);
    if (status == STATUS_OK) status = score_retrievals(report, context->options, error);
    if (status == STATUS_OK) status = write_report(run, report, pool, error);
    if (status == STATUS_OK) print_report(context, report);
    memory_free(report);
    return status;
}

static Status check_options(const Options *options, Error *error)
{
    bool dedup = options_get(options, "dedup"), retrieved = options_get(options, "retrieved");
    if (!options_get(options, "truth") || !(dedup || retrieved))
        return status_fail(error, STATUS_INPUT,
                           "curate score needs --truth DIR, and --dedup FILE or --retrieved FILE");
    if (options_get(options, "exclude") && !dedup)
        return status_fail(error, STATUS_INPUT, "--exclude FILE needs --dedup FILE: the groups are there");
    return STATUS_OK;
}

Status job_curate_score(const JobContext *context, const CurationRun *run, Error *error)
{
    TRY(check_options(context->options, error));
    FeatureSource pool;
    Status status = job_curate_open(&pool, context, "features", NULL, error);
    if (status == STATUS_OK) {
        if (comm_rank(context->comm) == 0) status = score(context, run, &pool, error);
        status = comm_agree(context->comm, status, error);
    }
    feature_source_close(&pool);
    return status;
}
