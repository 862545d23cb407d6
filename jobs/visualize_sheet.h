/* visualize_sheet.h - contact sheets of pictures that files or searches tell of by number.
 *
 * A sheet is rows of numbers, and an album says which pictures they are of: rows of features files, whose
 * keys the pictures of data sets have, or pictures of a data set.
 */
#ifndef DINOBATCH_JOBS_VISUALIZE_SHEET_H
#define DINOBATCH_JOBS_VISUALIZE_SHEET_H

#include "data/data_set.h"
#include "job_visualize.h"

/* What the command line says of any sheet. */
typedef struct {
    const char *output;
    int64_t count, columns, edge;
    bool captions;
} VisualizeSheetRequest;

typedef struct {
    int64_t picture;
    bool is_query;     /* a number of the queries, else of what is searched */
    double similarity; /* to the first of the row; NaN: not known */
} VisualizeSheetEntry;

/* Rows of pictures. */
typedef struct {
    int64_t rows, columns;
    int64_t *starts;              /* [rows + 1] owned */
    VisualizeSheetEntry *entries; /* [starts[rows]] owned */
} VisualizeSheet;

typedef struct {
    const char *option; /* for messages: "data" */
    char *inputs;       /* features files, one per line: numbers are their rows; owned. NULL: numbers are
                           pictures of sets[0] */
    DataSet **sets;     /* [count] owned */
    int count;
} VisualizeAlbum;

/* STATUS_INPUT: --count, --columns or --drawn is no such number, or --data is missing. */
Status visualize_sheet_parse(VisualizeSheetRequest *request, const JobContext *context, const char *what,
                             Error *error);

/* Room for `rows` rows; there are none yet. visualize_sheet_fini is fine on a zeroed struct. */
void visualize_sheet_init(VisualizeSheet *sheet, int64_t rows, int64_t columns);
void visualize_sheet_fini(VisualizeSheet *sheet);

/* Begins a row; adds to it, unless it is full; ends it. */
void visualize_sheet_begin(VisualizeSheet *sheet);
void visualize_sheet_add(VisualizeSheet *sheet, VisualizeSheetEntry entry);
bool visualize_sheet_is_full(const VisualizeSheet *sheet);
void visualize_sheet_end(VisualizeSheet *sheet);

/* Opens the data sets that --OPTION names. `inputs` becomes the album's. visualize_album_fini is fine on a
 * zeroed struct, also after a failure. */
Status visualize_album_open(VisualizeAlbum *album, const JobContext *context, const char *option,
                            char *inputs, Error *error);
void visualize_album_fini(VisualizeAlbum *album);

/* Draws the sheet and writes it. With captions the class stands below each picture whose data set has
 * classes, and the similarity; a green or red frame says whether the class is the query's, by its name. Not
 * collective. */
Status visualize_sheet_draw(const JobContext *context, const VisualizeSheetRequest *request,
                            const VisualizeSheet *sheet, const VisualizeAlbum *searched,
                            const VisualizeAlbum *queries, Error *error);

#endif
