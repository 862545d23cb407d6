/* image_turn.c - see image_turn.h. */
#include "data/image/image_turn.h"

#include "base/check.h"

#include <math.h>

/* Between two pixels of a row or column: the lower one, and how near the place is to the other. */
typedef struct {
    int64_t low, high;
    double part;
} Between;

static Between between(double at, int64_t length)
{
    double most = (double)(length - 1);
    at = at < 0.0 ? 0.0 : at > most ? most : at;
    int64_t low = (int64_t)at;
    return (Between){low, low + 1 < length ? low + 1 : low, at - (double)low};
}

static void sample(const Image *image, double x, double y, uint8_t *out)
{
    Between column = between(x, image->width), row = between(y, image->height);
    const uint8_t *above = image->rgb + 3 * row.low * image->width;
    const uint8_t *below = image->rgb + 3 * row.high * image->width;
    for (int c = 0; c < 3; c++) {
        double a = above[3 * column.low + c], b = above[3 * column.high + c];
        double d = below[3 * column.low + c], e = below[3 * column.high + c];
        double upper = a + (b - a) * column.part, lower = d + (e - d) * column.part;
        out[c] = (uint8_t)lrint(upper + (lower - upper) * row.part);
    }
}

static int64_t share_of(int64_t length, double share)
{
    int64_t part = (int64_t)floor((double)length * share + 1e-9); /* a quarter turn of a square keeps all */
    return part < 1 ? 1 : part > length ? length : part;
}

void image_turn(const Image *image, double degrees, Image *turned)
{
    CHECK(image->rgb && image->width >= 1 && image->height >= 1);
    double angle = degrees * M_PI / 180.0, w = (double)image->width, h = (double)image->height;
    double cosine = cos(angle), sine = sin(angle), c = fabs(cosine), s = fabs(sine);
    double share = fmin(w / (w * c + h * s), h / (w * s + h * c));
    image_reserve(turned, share_of(image->width, share), share_of(image->height, share));
    uint8_t *out = turned->rgb;
    for (int64_t i = 0; i < turned->height; i++) {
        double y = (double)i + 0.5 - 0.5 * (double)turned->height;
        for (int64_t j = 0; j < turned->width; j++, out += 3) {
            double x = (double)j + 0.5 - 0.5 * (double)turned->width;
            sample(image, x * cosine - y * sine + 0.5 * w - 0.5, x * sine + y * cosine + 0.5 * h - 0.5, out);
        }
    }
}
