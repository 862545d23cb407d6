/* image_color.h - the colour operators of the augmentation, bit by bit as PIL 9.4 and torchvision 0.14.
 *
 * Each works in place on planes [3, pixels] uint8 (red, green, blue). Sources: PIL's ImageEnhance,
 * Image.blend, Convert.c (grey, HSV), ImageOps.solarize; torchvision's adjust_hue.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_COLOR_H
#define DINOBATCH_DATA_IMAGE_IMAGE_COLOR_H

#include <stdint.h>

/* value * factor, truncated. */
void image_color_brightness(uint8_t *planes, int64_t pixels, double factor);

/* Away from the picture's rounded mean grey by factor. */
void image_color_contrast(uint8_t *planes, int64_t pixels, double factor);

/* Away from each pixel's own grey by factor. */
void image_color_saturation(uint8_t *planes, int64_t pixels, double factor);

/* Turns the hue by `shift` of a full circle, -0.5..0.5, through 8-bit HSV. */
void image_color_hue(uint8_t *planes, int64_t pixels, double shift);

/* All three channels become the pixel's grey. */
void image_color_grayscale(uint8_t *planes, int64_t pixels);

/* Values >= threshold become 255 - value. */
void image_color_solarize(uint8_t *planes, int64_t pixels, int threshold);

#endif
