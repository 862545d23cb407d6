/* image_views.c - see image_views.h. */
#include "data/image_views.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRID_MOST = 10 };

ImageViews image_views_whole(void)
{
    return (ImageViews){.count = 1, .plain = 1, .view = {{.side = 1.0, .grid = 1}}};
}

/* --- items of a list --- */

static Status too_many(const char *list, Error *error)
{
    return status_fail(error, STATUS_INPUT, "\"%s\": more than %d views without mirrored ones, or too long",
                       list, IMAGE_VIEWS_MOST);
}

static bool add_view(ImageViews *views, ImageView view)
{
    if (views->plain == IMAGE_VIEWS_MOST) return false;
    views->view[views->plain++] = view;
    return true;
}

/* "SIDE:GRID" */
static Status add_crops(ImageViews *views, const char *item, const char *list, char *spelling, size_t size,
                        Error *error)
{
    char *end;
    double side = strtod(item, &end);
    long grid = *end == ':' ? strtol(end + 1, &end, 10) : 0;
    if (*end || !(side > 0.0 && side < 1.0) || grid < 1 || grid > GRID_MOST)
        return status_fail(error, STATUS_INPUT,
                           "\"crop:%s\": expected crop:SIDE:GRID with 0 < SIDE < 1 and GRID from 1 to %d",
                           item, GRID_MOST);
    for (long i = 0; i < grid * grid; i++)
        if (!add_view(views, (ImageView){.side = side, .grid = grid, .row = i / grid, .column = i % grid}))
            return too_many(list, error);
    snprintf(spelling, size, "crop:%.6g:%ld", side, grid);
    return STATUS_OK;
}

/* "DEGREES" */
static Status add_turned(ImageViews *views, const char *item, const char *list, char *spelling, size_t size,
                         Error *error)
{
    char *end;
    double degrees = strtod(item, &end);
    if (end == item || *end || !(degrees > 0.0 && degrees <= 180.0))
        return status_fail(error, STATUS_INPUT,
                           "\"rotate:%s\": expected rotate:DEGREES with 0 < DEGREES <= 180", item);
    for (int i = 0; i < 2; i++)
        if (!add_view(views, (ImageView){.side = 1.0, .grid = 1, .degrees = i ? -degrees : degrees}))
            return too_many(list, error);
    snprintf(spelling, size, "rotate:%.6g", degrees);
    return STATUS_OK;
}

static Status add_item(ImageViews *views, const char *item, const char *list, bool *mirror, Error *error)
{
    static const char CROP[] = "crop:", ROTATE[] = "rotate:";
    char spelling[64];
    if (strcmp(item, "mirror") == 0) {
        *mirror = true;
        return STATUS_OK;
    }
    if (strncmp(item, CROP, sizeof CROP - 1) == 0)
        TRY(add_crops(views, item + sizeof CROP - 1, list, spelling, sizeof spelling, error));
    else if (strncmp(item, ROTATE, sizeof ROTATE - 1) == 0)
        TRY(add_turned(views, item + sizeof ROTATE - 1, list, spelling, sizeof spelling, error));
    else
        return status_fail(error, STATUS_INPUT,
                           "\"%s\": expected mirror, crop:SIDE:GRID or rotate:DEGREES, by commas", item);
    size_t used = strlen(views->text);
    if (used + strlen(spelling) + 2 > sizeof views->text) return too_many(list, error);
    snprintf(views->text + used, sizeof views->text - used, "%s%s", used ? "," : "", spelling);
    return STATUS_OK;
}

Status image_views_parse(ImageViews *views, const char *list, Error *error)
{
    char item[64], others[IMAGE_VIEWS_TEXT];
    bool mirror = false;
    *views = image_views_whole();
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        if (length >= sizeof item) return too_many(list, error);
        memcpy(item, at, length);
        item[length] = '\0';
        TRY(add_item(views, item, list, &mirror, error));
        at += length;
        if (!*at) break;
    }
    views->count = views->plain * (mirror ? 2 : 1);
    if (!mirror) return STATUS_OK;
    size_t used = strlen(views->text);
    if (used + sizeof "mirror," > sizeof views->text) return too_many(list, error);
    memcpy(others, views->text, used + 1);
    snprintf(views->text, sizeof views->text, "mirror%s%s", used ? "," : "", others);
    return STATUS_OK;
}

/* --- boxes --- */

/* One direction: *first and length of part `number` of `grid`. */
static int64_t part_of(int64_t length, double side, int64_t number, int64_t grid, int64_t *first)
{
    int64_t part = (int64_t)lround((double)length * side);
    if (part < 1) part = 1;
    double place = grid > 1 ? (double)number / (double)(grid - 1) : 0.5;
    *first = (int64_t)lround((double)(length - part) * place);
    return part;
}

ImageViewBox image_views_box(const ImageView *view, int64_t height, int64_t width)
{
    ImageViewBox box;
    box.height = part_of(height, view->side, view->row, view->grid, &box.top);
    box.width = part_of(width, view->side, view->column, view->grid, &box.left);
    return box;
}
