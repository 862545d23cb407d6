/* pair_folder.c - see pair_folder.h. */
#include "pair_folder.h"

#include "base/rng.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { PATH = 512 };

_Bool pair_folder_make(const char *folder, const char *masks)
{
    char path[PATH];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/images", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, masks);
    return mkdir(path, 0777) == 0;
}

/* Rows of bytes as libpng wants them. */
static _Bool write_png(const char *path, const uint8_t *bytes, size_t row, int width, int height, int bits,
                       int color)
{
    FILE *file = fopen(path, "wb");
    if (!file) return 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)) != 0) {
        png_destroy_write_struct(&png, &info);
        fclose(file);
        return 0;
    }
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, bits, color, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < height; y++)
        png_write_row(png, bytes + (size_t)y * row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return fclose(file) == 0;
}

_Bool pair_folder_add_picture(const char *folder, const char *name, const uint8_t *rgb, int width, int height)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/images/%s.png", folder, name);
    return write_png(path, rgb, (size_t)width * 3, width, height, 8, PNG_COLOR_TYPE_RGB);
}

_Bool pair_folder_add_gray(const char *folder, const char *part, const char *name, const uint16_t *gray,
                           int width, int height, int bits)
{
    char path[PATH];
    size_t each = bits == 16 ? 2 : 1, pixels = (size_t)width * (size_t)height;
    uint8_t *bytes = malloc(pixels * each);
    if (!bytes) return 0;
    for (size_t i = 0; i < pixels; i++) {
        if (bits == 16) bytes[2 * i] = (uint8_t)(gray[i] >> 8);
        bytes[each * i + each - 1] = (uint8_t)gray[i];
    }
    snprintf(path, sizeof path, "%s/%s/%s.png", folder, part, name);
    _Bool written = write_png(path, bytes, (size_t)width * each, width, height, bits, PNG_COLOR_TYPE_GRAY);
    free(bytes);
    return written;
}

static _Bool draw_scene(const char *folder, int number, int width, int height, uint64_t seed)
{
    Rng rng = rng_at(seed, RNG_TEST, 0, (uint64_t)number);
    uint8_t *rgb = malloc((size_t)(width * height) * 3);
    uint16_t *depth = malloc((size_t)(width * height) * sizeof *depth);
    double far = rng_uniform(&rng, 5.0, 9.0), near = rng_uniform(&rng, 1.0, 3.0), box = near + 0.5;
    int left = (int)rng_integer(&rng, 0, width / 2), top = (int)rng_integer(&rng, 0, height / 2);
    for (int i = 0; rgb && depth && i < width * height; i++) {
        int x = i % width, y = i / width;
        _Bool in_box = x >= left && x < left + width / 3 && y >= top && y < top + height / 3;
        double metres = in_box ? box : far + (near - far) * (double)y / (double)height;
        double grey = 255.0 - 24.0 * metres + rng_uniform(&rng, -8.0, 8.0);
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = (uint8_t)(grey < 0.0 ? 0.0 : grey);
        depth[i] = x < width / 8 && y < height / 8 ? 0 : (uint16_t)(1000.0 * metres);
    }
    char name[16];
    snprintf(name, sizeof name, "%03d", number);
    _Bool drawn = rgb && depth && pair_folder_add_picture(folder, name, rgb, width, height) &&
                  pair_folder_add_gray(folder, "depth", name, depth, width, height, 16);
    free(rgb);
    free(depth);
    return drawn;
}

_Bool pair_folder_draw_depth(const char *folder, int count, int width, int height, uint64_t seed)
{
    _Bool drawn = pair_folder_make(folder, "depth");
    for (int i = 0; i < count && drawn; i++)
        drawn = draw_scene(folder, i, width, height, seed);
    return drawn;
}
