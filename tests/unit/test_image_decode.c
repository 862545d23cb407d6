/* test_image_decode.c - decoding against pictures encoded here, the hostile files of DATA_DIR/bad, and
 * damage. */
#include "base/memory.h"
#include "base/rng.h"
#include "data/image/image_decode.h"
#include "data/image/image_limits.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

/* --- encoding
 * ------------------------------------------------------------------------------------------------ */

typedef struct {
    uint8_t *bytes;
    size_t size, room;
} Bytes;

static void png_append(png_structp png, png_bytep data, size_t count)
{
    Bytes *out = png_get_io_ptr(png);
    if (out->size + count > out->room) {
        out->room = 2 * (out->size + count);
        out->bytes = realloc(out->bytes, out->room);
    }
    memcpy(out->bytes + out->size, data, count);
    out->size += count;
}

static void png_no_flush(png_structp png)
{
    (void)png;
}

typedef struct {
    int color, depth, interlace;
    int64_t row_bytes;
} PngKind;

/* Encodes rows as they are; palette pictures get a palette of (i, 255 - i, 7 i). */
static Bytes encode_png(PngKind kind, int64_t width, int64_t height, const uint8_t *rows)
{
    Bytes out = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    cr_assert(setjmp(png_jmpbuf(png)) == 0);
    png_set_write_fn(png, &out, png_append, png_no_flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, kind.depth, kind.color, kind.interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (kind.color == PNG_COLOR_TYPE_PALETTE) {
        png_color palette[256];
        png_byte alpha[256];
        int entries = 1 << kind.depth;
        for (int i = 0; i < entries; i++) {
            palette[i] = (png_color){(png_byte)i, (png_byte)(255 - i), (png_byte)(7 * i)};
            alpha[i] = (png_byte)(i / 2);
        }
        png_set_PLTE(png, info, palette, entries);
        png_set_tRNS(png, info, alpha, entries, NULL);
    }
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < height; y++)
            png_write_row(png, rows + y * kind.row_bytes);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return out;
}

typedef enum { JPEG_PLAIN, JPEG_PROGRESSIVE, JPEG_MANY_SCANS } JpegKind;

/* A legal progressive script of one scan per coefficient and bit. */
static int many_scans(jpeg_scan_info *scans)
{
    int count = 0;
    scans[count++] = (jpeg_scan_info){.comps_in_scan = 1};
    for (int k = 1; k < 64; k++)
        for (int bit = 2; bit >= 0; bit--)
            scans[count++] = (jpeg_scan_info){
                .comps_in_scan = 1, .Ss = k, .Se = k, .Ah = bit == 2 ? 0 : bit + 1, .Al = bit};
    return count;
}

static Bytes encode_jpeg(JpegKind kind, int channels, J_COLOR_SPACE space, int64_t width, int64_t height,
                         const uint8_t *rows)
{
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr manager;
    jpeg_scan_info scans[256];
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    cinfo.err = jpeg_std_error(&manager);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &bytes, &size);
    cinfo.image_width = (JDIMENSION)width;
    cinfo.image_height = (JDIMENSION)height;
    cinfo.input_components = channels;
    cinfo.in_color_space = space;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, 100, TRUE);
    if (kind == JPEG_PROGRESSIVE) jpeg_simple_progression(&cinfo);
    if (kind == JPEG_MANY_SCANS) {
        cinfo.num_scans = many_scans(scans);
        cinfo.scan_info = scans;
    }
    jpeg_start_compress(&cinfo, TRUE);
    while (cinfo.next_scanline < cinfo.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rows + (int64_t)cinfo.next_scanline * width * channels);
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    return (Bytes){bytes, size, size};
}

