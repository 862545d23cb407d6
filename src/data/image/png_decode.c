/* png_decode.c - PNG to RGB as PIL converts it: no gamma, no colour profile, alpha and tRNS dropped.
 *
 * Source: libpng's manual. DEVIATION: a 16-bit grey picture keeps its high byte, like every other 16-bit one;
 * PIL opens it as 32-bit integers and clips all that is above 255 to white.
 */
#include "data/image/png_decode.h"

#include "data/image/image_limits.h"

#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

#include <png.h>

/* Deflate cannot do better than 258 bytes from two bits. */
enum { MAX_INFLATION = 1032 };

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *bytes;
    size_t left;
    Error *error;
} PngJob;

static void png_on_error(png_structp png, png_const_charp message)
{
    PngJob *job = png_get_error_ptr(png);
    (void)status_fail(job->error, STATUS_INPUT, "PNG: %s", message);
    png_longjmp(png, 1);
}

static void png_on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void png_on_read(png_structp png, png_bytep out, size_t count)
{
    PngJob *job = png_get_io_ptr(png);
    if (count > job->left) png_error(png, "file is truncated");
    memcpy(out, job->bytes, count);
    job->bytes += count;
    job->left -= count;
}

/* Text, profiles and metadata may inflate to megabytes and change no pixel. */
static void png_ignore_ancillary(png_structp png)
{
    static const png_byte CHUNKS[] = "iCCP\0tEXt\0zTXt\0iTXt\0eXIf\0sPLT\0hIST";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, CHUNKS, (int)(sizeof CHUNKS / 5));
}

/* Leaves `job` with the chunks before the pixels read; the size has been checked. Called under setjmp. */
static Status png_open(PngJob *job, size_t size)
{
    png_set_user_limits(job->png, IMAGE_LIMITS_MAX_SIDE, IMAGE_LIMITS_MAX_SIDE);
    png_ignore_ancillary(job->png);
    png_set_read_fn(job->png, job, png_on_read);
    png_read_info(job->png, job->info);
    int64_t width = (int64_t)png_get_image_width(job->png, job->info);
    int64_t height = (int64_t)png_get_image_height(job->png, job->info);
    int64_t bits_per_pixel = png_get_channels(job->png, job->info) * png_get_bit_depth(job->png, job->info);
    int64_t most_bits = (int64_t)size * MAX_INFLATION * 8;
    return image_limits_check(width, height, most_bits / bits_per_pixel, job->error);
}

/* Whatever the file holds becomes 8-bit RGB. */
static void png_set_transforms(PngJob *job)
{
    png_structp png = job->png;
    png_byte color = png_get_color_type(png, job->info);
    png_set_strip_16(png);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
    if ((color & PNG_COLOR_MASK_COLOR) == 0) png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
}

/* Called under setjmp. */
static Status png_read_picture(PngJob *job, Image *image, size_t size)
{
    TRY(png_open(job, size));
    png_set_transforms(job);
    int passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    int64_t width = (int64_t)png_get_image_width(job->png, job->info);
    int64_t height = (int64_t)png_get_image_height(job->png, job->info);
    if (png_get_rowbytes(job->png, job->info) != (size_t)width * 3)
        return status_fail(job->error, STATUS_INPUT, "PNG: unknown pixel layout");
    image_reserve(image, width, height);
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < height; y++)
            png_read_row(job->png, image->rgb + y * width * 3, NULL);
    png_read_end(job->png, NULL);
    return STATUS_OK;
}

static Status png_create(PngJob *job)
{
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, png_on_error, png_on_warning);
    if (job->png) job->info = png_create_info_struct(job->png);
    if (job->info) return STATUS_OK;
    png_destroy_read_struct(&job->png, &job->info, NULL);
    return status_fail(job->error, STATUS_FAILED, "PNG: libpng cannot start");
}

/* Samples as they are. Rows are read as bytes into the memory of their 16-bit values, and widened at the end,
 * since an interlaced picture comes in several passes. Called under setjmp. */
static Status png_read_gray(PngJob *job, GrayImage *image, size_t size)
{
    TRY(png_open(job, size));
    png_structp png = job->png;
    png_byte color = png_get_color_type(png, job->info);
    if (color != PNG_COLOR_TYPE_GRAY && color != PNG_COLOR_TYPE_PALETTE)
        return status_fail(job->error, STATUS_INPUT, "PNG: expected one number a pixel, grey or palette");
    bool wide = png_get_bit_depth(png, job->info) == 16;
    png_set_packing(png);
    if (wide) png_set_swap(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, job->info);
    int64_t width = (int64_t)png_get_image_width(png, job->info);
    int64_t height = (int64_t)png_get_image_height(png, job->info);
    if (png_get_rowbytes(png, job->info) != (size_t)width * (wide ? 2 : 1))
        return status_fail(job->error, STATUS_INPUT, "PNG: unknown pixel layout");
    gray_image_reserve(image, width, height);
    image->bits = wide ? 16 : 8;
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < height; y++)
            png_read_row(png, (png_bytep)(image->values + y * width), NULL);
    png_read_end(png, NULL);
    for (int64_t y = 0; y < height && !wide; y++) {
        const uint8_t *narrow = (const uint8_t *)(image->values + y * width);
        for (int64_t x = width - 1; x >= 0; x--)
            image->values[y * width + x] = narrow[x];
    }
    return STATUS_OK;
}

Status png_decode(Image *image, const uint8_t *bytes, size_t size, Error *error)
{
    PngJob job = {.bytes = bytes, .left = size, .error = error};
    TRY(png_create(&job));
    if (setjmp(png_jmpbuf(job.png)) == 0) {
        Status result = png_read_picture(&job, image, size);
        png_destroy_read_struct(&job.png, &job.info, NULL);
        return result;
    }
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return STATUS_INPUT;
}

Status png_decode_gray(GrayImage *image, const uint8_t *bytes, size_t size, Error *error)
{
    if (size < 8 || png_sig_cmp(bytes, 0, 8) != 0) return status_fail(error, STATUS_INPUT, "not a PNG");
    PngJob job = {.bytes = bytes, .left = size, .error = error};
    TRY(png_create(&job));
    if (setjmp(png_jmpbuf(job.png)) == 0) {
        Status result = png_read_gray(&job, image, size);
        png_destroy_read_struct(&job.png, &job.info, NULL);
        return result;
    }
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return STATUS_INPUT;
}

Status png_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error)
{
    PngJob job = {.bytes = bytes, .left = size, .error = error};
    TRY(png_create(&job));
    if (setjmp(png_jmpbuf(job.png)) == 0) {
        Status result = png_open(&job, size);
        *width = (int64_t)png_get_image_width(job.png, job.info);
        *height = (int64_t)png_get_image_height(job.png, job.info);
        png_destroy_read_struct(&job.png, &job.info, NULL);
        return result;
    }
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return STATUS_INPUT;
}
