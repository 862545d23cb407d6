/* jpeg_decode.c - JPEG to RGB as PIL decodes it: slow integer DCT, fancy upsampling (libjpeg's defaults).
 *
 * Source: libjpeg-turbo's libjpeg.txt; PIL's JpegImagePlugin for what CMYK means. It is strict about missing
 * data (as PIL is) and lenient about other damage inside the scan (as PIL is): that gives artefacts.
 * A part is made by libjpeg-turbo's scaled inverse DCT, jpeg_crop_scanline and jpeg_skip_scanlines; what lies
 * outside costs entropy decoding only.
 */
#include "data/image/jpeg_decode.h"

#include "base/check.h"
#include "data/image/image_limits.h"

#include <setjmp.h>
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>

/* A scan can cost a pass over all blocks and yet take a few bytes; encoders make about ten of them. */
enum { MAX_SCANS = 100 };

/* The densest thing that Huffman coding can do is one bit per 64 pixels of a grey progressive picture, 512
 * pixels a byte; the constant is for headers that describe small pictures. */
enum { PIXELS_PER_BYTE = 1024, PIXELS_FOR_FREE = 1 << 16 };

typedef struct {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr manager;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    Error *error;
} JpegJob;

static JpegJob *job_of(j_common_ptr cinfo)
{
    return cinfo->client_data;
}

static void jpeg_on_error(j_common_ptr cinfo)
{
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    (void)status_fail(job_of(cinfo)->error, STATUS_INPUT, "JPEG: %s", text);
    longjmp(job_of(cinfo)->escape, 1);
}

/* Missing data is an error, other warnings (level -1) and traces are not. */
static void jpeg_on_message(j_common_ptr cinfo, int level)
{
    if (level >= 0) return;
    cinfo->err->num_warnings++;
    int code = cinfo->err->msg_code;
    if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER) jpeg_on_error(cinfo);
}

static void jpeg_on_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void jpeg_on_progress(j_common_ptr cinfo)
{
    if (((j_decompress_ptr)cinfo)->input_scan_number <= MAX_SCANS) return;
    (void)status_fail(job_of(cinfo)->error, STATUS_INPUT, "JPEG: more than %d scans", MAX_SCANS);
    longjmp(job_of(cinfo)->escape, 1);
}

/* Leaves `job` with the header read; its size has been checked. Called under setjmp. */
static Status jpeg_open(JpegJob *job, const uint8_t *bytes, size_t size)
{
    jpeg_mem_src(&job->cinfo, bytes, (unsigned long)size);
    (void)jpeg_read_header(&job->cinfo, TRUE);
    return image_limits_check((int64_t)job->cinfo.image_width, (int64_t)job->cinfo.image_height,
                              PIXELS_FOR_FREE + PIXELS_PER_BYTE * (int64_t)size, job->error);
}

static void jpeg_prepare(JpegJob *job, Error *error)
{
    job->error = error;
    job->cinfo.err = jpeg_std_error(&job->manager);
    job->manager.error_exit = jpeg_on_error;
    job->manager.emit_message = jpeg_on_message;
    job->manager.output_message = jpeg_on_output;
    job->progress.progress_monitor = jpeg_on_progress;
    job->cinfo.client_data = job;
}

/* a * b / 255, rounded as PIL rounds it. */
static unsigned mul_255(unsigned a, unsigned b)
{
    unsigned product = a * b + 128;
    return ((product >> 8) + product) >> 8;
}

/* The four components are stored inverted, as Adobe does; PIL assumes it for every four-component JPEG. */
static void row_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        unsigned black = cmyk[4 * x + 3];
        for (int c = 0; c < 3; c++)
            rgb[3 * x + c] = (uint8_t)(black - mul_255(255u - cmyk[4 * x + c], black));
    }
}

/* Reads the rows of `part`, the first of which is next. */
static void jpeg_read_cmyk(JpegJob *job, const ImagePart *part, uint8_t *rgb)
{
    j_decompress_ptr cinfo = &job->cinfo;
    JSAMPARRAY row = cinfo->mem->alloc_sarray((j_common_ptr)cinfo, JPOOL_IMAGE, 4 * cinfo->output_width, 1);
    while ((int64_t)cinfo->output_scanline < part->top + part->height) {
        int64_t y = (int64_t)cinfo->output_scanline - part->top;
        if (jpeg_read_scanlines(cinfo, row, 1) == 1)
            row_from_cmyk(rgb + y * part->width * 3, row[0], part->width);
    }
}

static void jpeg_read_rgb(JpegJob *job, const ImagePart *part, uint8_t *rgb)
{
    j_decompress_ptr cinfo = &job->cinfo;
    while ((int64_t)cinfo->output_scanline < part->top + part->height) {
        JSAMPROW rows[4];
        JDIMENSION count = 0;
        for (int64_t y = (int64_t)cinfo->output_scanline - part->top; y < part->height && count < 4; y++)
            rows[count++] = rgb + y * part->width * 3;
        (void)jpeg_read_scanlines(cinfo, rows, count);
    }
}

/* What a decode is about. */
typedef struct {
    Image *image;
    ImagePart *part;         /* result */
    ImageChoosePart *choose; /* NULL: everything */
    void *context;
} JpegWanted;

static int64_t at_least(int64_t value, int64_t low)
{
    return value < low ? low : value;
}

