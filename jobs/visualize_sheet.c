/* visualize_sheet.c - see visualize_sheet.h. */
#include "visualize_sheet.h"

#include "base/memory.h"
#include "curation/feature_source.h"
#include "curation/retrieval_file.h"
#include "data/key_search.h"
#include "report/contact_sheet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS_DEFAULT = 16, COLUMNS_DEFAULT = 9, EDGE_DEFAULT = 96, SIZE_MOST = 1024 };

Status visualize_sheet_parse(VisualizeSheetRequest *request, const JobContext *context, const char *what,
                             Error *error)
{
    *request = (VisualizeSheetRequest){.output = options_get(context->options, "output"),
                                       .captions = !options_get(context->options, "no-captions")};
    if (!options_get(context->options, "data"))
        return status_fail(error, STATUS_INPUT, "%s needs --data SPEC, the pictures that are searched", what);
    TRY(job_visualize_number(context, "count", ROWS_DEFAULT, SIZE_MOST, &request->count, error));
    TRY(job_visualize_number(context, "columns", COLUMNS_DEFAULT, SIZE_MOST, &request->columns, error));
    return job_visualize_number(context, "drawn", EDGE_DEFAULT, SIZE_MOST, &request->edge, error);
}

void visualize_sheet_init(VisualizeSheet *sheet, int64_t rows, int64_t columns)
{
    *sheet = (VisualizeSheet){.columns = columns,
                              .starts = memory_alloc_array((size_t)rows + 1, sizeof *sheet->starts),
                              .entries =
                                  memory_alloc_array((size_t)rows, (size_t)columns * sizeof *sheet->entries)};
}

void visualize_sheet_fini(VisualizeSheet *sheet)
{
    memory_free(sheet->starts);
    memory_free(sheet->entries);
}

void visualize_sheet_begin(VisualizeSheet *sheet)
{
    sheet->starts[sheet->rows + 1] = sheet->starts[sheet->rows];
}

void visualize_sheet_add(VisualizeSheet *sheet, VisualizeSheetEntry entry)
{
    if (!visualize_sheet_is_full(sheet)) sheet->entries[sheet->starts[sheet->rows + 1]++] = entry;
}

bool visualize_sheet_is_full(const VisualizeSheet *sheet)
{
    return sheet->starts[sheet->rows + 1] - sheet->starts[sheet->rows] == sheet->columns;
}

void visualize_sheet_end(VisualizeSheet *sheet)
{
    sheet->rows++;
}

/* --- albums --- */

void visualize_album_fini(VisualizeAlbum *album)
{
    for (int i = 0; i < album->count; i++)
        data_set_destroy(album->sets[i]);
    memory_free(album->sets);
    memory_free(album->inputs);
    *album = (VisualizeAlbum){0};
}

Status visualize_album_open(VisualizeAlbum *album, const JobContext *context, const char *option,
                            char *inputs, Error *error)
{
    const char *const *specs;
    int count = options_get_all(context->options, option, &specs);
    *album = (VisualizeAlbum){
        .option = option, .inputs = inputs, .sets = memory_alloc_array((size_t)count, sizeof *album->sets)};
    for (; album->count < count; album->count++)
        TRY(data_set_create(&album->sets[album->count], specs[album->count], error));
    return STATUS_OK;
}

/* keys[n] of rows of the album's features, each in memory of its own. */
static Status read_keys(const VisualizeAlbum *album, const int64_t *rows, int64_t n, char **keys,
                        Error *error)
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

/* places[n] of the pictures with those numbers. */
static Status find(const VisualizeAlbum *album, const int64_t *rows, int64_t n, DataPlace *places,
                   Error *error)
{
    for (int64_t i = 0; i < n && !album->inputs; i++)
        places[i] = (DataPlace){0, rows[i]};
    if (!album->inputs) return STATUS_OK;
    char **keys = memory_alloc_array((size_t)n, sizeof *keys);
    Status status = read_keys(album, rows, n, keys, error);
    if (status == STATUS_OK)
        status = key_search_run(places, (const char *const *)keys, n, (const DataSet *const *)album->sets,
                                album->count, error);
    for (int64_t i = 0; i < n && status == STATUS_OK; i++)
        if (places[i].set < 0)
            status = status_fail(error, STATUS_INPUT, "--%s: no picture has the key '%s' of row %lld",
                                 album->option, keys[i], (long long)rows[i]);
    for (int64_t i = 0; i < n; i++)
        memory_free(keys[i]);
    memory_free(keys);
    return status;
}

