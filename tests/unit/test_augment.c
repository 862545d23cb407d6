/* test_augment.c - image operators against plain restatements of PIL's arithmetic, and the drawing of
 * parameters. Fixed results of PIL itself are compared in golden. */
#include "base/memory.h"
#include "data/augment.h"
#include "data/image/image_blur.h"
#include "data/image/image_color.h"
#include "data/image/image_planes.h"
#include "data/image/image_resize.h"
#include "data/pixel_levels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static Image random_image(int64_t width, int64_t height, uint64_t index)
{
    Image image = {0};
    image_reserve(&image, width, height);
    Rng rng = rng_at(1, RNG_TEST, 0, index);
    for (int64_t i = 0; i < 3 * width * height; i++) {
        int64_t smooth = (i / 3 % width) * 255 / width;
        image.rgb[i] = (uint8_t)(rng_u32(&rng) % 4 == 0 ? rng_u32(&rng) % 256 : (uint32_t)smooth);
    }
    return image;
}

/* --- resize
 * ---------------------------------------------------------------------------------------------------- */

static double cubic(double x)
{
    x = fabs(x);
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0.0;
}

static int clip(long value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (int)value;
}

static double straight(double x)
{
    return fmax(1.0 - fabs(x), 0.0);
}

/* One line of n values, `stride` apart, to m. */
static void slow_line(ImageResizeFilter kind, const uint8_t *in, int64_t n, int64_t in_stride, uint8_t *out,
                      int64_t m, int64_t out_stride)
{
    double (*kernel)(double) = kind == IMAGE_RESIZE_BILINEAR ? straight : cubic;
    double scale = (double)n / (double)m, filter = scale < 1.0 ? 1.0 : scale;
    double support = (kind == IMAGE_RESIZE_BILINEAR ? 1.0 : 2.0) * filter;
    double *weights = malloc((size_t)n * sizeof *weights);
    for (int64_t i = 0; i < m; i++) {
        double center = ((double)i + 0.5) * scale, sum = 0.0;
        int64_t low = (int64_t)(center - support + 0.5), high = (int64_t)(center + support + 0.5);
        low = low < 0 ? 0 : low;
        high = high > n ? n : high;
        for (int64_t k = low; k < high; k++)
            sum += weights[k] = kernel(((double)(k - low) + (double)low - center + 0.5) * (1.0 / filter));
        long total = 1 << 21;
        for (int64_t k = low; k < high; k++) {
            double fixed = weights[k] / sum * (1 << 22);
            total += in[k * in_stride] * (long)(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
        }
        out[i * out_stride] = (uint8_t)clip(total >> 22);
    }
    free(weights);
}

/* Crop and resize of an interleaved picture to planes [3, rows, columns], a pass at a time. */
static void slow_resize(ImageResizeFilter kind, const Image *image, const AugmentDraw *crop, int64_t height,
                        int64_t width, uint8_t *planes)
{
    uint8_t *middle = malloc((size_t)(crop->height * width));
    for (int c = 0; c < 3; c++) {
        for (int64_t y = 0; y < crop->height; y++)
            slow_line(kind, image->rgb + ((crop->top + y) * image->width + crop->left) * 3 + c, crop->width,
                      3, middle + y * width, width, 1);
        for (int64_t x = 0; x < width; x++)
            slow_line(kind, middle + x, crop->height, width, planes + c * height * width + x, height, width);
    }
    free(middle);
}

static void mirror(uint8_t *planes, int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t x = 0; x < columns / 2; x++) {
            uint8_t *a = planes + r * columns + x, *b = planes + r * columns + columns - 1 - x, swapped = *a;
            *a = *b;
            *b = swapped;
        }
}

