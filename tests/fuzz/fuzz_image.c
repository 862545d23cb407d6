/* fuzz_image.c - any bytes as a picture: decoded within the limits or refused in one line, and what is
 * decoded survives every crop.
 *
 * The mutator repairs the CRC of PNG chunks three times out of four; without that hardly a changed PNG gets
 * past its header.
 */
#include "fuzz.h"

#include "base/check.h"
#include "data/augment.h"
#include "data/image/image_decode.h"
#include "data/image/image_limits.h"
#include "data/image/png_decode.h"

#include <string.h>
#include <zlib.h>

enum {
    DECODE_PIXELS = 1 << 21,  /* larger ones are only measured: the search is for bugs, not for patience */
    AUGMENT_PIXELS = 1 << 16, /* as far as crops are made of it */
    RESIZE = 16,
    CROP = 14,
    LOCAL = 9,
};

static void check_message(Status status, const Error *error)
{
    CHECK(status == STATUS_OK || status == STATUS_INPUT);
    CHECK((status == STATUS_OK) == (error->text[0] == '\0'));
    CHECK(strchr(error->text, '\n') == NULL);
}

static void augment(const Image *image)
{
    uint8_t eval[3 * CROP * CROP], global[2 * 3 * CROP * CROP], local[3 * LOCAL * LOCAL];
    AugmentParams params = augment_params_default();
    params.global[0].size = params.global[1].size = CROP;
    params.local.size = LOCAL;
    params.local_count = 1;
    uint64_t seed = (uint64_t)image->width * 65536 + (uint64_t)image->height;
    AugmentScratch *scratch = augment_scratch_create();
    augment_eval(image, RESIZE, CROP, eval, scratch);
    augment_sample(&params, image, rng_at(seed, RNG_TEST, 0, 0), global, local, scratch);
    augment_scratch_destroy(scratch);
}

/* A box and a scale that depend on the size alone. */
static ImagePart choose_part(void *context, int64_t width, int64_t height)
{
    (void)context;
    ImagePart box = {
        .eighths = 8 >> (width + height) % 4, .left = height * 7 % width, .top = width * 11 % height};
    box.width = 1 + (width * 13 + height) % (width - box.left);
    box.height = 1 + (height * 17 + width) % (height - box.top);
    return box;
}

/* A part is accepted or refused like the whole. */
static void decode_part(const uint8_t *data, size_t size, Status whole)
{
    Image image = {0};
    ImagePart part = {0};
    Error error = {0};
    Status decoded = image_decode_part(&image, &part, choose_part, NULL, data, size, &error);
    check_message(decoded, &error);
    CHECK(decoded == whole);
    if (decoded == STATUS_OK) CHECK(image.width == part.width && image.height == part.height);
    image_destroy(&image);
}

/* A picture with one number a pixel is no larger than its header says. */
static void decode_gray(const uint8_t *data, size_t size, int64_t width, int64_t height)
{
    GrayImage image = {0};
    Error error = {0};
    Status decoded = png_decode_gray(&image, data, size, &error);
    check_message(decoded, &error);
    if (decoded == STATUS_OK) CHECK(image.width == width && image.height == height);
    gray_image_destroy(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t width = 0, height = 0;
    Error error = {0};
    Status sized = image_decode_size(data, size, &width, &height, &error);
    check_message(sized, &error);
    if (sized == STATUS_OK) {
        CHECK(width >= 1 && width <= IMAGE_LIMITS_MAX_SIDE && height >= 1 && height <= IMAGE_LIMITS_MAX_SIDE);
        CHECK(width * height <= IMAGE_LIMITS_MAX_PIXELS);
        if (width * height > DECODE_PIXELS) return -1;
    }
    Image image = {0};
    error = (Error){0};
    Status decoded = image_decode(&image, data, size, &error);
    check_message(decoded, &error);
    if (decoded == STATUS_OK) {
        CHECK(sized == STATUS_OK && image.width == width && image.height == height);
        if (width * height <= AUGMENT_PIXELS) augment(&image);
    }
    image_destroy(&image);
    decode_part(data, size, decoded);
    decode_gray(data, size, width, height);
    return 0;
}

static uint32_t big_endian(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void repair_png(uint8_t *data, size_t size)
{
    size_t at = 8;
    while (size - at >= 12) {
        size_t length = big_endian(data + at);
        if (length > size - at - 12) return;
        uint32_t crc = (uint32_t)crc32_z(0, data + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            data[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 4 && size > 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) repair_png(data, size);
    return size;
}
