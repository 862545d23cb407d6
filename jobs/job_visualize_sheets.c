/* job_visualize_sheets.c - contact sheets of what a curation found: groups of duplicates, and pictures that a
 * query set brought in.
 */
#include "job_visualize_sheets.h"

#include "base/memory.h"
#include "curation/curation_file.h"
#include "curation/retrieval_file.h"
#include "h5/h5_attribute.h"

#include <math.h>
#include <stdlib.h>

/* --- duplicates --- */

typedef struct {
    int64_t label, size;
} Group;

static int larger_first(const void *left, const void *right)
{
    const Group *a = left, *b = right;
    if (a->size != b->size) return a->size > b->size ? -1 : 1;
    return a->label < b->label ? -1 : a->label > b->label;
}

/* The groups of more than one row, the largest first: *groups (owned by the caller); returns how many. */
static int64_t list_groups(const int64_t *label, int64_t n, Group **groups)
{
    int64_t *sizes = memory_alloc_array((size_t)n, sizeof *sizes), count = 0;
    for (int64_t i = 0; i < n; i++)
        if (label[i] >= 0 && ++sizes[label[i]] == 2) count++;
    *groups = memory_alloc_array((size_t)count, sizeof **groups);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++)
        if (sizes[i] > 1) (*groups)[at++] = (Group){i, sizes[i]};
    qsort(*groups, (size_t)count, sizeof **groups, larger_first);
    memory_free(sizes);
    return count;
}

static Status read_groups(const char *path, int64_t **label, int64_t *n, char **inputs, Error *error)
{
    CurationInput input;
    *label = NULL;
    TRY(curation_file_open(&input, path, "/group", error));
    *n = input.n;
    *label = memory_alloc_array((size_t)*n, sizeof **label);
    Status status = curation_file_read_indices(&input, "/group", 0, *n, -1, *n, *label, error);
    if (status == STATUS_OK) status = h5_attribute_read_text(&input.file, "/", "inputs", inputs, error);
    curation_file_close(&input);
    return status;
}

/* The largest groups, each from its lowest row, which is the one that dedup keeps. */
static Status choose_groups(const JobContext *context, const VisualizeSheetRequest *request,
                            const char *curation, VisualizeSheet *sheet, char **inputs, Error *error)
{
    int64_t *label, n = 0;
    Status status = read_groups(curation, &label, &n, inputs, error);
    Group *groups = NULL;
    int64_t all = status == STATUS_OK ? list_groups(label, n, &groups) : 0;
    int64_t rows = all < request->count ? all : request->count;
    if (status == STATUS_OK && all == 0)
        status = status_fail(error, STATUS_INPUT, "%s: no group has more than one row", curation);
    visualize_sheet_init(sheet, rows, request->columns);
    for (int64_t r = 0; r < rows; r++) {
        visualize_sheet_begin(sheet);
        for (int64_t i = groups[r].label; i < n && !visualize_sheet_is_full(sheet); i++)
            if (label[i] == groups[r].label) visualize_sheet_add(sheet, (VisualizeSheetEntry){i, false, NAN});
        visualize_sheet_end(sheet);
    }
    if (status == STATUS_OK)
        log_info(context->log, "%lld groups of more than one row, the largest of %lld; %lld are drawn",
                 (long long)all, (long long)groups[0].size, (long long)rows);
    memory_free(groups);
    memory_free(label);
    return status;
}

static Status draw_duplicates(const JobContext *context, const VisualizeSheetRequest *request,
                              const char *curation, Error *error)
{
    VisualizeSheet sheet = {0};
    VisualizeAlbum pool = {0}, none = {0};
    char *inputs = NULL;
    Status status = choose_groups(context, request, curation, &sheet, &inputs, error);
    if (status == STATUS_OK) status = visualize_album_open(&pool, context, "data", inputs, error);
    if (status == STATUS_OK) status = visualize_sheet_draw(context, request, &sheet, &pool, &none, error);
    if (!pool.inputs) memory_free(inputs);
    visualize_album_fini(&pool);
    visualize_sheet_fini(&sheet);
    return status;
}