/* Picture, crop and output sizes, with and without vector code. */
static void expect_resize(int64_t width, int64_t height, AugmentDraw crop, int64_t rows, int64_t columns)
{
    Image image = random_image(width, height, (uint64_t)(width + 1000 * rows));
    uint8_t *planes =
        malloc(image_planes_bytes(width, height)); /* no slack: a sanitizer sees what is too far */
    image_planes_split(image.rgb, width * height, planes);
    uint8_t *expected = malloc((size_t)(3 * rows * columns)), *out = malloc((size_t)(3 * rows * columns));
    slow_resize(IMAGE_RESIZE_BICUBIC, &image, &crop, rows, columns, expected);
    if (crop.flip) mirror(expected, 3 * rows, columns);
    for (int portable = 0; portable < 2; portable++) {
        ImageResizeScratch scratch = {.portable = portable};
        ImageResizeSource source = {.planes = planes,
                                    .picture_height = height,
                                    .picture_width = width,
                                    .top = crop.top,
                                    .left = crop.left,
                                    .height = crop.height,
                                    .width = crop.width};
        ImageResizeTarget target = {rows, columns, 0, 0, rows, columns, crop.flip, IMAGE_RESIZE_BICUBIC};
        image_resize(&source, &target, out, &scratch);
        cr_assert(memcmp(out, expected, (size_t)(3 * rows * columns)) == 0,
                  "%lldx%lld crop %lldx%lld to %lldx%lld, portable %d", (long long)width, (long long)height,
                  (long long)crop.width, (long long)crop.height, (long long)columns, (long long)rows,
                  portable);
        image_resize_scratch_fini(&scratch);
    }
    free(planes);
    free(expected);
    free(out);
    image_destroy(&image);
}

Test(augment, resize_of_random_boxes)
{
    Rng rng = rng_at(2, RNG_TEST, 0, 0);
    for (int trial = 0; trial < 60; trial++) {
        int64_t width = rng_integer(&rng, 1, 300), height = rng_integer(&rng, 1, 120);
        AugmentDraw crop = {.flip = trial % 2};
        crop.width = rng_integer(&rng, 1, width);
        crop.height = rng_integer(&rng, 1, height);
        crop.left = rng_integer(&rng, 0, width - crop.width);
        crop.top = rng_integer(&rng, 0, height - crop.height);
        expect_resize(width, height, crop, rng_integer(&rng, 1, 70), rng_integer(&rng, 1, 70));
    }
}

Test(augment, resize_of_extreme_shapes)
{
    expect_resize(1, 1, (AugmentDraw){.height = 1, .width = 1}, 5, 7);
    expect_resize(1, 4000, (AugmentDraw){.height = 4000, .width = 1}, 33, 33);
    expect_resize(4000, 1, (AugmentDraw){.height = 1, .width = 4000, .flip = true}, 33, 33);
    expect_resize(3000, 3, (AugmentDraw){.top = 1, .left = 7, .height = 2, .width = 2990}, 1, 1);
    expect_resize(50, 40, (AugmentDraw){.top = 5, .left = 9, .height = 20, .width = 30}, 20, 30);
    expect_resize(50, 40, (AugmentDraw){.top = 39, .left = 49, .height = 1, .width = 1, .flip = true}, 17,
                  16);
    expect_resize(2000, 4, (AugmentDraw){.height = 4, .width = 2000}, 2, 64);
}

/* Of a picture whose value rises by 2 a pixel to the right, output x shows the place that it stands for. */
Test(augment, a_box_may_begin_between_pixels)
{
    enum { W = 110, H = 20, OUT = 40 };
    Image image = {0};
    image_reserve(&image, W, H);
    for (int64_t i = 0; i < 3 * W * H; i++)
        image.rgb[i] = (uint8_t)(2 * (i / 3 % W));
    uint8_t *planes = malloc(image_planes_bytes(W, H)), out[3 * OUT * OUT];
    image_planes_split(image.rgb, W * H, planes);
    ImageResizeScratch scratch = {0};
    ImageResizeSource source = {.planes = planes,
                                .picture_height = H,
                                .picture_width = W,
                                .left = 5,
                                .height = H,
                                .width = 100,
                                .inset_left = 0.625,
                                .span_height = H,
                                .span_width = 98.75};
    image_resize(&source, &(ImageResizeTarget){OUT, OUT, 0, 0, OUT, OUT, false, IMAGE_RESIZE_BICUBIC}, out,
                 &scratch);
    for (int x = 3; x < OUT - 3; x++) { /* at the box's edge the kernel is cut */
        double place = 5 + 0.625 + (x + 0.5) * 98.75 / OUT - 0.5;
        cr_assert(fabs(out[x] - 2 * place) <= 0.6, "column %d: %d, not %g", x, out[x], 2 * place);
    }
    image_resize_scratch_fini(&scratch);
    free(planes);
    image_destroy(&image);
}

