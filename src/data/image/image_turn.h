/* image_turn.h - a picture turned by any angle, and only what of it lies inside the old one.
 *
 * The part is the largest upright rectangle of the picture's own shape around its centre, so that no corner
 * is empty: a share min(w / (w c + h s), h / (w s + h c)) of each side, c and s the cosine and sine of the
 * angle. Pixels keep their size; bilinear, no antialiasing, which turning does not need.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_TURN_H
#define DINOBATCH_DATA_IMAGE_IMAGE_TURN_H

#include "data/image/image.h"

/* `turned` (zero-initialised, or an earlier picture whose memory is reused) = `image` turned by `degrees`,
 * counter-clockwise if positive; at least 1 pixel a side. */
void image_turn(const Image *image, double degrees, Image *turned);

#endif