/* A smooth picture with a little noise. */
static uint8_t *make_rows(int64_t width, int64_t height, int64_t channels)
{
    uint8_t *rows = malloc((size_t)(width * height * channels));
    Rng rng = rng_at(5, RNG_TEST, 0, (uint64_t)(width * channels));
    for (int64_t i = 0; i < width * height * channels; i++) {
        int64_t pixel = i / channels, c = i % channels;
        rows[i] = (uint8_t)(20 + (pixel % width) * (150 - 40 * c) / width + (pixel / width) * 50 / height +
                            rng_integer(&rng, 0, 5));
    }
    return rows;
}

/* --- PNG
 * ------------------------------------------------------------------------------------------------------- */

static void expect_png(PngKind kind, int64_t width, int64_t height, const uint8_t *rows, const uint8_t *rgb)
{
    Bytes file = encode_png(kind, width, height, rows);
    Image image = {0};
    Error error = {0};
    cr_assert(image_decode(&image, file.bytes, file.size, &error) == STATUS_OK, "%s", error.text);
    cr_assert(image.width == width && image.height == height);
    cr_assert(memcmp(image.rgb, rgb, (size_t)(3 * width * height)) == 0, "color %d depth %d interlace %d",
              kind.color, kind.depth, kind.interlace);
    image_destroy(&image);
    free(file.bytes);
}

Test(image_decode, png_kinds)
{
    enum { W = 37, H = 23, N = W * H };
    uint8_t rgb[3 * N], rows[8 * N];
    for (int interlace = 0; interlace < 2; interlace++) {
        uint8_t *source = make_rows(W, H, 3);
        expect_png((PngKind){PNG_COLOR_TYPE_RGB, 8, interlace, 3 * W}, W, H, source, source);
        for (int i = 0; i < N; i++) { /* alpha is dropped, not composited */
            memcpy(rows + 4 * i, source + 3 * i, 3);
            rows[4 * i + 3] = (uint8_t)(i % 256);
        }
        expect_png((PngKind){PNG_COLOR_TYPE_RGB_ALPHA, 8, interlace, 4 * W}, W, H, rows, source);
        for (int i = 0; i < 3 * N; i++) { /* 16 bits: the high byte */
            rows[2 * i] = source[i];
            rows[2 * i + 1] = (uint8_t)(200 + i % 50);
        }
        expect_png((PngKind){PNG_COLOR_TYPE_RGB, 16, interlace, 6 * W}, W, H, rows, source);
        for (int i = 0; i < N; i++) {
            rows[2 * i] = source[i];
            rows[2 * i + 1] = (uint8_t)i;
            memset(rgb + 3 * i, source[i], 3);
        }
        expect_png((PngKind){PNG_COLOR_TYPE_GRAY_ALPHA, 8, interlace, 2 * W}, W, H, rows, rgb);
        expect_png((PngKind){PNG_COLOR_TYPE_GRAY, 16, interlace, 2 * W}, W, H, rows, rgb);
        expect_png((PngKind){PNG_COLOR_TYPE_GRAY, 8, interlace, W}, W, H, source, rgb);
        for (int i = 0; i < N; i++) {
            rgb[3 * i] = source[i];
            rgb[3 * i + 1] = (uint8_t)(255 - source[i]);
            rgb[3 * i + 2] = (uint8_t)(7 * source[i]);
        }
        expect_png((PngKind){PNG_COLOR_TYPE_PALETTE, 8, interlace, W}, W, H, source, rgb);
        free(source);
    }
}

Test(image_decode, png_few_bits)
{
    enum { W = 37, H = 5 };
    for (int depth = 1; depth <= 4; depth *= 2) {
        uint8_t rows[H * W] = {0}, gray[3 * W * H], colors[3 * W * H];
        int64_t row_bytes = (W * depth + 7) / 8;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                int value = (x * 5 + y * 3) % (1 << depth), i = y * W + x;
                rows[y * row_bytes + x * depth / 8] |= (uint8_t)(value << (8 - depth - x * depth % 8));
                memset(gray + 3 * i, value * (255 / ((1 << depth) - 1)), 3);
                colors[3 * i] = (uint8_t)value;
                colors[3 * i + 1] = (uint8_t)(255 - value);
                colors[3 * i + 2] = (uint8_t)(7 * value);
            }
        expect_png((PngKind){PNG_COLOR_TYPE_GRAY, depth, 0, row_bytes}, W, H, rows, gray);
        expect_png((PngKind){PNG_COLOR_TYPE_PALETTE, depth, 0, row_bytes}, W, H, rows, colors);
    }
}

