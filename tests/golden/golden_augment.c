/* golden_augment.c - the image operators with fixed parameters, and how often each is drawn.
 *
 * The file has no tolerances of its own: pictures must be equal byte by byte, except that a blur (whose sums
 * the reference takes in another order) may be off by one level in less than 0.1 % of the values.
 */
#include "golden.h"

#include "data/augment.h"
#include "data/image/image_blur.h"
#include "data/image/image_color.h"
#include "data/pixel_levels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE = 512, MAX_BYTES = 3 * MAX_SIDE * MAX_SIDE };

/* One picture of the file and the settings that its operators share. */
typedef struct {
    Golden *golden;
    const char *name;
    AugmentParams params;
    PixelNorm norm;
    AugmentDraw draw;
    int64_t size, pixels;
    AugmentScratch *scratch;
    uint8_t *base; /* planes [3, size, size] of resized_crop */
    uint8_t *work; /* planes, or the same interleaved */
} PictureCase;

static bool is_result(const char *path)
{
    size_t length = strlen(path);
    return length < 6 || strcmp(path + length - 6, "/image") != 0;
}

static void interleave(const uint8_t *planes, int64_t pixels, uint8_t *rgb)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = planes[c * pixels + i];
}

static void compare_planes(PictureCase *test, const uint8_t *planes, bool blurred, const char *dataset)
{
    Golden *golden = test->golden;
    uint8_t *rgb = malloc((size_t)(3 * test->pixels));
    interleave(planes, test->pixels, rgb);
    if (!blurred) {
        golden_compare_u8(golden, rgb, 3 * test->pixels, "%s/%s", test->name, dataset);
        free(rgb);
        return;
    }
    GoldenShape shape;
    const uint8_t *stored = golden_u8(golden, &shape, "%s/%s", test->name, dataset);
    int64_t off = 0, far = shape.count == 3 * test->pixels ? 0 : 1;
    for (int64_t i = 0; far == 0 && i < shape.count; i++) {
        off += rgb[i] != stored[i];
        far += abs((int)rgb[i] - (int)stored[i]) > 1;
    }
    golden_judge(golden, far > 0 ? INFINITY : (double)off / (1e-3 * (double)shape.count), "%s/%s", test->name,
                 dataset);
    free(rgb);
}

/* An operator on its own, applied to the resized crop. */
static void check_operator(PictureCase *test, const char *dataset)
{
    double value = strcmp(dataset, "grayscale") == 0 || strcmp(dataset, "hflip") == 0 ? 0.0
                   : strcmp(dataset, "blur") == 0     ? golden_attr(test->golden, "sigma", "%s", test->name)
                   : strcmp(dataset, "solarize") == 0 ? 0.0
                                                      : golden_attr(test->golden, dataset, "%s", test->name);
    uint8_t *work = test->work;
    int64_t pixels = test->pixels;
    memcpy(work, test->base, (size_t)(3 * pixels));
    bool blurred = strcmp(dataset, "blur") == 0;
    if (strcmp(dataset, "brightness") == 0) image_color_brightness(work, pixels, value);
    if (strcmp(dataset, "contrast") == 0) image_color_contrast(work, pixels, value);
    if (strcmp(dataset, "saturation") == 0) image_color_saturation(work, pixels, value);
    if (strcmp(dataset, "hue") == 0) image_color_hue(work, pixels, value);
    if (strcmp(dataset, "grayscale") == 0) image_color_grayscale(work, pixels);
    if (strcmp(dataset, "solarize") == 0) image_color_solarize(work, pixels, test->params.solarize_threshold);
    if (blurred) {
        ImageBlurScratch scratch = {0};
        image_blur(work, test->size, test->size, value, &scratch);
        image_blur_scratch_fini(&scratch);
    }
    if (strcmp(dataset, "hflip") == 0) {
        AugmentDraw flip = {.top = test->draw.top,
                            .left = test->draw.left,
                            .height = test->draw.height,
                            .width = test->draw.width,
                            .flip = true};
        augment_apply(&test->params, &flip, test->size, work, test->scratch);
    }
    compare_planes(test, work, blurred, dataset);
}

