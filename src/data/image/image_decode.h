/* image_decode.h - encoded bytes of a JPEG or PNG to RGB, as PIL's Image.open(...).convert("RGB") gives them.
 *
 * The format is told by the content, never by a name. Alpha is dropped (not composited), 16-bit samples keep
 * their high byte, CMYK and YCCK become (255-C)(255-K)/255, the EXIF orientation is ignored. A file
 * that lacks data is an error, never a partial picture; other damage inside a JPEG scan gives artefacts, as
 * with PIL. image_decode_part makes less of a JPEG, faster.
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

/* A box of a picture at a fraction of its size. Pixel (x, y) of the decoded part covers the square of 8 /
 * eighths pixels of the picture whose corner is ((left + x) * 8 / eighths, (top + y) * 8 / eighths). */
typedef struct {
    int eighths;                      /* 8, 4, 2 or 1: scale of both sides */
    int64_t left, top, width, height; /* in pixels of that scale */
} ImagePart;

/* Says which part of a width x height picture is wanted: a box inside the picture, not empty, in its own
 * pixels (the fields other than `eighths`), and the scale. */
typedef ImagePart ImageChoosePart(void *context, int64_t width, int64_t height);

/* As image_decode, but only what `choose` wants once the size is known: *part says what `image` holds, which
 * is at least that box and up to the whole picture; what is not a JPEG comes whole and full size. At full
 * size the pixels are those of image_decode, bit by bit. All of the file is read, so that a truncated one is
 * refused like there. `choose` may have been called when decoding fails; NULL wants the whole picture. */
Status image_decode_part(Image *image, ImagePart *part, ImageChoosePart *choose, void *context,
                         const uint8_t *bytes, size_t size, Error *error);

/* Width and height from the header alone, under the same limits; nothing is allocated in proportion to them.
 */
Status image_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error);

#endif
