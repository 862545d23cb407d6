/* job_visualize_sheets.c - contact sheets of what a curation found: groups of duplicates, and pictures that a
 * query set brought in.
 *
 * Curation files tell of rows of features files, these of keys, and data sets have the pictures with the
 * keys.
 */
#include "base/memory.h"
#include "curation/curation_file.h"
#include "curation/feature_source.h"
#include "curation/retrieval_file.h"
#include "data/key_search.h"
#include "h5/h5_attribute.h"
#include "job_visualize.h"
#include "report/contact_sheet.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_DEFAULT = 16, COLUMNS_DEFAULT = 9, EDGE_DEFAULT = 96, SIZE_MOST = 1024 };

/* Rows of pictures, each a row of features. */
typedef struct {
    int64_t rows;
    int64_t *starts;   /* [rows + 1] owned */
    int64_t *picture;  /* [starts[rows]] row of the pool or of the queries; owned */
    uint8_t *is_query; /* [starts[rows]] owned */
} Sheet;

/* Where the pictures of some rows are. */
typedef struct {
    char *inputs;   /* features files, one per line; owned */
    DataSet **sets; /* [count] owned */
    int count;
} Album;

static void sheet_init(Sheet *sheet, int64_t rows, int64_t columns)
{
    size_t cells = (size_t)rows * (size_t)columns;
    *sheet = (Sheet){.starts = memory_alloc_array((size_t)rows + 1, sizeof *sheet->starts),
                     .picture = memory_alloc_array(cells, sizeof *sheet->picture),
                     .is_query = memory_alloc(cells)};
}

static void sheet_fini(Sheet *sheet)
{
    memory_free(sheet->starts);
    memory_free(sheet->picture);
    memory_free(sheet->is_query);
}

/* Adds a picture to the row that is being filled; sheet_end_row ends it. */
static void sheet_add(Sheet *sheet, int64_t picture, bool is_query)
{
    int64_t at = sheet->starts[sheet->rows + 1]++;
    sheet->picture[at] = picture;
    sheet->is_query[at] = is_query;
}

static void sheet_begin_row(Sheet *sheet)
{
    sheet->starts[sheet->rows + 1] = sheet->starts[sheet->rows];
}

static int64_t sheet_row_cells(const Sheet *sheet)
{
    return sheet->starts[sheet->rows + 1] - sheet->starts[sheet->rows];
}

/* --- albums --- */

static void album_fini(Album *album)
{
    for (int i = 0; i < album->count; i++)
        data_set_destroy(album->sets[i]);
    memory_free(album->sets);
    memory_free(album->inputs);
    *album = (Album){0};
}

static Status album_open(Album *album, const JobContext *context, const char *option, Error *error)
{
    const char *const *specs;
    int count = options_get_all(context->options, option, &specs);
    album->sets = memory_alloc_array((size_t)count, sizeof *album->sets);
    for (; album->count < count; album->count++)
        TRY(data_set_create(&album->sets[album->count], specs[album->count], error));
    return STATUS_OK;
}

/* keys[n] of rows of the album's features, each in memory of its own, and where the pictures are. */
static Status album_keys(const Album *album, const int64_t *rows, int64_t n, char **keys, Error *error)
{
    int count;
    char *text = memory_strdup(album->inputs);
    const char **paths = retrieval_file_split(text, &count);
    Comm *alone = comm_self_create();
    FeatureSource source;
    Status status = feature_source_open(&source, paths, count, NULL, alone, error);
    if (status == STATUS_OK) status = feature_source_check_upright(&source, true, error);
    for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
        if (rows[i] >= source.pool_rows) {
            status = status_fail(error, STATUS_INPUT, "%s has %lld rows, row %lld is wanted", source.name,
                                 (long long)source.pool_rows, (long long)rows[i]);
            break;
        }
        keys[i] = memory_alloc(source.key_bytes + 1);
        status = feature_source_read_key(&source, rows[i], keys[i], error);
    }
    feature_source_close(&source);
    comm_destroy(alone);
    memory_free(paths);
    memory_free(text);
    return status;
}