Test(augment, a_window_is_a_part_of_the_whole)
{
    Image image = random_image(90, 70, 3);
    uint8_t *planes = malloc(image_planes_bytes(90, 70));
    image_planes_split(image.rgb, 90 * 70, planes);
    uint8_t *whole = malloc(3 * 64 * 82), *part = malloc(3 * 20 * 33);
    ImageResizeScratch scratch = {0};
    ImageResizeSource source = {
        .planes = planes, .picture_height = 70, .picture_width = 90, .height = 70, .width = 90};
    image_resize(&source, &(ImageResizeTarget){64, 82, 0, 0, 64, 82, false, IMAGE_RESIZE_BICUBIC}, whole,
                 &scratch);
    image_resize(&source, &(ImageResizeTarget){64, 82, 40, 49, 20, 33, false, IMAGE_RESIZE_BICUBIC}, part,
                 &scratch);
    for (int64_t r = 0; r < 3 * 20; r++)
        cr_assert(memcmp(part + r * 33, whole + (r / 20 * 64 + 40 + r % 20) * 82 + 49, 33) == 0);
    image_resize_scratch_fini(&scratch);
    free(planes);
    free(whole);
    free(part);
    image_destroy(&image);
}

/* --- colour
 * ------------------------------------------------------------------------------------------------------ */