/* What the grey levels of planes [3, pixels] are to a network, as patchify_forward looks them up; the caller
 * frees it. */
static float *normalized(const PictureCase *test, const uint8_t *planes, int64_t pixels)
{
    float levels[3][256], *values = malloc((size_t)(3 * pixels) * sizeof *values);
    pixel_levels_fill(levels[0], &test->norm);
    for (int64_t i = 0; i < 3 * pixels; i++)
        values[i] = levels[i / pixels][planes[i]];
    return values;
}

/* Float32 rounding of values up to 2.7 is allowed, and what a blur may be off: one level of 255 in 0.1 %. */
static void compare_normalized(PictureCase *test, const float *crop, bool blurred)
{
    static const double ROUNDING = 1e-6;
    int64_t count = 3 * test->pixels;
    if (!blurred) {
        golden_compare_within(test->golden, crop, count, ROUNDING, "%s/chain_normalized", test->name);
        return;
    }
    GoldenShape shape;
    const float *stored = golden_f32(test->golden, &shape, "%s/chain_normalized", test->name);
    int64_t off = 0, far = shape.count == count ? 0 : 1;
    for (int64_t i = 0; far == 0 && i < count; i++) {
        double level = 1.0 / (255.0 * (double)test->norm.std[i / test->pixels]);
        double error = fabs((double)crop[i] - (double)stored[i]);
        off += error > ROUNDING;
        far += !(error <= level + ROUNDING);
    }
    golden_judge(test->golden, far > 0 ? INFINITY : (double)off / (1e-3 * (double)count),
                 "%s/chain_normalized", test->name);
}

static bool flag(PictureCase *test, const char *name)
{
    return golden_attr(test->golden, name, "%s", test->name) != 0.0;
}

/* Everything at once, by the code that training runs. */
static void check_chain(PictureCase *test)
{
    Golden *golden = test->golden;
    AugmentDraw draw = test->draw;
    draw.flip = flag(test, "flip");
    draw.grayscale = flag(test, "grayscale");
    draw.blur = flag(test, "blur");
    draw.solarize = flag(test, "solarize");
    draw.jitter = true;
    draw.sigma = golden_attr(golden, "sigma", "%s", test->name);
    static const char *const NAMES[AUGMENT_JITTERS] = {"brightness", "contrast", "saturation", "hue"};
    int64_t count;
    const double *order = golden_attr_array(golden, "jitter_order", &count, "%s", test->name);
    cr_assert(count == AUGMENT_JITTERS);
    for (int i = 0; i < AUGMENT_JITTERS; i++) {
        draw.jitter_order[i] = (int)order[i];
        draw.factor[i] = golden_attr(golden, NAMES[i], "%s", test->name);
    }
    augment_apply(&test->params, &draw, test->size, test->work, test->scratch);
    compare_planes(test, test->work, draw.blur, "chain_u8");
    float *crop = normalized(test, test->work, test->pixels);
    compare_normalized(test, crop, draw.blur);
    free(crop);
}

/* "... shorter side to 64 (bicubic) ..." is the only place that names the size. */
static void check_eval(PictureCase *test, const Image *image)
{
    Golden *golden = test->golden;
    GoldenShape shape;
    (void)golden_f32(golden, &shape, "%s/eval_transform", test->name);
    const char *text = golden_attr_text(golden, "desc", "%s/eval_transform", test->name);
    const char *at = strstr(text, "shorter side to ");
    long resize = at ? strtol(at + strlen("shorter side to "), NULL, 10) : 0;
    cr_assert(resize > 0 && shape.ndim == 3 && shape.dim[1] == shape.dim[2], "eval_transform: %s", text);
    cr_assert(shape.count <= MAX_BYTES);
    augment_eval(image, resize, shape.dim[1], test->work, test->scratch);
    float *crop = normalized(test, test->work, shape.count / 3);
    golden_compare_within(golden, crop, shape.count, 1e-6, "%s/eval_transform", test->name);
    free(crop);
}

