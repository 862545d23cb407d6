/* contact_sheet.h - rows of small pictures side by side: groups of duplicates, queries and what they found.
 *
 * Every cell is a square in which a picture of a data set stands whole, its longer side as long as the
 * cell's. The first picture of a row, which the others belong to, is framed and stands apart. A picture that
 * cannot be read leaves a grey cell.
 */
#ifndef DINOBATCH_REPORT_CONTACT_SHEET_H
#define DINOBATCH_REPORT_CONTACT_SHEET_H

#include "data/data_set.h"
#include "report/picture_overlay.h"

/* The frame of a picture that is not the first of its row. */
typedef enum { CONTACT_SHEET_PLAIN, CONTACT_SHEET_RIGHT, CONTACT_SHEET_WRONG } ContactSheetFrame;

/* A picture of a data set, and what stands below it. */
typedef struct {
    const DataSet *set; /* borrowed */
    int64_t index;
    ContactSheetFrame frame; /* none, green or red */
    const char *title;       /* cut where it is too long; NULL: nothing; borrowed */
    char note[16];           /* in a line of its own */
} ContactSheetCell;

typedef struct {
    const ContactSheetCell *cells; /* [starts[rows]] borrowed */
    const int64_t *starts;         /* [rows + 1] first cell of each row; no row is empty */
    int64_t rows;
    int64_t columns; /* cells of a row that are drawn, its first ones; a narrower sheet if none has as many */
    int64_t edge;    /* of a cell, pixels */
} ContactSheet;

/* Decodes the pictures and draws the sheet; *unreadable counts those that cannot be. Titles and notes go to
 * `overlay`, unless it is NULL: then there is no room for them. The picture is released by picture_fini, also
 * after failure. STATUS_FAILED: the disk. */
Status contact_sheet_draw(Picture *picture, const ContactSheet *sheet, PictureOverlay *overlay,
                          int64_t *unreadable, Error *error);

#endif
