/* image_color.c - see the header.
 *
 * Loops choose by arithmetic, not by ?:, wherever a branch would hold floating-point work: the compiler must
 * not run that speculatively (it might trap), and would leave the loop scalar, six times slower.
 */
#include "data/image/image_color.h"

#include <math.h>
#include <string.h>

/* ITU-R 601-2 luma in 16-bit fixed point, rounded. */
static inline uint8_t gray_of(uint8_t r, uint8_t g, uint8_t b)
{
    return (uint8_t)((19595u * r + 38470u * g + 7471u * b + 32768u) >> 16);
}

/* The blend of PIL: from `base` towards `value` by `factor` in float32, clamped, then truncated. */
static inline uint8_t blend(int base, int value, float factor)
{
    float mixed = (float)base + factor * (float)(value - base);
    mixed = mixed < 0.0f ? 0.0f : mixed;
    mixed = mixed > 255.0f ? 255.0f : mixed;
    return (uint8_t)(int)mixed;
}

static void blend_with_level(uint8_t *restrict values, int64_t count, int level, float factor)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = blend(level, values[i], factor);
}

void image_color_brightness(uint8_t *planes, int64_t pixels, double factor)
{
    blend_with_level(planes, 3 * pixels, 0, (float)factor);
}

void image_color_contrast(uint8_t *planes, int64_t pixels, double factor)
{
    const uint8_t *red = planes, *green = planes + pixels, *blue = planes + 2 * pixels;
    int64_t sum = 0;
    enum { CHUNK = 4096 }; /* 32-bit sums of a chunk cannot overflow and vectorise better */
    for (int64_t begin = 0; begin < pixels; begin += CHUNK) {
        int64_t end = begin + CHUNK < pixels ? begin + CHUNK : pixels;
        uint32_t part = 0;
        for (int64_t i = begin; i < end; i++)
            part += gray_of(red[i], green[i], blue[i]);
        sum += part;
    }
    int level = (int)((double)sum / (double)pixels + 0.5);
    blend_with_level(planes, 3 * pixels, level, (float)factor);
}

void image_color_saturation(uint8_t *planes, int64_t pixels, double factor)
{
    uint8_t *restrict red = planes;
    uint8_t *restrict green = planes + pixels;
    uint8_t *restrict blue = planes + 2 * pixels;
    float f = (float)factor;
    for (int64_t i = 0; i < pixels; i++) {
        int gray = gray_of(red[i], green[i], blue[i]);
        red[i] = blend(gray, red[i], f);
        green[i] = blend(gray, green[i], f);
        blue[i] = blend(gray, blue[i], f);
    }
}

void image_color_grayscale(uint8_t *planes, int64_t pixels)
{
    uint8_t *restrict red = planes;
    uint8_t *restrict green = planes + pixels;
    uint8_t *restrict blue = planes + 2 * pixels;
    for (int64_t i = 0; i < pixels; i++)
        red[i] = green[i] = blue[i] = gray_of(red[i], green[i], blue[i]);
}

void image_color_solarize(uint8_t *planes, int64_t pixels, int threshold)
{
    for (int64_t i = 0; i < 3 * pixels; i++)
        planes[i] = (uint8_t)(planes[i] < threshold ? planes[i] : 255 - planes[i]);
}

/* Working block of the hue operator: small enough for the first-level cache. */
enum { HUE_BLOCK = 256 };

typedef struct {
    int32_t red[HUE_BLOCK], green[HUE_BLOCK], blue[HUE_BLOCK];
    int32_t hue[HUE_BLOCK], saturation[HUE_BLOCK], value[HUE_BLOCK];
} HueBlock;

/* HSV with 8 bits each, truncated, in PIL's mixture of float32 and double, which decides about one value in
 * three hundred. Of the three differences to the largest channel, each divided by the range, one is 0 and one
 * is 1; so the place on the circle is a whole number plus or minus the third, and one division serves. */
