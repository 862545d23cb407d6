/* synthetic_draw.c - a scene from its random numbers, and its pixels. */
#include "data/synthetic_draw.h"

#include "base/check.h"
#include "base/rng.h"
#include "data/sampler.h"
#include "data/synthetic_pattern.h"

#include <math.h>
#include <stdio.h>

/* Steps of RNG_SYNTHETIC: what the numbers of one image are for. */
enum { DRAW_SCENE = 0, DRAW_VIEW = 1, DRAW_NOISE = 2 };

enum {
    COARSE = 4, /* cells a side of the background's two noises */
    FINE = 9,
    MAX_CLUTTER = 11,
    MAX_TRIES = 64,
};

typedef struct {
    float rgb[3];
} Color;

/* A turned and scaled frame: shape or texture. */
typedef struct {
    float x, y;     /* origin in the scene */
    float cos, sin; /* of the rotation */
    float unit;     /* scene length of one unit */
} Frame;

typedef enum { CLUTTER_DISC, CLUTTER_BAR, CLUTTER_BOX, CLUTTER_KINDS } ClutterKind;

typedef struct {
    ClutterKind kind;
    Frame frame;
    Color color;
} Clutter;

typedef struct {
    SyntheticShape shape;
    SyntheticTexture texture;
    Frame object, pattern;
    Color first, second;
    uint32_t salt;
    Color near, far; /* of the background's gradient */
    float gradient_cos, gradient_sin;
    float coarse[3][(COARSE + 1) * (COARSE + 1)]; /* noise at the corners of cells, amplitude included */
    float fine[3][(FINE + 1) * (FINE + 1)];
    Clutter clutter[MAX_CLUTTER];
    int behind, clutter_count; /* the first `behind` lie behind the object */
    float light_x, light_y;
    float noise;
} Scene;

/* --- from random numbers to a scene --- */

static float draw(Rng *rng, double low, double high)
{
    return (float)rng_uniform(rng, low, high);
}

static Color draw_color(Rng *rng)
{
    Color color;
    for (int c = 0; c < 3; c++)
        color.rgb[c] = draw(rng, 0, 1);
    return color;
}

static float luma(Color color)
{
    return 0.299f * color.rgb[0] + 0.587f * color.rgb[1] + 0.114f * color.rgb[2];
}

static float distance(Color a, Color b)
{
    return hypotf(hypotf(a.rgb[0] - b.rgb[0], a.rgb[1] - b.rgb[1]), a.rgb[2] - b.rgb[2]);
}

/* Half way to gray: the background must not be what is easiest to tell pictures apart by. */
static Color muted(Color color)
{
    float gray = luma(color);
    for (int c = 0; c < 3; c++)
        color.rgb[c] = 0.5f * (color.rgb[c] + gray);
    return color;
}

static Frame draw_frame(Rng *rng, float x, float y, float unit, double turn)
{
    float angle = draw(rng, -turn, turn);
    return (Frame){.x = x, .y = y, .cos = cosf(angle), .sin = sinf(angle), .unit = unit};
}

/* Colours that can be told apart, by redrawing; the last draw stands if chance is against it. */
static void draw_colors(Scene *scene, Rng *rng)
{
    scene->near = muted(draw_color(rng));
    scene->far = muted(draw_color(rng));
    Color mean;
    for (int c = 0; c < 3; c++)
        mean.rgb[c] = 0.5f * (scene->near.rgb[c] + scene->far.rgb[c]);
    for (int i = 0; i < MAX_TRIES; i++) {
        scene->first = draw_color(rng);
        if (distance(scene->first, mean) >= 0.4f) break;
    }
    for (int i = 0; i < MAX_TRIES; i++) {
        scene->second = draw_color(rng);
        if (fabsf(luma(scene->first) - luma(scene->second)) >= 0.35f) break;
    }
}

