/* image_resize.c - weights, the plain C passes, and which form runs. */
#include "data/image/image_resize.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/image/image_planes.h"
#include "data/image/image_resize_pass.h"

#include <math.h>
#include <string.h>

void *image_resize_room(void *block, size_t *have, size_t bytes)
{
    if (bytes <= *have) return block;
    memory_free(block);
    *have = bytes + bytes / 4;
    return memory_alloc(*have);
}

/* Keys' cubic convolution with a = -0.5; written in PIL's order of operations, since the weights are rounded.
 */
static inline double bicubic(double x)
{
    double a = -0.5;
    x = fabs(x);
    double inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    double outer = (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return x < 1.0 ? inner : x < 2.0 ? outer : 0.0;
}

/* The straight line from 1 to 0. */
static inline double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Pixels to either side that a filter sees where nothing shrinks. */
static double reach(ImageResizeFilter filter)
{
    return filter == IMAGE_RESIZE_BICUBIC ? 2.0 : 1.0;
}

/* One direction of the source: `span` of its `length` pixels from `inset` on are resized. */
typedef struct {
    int64_t length;
    double inset, span;
    ImageResizeFilter filter;
} AxisSource;

/* Weights of one output at full precision in axis->exact; returns how many, from source position *start on.
 */
static int64_t axis_weigh(ImageResizeAxis *axis, const AxisSource *source, double scale, int64_t output,
                          int64_t *start)
{
    double filter_scale = fmax(scale, 1.0);
    double support = reach(source->filter) * filter_scale;
    double inverse = 1.0 / filter_scale;
    double center = source->inset + ((double)output + 0.5) * scale;
    int64_t low = (int64_t)(center - support + 0.5);
    int64_t high = (int64_t)(center + support + 0.5);
    if (low < 0) low = 0;
    if (high > source->length) high = source->length;
    double sum = 0.0;
    int64_t count = high - low;
    for (int64_t i = 0; i < count; i++) {
        double at = ((double)(i + low) - center + 0.5) * inverse;
        axis->exact[i] = source->filter == IMAGE_RESIZE_BICUBIC ? bicubic(at) : bilinear(at);
    }
    for (int64_t i = 0; i < count; i++)
        sum += axis->exact[i];
    if (sum != 0.0)
        for (int64_t i = 0; i < count; i++)
            axis->exact[i] /= sum;
    *start = low;
    return count;
}

/* Rounds the `count` exact weights to fixed point, at `shift` among the output's taps. */
static void axis_round(const ImageResizeAxis *axis, int64_t shift, int64_t count, int32_t *weight)
{
    memset(weight, 0, (size_t)axis->taps * sizeof(int32_t));
    CHECK(shift >= 0 && shift + count <= axis->taps);
    for (int64_t k = 0; k < count; k++) {
        double fixed = axis->exact[k] * (double)(1 << IMAGE_RESIZE_BITS);
        weight[shift + k] = (int32_t)(fixed + (fixed < 0.0 ? -0.5 : 0.5));
    }
}

/* Weights that scale `source` to `target`, for the outputs [begin, begin + outputs), in reverse order when
 * mirrored. */
static void axis_plan(ImageResizeAxis *axis, AxisSource source, int64_t target, int64_t begin,
                      int64_t outputs, bool mirror)
{
    int64_t length = source.length;
    if (source.span == 0.0) {
        source.inset = 0.0;
        source.span = (double)length;
    }
    double scale = source.span / (double)target;
    int64_t taps = (int64_t)ceil(reach(source.filter) * fmax(scale, 1.0)) * 2 + 1;
    if (taps > length) taps = length;
    axis->taps = (taps + 3) / 4 * 4;
    axis->outputs = outputs;
    int64_t lanes = (outputs + IMAGE_RESIZE_LANES - 1) / IMAGE_RESIZE_LANES * IMAGE_RESIZE_LANES;
    axis->start = image_resize_room(axis->start, &axis->start_bytes, (size_t)lanes * sizeof(int32_t));
    axis->weight = image_resize_room(axis->weight, &axis->weight_bytes,
                                     (size_t)(outputs * axis->taps) * sizeof(int32_t));
    axis->exact = image_resize_room(axis->exact, &axis->exact_bytes, (size_t)axis->taps * sizeof(double));
    int64_t first = length, last = 0;
    for (int64_t i = 0; i < outputs; i++) {
        int64_t start;
        int64_t count =
            axis_weigh(axis, &source, scale, mirror ? begin + outputs - 1 - i : begin + i, &start);
        CHECK(count <= axis->taps);
        /* All taps are read: at the far edge they begin early, so that none lies more than 3 behind the end.
         */
        int64_t early =
            start + axis->taps > length ? start - (length > axis->taps ? length - axis->taps : 0) : 0;
        axis_round(axis, early, count, axis->weight + i * axis->taps);
        start -= early;
        int64_t end = start + axis->taps < length ? start + axis->taps : length;
        axis->start[i] = (int32_t)start;
        if (start < first) first = start;
        if (end > last) last = end;
    }
    for (int64_t i = outputs; i < lanes; i++)
        axis->start[i] = axis->start[outputs - 1];
    axis->first = first;
    axis->count = last - first;
}

static inline uint8_t round_to_byte(int32_t sum)
{
    int32_t value = sum >> IMAGE_RESIZE_BITS; /* arithmetic: toward minus infinity */
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

enum { TILE_ROWS = 32 };

/* Up to 32 rows of one plane at once: the tile holds them transposed, [position, 32], so that the inner loop
 * runs over rows, which are all alike, rather than over a handful of taps. */
static void portable_tile(const ImageResizeAxis *axis, const uint8_t *from, int64_t from_stride, int64_t rows,
                          uint8_t *restrict tile, uint8_t *to, int64_t to_stride)
{
    int64_t span = axis->count + 3; /* the last taps may begin 3 before the end */
    for (int64_t i = 0; i < rows; i++)
        for (int64_t x = 0; x < span; x++)
            tile[x * TILE_ROWS + i] = from[i * from_stride + axis->first + x];
    for (int64_t x = 0; x < axis->outputs; x++) {
        const int32_t *weight = axis->weight + x * axis->taps;
        const uint8_t *restrict pixel = tile + (axis->start[x] - axis->first) * TILE_ROWS;
        int32_t sum[TILE_ROWS];
        for (int i = 0; i < TILE_ROWS; i++)
            sum[i] = 1 << (IMAGE_RESIZE_BITS - 1);
        for (int64_t k = 0; k < axis->taps; k++)
            for (int i = 0; i < TILE_ROWS; i++)
                sum[i] += pixel[k * TILE_ROWS + i] * weight[k];
        uint8_t rounded[TILE_ROWS];
        for (int i = 0; i < TILE_ROWS; i++)
            rounded[i] = round_to_byte(sum[i]);
        for (int64_t i = 0; i < rows; i++)
            to[i * to_stride + x] = rounded[i];
    }
}

static void portable_horizontal(const ImageResizeAxis *axis, ImageResizeRows in, ImageResizeOut out,
                                uint8_t *tile)
{
    for (int64_t c = 0; c < 3; c++)
        for (int64_t r = 0; r < in.rows; r += TILE_ROWS)
            portable_tile(axis, in.data + c * in.plane_stride + r * in.row_stride, in.row_stride,
                          in.rows - r < TILE_ROWS ? in.rows - r : TILE_ROWS, tile,
                          out.data + c * out.plane_stride + r * out.row_stride, out.row_stride);
}

/* One output row of one plane; the taps' rows begin at `from`. */
static void portable_vertical_row(const int32_t *weight, int64_t taps, const uint8_t *from, int64_t stride,
                                  int64_t columns, int32_t *restrict sums, uint8_t *restrict to)
{
    for (int64_t x = 0; x < columns; x++)
        sums[x] = 1 << (IMAGE_RESIZE_BITS - 1);
    for (int64_t k = 0; k < taps; k++) {
        if (weight[k] == 0) continue; /* so that rows past the end are never touched */
        const uint8_t *restrict pixel = from + k * stride;
        int32_t w = weight[k];
        for (int64_t x = 0; x < columns; x++)
            sums[x] += pixel[x] * w;
    }
    for (int64_t x = 0; x < columns; x++)
        to[x] = round_to_byte(sums[x]);
}

static void portable_vertical(const ImageResizeAxis *axis, ImageResizeRows in, int64_t columns,
                              ImageResizeOut out, int32_t *sums)
{
    for (int64_t c = 0; c < 3; c++)
        for (int64_t y = 0; y < axis->outputs; y++)
            portable_vertical_row(
                axis->weight + y * axis->taps, axis->taps,
                in.data + c * in.plane_stride + (axis->start[y] - axis->first) * in.row_stride, in.row_stride,
                columns, sums, out.data + c * out.plane_stride + y * out.row_stride);
}

static void check_geometry(const ImageResizeSource *source, const ImageResizeTarget *target)
{
    CHECK(source->top >= 0 && source->height >= 1 && source->top + source->height <= source->picture_height);
    CHECK(source->left >= 0 && source->width >= 1 && source->left + source->width <= source->picture_width);
    CHECK(target->top >= 0 && target->rows >= 1 && target->top + target->rows <= target->height);
    CHECK(target->left >= 0 && target->columns >= 1 && target->left + target->columns <= target->width);
    CHECK(source->inset_left >= 0 && source->inset_left + source->span_width <= (double)source->width);
    CHECK(source->inset_top >= 0 && source->inset_top + source->span_height <= (double)source->height);
}

void image_resize(const ImageResizeSource *source, const ImageResizeTarget *target, uint8_t *out,
                  ImageResizeScratch *scratch)
{
    check_geometry(source, target);
    bool vector = image_resize_vnni_built() && !scratch->portable;
    ImageResizeAxis *across = &scratch->horizontal, *down = &scratch->vertical;
    AxisSource columns = {source->width, source->inset_left, source->span_width, target->filter};
    AxisSource rows = {source->height, source->inset_top, source->span_height, target->filter};
    axis_plan(across, columns, target->width, target->left, target->columns, target->mirror);
    axis_plan(down, rows, target->height, target->top, target->rows, false);

    int64_t stride = (target->columns + 63) / 64 * 64;
    size_t middle_bytes = (size_t)(3 * down->count * stride) + IMAGE_PLANES_PADDING;
    scratch->middle = image_resize_room(scratch->middle, &scratch->middle_bytes, middle_bytes);
    const uint8_t *corner =
        source->planes + (source->top + down->first) * source->picture_width + source->left;
    ImageResizeRows box = {corner, source->picture_width, source->picture_width * source->picture_height,
                           down->count};
    ImageResizeOut middle_out = {scratch->middle, stride, down->count * stride};
    ImageResizeRows middle = {scratch->middle, stride, down->count * stride, down->count};
    ImageResizeOut result = {out, target->columns, target->columns * target->rows};
    if (vector) {
        image_resize_vnni_pack_horizontal(across);
        image_resize_vnni_horizontal(across, box, middle_out);
        image_resize_vnni_pack_vertical(down);
        image_resize_vnni_vertical(down, middle, target->columns, result);
    } else {
        scratch->sums =
            image_resize_room(scratch->sums, &scratch->sums_bytes, (size_t)target->columns * sizeof(int32_t));
        scratch->tile =
            image_resize_room(scratch->tile, &scratch->tile_bytes, (size_t)(across->count + 3) * TILE_ROWS);
        portable_horizontal(across, box, middle_out, scratch->tile);
        portable_vertical(down, middle, target->columns, result, scratch->sums);
    }
}

static void axis_fini(ImageResizeAxis *axis)
{
    memory_free(axis->start);
    memory_free(axis->weight);
    memory_free(axis->packed);
    memory_free(axis->exact);
}

void image_resize_scratch_fini(ImageResizeScratch *scratch)
{
    axis_fini(&scratch->horizontal);
    axis_fini(&scratch->vertical);
    memory_free(scratch->middle);
    memory_free(scratch->sums);
    memory_free(scratch->tile);
    *scratch = (ImageResizeScratch){0};
}