static Status album_find(const Album *album, const int64_t *rows, int64_t n, ContactSheetCell *cells,
                         const char *option, Error *error)
{
    char **keys = memory_alloc_array((size_t)n, sizeof *keys);
    DataPlace *places = memory_alloc_array((size_t)n, sizeof *places);
    Status status = album_keys(album, rows, n, keys, error);
    if (status == STATUS_OK)
        status = key_search_run(places, (const char *const *)keys, n, (const DataSet *const *)album->sets,
                                album->count, error);
    for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
        if (places[i].set < 0)
            status = status_fail(error, STATUS_INPUT, "--%s: no picture has the key '%s' of row %lld", option,
                                 keys[i], (long long)rows[i]);
        else
            cells[i] = (ContactSheetCell){album->sets[places[i].set], places[i].index};
    }
    for (int64_t i = 0; i < n; i++)
        memory_free(keys[i]);
    memory_free(places);
    memory_free(keys);
    return status;
}

/* --- drawing --- */

typedef struct {
    const char *curation, *output;
    int64_t count, columns, edge;
} Request;

/* The pictures of one album among those of a sheet. */
static Status find_some(const Sheet *sheet, const Album *album, bool is_query, const char *option,
                        ContactSheetCell *cells, Error *error)
{
    int64_t all = sheet->starts[sheet->rows], n = 0;
    int64_t *rows = memory_alloc_array((size_t)all, sizeof *rows);
    ContactSheetCell *found = memory_alloc_array((size_t)all, sizeof *found);
    for (int64_t i = 0; i < all; i++)
        if (sheet->is_query[i] == is_query) rows[n++] = sheet->picture[i];
    Status status = n > 0 ? album_find(album, rows, n, found, option, error) : STATUS_OK;
    n = 0;
    for (int64_t i = 0; i < all; i++)
        if (sheet->is_query[i] == is_query) cells[i] = found[n++];
    memory_free(found);
    memory_free(rows);
    return status;
}

static Status draw(const JobContext *context, const Request *request, const Sheet *sheet, const Album *pool,
                   const Album *queries, Error *error)
{
    ContactSheetCell *cells = memory_alloc_array((size_t)sheet->starts[sheet->rows], sizeof *cells);
    Picture picture = {0};
    int64_t unreadable;
    Status status = find_some(sheet, pool, false, "data", cells, error);
    if (status == STATUS_OK) status = find_some(sheet, queries, true, "queries", cells, error);
    if (status == STATUS_OK) {
        ContactSheet contact = {.cells = cells,
                                .starts = sheet->starts,
                                .rows = sheet->rows,
                                .columns = request->columns,
                                .edge = request->edge};
        status = contact_sheet_draw(&picture, &contact, &unreadable, error);
    }
    if (status == STATUS_OK) status = picture_write(&picture, request->output, error);
    if (status == STATUS_OK && unreadable > 0)
        log_warning(context->log, "%lld pictures cannot be read and are grey", (long long)unreadable);
    picture_fini(&picture);
    memory_free(cells);
    return status;
}

static Status parse(const JobContext *context, const char *what, Request *request, Error *error)
{
    *request = (Request){.curation = options_get(context->options, "curation"),
                         .output = options_get(context->options, "output")};
    if (!request->curation) return status_fail(error, STATUS_INPUT, "%s needs --curation FILE", what);
    if (!options_get(context->options, "data"))
        return status_fail(error, STATUS_INPUT, "%s needs --data SPEC, the pool's pictures", what);
    TRY(job_visualize_number(context, "count", ROWS_DEFAULT, SIZE_MOST, &request->count, error));
    TRY(job_visualize_number(context, "columns", COLUMNS_DEFAULT, SIZE_MOST, &request->columns, error));
    return job_visualize_number(context, "size", EDGE_DEFAULT, SIZE_MOST, &request->edge, error);
}

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
    Status status = curation_file_read(&input, "/group", H5_TYPE_I64, 0, *n, *label, error);
    if (status == STATUS_OK) status = h5_attribute_read_text(&input.file, "/", "inputs", inputs, error);
    for (int64_t i = 0; i < *n && status == STATUS_OK; i++)
        if ((*label)[i] < -1 || (*label)[i] >= *n)
            status = status_fail(error, STATUS_INPUT, "%s: /group[%lld] is no row", path, (long long)i);
    curation_file_close(&input);
    return status;
}

