/* contact_sheet.c - see contact_sheet.h. */
#include "report/contact_sheet.h"

#include "base/check.h"
#include "base/memory.h"
#include "report/fitted_image.h"

/* Pixels: between cells, of the frame, behind the first cell, of a line of text and its letters. */
enum { GAP = 10, FRAME = 3, APART = 12, LINE = 15, LETTERS = 12, LETTERS_LEAST = 9, TITLE_ROOM = 256 };

static const uint8_t WHITE[3] = {255, 255, 255}, GREY[3] = {208, 208, 208}, FIRST[3] = {222, 88, 0},
                     RIGHT[3] = {0, 158, 61}, WRONG[3] = {214, 39, 40};

/* Where the drawing of one sheet is. */
typedef struct {
    const ContactSheet *sheet;
    Picture *picture;
    PictureOverlay *overlay;
    FittedImage fitted;
    uint8_t *rgb; /* [edge, edge, 3] owned */
    int letters;  /* size of the text */
    int64_t *unreadable;
} Drawing;

static void draw_frame(const Drawing *drawing, const uint8_t color[3], int64_t left, int64_t top)
{
    int64_t edge = drawing->sheet->edge;
    picture_paste(drawing->picture, left - FRAME, top - FRAME, color, 1, 1, edge + 2 * FRAME);
    picture_paste(drawing->picture, left, top, WHITE, 1, 1, edge);
}

static void draw_text(const Drawing *drawing, const ContactSheetCell *cell, int64_t left, int64_t top)
{
    int64_t edge = drawing->sheet->edge;
    double middle = (double)left + 0.5 * (double)edge, y = (double)(top + edge + FRAME) + 0.6 * LINE;
    if (cell->title) {
        char title[TITLE_ROOM];
        picture_overlay_fit(title, sizeof title, cell->title, edge + GAP, drawing->letters);
        picture_overlay_text(drawing->overlay, middle, y, PICTURE_CENTRE, drawing->letters, "#000000", title);
        y += LINE;
    }
    if (cell->note[0])
        picture_overlay_text(drawing->overlay, middle, y, PICTURE_CENTRE, drawing->letters, "#444444",
                             cell->note);
}

/* The cell whose corner is at (left, top). */
static Status draw_cell(Drawing *drawing, const ContactSheetCell *cell, int64_t left, int64_t top,
                        Error *error)
{
    Error reason = {0};
    Picture *picture = drawing->picture;
    int64_t edge = drawing->sheet->edge;
    if (cell->frame != CONTACT_SHEET_PLAIN)
        draw_frame(drawing, cell->frame == CONTACT_SHEET_RIGHT ? RIGHT : WRONG, left, top);
    if (drawing->overlay) draw_text(drawing, cell, left, top);
    Status status = fitted_image_load(&drawing->fitted, cell->set, cell->index, &reason);
    if (status == STATUS_INPUT) {
        picture_paste(picture, left, top, GREY, 1, 1, edge);
        ++*drawing->unreadable;
        return STATUS_OK;
    }
    if (status != STATUS_OK) return status_fail(error, status, "%s", reason.text);
    const Image *image = &drawing->fitted.image;
    int64_t longer = image->width > image->height ? image->width : image->height;
    int64_t width = image->width * edge / longer, height = image->height * edge / longer;
    width = width > 0 ? width : 1;
    height = height > 0 ? height : 1;
    fitted_image_resize(&drawing->fitted, width, height);
    fitted_image_interleave(drawing->rgb, drawing->fitted.fitted, width, height);
    picture_paste(picture, left + (edge - width) / 2, top + (edge - height) / 2, drawing->rgb, width, height,
                  1);
    return STATUS_OK;
}

/* Lines of text below any cell. */
static int64_t lines_of(const ContactSheet *sheet)
{
    int64_t most = 0;
    for (int64_t i = 0; i < sheet->starts[sheet->rows]; i++) {
        int64_t lines = (sheet->cells[i].title != NULL) + (sheet->cells[i].note[0] != '\0');
        most = lines > most ? lines : most;
    }
    return most;
}

/* One size for all titles. */
static int letters_of(const ContactSheet *sheet)
{
    int letters = LETTERS;
    for (int64_t i = 0; i < sheet->starts[sheet->rows]; i++)
        if (sheet->cells[i].title)
            letters =
                picture_overlay_letters(sheet->cells[i].title, sheet->edge + GAP, LETTERS_LEAST, letters);
    return letters;
}

Status contact_sheet_draw(Picture *picture, const ContactSheet *sheet, PictureOverlay *overlay,
                          int64_t *unreadable, Error *error)
{
    CHECK(sheet->rows > 0 && sheet->columns > 0 && sheet->edge > 0);
    int64_t edge = sheet->edge, columns = 1, pitch = edge + GAP;
    for (int64_t r = 0; r < sheet->rows; r++) {
        int64_t cells = sheet->starts[r + 1] - sheet->starts[r];
        CHECK(cells > 0);
        if (cells > columns) columns = cells < sheet->columns ? cells : sheet->columns;
    }
    int64_t margin = GAP + FRAME, text = overlay ? LINE * lines_of(sheet) : 0;
    int64_t row_height = edge + 2 * FRAME + GAP + text;
    picture_init(picture, 2 * margin + edge + (columns - 1) * pitch + (columns > 1 ? APART : 0),
                 GAP + sheet->rows * row_height);
    *unreadable = 0;
    Drawing drawing = {.sheet = sheet,
                       .picture = picture,
                       .overlay = overlay,
                       .rgb = memory_alloc_array((size_t)edge, (size_t)(3 * edge)),
                       .letters = letters_of(sheet),
                       .unreadable = unreadable};
    Status status = STATUS_OK;
    for (int64_t r = 0; r < sheet->rows && status == STATUS_OK; r++) {
        int64_t top = margin + r * row_height, cells = sheet->starts[r + 1] - sheet->starts[r];
        draw_frame(&drawing, FIRST, margin, top);
        for (int64_t i = 0; i < cells && i < columns && status == STATUS_OK; i++)
            status = draw_cell(&drawing, &sheet->cells[sheet->starts[r] + i],
                               margin + i * pitch + (i > 0 ? APART : 0), top, error);
    }
    fitted_image_fini(&drawing.fitted);
    memory_free(drawing.rgb);
    return status;
}