/* --- JPEG
 * ------------------------------------------------------------------------------------------------------ */

static double mean_difference(const Image *image, const uint8_t *rgb)
{
    int64_t count = image->width * image->height * 3, sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += abs((int)image->rgb[i] - (int)rgb[i]);
    return (double)sum / (double)count;
}

Test(image_decode, jpeg_kinds)
{
    enum { W = 61, H = 43, N = W * H };
    uint8_t *source = make_rows(W, H, 3), *ink = make_rows(W, H, 4);
    uint8_t gray[3 * N], printed[3 * N];
    for (int i = 0; i < N; i++) {
        memset(gray + 3 * i, source[i], 3);
        for (int c = 0; c < 3; c++) /* stored inverted: 255 is no ink */
            printed[3 * i + c] = (uint8_t)((ink[4 * i + c] * ink[4 * i + 3] + 127) / 255);
    }
    Image image = {0};
    for (JpegKind kind = JPEG_PLAIN; kind <= JPEG_PROGRESSIVE; kind++) {
        Bytes files[3] = {encode_jpeg(kind, 3, JCS_RGB, W, H, source),
                          encode_jpeg(kind, 1, JCS_GRAYSCALE, W, H, source),
                          encode_jpeg(kind, 4, JCS_CMYK, W, H, ink)};
        const uint8_t *expected[3] = {source, gray, printed};
        for (int i = 0; i < 3; i++) {
            Error error = {0};
            cr_assert(image_decode(&image, files[i].bytes, files[i].size, &error) == STATUS_OK, "%s",
                      error.text);
            cr_assert(image.width == W && image.height == H);
            double off = mean_difference(&image, expected[i]);
            cr_assert(off < 2.0, "kind %d, picture %d is off by %g", (int)kind, i, off);
            free(files[i].bytes);
        }
    }
    image_destroy(&image);
    free(source);
    free(ink);
}

/* --- parts
 * ---------------------------------------------------------------------------------------------------- */

static ImagePart choose_box(void *context, int64_t width, int64_t height)
{
    const ImagePart *box = context;
    cr_assert(box->left + box->width <= width && box->top + box->height <= height);
    return *box;
}

/* The box of `file` at its scale is decoded to the very pixels that the whole picture at that scale has. */
static void expect_part(const Bytes *file, ImagePart box, const Image *whole)
{
    Image image = {0};
    ImagePart part;
    Error error = {0};
    cr_assert(image_decode_part(&image, &part, choose_box, &box, file->bytes, file->size, &error) ==
                  STATUS_OK,
              "%s", error.text);
    cr_assert(part.eighths == box.eighths && image.width == part.width && image.height == part.height);
    int64_t e = box.eighths, left = box.left * e / 8, top = box.top * e / 8;
    int64_t right = ((box.left + box.width) * e + 7) / 8, bottom = ((box.top + box.height) * e + 7) / 8;
    cr_assert(part.left <= left && part.top <= top && part.left + part.width >= right &&
              part.top + part.height >= bottom);
    for (int64_t y = top; y < bottom; y++)
        cr_assert(memcmp(image.rgb + ((y - part.top) * part.width + left - part.left) * 3,
                         whole->rgb + (y * whole->width + left) * 3, (size_t)(right - left) * 3) == 0,
                  "row %d of %d x %d at %d, %d, scale %d/8", (int)y, (int)box.width, (int)box.height,
                  (int)box.left, (int)box.top, box.eighths);
    image_destroy(&image);
}

