/* picture_overlay.c - see picture_overlay.h. */
#include "report/picture_overlay.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/data_buffer.h"
#include "data/image/image_decode.h"
#include "report/gnuplot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

static const double POINTS = 0.75;     /* of a pixel, as gnuplot's picture terminals have it */
static const double LETTER = 0.56;     /* width of a usual letter, of its size */
static const char *const DOT = "pt 7"; /* filled circle */

void picture_overlay_init(PictureOverlay *overlay)
{
    *overlay = (PictureOverlay){0};
    overlay->out = open_memstream(&overlay->script, &overlay->size);
    CHECK(overlay->out);
}

void picture_overlay_text(PictureOverlay *overlay, double x, double y, PictureAlign align, int pixels,
                          const char *color, const char *text)
{
    static const char *const words[] = {"left", "center", "right"};
    fprintf(overlay->out, "set label ");
    gnuplot_quote(overlay->out, text);
    fprintf(overlay->out, " at %.2f,%.2f %s front noenhanced font ',%.2f' tc rgb '%s'\n", x, y, words[align],
            pixels * POINTS, color);
    overlay->items++;
}

static int64_t characters_of(const char *text)
{
    int64_t characters = 0;
    for (; *text; characters++) {
        int bytes = gnuplot_character(text);
        text += bytes ? bytes : 1;
    }
    return characters;
}

int picture_overlay_letters(const char *text, int64_t width, int least, int most)
{
    int64_t characters = characters_of(text);
    int letters = most;
    while (letters > least && (double)characters * LETTER * letters > (double)width)
        letters--;
    return letters;
}

void picture_overlay_fit(char *out, size_t size, const char *text, int64_t width, int pixels)
{
    int64_t room = (int64_t)((double)width / (LETTER * pixels)), cut = 0;
    if (characters_of(text) <= room) {
        snprintf(out, size, "%s", text);
        return;
    }
    for (int64_t i = 0; i < room - 2; i++) { /* "..." is as wide as a letter and a half */
        int bytes = gnuplot_character(text + cut);
        cut += bytes ? bytes : 1;
    }
    snprintf(out, size, "%.*s...", (int)cut, text);
}

void picture_overlay_line(PictureOverlay *overlay, const double from[2], const double to[2], double width,
                          const char *color)
{
    fprintf(overlay->out, "set arrow from %.2f,%.2f to %.2f,%.2f nohead front lw %.2f lc rgb '%s'\n", from[0],
            from[1], to[0], to[1], width, color);
    const double *const ends[] = {from, to};
    for (int i = 0; i < 2; i++)
        fprintf(overlay->out, "set label '' at %.2f,%.2f front point %s ps %.2f lc rgb '%s'\n", ends[i][0],
                ends[i][1], DOT, 0.45 * width, color);
    overlay->items++;
}

/* --- from gnuplot's pictures to ours --- */

static Status read_layer(Image *layer, const char *path, const Picture *picture, Error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file) return status_fail(error, STATUS_FAILED, "%s: cannot be read", path);
    DataBuffer bytes = {0};
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    data_buffer_resize(&bytes, size > 0 ? (size_t)size : 0);
    bytes.size = fread(bytes.bytes, 1, bytes.size, file);
    fclose(file);
    Status status = image_decode(layer, bytes.bytes, bytes.size, error);
    data_buffer_destroy(&bytes);
    if (status != STATUS_OK) return status_prefix(error, STATUS_FAILED, path);
    if (layer->width == picture->width && layer->height == picture->height) return STATUS_OK;
    return status_fail(error, STATUS_FAILED, "%s: gnuplot drew %lld x %lld pixels for %lld x %lld", path,
                       (long long)layer->width, (long long)layer->height, (long long)picture->width,
                       (long long)picture->height);
}

/* The layer on a background: itself on black, and as much of the background as white shines through. */
static void blend(Picture *picture, const Image *on_white, const Image *on_black)
{
    for (int64_t i = 0; i < 3 * picture->width * picture->height; i++) {
        int through = on_white->rgb[i] - on_black->rgb[i];
        int value = on_black->rgb[i] + (through * picture->rgb[i] + 127) / 255;
        picture->rgb[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

static Status draw(const PictureOverlay *overlay, Picture *picture, const char *output, Error *error)
{
    static const char *const backgrounds[] = {"#ffffff", "#000000"};
    char path[PATH_ROOM];
    if (snprintf(path, sizeof path, "%s.layer", output) >= PATH_ROOM)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", output);
    Image layers[2] = {0};
    Status status = STATUS_OK;
    for (int i = 0; i < 2 && status == STATUS_OK; i++) {
        GnuplotPage page = {.width = (int)picture->width,
                            .height = (int)picture->height,
                            .points = 9,
                            .background = backgrounds[i]};
        status = gnuplot_draw(overlay->script, &page, path, error);
        if (status == STATUS_OK) status = read_layer(&layers[i], path, picture, error);
        unlink(path);
    }
    if (status == STATUS_OK) blend(picture, &layers[0], &layers[1]);
    image_destroy(&layers[0]);
    image_destroy(&layers[1]);
    return status;
}

Status picture_overlay_finish(PictureOverlay *overlay, Picture *picture, const char *output, Error *error)
{
    fprintf(
        overlay->out,
        "set encoding utf8\nunset border\nunset tics\nunset key\n"
        "set lmargin at screen 0\nset rmargin at screen 1\nset bmargin at screen 0\nset tmargin at screen 1\n"
        "set xrange [0:%lld]\nset yrange [%lld:0]\nplot NaN notitle\n",
        (long long)picture->width, (long long)picture->height);
    Status status = STATUS_OK;
    if (fclose(overlay->out) != 0)
        status = status_fail(error, STATUS_FAILED, "no memory for the gnuplot script");
    else if (overlay->items > 0)
        status = draw(overlay, picture, output, error);
    free(overlay->script);
    *overlay = (PictureOverlay){0};
    return status;
}
