/* test_contact_sheet.c - rows of small pictures: where they stand, frames, what cannot be read. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "data/image_encode.h"
#include "report/contact_sheet.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { EDGE = 24, MARGIN = 13, PITCH = EDGE + 10, ROW = EDGE + 16 };

/* 0: 20 x 10, red; 1: 6 x 12, green; 2: damaged; 3: 24 x 24, blue. */
static DataSet *write_set(const TempFolder *temp)
{
    const uint8_t colors[][3] = {{200, 0, 0}, {0, 200, 0}, {0, 0, 0}, {0, 0, 200}};
    const int64_t sizes[][2] = {{20, 10}, {6, 12}, {4, 4}, {24, 24}};
    for (int i = 0; i < 4; i++) {
        uint8_t pixels[24 * 24 * 3];
        for (int64_t p = 0; p < sizes[i][0] * sizes[i][1]; p++)
            memcpy(pixels + 3 * p, colors[i], 3);
        DataBuffer bytes = {0};
        char name[16];
        cr_assert_eq(image_encode_png(&bytes, pixels, sizes[i][0], sizes[i][1], 3, NULL), STATUS_OK);
        snprintf(name, sizeof name, "%d.png", i);
        temp_folder_write_bytes(temp, name, bytes.bytes, i == 2 ? bytes.size / 2 : bytes.size);
        data_buffer_destroy(&bytes);
    }
    char spec[160];
    DataSet *set;
    Error error = {0};
    snprintf(spec, sizeof spec, "folder:%s", temp->path);
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    return set;
}

static void expect_color(const Picture *picture, int64_t x, int64_t y, int red, int green, int blue)
{
    const uint8_t *rgb = picture->rgb + (y * picture->width + x) * 3;
    cr_expect(rgb[0] == red && rgb[1] == green && rgb[2] == blue, "%lld, %lld: %d %d %d", (long long)x,
              (long long)y, rgb[0], rgb[1], rgb[2]);
}

Test(contact_sheet, pictures_stand_in_rows)
{
    TempFolder temp = temp_folder_create();
    DataSet *set = write_set(&temp);
    const int64_t index[] = {0, 1, 2, 3, 1, 0, 3, 3};
    ContactSheetCell cells[8] = {0};
    for (int i = 0; i < 8; i++)
        cells[i] = (ContactSheetCell){.set = set, .index = index[i]};
    cells[4].frame = CONTACT_SHEET_RIGHT;
    cells[5].frame = CONTACT_SHEET_WRONG;
    ContactSheet sheet = {
        .cells = cells, .starts = (int64_t[]){0, 3, 8}, .rows = 2, .columns = 3, .edge = EDGE};
    Picture picture;
    Error error = {0};
    int64_t unreadable;
    cr_assert_eq(contact_sheet_draw(&picture, &sheet, NULL, &unreadable, &error), STATUS_OK, "%s",
                 error.text);
    cr_expect_eq(unreadable, 1);
    cr_assert_eq(picture.width, 2 * MARGIN + EDGE + 12 + 2 * PITCH);
    cr_assert_eq(picture.height, 10 + 2 * ROW);
    int64_t second = MARGIN + PITCH + 12, third = second + PITCH;
    expect_color(&picture, MARGIN - 1, MARGIN - 1, 222, 88, 0); /* frames */
    expect_color(&picture, MARGIN + EDGE + 2, MARGIN + ROW + 5, 222, 88, 0);
    expect_color(&picture, MARGIN + EDGE + 3, MARGIN, 255, 255, 255);
    expect_color(&picture, MARGIN, MARGIN + 6, 200, 0, 0); /* 24 x 12, in the middle */
    expect_color(&picture, MARGIN + EDGE - 1, MARGIN + 17, 200, 0, 0);
    expect_color(&picture, MARGIN, MARGIN + 5, 255, 255, 255);
    expect_color(&picture, MARGIN, MARGIN + 18, 255, 255, 255);
    expect_color(&picture, second + 6, MARGIN, 0, 200, 0); /* 12 x 24 */
    expect_color(&picture, second + 5, MARGIN, 255, 255, 255);
    expect_color(&picture, third, MARGIN, 208, 208, 208); /* damaged */
    expect_color(&picture, third + EDGE - 1, MARGIN + EDGE - 1, 208, 208, 208);
    expect_color(&picture, MARGIN, MARGIN + ROW, 0, 0, 200); /* the second row, cut to 3 */
    expect_color(&picture, second + 6, MARGIN + ROW, 0, 200, 0);
    expect_color(&picture, third, MARGIN + ROW + 6, 200, 0, 0);
    expect_color(&picture, second - 3, MARGIN + ROW, 0, 158, 61); /* of the query's class, and of another */
    expect_color(&picture, third + EDGE + 2, MARGIN + ROW - 3, 214, 39, 40);
    expect_color(&picture, second - 3, MARGIN, 255, 255, 255);
    picture_fini(&picture);

    sheet.rows = 1;
    sheet.starts = (int64_t[]){3, 4}; /* one picture: no more than its frame */
    cr_assert_eq(contact_sheet_draw(&picture, &sheet, NULL, &unreadable, &error), STATUS_OK);
    cr_expect(unreadable == 0 && picture.width == 2 * MARGIN + EDGE && picture.height == 10 + ROW);
    expect_color(&picture, MARGIN + EDGE - 1, MARGIN + EDGE - 1, 0, 0, 200);
    picture_fini(&picture);
    data_set_destroy(set);
    temp_folder_destroy(&temp);
}