Test(image_decode, parts_are_cut_from_the_whole, .timeout = 30)
{
    enum { W = 157, H = 131 };
    Rng rng = rng_at(7, RNG_TEST, 0, 0);
    uint8_t *source = make_rows(W, H, 4);
    for (JpegKind kind = JPEG_PLAIN; kind <= JPEG_PROGRESSIVE; kind++) {
        Bytes files[3] = {encode_jpeg(kind, 3, JCS_RGB, W, H, source),
                          encode_jpeg(kind, 1, JCS_GRAYSCALE, W, H, source),
                          encode_jpeg(kind, 4, JCS_CMYK, W, H, source)};
        for (int i = 0; i < 12; i++) {
            const Bytes *file = &files[i % 3];
            ImagePart box = {.eighths = 8 >> (i / 3), .width = W, .height = H}, part;
            Image whole = {0};
            cr_assert(image_decode_part(&whole, &part, choose_box, &box, file->bytes, file->size, NULL) ==
                      STATUS_OK);
            cr_assert(part.left == 0 && part.top == 0 && whole.width == (W * box.eighths + 7) / 8 &&
                      whole.height == (H * box.eighths + 7) / 8);
            for (int trial = 0; trial < 60; trial++) {
                box.left = rng_integer(&rng, 0, W - 1);
                box.top = rng_integer(&rng, 0, H - 1);
                box.width = rng_integer(&rng, 1, W - box.left);
                box.height = rng_integer(&rng, 1, H - box.top);
                expect_part(file, box, &whole);
            }
            image_destroy(&whole);
        }
        for (int i = 0; i < 3; i++)
            free(files[i].bytes);
    }
    free(source);
}

Test(image_decode, scan_bomb_is_refused)
{
    uint8_t *source = make_rows(64, 64, 1);
    Bytes file = encode_jpeg(JPEG_MANY_SCANS, 1, JCS_GRAYSCALE, 64, 64, source);
    Image image = {0};
    Error error = {0};
    cr_assert(image_decode(&image, file.bytes, file.size, &error) == STATUS_INPUT);
    cr_assert(strstr(error.text, "scans") != NULL, "%s", error.text);
    image_destroy(&image);
    free(file.bytes);
    free(source);
}

/* --- sizes and damage
 * ------------------------------------------------------------------------------------------ */

Test(image_decode, limits)
{
    int64_t plenty = INT64_MAX;
    cr_assert(image_limits_check(1, 1, plenty, NULL) == STATUS_OK);
    cr_assert(image_limits_check(8192, 8192, plenty, NULL) == STATUS_OK);
    cr_assert(image_limits_check(8193, 8192, plenty, NULL) == STATUS_INPUT);
    cr_assert(image_limits_check(0, 5, plenty, NULL) == STATUS_INPUT);
    cr_assert(image_limits_check(65501, 1, plenty, NULL) == STATUS_INPUT);
    cr_assert(image_limits_check(10, 10, 99, NULL) == STATUS_INPUT);
    cr_assert(image_limits_check(10, 10, 100, NULL) == STATUS_OK);
}

/* A header that declares a large picture over a small body takes no memory in proportion. */
Test(image_decode, declared_size_is_not_believed)
{
    uint8_t *source = make_rows(16, 16, 3);
    Bytes file = encode_jpeg(JPEG_PLAIN, 3, JCS_RGB, 16, 16, source);
    size_t at = 0;
    while (!(file.bytes[at] == 0xff && file.bytes[at + 1] == 0xc0))
        at++;
    file.bytes[at + 5] = file.bytes[at + 7] = 0x1f; /* 7952 x 7952: below the limit of pixels */
    Image image = {0};
    Error error = {0};
    int64_t width, height;
    cr_assert(image_decode(&image, file.bytes, file.size, &error) == STATUS_INPUT);
    cr_assert(strstr(error.text, "more than a file of its size can hold") != NULL, "%s", error.text);
    cr_assert(image.capacity == 0);
    cr_assert(image_decode_size(file.bytes, file.size, &width, &height, &error) == STATUS_INPUT);
    image_destroy(&image);
    free(file.bytes);
    free(source);
}

