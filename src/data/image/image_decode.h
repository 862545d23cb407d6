/* image_decode.h - encoded bytes of a JPEG or PNG to RGB, as PIL's Image.open(...).convert("RGB") gives them.
 *
 * The format is told by the content, never by a name. Alpha is dropped (not composited), 16-bit samples keep
 * their high byte, CMYK and YCCK become (255-C)(255-K)/255, the EXIF orientation is ignored. A file
 * that lacks data is an error, never a partial picture; other damage inside a JPEG scan gives artefacts, as
 * with PIL. It is not a scaled or cropped decode.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_DECODE_H
#define DINOBATCH_DATA_IMAGE_IMAGE_DECODE_H

#include "base/status.h"
#include "data/image/image.h"

#include <stddef.h>
#include <stdint.h>

/* Decodes bytes[size] into `image` (zero-initialised, or an earlier picture whose memory is reused; it is
 * left empty or with undefined pixels on failure, always valid for image_destroy). STATUS_INPUT with a reason
 * that names no file: the caller prefixes path or key. Thread-safe. Memory is only taken after the declared
 * size has been checked by image_limits.h, also against what that many bytes could possibly hold.
 */
Status image_decode(Image *image, const uint8_t *bytes, size_t size, Error *error);

/* Width and height from the header alone, under the same limits; nothing is allocated in proportion to them.
 */
Status image_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error);

#endif
