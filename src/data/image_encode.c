/* image_encode.c - libpng and libjpeg, writing to a DataBuffer. */
#include "data/image_encode.h"

#include "base/check.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

static void append_png(png_structp png, png_bytep bytes, size_t size)
{
    data_buffer_append(png_get_io_ptr(png), bytes, size);
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

static void refuse_png(png_structp png, png_const_charp message)
{
    status_fail(png_get_error_ptr(png), STATUS_FAILED, "cannot encode a PNG: %s", message);
    png_longjmp(png, 1);
}

static void ignore_png(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

Status image_encode_png(DataBuffer *buffer, const uint8_t *pixels, int64_t width, int64_t height,
                        int channels, Error *error)
{
    CHECK(channels == 1 || channels == 3);
    Error message = {"cannot encode a PNG: out of memory"};
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &message, refuse_png, ignore_png);
    if (png) info = png_create_info_struct(png);
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return status_fail(error, STATUS_FAILED, "%s", message.text);
    }
    data_buffer_resize(buffer, 0);
    png_set_write_fn(png, buffer, append_png, flush_nothing);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8,
                 channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, 3);
    png_write_info(png, info);
    for (int64_t row = 0; row < height; row++)
        png_write_row(png, (png_const_bytep)(pixels + (size_t)(row * width) * (size_t)channels));
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return STATUS_OK;
}

typedef struct {
    struct jpeg_error_mgr base; /* first, so that the library's pointer is ours */
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
} JpegError;

typedef struct {
    struct jpeg_destination_mgr base; /* first, as above */
    DataBuffer *buffer;
    JOCTET chunk[4096];
} JpegTarget;

static void refuse_jpeg(j_common_ptr jpeg)
{
    JpegError *failure = (JpegError *)jpeg->err;
    jpeg->err->format_message(jpeg, failure->message);
    longjmp(failure->back, 1);
}

static void begin_chunk(j_compress_ptr jpeg)
{
    JpegTarget *target = (JpegTarget *)jpeg->dest;
    target->base.next_output_byte = target->chunk;
    target->base.free_in_buffer = sizeof target->chunk;
}

/* The library calls this when the whole chunk is full, whatever free_in_buffer says. */
static boolean append_chunk(j_compress_ptr jpeg)
{
    JpegTarget *target = (JpegTarget *)jpeg->dest;
    data_buffer_append(target->buffer, target->chunk, sizeof target->chunk);
    begin_chunk(jpeg);
    return TRUE;
}

static void append_rest(j_compress_ptr jpeg)
{
    JpegTarget *target = (JpegTarget *)jpeg->dest;
    data_buffer_append(target->buffer, target->chunk, sizeof target->chunk - target->base.free_in_buffer);
}

static void compress(struct jpeg_compress_struct *jpeg, const uint8_t *pixels, int64_t width, int64_t height,
                     int quality)
{
    jpeg->image_width = (JDIMENSION)width;
    jpeg->image_height = (JDIMENSION)height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg_start_compress(jpeg, TRUE);
    for (int64_t row = 0; row < height; row++) {
        JSAMPROW line = (JSAMPROW)(pixels + (size_t)(row * width) * 3);
        jpeg_write_scanlines(jpeg, &line, 1);
    }
    jpeg_finish_compress(jpeg);
}

Status image_encode_jpeg(DataBuffer *buffer, const uint8_t *pixels, int64_t width, int64_t height,
                         int quality, Error *error)
{
    struct jpeg_compress_struct jpeg;
    JpegError failure;
    JpegTarget target = {.base = {.init_destination = begin_chunk,
                                  .empty_output_buffer = append_chunk,
                                  .term_destination = append_rest},
                         .buffer = buffer};
    memset(&jpeg, 0, sizeof jpeg);
    jpeg.err = jpeg_std_error(&failure.base);
    failure.base.error_exit = refuse_jpeg;
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&jpeg);
        return status_fail(error, STATUS_FAILED, "cannot encode a JPEG: %s", failure.message);
    }
    jpeg_create_compress(&jpeg);
    jpeg.dest = &target.base;
    data_buffer_resize(buffer, 0);
    compress(&jpeg, pixels, width, height, quality);
    jpeg_destroy_compress(&jpeg);
    return STATUS_OK;
}
