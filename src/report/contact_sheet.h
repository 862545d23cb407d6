/* contact_sheet.h - rows of small pictures side by side: groups of duplicates, queries and what they found.
 *
 * Every cell is a square in which a picture of a data set stands whole, its longer side as long as the
 * cell's. The first picture of a row, which the others belong to, is framed and stands apart. A picture that
 * cannot be read leaves a grey cell. It has no captions: which row is what, the caller's log says.
 */
#ifndef DINOBATCH_REPORT_CONTACT_SHEET_H
#define DINOBATCH_REPORT_CONTACT_SHEET_H

#include "data/data_set.h"
#include "report/picture.h"

/* A picture of a data set. */
typedef struct {
    const DataSet *set; /* borrowed */
    int64_t index;
} ContactSheetCell;

typedef struct {
    const ContactSheetCell *cells; /* [starts[rows]] borrowed */
    const int64_t *starts;         /* [rows + 1] first cell of each row; no row is empty */
    int64_t rows;
    int64_t columns; /* cells of a row that are drawn, its first ones; a narrower sheet if none has as many */
    int64_t edge;    /* of a cell, pixels */
} ContactSheet;

/* Decodes the pictures and draws the sheet; *unreadable counts those that cannot be. The picture is released
 * by picture_fini, also after failure. STATUS_FAILED: the disk. */
Status contact_sheet_draw(Picture *picture, const ContactSheet *sheet, int64_t *unreadable, Error *error);

#endif