Status job_visualize_duplicates(JobContext *context, Error *error)
{
    VisualizeSheetRequest request;
    const char *curation = options_get(context->options, "curation");
    if (!curation) return status_fail(error, STATUS_INPUT, "visualize duplicates needs --curation FILE");
    TRY(visualize_sheet_parse(&request, context, "visualize duplicates", error));
    request.captions = false;
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) status = draw_duplicates(context, &request, curation, error);
    return comm_agree(context->comm, status, error);
}

/* --- neighbours --- */

/* A picture and who brought it in: a query, or the cluster that it lies in. */
typedef struct {
    int64_t by, at; /* place in the file, which is in the order of queries and neighbours */
} Brought;

static int by_bringer(const void *left, const void *right)
{
    const Brought *a = left, *b = right;
    if (a->by != b->by) return a->by < b->by ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static int64_t first_query_of(const RetrievalFile *file, int64_t cluster)
{
    for (int64_t q = 0; q < file->query_rows; q++)
        if (file->query_cluster[q] == cluster) return q;
    return -1;
}

/* A row of pictures that one query, or the queries of one cluster, brought in. */
static void fill_row(VisualizeSheet *sheet, const RetrievalFile *file, const Brought *brought, int64_t n)
{
    int64_t query = file->is_cluster ? first_query_of(file, brought->by) : brought->by;
    visualize_sheet_begin(sheet);
    if (query >= 0) visualize_sheet_add(sheet, (VisualizeSheetEntry){query, true, NAN});
    for (int64_t i = 0; i < n; i++) {
        int64_t at = brought[i].at;
        visualize_sheet_add(sheet, (VisualizeSheetEntry){file->row[at], false, (double)file->similarity[at]});
    }
    visualize_sheet_end(sheet);
}

/* Queries, or clusters, evenly spread over those that brought in anything. */
static void choose_queries(const VisualizeSheetRequest *request, const RetrievalFile *file,
                           VisualizeSheet *sheet)
{
    Brought *brought = memory_alloc_array((size_t)file->n, sizeof *brought);
    int64_t *starts = memory_alloc_array((size_t)file->n + 1, sizeof *starts), all = 0;
    for (int64_t i = 0; i < file->n; i++)
        brought[i] = (Brought){file->is_cluster ? file->cluster[i] : file->query[i], i};
    qsort(brought, (size_t)file->n, sizeof *brought, by_bringer);
    for (int64_t i = 0; i < file->n; i++)
        if (i == 0 || brought[i].by != brought[i - 1].by) starts[all++] = i;
    starts[all] = file->n;
    int64_t rows = all < request->count ? all : request->count;
    visualize_sheet_init(sheet, rows, request->columns);
    for (int64_t r = 0; r < rows; r++) {
        int64_t which = r * all / rows;
        fill_row(sheet, file, brought + starts[which], starts[which + 1] - starts[which]);
    }
    memory_free(starts);
    memory_free(brought);
}

static Status draw_brought(const JobContext *context, const VisualizeSheetRequest *request,
                           const char *curation, Error *error)
{
    RetrievalFile file;
    VisualizeSheet sheet = {0};
    VisualizeAlbum pool = {0}, queries = {0};
    Status status = retrieval_file_read(&file, curation, error);
    if (status == STATUS_OK && file.n == 0)
        status = status_fail(error, STATUS_INPUT, "%s: nothing was brought in", curation);
    if (status == STATUS_OK) {
        choose_queries(request, &file, &sheet);
        status = visualize_album_open(&pool, context, "data", memory_strdup(file.inputs), error);
    }
    if (status == STATUS_OK)
        status = visualize_album_open(&queries, context, "queries", memory_strdup(file.queries), error);
    if (status == STATUS_OK) status = visualize_sheet_draw(context, request, &sheet, &pool, &queries, error);
    visualize_album_fini(&pool);
    visualize_album_fini(&queries);
    visualize_sheet_fini(&sheet);
    retrieval_file_fini(&file);
    return status;
}

Status job_visualize_sheets_brought(const JobContext *context, const VisualizeSheetRequest *request,
                                    const char *curation, Error *error)
{
    if (!options_get(context->options, "queries"))
        return status_fail(error, STATUS_INPUT, "visualize neighbours --curation needs --queries SPEC");
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) status = draw_brought(context, request, curation, error);
    return comm_agree(context->comm, status, error);
}