static int gray(const int rgb[3])
{
    return (19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16;
}

static int mix(int base, int value, float factor)
{
    float mixed = (float)base + factor * (float)(value - base);
    return mixed <= 0.0f ? 0 : mixed >= 255.0f ? 255 : (int)mixed;
}

/* PIL's two conversions, branch by branch. */
static void slow_hue(int rgb[3], int turn)
{
    int high = rgb[0] > rgb[1] ? rgb[0] : rgb[1], low = rgb[0] < rgb[1] ? rgb[0] : rgb[1];
    high = high > rgb[2] ? high : rgb[2];
    low = low < rgb[2] ? low : rgb[2];
    if (high == low) return;
    float range = (float)(high - low), part[3], hue;
    for (int c = 0; c < 3; c++)
        part[c] = (float)(high - rgb[c]) / range;
    if (rgb[0] == high)
        hue = part[2] - part[1];
    else if (rgb[1] == high)
        hue = (float)(2.0 + (double)part[0] - (double)part[2]);
    else
        hue = (float)(4.0 + (double)part[1] - (double)part[0]);
    hue = (float)fmod((double)hue / 6.0 + 1.0, 1.0);
    int h = ((int)((double)hue * 255.0) + turn) & 255;
    int s = (int)((double)(range / (float)high) * 255.0);
    if (s == 0) {
        rgb[0] = rgb[1] = rgb[2] = high;
        return;
    }
    int sextant = (int)floor(h * 6.0 / 255.0);
    float f = (float)(h * 6.0 / 255.0 - sextant), strength = (float)(s / 255.0);
    int p = (int)round(high * (1.0 - (double)strength));
    int q = (int)round(high * (1.0 - (double)(strength * f)));
    int t = (int)round(high * (1.0 - (double)strength * (1.0 - (double)f)));
    int table[6][3] = {{high, t, p}, {q, high, p}, {p, high, t}, {p, q, high}, {t, p, high}, {high, p, q}};
    memcpy(rgb, table[sextant % 6], sizeof table[0]);
}

typedef enum { BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAYSCALE, SOLARIZE, OPERATORS } Operator;

static void slow_color(Operator which, const uint8_t *in, int64_t pixels, double value, uint8_t *out)
{
    double sum = 0.0;
    for (int64_t i = 0; i < pixels; i++)
        sum += gray((int[3]){in[i], in[pixels + i], in[2 * pixels + i]});
    int mean = (int)(sum / (double)pixels + 0.5);
    for (int64_t i = 0; i < pixels; i++) {
        int rgb[3] = {in[i], in[pixels + i], in[2 * pixels + i]}, level = gray(rgb);
        if (which == HUE) slow_hue(rgb, (int)(value * 255.0) & 255);
        for (int c = 0; c < 3; c++) {
            if (which == BRIGHTNESS) rgb[c] = mix(0, rgb[c], (float)value);
            if (which == CONTRAST) rgb[c] = mix(mean, rgb[c], (float)value);
            if (which == SATURATION) rgb[c] = mix(level, rgb[c], (float)value);
            if (which == GRAYSCALE) rgb[c] = level;
            if (which == SOLARIZE) rgb[c] = rgb[c] < (int)value ? rgb[c] : 255 - rgb[c];
            out[c * pixels + i] = (uint8_t)rgb[c];
        }
    }
}

static void fast_color(Operator which, uint8_t *planes, int64_t pixels, double value)
{
    if (which == BRIGHTNESS) image_color_brightness(planes, pixels, value);
    if (which == CONTRAST) image_color_contrast(planes, pixels, value);
    if (which == SATURATION) image_color_saturation(planes, pixels, value);
    if (which == HUE) image_color_hue(planes, pixels, value);
    if (which == GRAYSCALE) image_color_grayscale(planes, pixels);
    if (which == SOLARIZE) image_color_solarize(planes, pixels, (int)value);
}

Test(augment, color_operators)
{
    Rng rng = rng_at(3, RNG_TEST, 0, 0);
    const int64_t sizes[] = {1, 2, 63, 256, 5000, 40001};
    for (int trial = 0; trial < 72; trial++) {
        int64_t pixels = sizes[trial % 6];
        Operator which = (Operator)(trial / 6 % OPERATORS);
        uint8_t *planes = malloc((size_t)(3 * pixels)), *expected = malloc((size_t)(3 * pixels));
        for (int64_t i = 0; i < 3 * pixels; i++)
            planes[i] = (uint8_t)rng_integer(&rng, 0, 255);
        double value = which == HUE        ? rng_uniform(&rng, -0.5, 0.5)
                       : which == SOLARIZE ? (double)rng_integer(&rng, 0, 255)
                                           : rng_uniform(&rng, 0.0, 2.5);
        slow_color(which, planes, pixels, value, expected);
        fast_color(which, planes, pixels, value);
        cr_assert(memcmp(planes, expected, (size_t)(3 * pixels)) == 0, "operator %d, %lld pixels, value %g",
                  (int)which, (long long)pixels, value);
        free(planes);
        free(expected);
    }
}

/* Every eleventh colour of all 2^24, through a hue shift. */
Test(augment, hue_of_many_colors)
{
    enum { STEP = 11, PIXELS = (1 << 24) / STEP };
    uint8_t *planes = malloc(3 * PIXELS);
    for (int i = 0; i < PIXELS; i++)
        for (int c = 0; c < 3; c++)
            planes[c * PIXELS + i] = (uint8_t)(i * STEP >> (8 * c) & 255);
    image_color_hue(planes, PIXELS, 0.0937);
    int wrong = 0;
    for (int i = 0; i < PIXELS; i++) {
        int rgb[3] = {i * STEP & 255, i * STEP >> 8 & 255, i * STEP >> 16 & 255};
        slow_hue(rgb, 23);
        for (int c = 0; c < 3; c++)
            wrong += rgb[c] != planes[c * PIXELS + i];
    }
    cr_assert(wrong == 0, "%d differ", wrong);
    free(planes);
}

/* --- blur and normalisation
 * --------------------------------------------------------------------------------------- */

static int64_t reflected(int64_t i, int64_t n)
{
    while (n > 1 && (i < 0 || i >= n))
        i = i < 0 ? -i : 2 * (n - 1) - i;
    return n == 1 ? 0 : i;
}

Test(augment, blur_is_a_gaussian)
{
    const int64_t shapes[][2] = {{20, 33}, {1, 1}, {1, 40}, {3, 2}, {9, 9}};
    ImageBlurScratch scratch = {0};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int64_t h = shapes[s][0], w = shapes[s][1];
        uint8_t *planes = malloc((size_t)(3 * h * w)), *before = malloc((size_t)(3 * h * w));
        Rng rng = rng_at(4, RNG_TEST, 0, s);
        for (int64_t i = 0; i < 3 * h * w; i++)
            before[i] = planes[i] = (uint8_t)rng_integer(&rng, 0, 255);
        double sigma = rng_uniform(&rng, 0.1, 2.0), weight[9], sum = 0.0;
        for (int k = 0; k < 9; k++)
            sum += weight[k] = exp(-0.5 * (k - 4) * (k - 4) / (sigma * sigma));
        image_blur(planes, h, w, sigma, &scratch);
        for (int64_t i = 0; i < 3 * h * w; i++) {
            int64_t c = i / (h * w), y = i / w % h, x = i % w;
            double value = 0.0;
            for (int a = 0; a < 9; a++)
                for (int b = 0; b < 9; b++)
                    value += weight[a] * weight[b] / (sum * sum) *
                             before[(c * h + reflected(y + a - 4, h)) * w + reflected(x + b - 4, w)];
            cr_assert(fabs((double)planes[i] - value) < 0.5001, "%d, not %g", planes[i], value);
        }
        free(planes);
        free(before);
    }
    image_blur_scratch_fini(&scratch);
}