static void draw_background(Scene *scene, Rng *rng)
{
    float direction = draw(rng, -3.14159265, 3.14159265);
    scene->gradient_cos = cosf(direction);
    scene->gradient_sin = sinf(direction);
    double coarse = rng_uniform(rng, 0, 0.22), fine = rng_uniform(rng, 0, 0.12);
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < (COARSE + 1) * (COARSE + 1); i++)
            scene->coarse[c][i] = draw(rng, -coarse, coarse);
        for (int i = 0; i < (FINE + 1) * (FINE + 1); i++)
            scene->fine[c][i] = draw(rng, -fine, fine);
    }
}

static void draw_clutter(Scene *scene, Rng *rng)
{
    scene->behind = (int)rng_integer(rng, 3, 9);
    scene->clutter_count = scene->behind + (int)rng_integer(rng, 0, 2);
    for (int i = 0; i < scene->clutter_count; i++) {
        Clutter *clutter = &scene->clutter[i];
        clutter->kind = (ClutterKind)rng_integer(rng, 0, CLUTTER_KINDS - 1);
        float x = draw(rng, 0, 1), y = draw(rng, 0, 1);
        clutter->frame = draw_frame(rng, x, y, draw(rng, 0.02, 0.06), 3.14159265);
        clutter->color = draw_color(rng);
    }
}

static int64_t grid_side(int64_t classes)
{
    int64_t side = (classes + 1) / 2;
    return side < 2 ? 2 : side > SYNTHETIC_SHAPES ? SYNTHETIC_SHAPES : side;
}

static SyntheticShape shape_of(const SyntheticParams *params, int64_t label)
{
    return (SyntheticShape)(label % grid_side(params->classes));
}

static SyntheticTexture texture_of(const SyntheticParams *params, int64_t label)
{
    int64_t side = grid_side(params->classes);
    return (SyntheticTexture)((label + label / side) % side);
}

/* Label of the scene that belongs to an index, duplicate or not. */
static int64_t scene_label(const SyntheticParams *params, int64_t index)
{
    return sampler_index(params->classes, params->seed ^ 0x5EEDC1A55E5u, index);
}

static void draw_scene(const SyntheticParams *params, int64_t index, Scene *scene)
{
    int64_t label = scene_label(params, index);
    Rng rng = rng_at(params->seed, RNG_SYNTHETIC, DRAW_SCENE, (uint64_t)index);
    scene->shape = shape_of(params, label);
    scene->texture = texture_of(params, label);
    float x = draw(&rng, 0.37, 0.63), y = draw(&rng, 0.37, 0.63);
    scene->object = draw_frame(&rng, x, y, draw(&rng, 0.29, 0.44), 0.523598776);
    /* The pattern is given relative to the object, in periods. */
    float phase_x = draw(&rng, 0, 1), phase_y = draw(&rng, 0, 1);
    scene->pattern = draw_frame(&rng, phase_x, phase_y, draw(&rng, 0.14, 0.19), 0.349065850);
    scene->salt = rng_u32(&rng);
    draw_colors(scene, &rng);
    draw_background(scene, &rng);
    draw_clutter(scene, &rng);
    scene->light_x = draw(&rng, -0.25, 0.25);
    scene->light_y = draw(&rng, -0.25, 0.25);
    scene->noise = draw(&rng, 0, 0.04);
}

/* --- views --- */

/* Whether an image is a near-duplicate, the first number of its view; `rng` is left behind it. */
static bool is_duplicate(const SyntheticParams *params, int64_t index, Rng *rng)
{
    *rng = rng_at(params->seed, RNG_SYNTHETIC, DRAW_VIEW, (uint64_t)index);
    return rng_uniform01(rng) < params->duplicates;
}

