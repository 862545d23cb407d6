/* synthetic_pattern.c - ten distances and ten mixes. */
#include "data/synthetic_pattern.h"

#include <math.h>

const char *synthetic_pattern_shape_name(SyntheticShape shape)
{
    static const char *const names[SYNTHETIC_SHAPES] = {"disc",   "star",     "cross", "triangle", "ring",
                                                        "square", "crescent", "heart", "arrow",    "flower"};
    return names[shape];
}

const char *synthetic_pattern_texture_name(SyntheticTexture texture)
{
    static const char *const names[SYNTHETIC_TEXTURES] = {
        "striped", "checked", "dotted", "plain", "speckled", "gridded", "zigzag", "brick", "ripple", "wavy"};
    return names[texture];
}

/* --- shapes --- */

static float box(float u, float v, float half_width, float half_height)
{
    float x = fabsf(u) - half_width, y = fabsf(v) - half_height;
    float outside = hypotf(fmaxf(x, 0), fmaxf(y, 0));
    return outside + fminf(fmaxf(x, y), 0);
}

/* Distance from a regular polygon's edge by the nearest of its n sides, apothem a. */
static float polygon(float u, float v, int n, float apothem)
{
    float farthest = -2;
    for (int side = 0; side < n; side++) {
        float angle = 6.2831853f * ((float)side + 0.5f) / (float)n - 1.5707963f;
        farthest = fmaxf(farthest, u * cosf(angle) + v * sinf(angle));
    }
    return farthest - apothem;
}

/* Five points at radius 1.1, five notches at radius 0.45: folded into one half point. */
static float star(float u, float v)
{
    float sector = 6.2831853f / 5;
    float angle = atan2f(u, -v);
    angle = fabsf(angle - sector * roundf(angle / sector));
    float radius = hypotf(u, v);
    float x = radius * cosf(angle), y = radius * sinf(angle);
    float notch_x = 0.45f * cosf(sector / 2), notch_y = 0.45f * sinf(sector / 2);
    float edge_x = notch_x - 1.1f, edge_y = notch_y;
    return ((x - 1.1f) * edge_y - y * edge_x) / hypotf(edge_x, edge_y);
}

/* A square on its corner with a half disc on each upper side. */
static float heart(float u, float v)
{
    float x = 0.70710678f * (u + (v - 0.1f)), y = 0.70710678f * ((v - 0.1f) - u);
    float square = box(x, y, 0.58f, 0.58f);
    float right = hypotf(x, y + 0.58f) - 0.58f;
    float left = hypotf(x + 0.58f, y) - 0.58f;
    return fminf(square, fminf(left, right));
}

float synthetic_pattern_distance(SyntheticShape shape, float u, float v)
{
    switch (shape) {
    case SYNTHETIC_DISC:
        return hypotf(u, v) - 0.9f;
    case SYNTHETIC_STAR:
        return star(u, v);
    case SYNTHETIC_CROSS:
        return fminf(box(u, v, 1.0f, 0.32f), box(u, v, 0.32f, 1.0f));
    case SYNTHETIC_TRIANGLE:
        return polygon(u, v, 3, 0.56f);
    case SYNTHETIC_RING:
        return fabsf(hypotf(u, v) - 0.7f) - 0.28f;
    case SYNTHETIC_SQUARE:
        return box(u, v, 0.78f, 0.78f);
    case SYNTHETIC_CRESCENT:
        return fmaxf(hypotf(u, v) - 1.0f, 0.75f - hypotf(u - 0.55f, v));
    case SYNTHETIC_HEART:
        return heart(u, v);
    case SYNTHETIC_ARROW:
        return fminf(box(u, v - 0.45f, 0.26f, 0.6f), polygon(u, v + 0.35f, 3, 0.4f));
    case SYNTHETIC_FLOWER:
        return 0.6f * (hypotf(u, v) - 0.78f - 0.26f * cosf(6 * atan2f(v, u)));
    case SYNTHETIC_SHAPES:
        break;
    }
    return 1;
}

/* --- textures --- */

/* Distance from the middle of the nearest period, 0..0.5. */
static float from_middle(float x)
{
    return fabsf(x - floorf(x) - 0.5f);
}

static float stripes(float x, float pixel)
{
    return synthetic_pattern_coverage(from_middle(x) - 0.25f, pixel);
}

static float hash01(int32_t x, int32_t y, uint32_t salt)
{
    uint32_t h = (uint32_t)x * 0x8DA6B343u ^ (uint32_t)y * 0xD8163841u ^ salt;
    h = (h ^ h >> 15) * 0x2C1B3C6Du;
    h = (h ^ h >> 12) * 0x297A2D39u;
    return (float)((h ^ h >> 15) >> 8) * 0x1p-24f;
}

/* Random values at the corners of cells, smooth between them, cut at their middle. */
static float speckle(float x, float y, float pixel, uint32_t salt)
{
    float column = floorf(x), row = floorf(y);
    int32_t i = (int32_t)column, j = (int32_t)row;
    float a = x - column, b = y - row;
    a = a * a * (3 - 2 * a);
    b = b * b * (3 - 2 * b);
    float top = hash01(i, j, salt) * (1 - a) + hash01(i + 1, j, salt) * a;
    float bottom = hash01(i, j + 1, salt) * (1 - a) + hash01(i + 1, j + 1, salt) * a;
    float value = top * (1 - b) + bottom * b;
    return synthetic_pattern_coverage(0.5f - value, pixel);
}

static float bricks(float x, float y, float pixel)
{
    float row = floorf(y);
    float shifted = 0.5f * x + 0.5f * (row - 2 * floorf(0.5f * row));
    float horizontal = 0.5f - from_middle(y) - 0.13f;
    float vertical = 2 * (0.5f - from_middle(shifted)) - 0.13f;
    return synthetic_pattern_coverage(fminf(horizontal, vertical), pixel);
}

float synthetic_pattern_mix(SyntheticTexture texture, float x, float y, float pixel, uint32_t salt)
{
    switch (texture) {
    case SYNTHETIC_STRIPES:
        return stripes(x, pixel);
    case SYNTHETIC_CHECKS: {
        float a = stripes(0.75f * x, pixel), b = stripes(0.75f * y, pixel);
        return a + b - 2 * a * b;
    }
    case SYNTHETIC_DOTS:
        return synthetic_pattern_coverage(hypotf(from_middle(x), from_middle(y)) - 0.3f, pixel);
    case SYNTHETIC_PLAIN:
        return 0;
    case SYNTHETIC_SPECKLE:
        return speckle(2.2f * x, 2.2f * y, 2 * pixel, salt);
    case SYNTHETIC_GRID:
        return synthetic_pattern_coverage(fminf(from_middle(x), from_middle(y)) - 0.13f, pixel);
    case SYNTHETIC_ZIGZAG:
        return stripes(x + 1.2f * from_middle(0.6f * y), pixel);
    case SYNTHETIC_BRICKS:
        return bricks(x, y, pixel);
    case SYNTHETIC_RIPPLE:
        return stripes(hypotf(x, y), pixel);
    case SYNTHETIC_WAVES:
        return stripes(x + 0.3f * sinf(3.5f * y), pixel);
    case SYNTHETIC_TEXTURES:
        break;
    }
    return 0;
}