Test(augment, normalize_every_level)
{
    float out[3 * 256];
    PixelNorm norm = pixel_levels_imagenet();
    pixel_levels_fill(out, &norm);
    for (int i = 0; i < 3 * 256; i++) {
        float level = (float)(i % 256) / 255.0f;
        cr_assert(out[i] == (level - norm.mean[i / 256]) / norm.std[i / 256]);
    }
}

/* --- drawing
 * -------------------------------------------------------------------------------------------------------- */

Test(augment, draws_lie_inside_the_picture)
{
    const int64_t sizes[][2] = {{500, 375}, {1, 1}, {1, 4000}, {4000, 1}, {32, 32}, {3, 2}, {2000, 30}};
    AugmentParams params = augment_params_default();
    const AugmentView *views[] = {&params.global[0], &params.global[1], &params.local};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        Rng rng = rng_at(5, RNG_TEST, 0, s);
        for (int i = 0; i < 300; i++) {
            AugmentDraw draw = augment_draw(&params, views[i % 3], sizes[s][0], sizes[s][1], &rng);
            cr_assert(draw.width >= 1 && draw.left >= 0 && draw.left + draw.width <= sizes[s][0]);
            cr_assert(draw.height >= 1 && draw.top >= 0 && draw.top + draw.height <= sizes[s][1]);
            int seen = 0;
            for (int k = 0; k < AUGMENT_JITTERS; k++)
                seen |= 1 << draw.jitter_order[k];
            cr_assert(seen == 15, "not a permutation");
        }
    }
}

Test(augment, draws_take_a_fixed_number)
{
    AugmentParams params = augment_params_default();
    for (uint64_t i = 0; i < 50; i++) {
        Rng rng = rng_at(6, RNG_TEST, 0, i), same = rng;
        (void)augment_draw(&params, &params.local, i % 2 ? 500 : 1, 375, &rng);
        for (int k = 0; k < AUGMENT_DRAW_COUNT; k++)
            (void)rng_uniform01(&same);
        cr_assert(rng_u64(&rng) == rng_u64(&same));
    }
}