static int64_t at_most(int64_t value, int64_t high)
{
    return value > high ? high : value;
}

/* Scales the wanted box, in the picture's pixels, outward, with MARGIN pixels more on each side: there,
 * chroma that is interpolated would miss its neighbours. Called after the scale is set. */
static ImagePart jpeg_scale_box(j_decompress_ptr cinfo, const ImagePart *box)
{
    enum { MARGIN = 2 };
    jpeg_calc_output_dimensions(cinfo);
    int64_t e = box->eighths;
    int64_t left = at_least(box->left * e / 8 - MARGIN, 0), top = at_least(box->top * e / 8 - MARGIN, 0);
    int64_t right = ((box->left + box->width) * e + 7) / 8 + MARGIN;
    int64_t bottom = ((box->top + box->height) * e + 7) / 8 + MARGIN;
    return (ImagePart){.eighths = box->eighths,
                       .left = left,
                       .top = top,
                       .width = at_most(right, (int64_t)cinfo->output_width) - left,
                       .height = at_most(bottom, (int64_t)cinfo->output_height) - top};
}

/* Starts the decompression of what is wanted, up to the first row of it. Called under setjmp. */
static void jpeg_start_part(JpegJob *job, const JpegWanted *wanted)
{
    j_decompress_ptr cinfo = &job->cinfo;
    ImagePart box = {.eighths = 8, .width = cinfo->image_width, .height = cinfo->image_height};
    if (wanted->choose) box = wanted->choose(wanted->context, box.width, box.height);
    cinfo->scale_num = (unsigned)box.eighths;
    cinfo->scale_denom = 8;
    ImagePart part = jpeg_scale_box(cinfo, &box);
    (void)jpeg_start_decompress(cinfo);
    if (part.width < (int64_t)cinfo->output_width) {
        JDIMENSION left = (JDIMENSION)part.left, width = (JDIMENSION)part.width;
        jpeg_crop_scanline(cinfo, &left, &width); /* begins at a block, further to the left */
        part.left = left;
        part.width = width;
    }
    if (part.top > 0) (void)jpeg_skip_scanlines(cinfo, (JDIMENSION)part.top);
    CHECK((int64_t)cinfo->output_scanline == part.top && (int64_t)cinfo->output_width == part.width);
    *wanted->part = part;
}

/* To the end of the file: with one scan nothing of the rest has been read yet, and skipping to the last row
 * would not read it either. */
static void jpeg_finish_part(JpegJob *job)
{
    j_decompress_ptr cinfo = &job->cinfo;
    JDIMENSION left = cinfo->output_height - cinfo->output_scanline;
    if (left > 1) (void)jpeg_skip_scanlines(cinfo, left - 1);
    if (left > 0) {
        JDIMENSION samples = (JDIMENSION)cinfo->output_components * cinfo->output_width;
        JSAMPARRAY row = cinfo->mem->alloc_sarray((j_common_ptr)cinfo, JPOOL_IMAGE, samples, 1);
        (void)jpeg_read_scanlines(cinfo, row, 1);
    }
    (void)jpeg_finish_decompress(cinfo);
}

/* Called under setjmp. */
static Status jpeg_read_picture(JpegJob *job, const JpegWanted *wanted, const uint8_t *bytes, size_t size)
{
    j_decompress_ptr cinfo = &job->cinfo;
    TRY(jpeg_open(job, bytes, size));
    if (cinfo->num_components != 1 && cinfo->num_components != 3 && cinfo->num_components != 4)
        return status_fail(job->error, STATUS_INPUT, "JPEG: %d components", cinfo->num_components);
    cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_RGB;
    cinfo->progress = &job->progress;
    jpeg_start_part(job, wanted);
    image_reserve(wanted->image, wanted->part->width, wanted->part->height);
    if (cinfo->num_components == 4)
        jpeg_read_cmyk(job, wanted->part, wanted->image->rgb);
    else
        jpeg_read_rgb(job, wanted->part, wanted->image->rgb);
    jpeg_finish_part(job);
    return STATUS_OK;
}

Status jpeg_decode(Image *image, ImagePart *part, ImageChoosePart *choose, void *context,
                   const uint8_t *bytes, size_t size, Error *error)
{
    JpegWanted wanted = {.image = image, .part = part, .choose = choose, .context = context};
    JpegJob job = {0};
    jpeg_prepare(&job, error);
    if (setjmp(job.escape) == 0) {
        jpeg_create_decompress(&job.cinfo);
        job.cinfo.client_data = &job;
        Status result = jpeg_read_picture(&job, &wanted, bytes, size);
        jpeg_destroy_decompress(&job.cinfo);
        return result;
    }
    jpeg_destroy_decompress(&job.cinfo);
    return STATUS_INPUT;
}

Status jpeg_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error)
{
    JpegJob job = {0};
    jpeg_prepare(&job, error);
    if (setjmp(job.escape) == 0) {
        jpeg_create_decompress(&job.cinfo);
        job.cinfo.client_data = &job;
        Status result = jpeg_open(&job, bytes, size);
        *width = (int64_t)job.cinfo.image_width;
        *height = (int64_t)job.cinfo.image_height;
        jpeg_destroy_decompress(&job.cinfo);
        return result;
    }
    jpeg_destroy_decompress(&job.cinfo);
    return STATUS_INPUT;
}