static void hue_from_rgb(HueBlock *restrict block)
{
    for (int i = 0; i < HUE_BLOCK; i++) {
        int r = block->red[i], g = block->green[i], b = block->blue[i];
        int high = r > g ? r : g, low = r > g ? g : r;
        low = b < low ? b : low;
        high = b > high ? b : high;
        int range = high - low;
        int middle = r + g + b - high - low;
        float part = (float)(high - middle) / (float)(range + (range == 0));
        int is_red = r == high, is_green = (g == high) & !is_red, is_blue = 1 - is_red - is_green;
        int forward = (is_red & (g == low)) | (is_green & (b == low)) | (is_blue & (r == low));
        int sign = 2 * forward - 1;
        float sextant = (float)(2 * is_green + 4 * is_blue - sign) + (float)sign * part;
        double turn = (double)sextant * (1.0 / 6.0);
        turn += (double)(turn < 0.0);
        float hue = (float)turn;
        float saturation = (float)range / (float)(high + (high == 0));
        block->hue[i] = (int)((double)hue * 255.0); /* of a grey pixel undefined: its saturation is 0 */
        block->saturation[i] = (int)((double)saturation * 255.0);
        block->value[i] = high;
    }
}

/* `high` in the sextants a and b, `middle` in c and d, else `low`. */
static inline int channel_of(int sextant, int a, int b, int c, int d, int high, int middle, int low)
{
    int is_high = (sextant == a) | (sextant == b), is_middle = (sextant == c) | (sextant == d);
    return low + (high - low) * is_high + (middle - low) * is_middle;
}

static void hue_to_rgb(HueBlock *restrict block)
{
    for (int i = 0; i < HUE_BLOCK; i++) {
        int value = block->value[i];
        int sixfold = block->hue[i] * 6;
        int sextant = sixfold / 255; /* 0..6 */
        float f = (float)(sixfold - 255 * sextant) / 255.0f;
        float s = (float)block->saturation[i] / 255.0f;
        double v = (double)value;
        /* + 0.5, then truncated: rounds half up */
        int p = (2 * value * (255 - block->saturation[i]) + 255) / 510;
        int q = (int)(v * (1.0 - (double)(s * f)) + 0.5);
        int t = (int)(v * (1.0 - (double)s * (1.0 - (double)f)) + 0.5);
        sextant -= 6 * (sextant == 6);
        int middle = t + (q - t) * (sextant & 1); /* of the channel between the largest and the smallest */
        block->red[i] = channel_of(sextant, 0, 5, 1, 4, value, middle, p);
        block->green[i] = channel_of(sextant, 1, 2, 0, 3, value, middle, p);
        block->blue[i] = channel_of(sextant, 3, 4, 2, 5, value, middle, p);
    }
}

void image_color_hue(uint8_t *planes, int64_t pixels, double shift)
{
    int turn = (int)(shift * 255.0) & 255; /* toward zero, then modulo 256 */
    HueBlock block;
    memset(&block, 0, sizeof block);
    for (int64_t begin = 0; begin < pixels; begin += HUE_BLOCK) {
        int64_t count = pixels - begin < HUE_BLOCK ? pixels - begin : HUE_BLOCK;
        uint8_t *red = planes + begin, *green = red + pixels, *blue = green + pixels;
        for (int64_t i = 0; i < count; i++) {
            block.red[i] = red[i];
            block.green[i] = green[i];
            block.blue[i] = blue[i];
        }
        hue_from_rgb(&block);
        for (int i = 0; i < HUE_BLOCK; i++)
            block.hue[i] = (block.hue[i] + turn) & 255;
        hue_to_rgb(&block);
        for (int64_t i = 0; i < count; i++) {
            red[i] = (uint8_t)block.red[i];
            green[i] = (uint8_t)block.green[i];
            blue[i] = (uint8_t)block.blue[i];
        }
    }
}