Test(image_decode, size_alone_and_memory_kept)
{
    uint8_t *source = make_rows(50, 40, 3);
    Bytes large = encode_jpeg(JPEG_PLAIN, 3, JCS_RGB, 50, 40, source);
    Bytes small = encode_png((PngKind){PNG_COLOR_TYPE_RGB, 8, 0, 60}, 20, 10, source);
    int64_t width = 0, height = 0;
    cr_assert(image_decode_size(large.bytes, large.size, &width, &height, NULL) == STATUS_OK);
    cr_assert(width == 50 && height == 40);
    cr_assert(image_decode_size(small.bytes, small.size, &width, &height, NULL) == STATUS_OK);
    cr_assert(width == 20 && height == 10);
    Image image = {0};
    cr_assert(image_decode(&image, large.bytes, large.size, NULL) == STATUS_OK);
    int64_t allocations = memory_allocation_count();
    for (int i = 0; i < 3; i++) {
        cr_assert(image_decode(&image, small.bytes, small.size, NULL) == STATUS_OK);
        cr_assert(image.width == 20 && image.height == 10 && memcmp(image.rgb, source, 600) == 0);
        cr_assert(image_decode(&image, large.bytes, large.size, NULL) == STATUS_OK);
    }
    cr_assert(memory_allocation_count() == allocations);
    image_destroy(&image);
    free(large.bytes);
    free(small.bytes);
    free(source);
}

/* The outcome for the upper left pixel at half the size. */
static ImagePart choose_corner(void *context, int64_t width, int64_t height)
{
    (void)context, (void)width, (void)height;
    return (ImagePart){.eighths = 4, .width = 1, .height = 1};
}

static Status decode_corner(const uint8_t *bytes, size_t size)
{
    Image image = {0};
    ImagePart part;
    Status status = image_decode_part(&image, &part, choose_corner, NULL, bytes, size, NULL);
    image_destroy(&image);
    return status;
}

Test(image_decode, truncation_is_an_error)
{
    uint8_t *source = make_rows(40, 30, 3);
    Bytes files[3] = {encode_jpeg(JPEG_PLAIN, 3, JCS_RGB, 40, 30, source),
                      encode_jpeg(JPEG_PROGRESSIVE, 3, JCS_RGB, 40, 30, source),
                      encode_png((PngKind){PNG_COLOR_TYPE_RGB, 8, 1, 120}, 40, 30, source)};
    Image image = {0};
    for (int f = 0; f < 3; f++) {
        for (size_t size = 0; size < files[f].size; size += 1 + size / 64) {
            uint8_t *part = malloc(size + 1); /* its own block, so that a sanitizer sees a read past it */
            memcpy(part, files[f].bytes, size);
            Error error = {0};
            cr_assert(image_decode(&image, part, size, &error) != STATUS_OK, "file %d, %zu bytes", f, size);
            cr_assert(error.text[0] != '\0');
            cr_assert(decode_corner(part, size) != STATUS_OK, "a part of file %d, %zu bytes", f, size);
            free(part);
        }
        free(files[f].bytes);
    }
    image_destroy(&image);
    free(source);
}

Test(image_decode, damage_never_crashes)
{
    uint8_t *source = make_rows(40, 30, 3);
    Bytes files[3] = {encode_jpeg(JPEG_PLAIN, 3, JCS_RGB, 40, 30, source),
                      encode_jpeg(JPEG_PROGRESSIVE, 3, JCS_RGB, 40, 30, source),
                      encode_png((PngKind){PNG_COLOR_TYPE_PALETTE, 8, 1, 40}, 40, 30, source)};
    Rng rng = rng_at(6, RNG_TEST, 0, 0);
    Image image = {0};
    for (int trial = 0; trial < 1500; trial++) {
        const Bytes *file = &files[trial % 3];
        uint8_t *damaged = malloc(file->size);
        memcpy(damaged, file->bytes, file->size);
        int64_t flips = rng_integer(&rng, 1, 8);
        for (int64_t i = 0; i < flips; i++)
            damaged[rng_integer(&rng, 0, (int64_t)file->size - 1)] = (uint8_t)rng_integer(&rng, 0, 255);
        Error error = {0};
        Status status = image_decode(&image, damaged, file->size, &error);
        cr_assert(status == STATUS_OK || (status == STATUS_INPUT && error.text[0] != '\0'));
        status = decode_corner(damaged, file->size);
        cr_assert(status == STATUS_OK || status == STATUS_INPUT);
        free(damaged);
    }
    image_destroy(&image);
    for (int f = 0; f < 3; f++)
        free(files[f].bytes);
    free(source);
}