SyntheticView synthetic_draw_view(const SyntheticParams *params, int64_t index)
{
    CHECK(index >= 0 && index < params->count);
    SyntheticView view = {.source = index, .extent = 1, .contrast = 1};
    Rng rng, ignored;
    if (!is_duplicate(params, index, &rng)) return view;
    int64_t source = index;
    for (int i = 0; i < MAX_TRIES; i++) {
        int64_t candidate = rng_integer(&rng, 0, params->count - 1);
        if (candidate == index || is_duplicate(params, candidate, &ignored)) continue;
        source = candidate;
        break;
    }
    if (source == index) return view; /* hardly an original to copy: it is one itself */
    view.source = source;
    view.extent = draw(&rng, 0.75, 0.97);
    view.left = draw(&rng, 0, 1.0 - (double)view.extent);
    view.top = draw(&rng, 0, 1.0 - (double)view.extent);
    view.mirrored = rng_uniform01(&rng) < 0.5;
    view.brightness = draw(&rng, -0.12, 0.12);
    view.contrast = draw(&rng, 0.75, 1.25);
    return view;
}

SyntheticParams synthetic_draw_defaults(void)
{
    return (SyntheticParams){.classes = 10, .size = 64, .count = 5000};
}

int64_t synthetic_draw_label(const SyntheticParams *params, int64_t index)
{
    return scene_label(params, synthetic_draw_view(params, index).source);
}

void synthetic_draw_class_name(const SyntheticParams *params, int64_t label, char *text, size_t size)
{
    snprintf(text, size, "%s_%s", synthetic_pattern_texture_name(texture_of(params, label)),
             synthetic_pattern_shape_name(shape_of(params, label)));
}

/* --- pixels --- */

/* (x, y) of the scene in a frame's own units. */
static void to_frame(const Frame *frame, float x, float y, float *u, float *v)
{
    float dx = (x - frame->x) / frame->unit, dy = (y - frame->y) / frame->unit;
    *u = dx * frame->cos + dy * frame->sin;
    *v = dy * frame->cos - dx * frame->sin;
}

static void blend(Color *under, Color over, float share)
{
    for (int c = 0; c < 3; c++)
        under->rgb[c] += share * (over.rgb[c] - under->rgb[c]);
}

static float lattice(const float *corners, int cells, float x, float y)
{
    float fx = x * (float)cells, fy = y * (float)cells;
    int i = (int)fx, j = (int)fy;
    i = i < 0 ? 0 : i >= cells ? cells - 1 : i;
    j = j < 0 ? 0 : j >= cells ? cells - 1 : j;
    float a = fx - (float)i, b = fy - (float)j;
    const float *at = corners + j * (cells + 1) + i;
    float top = at[0] + a * (at[1] - at[0]);
    float bottom = at[cells + 1] + a * (at[cells + 2] - at[cells + 1]);
    return top + b * (bottom - top);
}

static Color background(const Scene *scene, float x, float y)
{
    float along = 0.5f + (x - 0.5f) * scene->gradient_cos + (y - 0.5f) * scene->gradient_sin;
    along = fminf(fmaxf(along, 0), 1);
    Color color = scene->near;
    blend(&color, scene->far, along);
    for (int c = 0; c < 3; c++)
        color.rgb[c] += lattice(scene->coarse[c], COARSE, x, y) + lattice(scene->fine[c], FINE, x, y);
    return color;
}

static void put_clutter(const Scene *scene, int from, int to, float x, float y, float pixel, Color *color)
{
    for (int i = from; i < to; i++) {
        const Clutter *clutter = &scene->clutter[i];
        float reach = 3 * clutter->frame.unit + pixel;
        if (fabsf(x - clutter->frame.x) > reach || fabsf(y - clutter->frame.y) > reach) continue;
        float u, v;
        to_frame(&clutter->frame, x, y, &u, &v);
        float outside = clutter->kind == CLUTTER_DISC  ? hypotf(u, v) - 1
                        : clutter->kind == CLUTTER_BAR ? fmaxf(fabsf(u) - 2.5f, fabsf(v) - 0.35f)
                                                       : fmaxf(fabsf(u) - 0.9f, fabsf(v) - 0.7f);
        blend(color, clutter->color, synthetic_pattern_coverage(outside, pixel / clutter->frame.unit));
    }
}

/* Signed distance from the object's edge in units of its radius. */
static float object_distance(const Scene *scene, float x, float y, float *u, float *v)
{
    to_frame(&scene->object, x, y, u, v);
    if (*u * *u + *v * *v > 1.5f) return 1; /* well outside any shape */
    return synthetic_pattern_distance(scene->shape, *u, *v);
}