/* The largest groups, each from its lowest row, which is the one that dedup keeps. */
static Status choose_groups(const JobContext *context, const Request *request, Sheet *sheet, char **inputs,
                            Error *error)
{
    int64_t *label, n = 0;
    Status status = read_groups(request->curation, &label, &n, inputs, error);
    Group *groups = NULL;
    int64_t all = status == STATUS_OK ? list_groups(label, n, &groups) : 0;
    int64_t rows = all < request->count ? all : request->count;
    if (status == STATUS_OK && all == 0)
        status = status_fail(error, STATUS_INPUT, "%s: no group has more than one row", request->curation);
    sheet_init(sheet, rows, request->columns);
    for (; sheet->rows < rows; sheet->rows++) {
        sheet_begin_row(sheet);
        for (int64_t i = groups[sheet->rows].label; i < n && sheet_row_cells(sheet) < request->columns; i++)
            if (label[i] == groups[sheet->rows].label) sheet_add(sheet, i, false);
    }
    if (status == STATUS_OK)
        log_info(context->log, "%lld groups of more than one row, the largest of %lld; %lld are drawn",
                 (long long)all, (long long)groups[0].size, (long long)rows);
    memory_free(groups);
    memory_free(label);
    return status;
}

static Status draw_duplicates(const JobContext *context, const Request *request, Error *error)
{
    Sheet sheet = {0};
    Album pool = {0}, none = {0};
    Status status = choose_groups(context, request, &sheet, &pool.inputs, error);
    if (status == STATUS_OK) status = album_open(&pool, context, "data", error);
    if (status == STATUS_OK) status = draw(context, request, &sheet, &pool, &none, error);
    album_fini(&pool);
    sheet_fini(&sheet);
    return status;
}

Status job_visualize_duplicates(const JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context, "visualize duplicates", &request, error));
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) status = draw_duplicates(context, &request, error);
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
static void fill_row(Sheet *sheet, const RetrievalFile *file, const Brought *brought, int64_t n,
                     int64_t columns)
{
    int64_t query = file->is_cluster ? first_query_of(file, brought->by) : brought->by;
    sheet_begin_row(sheet);
    if (query >= 0) sheet_add(sheet, query, true);
    for (int64_t i = 0; i < n && sheet_row_cells(sheet) < columns; i++)
        sheet_add(sheet, file->row[brought[i].at], false);
    sheet->rows++;
}

/* Queries, or clusters, evenly spread over those that brought in anything. */
static void choose_queries(const Request *request, const RetrievalFile *file, Sheet *sheet)
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
    sheet_init(sheet, rows, request->columns);
    for (int64_t r = 0; r < rows; r++) {
        int64_t which = r * all / rows;
        fill_row(sheet, file, brought + starts[which], starts[which + 1] - starts[which], request->columns);
    }
    memory_free(starts);
    memory_free(brought);
}

static Status draw_neighbours(const JobContext *context, const Request *request, Error *error)
{
    RetrievalFile file;
    Sheet sheet = {0};
    Album pool = {0}, queries = {0};
    Status status = retrieval_file_read(&file, request->curation, error);
    if (status == STATUS_OK && file.n == 0)
        status = status_fail(error, STATUS_INPUT, "%s: nothing was brought in", request->curation);
    if (status == STATUS_OK) {
        choose_queries(request, &file, &sheet);
        pool.inputs = memory_strdup(file.inputs);
        queries.inputs = memory_strdup(file.queries);
        status = album_open(&pool, context, "data", error);
    }
    if (status == STATUS_OK) status = album_open(&queries, context, "queries", error);
    if (status == STATUS_OK) status = draw(context, request, &sheet, &pool, &queries, error);
    album_fini(&pool);
    album_fini(&queries);
    sheet_fini(&sheet);
    retrieval_file_fini(&file);
    return status;
}

Status job_visualize_neighbours(const JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context, "visualize neighbours", &request, error));
    if (!options_get(context->options, "queries"))
        return status_fail(error, STATUS_INPUT, "visualize neighbours needs --queries SPEC");
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) status = draw_neighbours(context, &request, error);
    return comm_agree(context->comm, status, error);
}
