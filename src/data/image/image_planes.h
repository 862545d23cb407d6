/* image_planes.h - pictures as three planes, the form in which augmentation works.
 *
 * Planes make every operator a plain loop over bytes, and the network's input is planar anyway.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_PLANES_H
#define DINOBATCH_DATA_IMAGE_IMAGE_PLANES_H

#include <stddef.h>
#include <stdint.h>

/* Bytes behind the last plane that must be allocated (not set): vector code reads past the end of a row. */
enum { IMAGE_PLANES_PADDING = 128 };

/* Bytes to allocate for the planes of a width x height picture, padding included. */
size_t image_planes_bytes(int64_t width, int64_t height);

/* rgb [pixels, 3] -> planes [3, pixels]. */
void image_planes_split(const uint8_t *rgb, int64_t pixels, uint8_t *planes);

#endif