Test(augment, draws_follow_their_distributions)
{
    enum { DRAWS = 20000 };
    AugmentParams params = augment_params_default();
    double first[AUGMENT_JITTERS] = {0}, factor[AUGMENT_JITTERS] = {0}, area = 0.0, log_ratio = 0.0,
           sigma = 0.0;
    double flip = 0, jitter = 0, grayscale = 0, blur = 0, solarize = 0, top = 0.0;
    Rng rng = rng_at(7, RNG_TEST, 0, 0);
    for (int i = 0; i < DRAWS; i++) {
        AugmentDraw draw = augment_draw(&params, &params.global[1], 800, 800, &rng);
        first[draw.jitter_order[0]]++;
        for (int k = 0; k < AUGMENT_JITTERS; k++)
            factor[k] += draw.factor[k] / DRAWS;
        double share = (double)(draw.width * draw.height) / (800.0 * 800.0);
        cr_assert(share > 0.31 && share <= 1.0);
        cr_assert(draw.factor[0] >= 0.6 && draw.factor[0] <= 1.4 && fabs(draw.factor[3]) <= 0.1);
        area += share / DRAWS;
        log_ratio += log((double)draw.width / (double)draw.height) / DRAWS;
        top += ((double)draw.top + 0.5) / (double)(801 - draw.height) / DRAWS;
        sigma += draw.sigma / DRAWS;
        flip += draw.flip, jitter += draw.jitter, grayscale += draw.grayscale, blur += draw.blur;
        solarize += draw.solarize;
    }
    double spread = 5.0 * sqrt(0.25 / DRAWS); /* five standard deviations at most */
    double rates[5] = {flip, jitter, grayscale, blur, solarize}, expected[5] = {0.5, 0.8, 0.2, 0.9, 0.2};
    for (int i = 0; i < 5; i++)
        cr_assert(fabs(rates[i] / DRAWS - expected[i]) < spread, "rate %d is %g", i, rates[i] / DRAWS);
    for (int i = 0; i < AUGMENT_JITTERS; i++) {
        cr_assert(fabs(first[i] / DRAWS - 0.25) < spread);
        cr_assert(fabs(factor[i] - (i == AUGMENT_HUE ? 0.0 : 1.0)) < spread);
    }
    /* large crops of extreme ratio do not fit and are drawn again, so the mean area is below 0.66 */
    cr_assert(area > 0.58 && area < 0.66, "%g", area);
    cr_assert(fabs(log_ratio) < 0.01 && fabs(top - 0.5) < spread && fabs(sigma - 1.05) < 0.03);
}

Test(augment, crops_that_cannot_fit_are_centred)
{
    AugmentParams params = augment_params_default();
    Rng rng = rng_at(8, RNG_TEST, 0, 0);
    AugmentDraw draw = augment_draw(&params, &params.global[0], 30, 3000, &rng);
    cr_assert(draw.width == 30 && draw.height == 40 && draw.left == 0 && draw.top == 1480);
    draw = augment_draw(&params, &params.global[0], 3000, 30, &rng);
    cr_assert(draw.height == 30 && draw.width == 40 && draw.top == 0 && draw.left == 1480);
}

/* --- the whole
 * ------------------------------------------------------------------------------------------------------ */

static AugmentParams small_params(void)
{
    AugmentParams params = augment_params_default();
    params.global[0].size = params.global[1].size = 32;
    params.local.size = 16;
    params.local_count = 3;
    return params;
}

Test(augment, samples_repeat_and_do_not_depend_on_scratch)
{
    enum { GLOBAL = 3 * 32 * 32, LOCAL = 3 * 16 * 16, ALL = 2 * GLOBAL + 3 * LOCAL };
    AugmentParams params = small_params();
    const int64_t sizes[][2] = {{120, 90}, {1, 1}, {1, 4000}, {4000, 1}, {7, 5}, {33, 32}};
    uint8_t *a = malloc(ALL), *b = malloc(ALL); /* no slack: a sanitizer sees what is too far */
    AugmentScratch *kept = augment_scratch_create();
    for (uint64_t s = 0; s < 6; s++) {
        Image image = random_image(sizes[s][0], sizes[s][1], s);
        Rng rng = rng_at(9, RNG_AUGMENT, 0, s);
        memset(a, 0, ALL);
        memset(b, 255, ALL); /* what is not written differs */
        augment_sample(&params, &image, rng, a, a + 2 * GLOBAL, kept);
        AugmentScratch *fresh = augment_scratch_create();
        augment_sample(&params, &image, rng, b, b + 2 * GLOBAL, fresh);
        cr_assert(memcmp(a, b, ALL) == 0);
        augment_scratch_destroy(fresh);
        image_destroy(&image);
    }
    augment_scratch_destroy(kept);
    free(a);
    free(b);
}