/* --- the shared hostile files
 * ------------------------------------------------------------------------------------ */

static Bytes read_file(const char *path)
{
    Bytes out = {0};
    FILE *file = fopen(path, "rb");
    cr_assert(file != NULL, "%s", path);
    fseek(file, 0, SEEK_END);
    out.size = (size_t)ftell(file);
    rewind(file);
    out.bytes = malloc(out.size + 1);
    cr_assert(fread(out.bytes, 1, out.size, file) == out.size);
    fclose(file);
    return out;
}

static void expect_means(const Image *image, const char *name, const double mean[3])
{
    double tolerance = strstr(name, "cmyk") ? 4.0 : 2.0;
    for (int c = 0; c < 3; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < image->width * image->height; i++)
            sum += image->rgb[3 * i + c];
        sum /= (double)(image->width * image->height);
        cr_assert(sum >= mean[c] - tolerance && sum <= mean[c] + tolerance, "%s: channel %d is %g, not %g",
                  name, c, sum, mean[c]);
    }
}

/* One line: file,expect,width,height,mean_r,mean_g,mean_b,note */
static void expect_line(const char *folder, char *line)
{
    char *field[8] = {0};
    char *rest = line;
    for (int i = 0; i < 8; i++)
        field[i] = strsep(&rest, ",");
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, field[0]);
    Bytes file = read_file(path);
    Image image = {0};
    Error error = {0};
    Status status = image_decode(&image, file.bytes, file.size, &error);
    cr_assert(status == STATUS_OK || (status == STATUS_INPUT && error.text[0] != '\0'), "%s", field[0]);
    cr_assert(decode_corner(file.bytes, file.size) == status, "%s: a part is judged otherwise", field[0]);
    if (strcmp(field[1], "decode") == 0) cr_assert(status == STATUS_OK, "%s: %s", field[0], error.text);
    if (strcmp(field[1], "reject") == 0) cr_assert(status == STATUS_INPUT, "%s decodes", field[0]);
    if (status == STATUS_OK)
        cr_assert(image.width == strtoll(field[2], NULL, 10) && image.height == strtoll(field[3], NULL, 10),
                  "%s: size", field[0]);
    if (status == STATUS_OK && field[4][0] != '\0')
        expect_means(&image, field[0],
                     (double[3]){strtod(field[4], NULL), strtod(field[5], NULL), strtod(field[6], NULL)});
    image_destroy(&image);
    free(file.bytes);
}

Test(image_decode, hostile_files)
{
    const char *data = getenv("DATA_DIR");
    char folder[512], path[600], line[1024];
    snprintf(folder, sizeof folder, "%s/bad", data && *data ? data : "../shared/data");
    snprintf(path, sizeof path, "%s/expected.csv", folder);
    FILE *csv = fopen(path, "r");
    if (csv == NULL) {
        cr_assert(getenv("CI") == NULL, "%s is missing (DATA_DIR)", path);
        cr_skip_test("%s is missing (DATA_DIR)", path);
    }
    int files = 0;
    while (fgets(line, sizeof line, csv)) {
        if (strncmp(line, "file,", 5) == 0) continue;
        expect_line(folder, line);
        files++;
    }
    fclose(csv);
    cr_assert(files >= 20, "only %d files", files);
}