/* --- drawing --- */

/* The cells whose pictures are of one album. */
static Status fill_cells(ContactSheetCell *cells, const VisualizeSheet *sheet, const VisualizeAlbum *album,
                         bool is_query, Error *error)
{
    int64_t all = sheet->starts[sheet->rows], n = 0;
    int64_t *rows = memory_alloc_array((size_t)all, sizeof *rows);
    DataPlace *places = memory_alloc_array((size_t)all, sizeof *places);
    for (int64_t i = 0; i < all; i++)
        if (sheet->entries[i].is_query == is_query) rows[n++] = sheet->entries[i].picture;
    Status status = n > 0 ? find(album, rows, n, places, error) : STATUS_OK;
    n = 0;
    for (int64_t i = 0; i < all && status == STATUS_OK; i++) {
        if (sheet->entries[i].is_query != is_query) continue;
        cells[i].set = album->sets[places[n].set];
        cells[i].index = places[n++].index;
    }
    memory_free(places);
    memory_free(rows);
    return status;
}

static const char *class_of(const ContactSheetCell *cell)
{
    int64_t label = data_set_label(cell->set, cell->index);
    return label < 0 ? NULL : data_set_class_name(cell->set, label);
}

/* Titles, notes and frames of the cells of one row. */
static void describe_row(ContactSheetCell *cells, const VisualizeSheetEntry *entries, int64_t n)
{
    const char *wanted = entries[0].is_query ? class_of(&cells[0]) : NULL;
    for (int64_t i = 0; i < n; i++) {
        ContactSheetCell *cell = &cells[i];
        cell->title = class_of(cell);
        if (i == 0 && entries[i].is_query)
            snprintf(cell->note, sizeof cell->note, "query");
        else if (isfinite(entries[i].similarity))
            snprintf(cell->note, sizeof cell->note, "%.3f", entries[i].similarity);
        if (i > 0 && wanted && cell->title)
            cell->frame = strcmp(wanted, cell->title) == 0 ? CONTACT_SHEET_RIGHT : CONTACT_SHEET_WRONG;
    }
}

static Status draw_cells(const JobContext *context, const VisualizeSheetRequest *request,
                         const VisualizeSheet *sheet, const ContactSheetCell *cells, Error *error)
{
    ContactSheet contact = {.cells = cells,
                            .starts = sheet->starts,
                            .rows = sheet->rows,
                            .columns = request->columns,
                            .edge = request->edge};
    Picture picture = {0};
    int64_t unreadable;
    PictureOverlay overlay;
    picture_overlay_init(&overlay);
    Error failure = {0};
    Status status =
        contact_sheet_draw(&picture, &contact, request->captions ? &overlay : NULL, &unreadable, error);
    Status drawn = picture_overlay_finish(&overlay, &picture, request->output, &failure);
    if (status == STATUS_OK && drawn != STATUS_OK) status = status_fail(error, drawn, "%s", failure.text);
    if (status == STATUS_OK) status = picture_write(&picture, request->output, error);
    if (status == STATUS_OK && unreadable > 0)
        log_warning(context->log, "%lld pictures cannot be read and are grey", (long long)unreadable);
    picture_fini(&picture);
    return status;
}

Status visualize_sheet_draw(const JobContext *context, const VisualizeSheetRequest *request,
                            const VisualizeSheet *sheet, const VisualizeAlbum *searched,
                            const VisualizeAlbum *queries, Error *error)
{
    ContactSheetCell *cells = memory_alloc_array((size_t)sheet->starts[sheet->rows], sizeof *cells);
    Status status = fill_cells(cells, sheet, searched, false, error);
    if (status == STATUS_OK) status = fill_cells(cells, sheet, queries, true, error);
    for (int64_t r = 0; r < sheet->rows && status == STATUS_OK && request->captions; r++)
        describe_row(cells + sheet->starts[r], sheet->entries + sheet->starts[r],
                     sheet->starts[r + 1] - sheet->starts[r]);
    if (status == STATUS_OK) status = draw_cells(context, request, sheet, cells, error);
    memory_free(cells);
    return status;
}
