/* image_blur.h - Gaussian blur with a kernel of 9 x 9, as torchvision 0.14 computes it on an 8-bit picture.
 *
 * Source: torchvision's gaussian_blur: float32 weights, border reflected without repeating the edge pixel,
 * result rounded half to even. Here two passes of 9 replace the 81 products: sums differ in order, so one
 * pixel in many thousands may differ by one level. It is not PIL's GaussianBlur, which is a sequence of box
 * blurs.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_BLUR_H
#define DINOBATCH_DATA_IMAGE_IMAGE_BLUR_H

#include <stddef.h>
#include <stdint.h>

enum { IMAGE_BLUR_RADIUS = 4 };

/* Working memory of one thread; zero-initialised it is empty. */
typedef struct {
    float *rows; /* a plane after the horizontal pass, and one padded row */
    size_t rows_bytes;
} ImageBlurScratch;

/* Blurs planes [3, height, width] in place. sigma > 0 in pixels. Pictures narrower than the radius are
 * reflected as often as it takes (torchvision refuses them). */
void image_blur(uint8_t *planes, int64_t height, int64_t width, double sigma, ImageBlurScratch *scratch);

void image_blur_scratch_fini(ImageBlurScratch *scratch);

#endif
