/* synthetic_set.c - options, and the kind's functions. */
#include "data/synthetic_set.h"

#include "base/memory.h"
#include "data/data_spec.h"
#include "data/image_encode.h"
#include "data/synthetic_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Status bad_option(const char *option, size_t length, const char *expected, Error *error)
{
    return status_fail(error, STATUS_INPUT, "synthetic: \"%.*s\": expected %s", (int)length, option,
                       expected);
}

static Status set_whole(int64_t *to, const char *option, size_t length, int64_t low, int64_t high,
                        Error *error)
{
    size_t name = strcspn(option, "=") + 1;
    int64_t value = data_spec_number(option + name, length - name);
    if (value < low || value > high) {
        char expected[64];
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)low,
                 (long long)high);
        return bad_option(option, length, expected, error);
    }
    *to = value;
    return STATUS_OK;
}

static bool named(const char *option, size_t length, const char *name)
{
    return length > strlen(name) && strncmp(option, name, strlen(name)) == 0;
}

/* One "NAME=VALUE" of option[length]. */
static Status set_option(SyntheticParams *params, const char *option, size_t length, Error *error)
{
    if (named(option, length, "classes="))
        return set_whole(&params->classes, option, length, 2, SYNTHETIC_MAX_CLASSES, error);
    if (named(option, length, "size="))
        return set_whole(&params->size, option, length, SYNTHETIC_MIN_SIZE, SYNTHETIC_MAX_SIZE, error);
    if (named(option, length, "count="))
        return set_whole(&params->count, option, length, 1, (int64_t)1 << 40, error);
    if (named(option, length, "seed=")) {
        int64_t seed = 0;
        TRY(set_whole(&seed, option, length, 0, INT64_MAX, error));
        params->seed = (uint64_t)seed;
        return STATUS_OK;
    }
    if (named(option, length, "duplicates=")) {
        char *end;
        double share = strtod(option + strlen("duplicates="), &end);
        if (end != option + length || !(share >= 0 && share <= 0.5))
            return bad_option(option, length, "a share from 0 to 0.5", error);
        params->duplicates = share;
        return STATUS_OK;
    }
    return bad_option(option, length, "classes=, size=, count=, seed= or duplicates=", error);
}

Status synthetic_set_parse(SyntheticParams *params, const char *options, Error *error)
{
    *params = synthetic_draw_defaults();
    for (const char *at = options; *at;) {
        size_t length = strcspn(at, ",");
        TRY(set_option(params, at, length, error));
        at += length;
        if (*at == ',') at++;
    }
    return STATUS_OK;
}

static int64_t synthetic_label(const void *self, int64_t item)
{
    return synthetic_draw_label(self, item);
}

static void synthetic_key(const void *self, int64_t item, char *text, size_t size)
{
    const SyntheticParams *params = self;
    char name[64];
    synthetic_draw_class_name(params, synthetic_draw_label(params, item), name, sizeof name);
    snprintf(text, size, "%s/%08lld.png", name, (long long)item);
}

static void synthetic_location(const void *self, int64_t item, char *text, size_t size)
{
    const SyntheticParams *params = self;
    snprintf(text, size, "synthetic:seed=%llu:%lld", (unsigned long long)params->seed, (long long)item);
}

static Status synthetic_load(const void *self, int64_t item, Image *image)
{
    synthetic_draw_image(self, item, image);
    return STATUS_OK;
}

static Status synthetic_read(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    Image image = {0};
    synthetic_draw_image(self, item, &image);
    Status status = image_encode_png(buffer, image.rgb, image.width, image.height, 3, error);
    image_destroy(&image);
    return status;
}

static Status synthetic_mask(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    return synthetic_export_mask(self, item, buffer, error);
}

Status synthetic_set_open(DataKind *kind, const char *options, Error *error)
{
    SyntheticParams parsed;
    TRY(synthetic_set_parse(&parsed, options, error));
    SyntheticParams *params = memory_alloc(sizeof *params);
    *params = parsed;
    *kind = (DataKind){.self = params,
                       .count = params->count,
                       .label = synthetic_label,
                       .key = synthetic_key,
                       .location = synthetic_location,
                       .read = synthetic_read,
                       .load = synthetic_load,
                       .read_mask = synthetic_mask,
                       .destroy = memory_free};
    for (int64_t label = 0; label < params->classes; label++) {
        char name[64];
        synthetic_draw_class_name(params, label, name, sizeof name);
        text_table_append(&kind->classes, name, strlen(name));
    }
    return STATUS_OK;
}