static void check_picture(Golden *golden, const AugmentParams *params, const PixelNorm *norm,
                          const char *name)
{
    GoldenShape shape;
    const uint8_t *rgb = golden_u8(golden, &shape, "%s/image", name);
    Image image = {.width = shape.dim[1], .height = shape.dim[0], .rgb = (uint8_t *)(uintptr_t)rgb};
    PictureCase test = {.golden = golden,
                        .name = name,
                        .params = *params,
                        .norm = *norm,
                        .scratch = augment_scratch_create()};
    test.size = (int64_t)golden_attr(golden, "out_size", "%s", name);
    test.pixels = test.size * test.size;
    cr_assert(test.size >= 1 && test.size <= MAX_SIDE);
    test.draw = (AugmentDraw){.top = (int64_t)golden_attr(golden, "crop_top", "%s", name),
                              .left = (int64_t)golden_attr(golden, "crop_left", "%s", name),
                              .height = (int64_t)golden_attr(golden, "crop_h", "%s", name),
                              .width = (int64_t)golden_attr(golden, "crop_w", "%s", name)};
    test.base = malloc(MAX_BYTES);
    test.work = malloc(MAX_BYTES);
    augment_load(test.scratch, &image);
    augment_apply(&test.params, &test.draw, test.size, test.base, test.scratch);
    compare_planes(&test, test.base, false, "resized_crop");
    static const char *const OPERATORS[] = {"hflip", "brightness", "contrast", "saturation",
                                            "hue",   "grayscale",  "solarize", "blur"};
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++)
        check_operator(&test, OPERATORS[i]);
    check_chain(&test);
    check_eval(&test, &image);
    augment_scratch_destroy(test.scratch);
    free(test.base);
    free(test.work);
}

/* Our draws' rate against the reference's over 1000 samples: within 4.5 standard deviations of a difference.
 */
static void check_frequency(Golden *golden, const AugmentParams *params, const char *pipeline)
{
    const AugmentView *view = strcmp(pipeline, "global1") == 0   ? &params->global[0]
                              : strcmp(pipeline, "global2") == 0 ? &params->global[1]
                                                                 : &params->local;
    enum { DRAWS = 20000, THEIRS = 1000 };
    static const char *const STEPS[] = {"hflip", "jitter", "grayscale", "blur", "solarize"};
    double rate[5] = {0};
    Rng rng = rng_at(1, RNG_TEST, 0, rng_hash_name(pipeline));
    for (int i = 0; i < DRAWS; i++) {
        AugmentDraw draw = augment_draw(params, view, 500, 375, &rng);
        bool applied[5] = {draw.flip, draw.jitter, draw.grayscale, draw.blur, draw.solarize};
        for (int s = 0; s < 5; s++)
            rate[s] += (double)applied[s] / DRAWS;
    }
    for (int s = 0; s < 5; s++) {
        double theirs = golden_scalar(golden, "frequency/%s/%s", pipeline, STEPS[s]);
        double deviation = sqrt(rate[s] * (1.0 - rate[s]) * (1.0 / DRAWS + 1.0 / THEIRS));
        double off = fabs(rate[s] - theirs);
        golden_judge(golden, off == 0.0 ? 0.0 : off / (4.5 * deviation), "frequency/%s/%s", pipeline,
                     STEPS[s]);
    }
}

void golden_augment(Golden *golden)
{
    golden_require(golden, is_result);
    AugmentParams params = augment_params_default();
    params.solarize_threshold = (int)golden_attr(golden, "solarize_threshold", "%s", "");
    cr_assert((int)golden_attr(golden, "blur_kernel", "%s", "") == 2 * IMAGE_BLUR_RADIUS + 1);
    PixelNorm norm;
    for (int c = 0; c < 3; c++) {
        norm.mean[c] = (float)golden_attr_array(golden, "mean", NULL, "%s", "")[c];
        norm.std[c] = (float)golden_attr_array(golden, "std", NULL, "%s", "")[c];
    }
    int64_t count;
    const char *const *names = golden_members(golden, &count, "%s", "");
    for (int64_t i = 0; i < count; i++)
        if (strncmp(names[i], "img", 3) == 0) check_picture(golden, &params, &norm, names[i]);
    static const char *const PIPELINES[] = {"global1", "global2", "local"};
    for (int i = 0; i < 3; i++)
        check_frequency(golden, &params, PIPELINES[i]);
}