static void put_object(const Scene *scene, float x, float y, float pixel, Color *color)
{
    float u, v;
    float outside = object_distance(scene, x, y, &u, &v);
    float share = synthetic_pattern_coverage(outside, pixel / scene->object.unit);
    if (share <= 0) return;
    const Frame *pattern = &scene->pattern;
    float periods = scene->object.unit / pattern->unit;
    float px = periods * (u * pattern->cos + v * pattern->sin);
    float py = periods * (v * pattern->cos - u * pattern->sin);
    /* Rings stay around the centre; all others start anywhere. */
    if (scene->texture != SYNTHETIC_RIPPLE) {
        px += pattern->x;
        py += pattern->y;
    }
    Color fill = scene->first;
    blend(&fill, scene->second,
          synthetic_pattern_mix(scene->texture, px, py, pixel / pattern->unit, scene->salt));
    blend(color, fill, share);
}

static Color pixel_color(const Scene *scene, float x, float y, float pixel)
{
    Color color = background(scene, x, y);
    put_clutter(scene, 0, scene->behind, x, y, pixel, &color);
    put_object(scene, x, y, pixel, &color);
    put_clutter(scene, scene->behind, scene->clutter_count, x, y, pixel, &color);
    float light = 1 + scene->light_x * (2 * x - 1) + scene->light_y * (2 * y - 1);
    for (int c = 0; c < 3; c++)
        color.rgb[c] *= light;
    return color;
}

/* Near enough to a normal number for noise: the sum of four bytes, standardised. */
static float noise(Rng *rng)
{
    uint32_t word = rng_u32(rng);
    int32_t sum = (int32_t)((word & 0xff) + (word >> 8 & 0xff) + (word >> 16 & 0xff) + (word >> 24));
    return (float)(sum - 510) * (1 / 147.8f);
}

static uint8_t to_byte(float value)
{
    return (uint8_t)(fminf(fmaxf(value, 0), 1) * 255 + 0.5f);
}

/* Scene coordinate of the centre of pixel (i, j) of `size`. */
static void scene_point(const SyntheticView *view, int64_t size, int64_t i, int64_t j, float *x, float *y)
{
    float a = ((float)i + 0.5f) / (float)size, b = ((float)j + 0.5f) / (float)size;
    *x = view->left + view->extent * (view->mirrored ? 1 - a : a);
    *y = view->top + view->extent * b;
}

void synthetic_draw_image(const SyntheticParams *params, int64_t index, Image *image)
{
    SyntheticView view = synthetic_draw_view(params, index);
    Scene scene;
    draw_scene(params, view.source, &scene);
    image_reserve(image, params->size, params->size);
    float pixel = view.extent / (float)params->size;
    Rng rng = rng_at(params->seed, RNG_SYNTHETIC, DRAW_NOISE, (uint64_t)index);
    uint8_t *out = image->rgb;
    for (int64_t j = 0; j < params->size; j++)
        for (int64_t i = 0; i < params->size; i++, out += 3) {
            float x, y;
            scene_point(&view, params->size, i, j, &x, &y);
            Color color = pixel_color(&scene, x, y, pixel);
            for (int c = 0; c < 3; c++)
                out[c] = to_byte((color.rgb[c] - 0.5f) * view.contrast + 0.5f + view.brightness +
                                 scene.noise * noise(&rng));
        }
}

void synthetic_draw_mask(const SyntheticParams *params, int64_t index, uint8_t *mask)
{
    SyntheticView view = synthetic_draw_view(params, index);
    uint8_t value = (uint8_t)(scene_label(params, view.source) + 1);
    Scene scene;
    draw_scene(params, view.source, &scene);
    for (int64_t j = 0; j < params->size; j++)
        for (int64_t i = 0; i < params->size; i++) {
            float x, y, u, v;
            scene_point(&view, params->size, i, j, &x, &y);
            mask[j * params->size + i] = object_distance(&scene, x, y, &u, &v) < 0 ? value : 0;
        }
}
