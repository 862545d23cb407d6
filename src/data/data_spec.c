/* data_spec.c - kinds, the reference's ImageNet forms, and the suffixes. */
#include "data/data_spec.h"

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

int64_t data_spec_number(const char *text, size_t length)
{
    if (length == 0 || length > 18) return -1;
    int64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        value = 10 * value + (text[i] - '0');
    }
    return value;
}

/* Takes one ";NAME=NUMBER" off the end of text[*length]; *taken says whether there was one. What does not
 * begin like a suffix belongs to the path. */
static Status take_step(const char *text, size_t *length, DataSpecStep *step, bool *taken, Error *error)
{
    static const struct {
        const char *name;
        DataSpecStepKind kind;
    } names[] = {{";stride=", DATA_SPEC_STRIDE},
                 {";offset=", DATA_SPEC_OFFSET},
                 {";limit=", DATA_SPEC_LIMIT},
                 {";per_class=", DATA_SPEC_PER_CLASS},
                 {";spread=", DATA_SPEC_SPREAD}};
    *taken = false;
    const char *semicolon = memrchr(text, ';', *length);
    if (!semicolon) return STATUS_OK;
    size_t left = *length - (size_t)(semicolon - text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t name = strlen(names[i].name);
        if (left < name || memcmp(semicolon, names[i].name, name) != 0) continue;
        step->kind = names[i].kind;
        step->value = data_spec_number(semicolon + name, left - name);
        if (step->value < 1)
            return status_fail(error, STATUS_INPUT, "data set \"%s\": expected a number from 1 after \"%s\"",
                               text, names[i].name);
        *length = (size_t)(semicolon - text);
        *taken = true;
    }
    return STATUS_OK;
}

static Status take_steps(DataSpec *spec, const char *text, size_t *length, Error *error)
{
    for (;;) {
        DataSpecStep step;
        bool taken;
        TRY(take_step(text, length, &step, &taken, error));
        if (!taken) return STATUS_OK;
        if (spec->step_count == DATA_SPEC_MAX_STEPS)
            return status_fail(error, STATUS_INPUT, "data set \"%s\": more than %d suffixes", text,
                               DATA_SPEC_MAX_STEPS);
        /* They come off the end, so the first to apply is found last. */
        memmove(spec->steps + 1, spec->steps, (size_t)spec->step_count * sizeof *spec->steps);
        spec->steps[0] = step;
        spec->step_count++;
    }
}

/* "split=TRAIN:root=R:extra=E": `root` runs to the next ":extra=" or ":split=", so it may hold colons. */
static Status parse_imagenet(DataSpec *spec, const char *text, char *options, Error *error)
{
    static const char *const keys[] = {"split=", "root=", "extra="};
    char *values[3] = {NULL, NULL, NULL};
    for (char *at = options; at;) {
        int key = 0;
        while (key < 3 && strncmp(at, keys[key], strlen(keys[key])) != 0)
            key++;
        if (key == 3)
            return status_fail(error, STATUS_INPUT,
                               "data set \"%s\": expected split=, root= or extra= at \"%s\"", text, at);
        values[key] = at + strlen(keys[key]);
        char *next = NULL;
        for (int k = 0; k < 3; k++) {
            char with_colon[16];
            snprintf(with_colon, sizeof with_colon, ":%s", keys[k]);
            char *found = strstr(values[key], with_colon);
            if (found && (!next || found < next)) next = found;
        }
        if (next) *next++ = '\0';
        at = next;
    }
    if (!values[1] || !*values[1])
        return status_fail(error, STATUS_INPUT, "data set \"%s\": no root=FOLDER", text);
    static const char *const splits[][2] = {{"TRAIN", "train"}, {"VAL", "val"}, {"TEST", "test"}};
    const char *folder = spec->kind == DATA_SPEC_IMAGENET22K ? "" : NULL;
    for (int i = 0; i < 3 && !folder; i++)
        if (values[0] && strcmp(values[0], splits[i][0]) == 0) folder = splits[i][1];
    if (!folder)
        return status_fail(error, STATUS_INPUT, "data set \"%s\": expected split=TRAIN, VAL or TEST", text);
    size_t size = strlen(values[1]) + 8;
    spec->location = memory_alloc(size);
    snprintf(spec->location, size, "%s%s%s", values[1], *folder ? "/" : "", folder);
    return STATUS_OK;
}

Status data_spec_init(DataSpec *spec, const char *text, Error *error)
{
    static const struct {
        const char *name;
        DataSpecKind kind;
    } kinds[] = {{"folder", DATA_SPEC_FOLDER},
                 {"pairs", DATA_SPEC_PAIRS},
                 {"tar", DATA_SPEC_TAR},
                 {"hdf5", DATA_SPEC_HDF5},
                 {"synthetic", DATA_SPEC_SYNTHETIC},
                 {"ImageNet", DATA_SPEC_IMAGENET},
                 {"ImageNet22k", DATA_SPEC_IMAGENET22K}};
    *spec = (DataSpec){0};
    size_t length = strlen(text);
    TRY(take_steps(spec, text, &length, error));
    size_t name = strcspn(text, ":");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (name >= length || strlen(kinds[i].name) != name || memcmp(text, kinds[i].name, name) != 0)
            continue;
        spec->kind = kinds[i].kind;
        char *rest = memory_strndup(text + name + 1, length - name - 1);
        if (spec->kind != DATA_SPEC_IMAGENET && spec->kind != DATA_SPEC_IMAGENET22K) {
            spec->location = rest;
            return STATUS_OK;
        }
        Status status = parse_imagenet(spec, text, rest, error);
        memory_free(rest);
        return status;
    }
    return status_fail(
        error, STATUS_INPUT,
        "data set \"%s\": expected folder:DIR, tar:FILE, hdf5:FILE, pairs:DIR, synthetic:OPTIONS, "
        "ImageNet:split=S:root=DIR or ImageNet22k:root=DIR",
        text);
}

void data_spec_fini(DataSpec *spec)
{
    memory_free(spec->location);
    *spec = (DataSpec){0};
}