Test(augment, allocates_nothing_once_warm)
{
    AugmentParams params = small_params();
    params.global[0].blur = params.global[1].blur = params.local.blur = 1.0;
    Image image = random_image(200, 150, 1);
    uint8_t *global_crops = malloc(2 * 3 * 32 * 32), *local_crops = malloc(9 * 16 * 16);
    AugmentScratch *scratch = augment_scratch_create();
    for (uint64_t i = 0; i < 40; i++)
        augment_sample(&params, &image, rng_at(10, RNG_AUGMENT, 0, i), global_crops, local_crops, scratch);
    int64_t allocations = memory_allocation_count();
    for (uint64_t i = 0; i < 40; i++)
        augment_sample(&params, &image, rng_at(10, RNG_AUGMENT, 0, i), global_crops, local_crops, scratch);
    cr_assert(memory_allocation_count() == allocations);
    augment_scratch_destroy(scratch);
    image_destroy(&image);
    free(global_crops);
    free(local_crops);
}

/* The evaluation transform is the middle of a whole resize. */
Test(augment, eval_is_the_centre)
{
    const int64_t sizes[][4] = {
        {100, 75, 64, 56}, {75, 100, 64, 56}, {40, 40, 32, 32}, {1, 900, 16, 8}, {300, 7, 20, 1}};
    AugmentScratch *scratch = augment_scratch_create();
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t width = sizes[s][0], height = sizes[s][1], resize = sizes[s][2], crop = sizes[s][3];
        Image image = random_image(width, height, s);
        int64_t w = width <= height ? resize : resize * width / height;
        int64_t h = width <= height ? resize * height / width : resize;
        int64_t top = (int64_t)rint((double)(h - crop) / 2.0), left = (int64_t)rint((double)(w - crop) / 2.0);
        uint8_t *planes = malloc((size_t)(3 * h * w));
        slow_resize(IMAGE_RESIZE_BICUBIC, &image, &(AugmentDraw){.height = height, .width = width}, h, w,
                    planes);
        uint8_t *out = malloc((size_t)(3 * crop * crop));
        augment_eval(&image, resize, crop, out, scratch);
        for (int64_t i = 0; i < 3 * crop * crop; i++) {
            int64_t c = i / (crop * crop), y = i / crop % crop, x = i % crop;
            cr_assert(out[i] == planes[(c * h + top + y) * w + left + x]);
        }
        free(planes);
        free(out);
        image_destroy(&image);
    }
    augment_scratch_destroy(scratch);
}

/* SSCD's transforms: the whole picture, by the bilinear filter. */
Test(augment, a_whole_picture_is_resized_as_pil_does_bilinearly)
{
    const int64_t sizes[][4] = {{100, 75, 64, 48}, {75, 100, 40, 40}, {31, 17, 90, 50},
                                {40, 40, 40, 40},  {1, 300, 16, 20},  {500, 3, 7, 64}};
    AugmentScratch *scratch = augment_scratch_create();
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t width = sizes[s][0], height = sizes[s][1], w = sizes[s][2], h = sizes[s][3];
        Image image = random_image(width, height, s);
        uint8_t *expected = malloc((size_t)(3 * h * w)), *out = malloc((size_t)(3 * h * w));
        AugmentDraw whole = {.height = height, .width = width};
        slow_resize(IMAGE_RESIZE_BILINEAR, &image, &whole, h, w, expected);
        augment_resize(&image, h, w, out, scratch);
        cr_assert(memcmp(out, expected, (size_t)(3 * h * w)) == 0, "picture %zu", s);
        free(expected);
        free(out);
        image_destroy(&image);
    }
    augment_scratch_destroy(scratch);
}
