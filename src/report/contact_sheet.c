/* contact_sheet.c - see contact_sheet.h. */
#include "report/contact_sheet.h"

#include "base/check.h"
#include "data/image/image_planes.h"
#include "data/image/image_resize.h"

enum { GAP = 6, FRAME = 3, APART = 12 }; /* pixels: between cells, of the frame, behind the first cell */

static const uint8_t WHITE[3] = {255, 255, 255}, GREY[3] = {208, 208, 208}, FRAME_COLOR[3] = {222, 88, 0};

/* Working memory of one sheet. */
typedef struct {
    DataBuffer encoded, planes;
    Image image;
    ImageResizeScratch resize;
} Scratch;

static void scratch_fini(Scratch *scratch)
{
    data_buffer_destroy(&scratch->encoded);
    data_buffer_destroy(&scratch->planes);
    image_destroy(&scratch->image);
    image_resize_scratch_fini(&scratch->resize);
}

/* scratch->image becomes smaller or larger, its longer side `edge` pixels, the other at least 1. */
static void fit(Scratch *scratch, int64_t edge)
{
    Image *image = &scratch->image;
    int64_t longer = image->width > image->height ? image->width : image->height;
    int64_t width = image->width * edge / longer, height = image->height * edge / longer;
    width = width > 0 ? width : 1;
    height = height > 0 ? height : 1;
    size_t source_bytes = image_planes_bytes(image->width, image->height);
    data_buffer_resize(&scratch->planes, source_bytes + image_planes_bytes(width, height));
    uint8_t *planes = scratch->planes.bytes, *fitted = planes + source_bytes;
    image_planes_split(image->rgb, image->width * image->height, planes);
    ImageResizeSource source = {.planes = planes,
                                .picture_height = image->height,
                                .picture_width = image->width,
                                .height = image->height,
                                .width = image->width};
    ImageResizeTarget target = {.height = height, .width = width, .rows = height, .columns = width};
    image_resize(&source, &target, fitted, &scratch->resize);
    image_reserve(image, width, height);
    for (int64_t i = 0; i < width * height; i++)
        for (int64_t c = 0; c < 3; c++)
            image->rgb[3 * i + c] = fitted[c * width * height + i];
}

/* The cell whose corner is at (left, top). */
static Status draw_cell(Picture *picture, const ContactSheetCell *cell, int64_t left, int64_t top,
                        int64_t edge, Scratch *scratch, int64_t *unreadable, Error *error)
{
    Error reason = {0};
    const Image *image = &scratch->image;
    Status status = data_set_load_image(cell->set, cell->index, &scratch->image, &scratch->encoded, &reason);
    if (status == STATUS_INPUT) {
        picture_paste(picture, left, top, GREY, 1, 1, edge);
        ++*unreadable;
        return STATUS_OK;
    }
    if (status != STATUS_OK) return status_fail(error, status, "%s", reason.text);
    fit(scratch, edge);
    picture_paste(picture, left + (edge - image->width) / 2, top + (edge - image->height) / 2, image->rgb,
                  image->width, image->height, 1);
    return STATUS_OK;
}

Status contact_sheet_draw(Picture *picture, const ContactSheet *sheet, int64_t *unreadable, Error *error)
{
    CHECK(sheet->rows > 0 && sheet->columns > 0 && sheet->edge > 0);
    int64_t edge = sheet->edge, columns = 1, pitch = edge + GAP;
    for (int64_t r = 0; r < sheet->rows; r++) {
        int64_t cells = sheet->starts[r + 1] - sheet->starts[r];
        CHECK(cells > 0);
        if (cells > columns) columns = cells < sheet->columns ? cells : sheet->columns;
    }
    int64_t margin = GAP + FRAME, row_height = edge + 2 * FRAME + GAP;
    picture_init(picture, 2 * margin + edge + (columns - 1) * pitch + (columns > 1 ? APART : 0),
                 GAP + sheet->rows * row_height);
    *unreadable = 0;
    Scratch scratch = {0};
    Status status = STATUS_OK;
    for (int64_t r = 0; r < sheet->rows && status == STATUS_OK; r++) {
        int64_t top = margin + r * row_height;
        picture_paste(picture, GAP, top - FRAME, FRAME_COLOR, 1, 1, edge + 2 * FRAME);
        picture_paste(picture, margin, top, WHITE, 1, 1, edge);
        int64_t cells = sheet->starts[r + 1] - sheet->starts[r];
        for (int64_t i = 0; i < cells && i < columns && status == STATUS_OK; i++)
            status =
                draw_cell(picture, &sheet->cells[sheet->starts[r] + i],
                          margin + i * pitch + (i > 0 ? APART : 0), top, edge, &scratch, unreadable, error);
    }
    scratch_fini(&scratch);
    return status;
}
