/* synthetic_pattern.h - the shapes and textures that make the classes of the synthetic data set.
 *
 * Shapes are signed distances in their own frame, where they fill about the unit disc; textures are a mix of
 * two colours in a frame whose unit is one period. Both are soft over one pixel, whose size the caller gives,
 * so nothing has to be supersampled. Distances after I. Quilez, "2D distance functions"; they are exact or a
 * little too small far from the edge, which only the edge's softness could notice.
 */
#ifndef DINOBATCH_DATA_SYNTHETIC_PATTERN_H
#define DINOBATCH_DATA_SYNTHETIC_PATTERN_H

#include <stdint.h>

/* Append only, as with the order of textures: the values are what labels mean. */
typedef enum {
    SYNTHETIC_DISC,
    SYNTHETIC_STAR,
    SYNTHETIC_CROSS,
    SYNTHETIC_TRIANGLE,
    SYNTHETIC_RING,
    SYNTHETIC_SQUARE,
    SYNTHETIC_CRESCENT,
    SYNTHETIC_HEART,
    SYNTHETIC_ARROW,
    SYNTHETIC_FLOWER,
    SYNTHETIC_SHAPES
} SyntheticShape;

typedef enum {
    SYNTHETIC_STRIPES,
    SYNTHETIC_CHECKS,
    SYNTHETIC_DOTS,
    SYNTHETIC_PLAIN,
    SYNTHETIC_SPECKLE,
    SYNTHETIC_GRID,
    SYNTHETIC_ZIGZAG,
    SYNTHETIC_BRICKS,
    SYNTHETIC_RIPPLE, /* rings around the centre of the shape */
    SYNTHETIC_WAVES,
    SYNTHETIC_TEXTURES
} SyntheticTexture;

const char *synthetic_pattern_shape_name(SyntheticShape shape);
const char *synthetic_pattern_texture_name(SyntheticTexture texture);

/* Signed distance of (u, v) from the edge, below 0 inside; the shape lies within the disc of radius 1.15. */
float synthetic_pattern_distance(SyntheticShape shape, float u, float v);

/* Share of the second colour at (x, y), in periods from the shape's centre; `pixel` is the size of a pixel in
 * periods, `salt` makes one speckle differ from another. 0..1. */
float synthetic_pattern_mix(SyntheticTexture texture, float x, float y, float pixel, uint32_t salt);

/* Share of a pixel inside an edge at signed distance `distance`, for pixels of size `pixel`. */
static inline float synthetic_pattern_coverage(float distance, float pixel)
{
    float inside = 0.5f - distance / pixel;
    return inside < 0 ? 0 : inside > 1 ? 1 : inside;
}

#endif
