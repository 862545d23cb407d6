/* data_set.c - a kind, and the selection that the spec makes from it. */
#include "data/data_set.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/data_kind.h"
#include "data/data_spec.h"
#include "data/folder_set.h"
#include "data/hdf5_set.h"
#include "data/image/image_decode.h"
#include "data/image/png_decode.h"
#include "data/synthetic_set.h"
#include "data/tar_set.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

struct DataSet {
    DataKind kind;
    DataNotes notes;
    int64_t count;
    int64_t first, stride; /* image i is item first + i * stride, unless `items` says which */
    int64_t *items;        /* [count] or NULL */
    CorruptList *corrupt;
};

/* ImageNet-22k as the reference keeps it, one archive per class, or unpacked. */
static Status open_imagenet22k(DataKind *kind, const char *root, DataNotes *notes, Error *error)
{
    char pattern[DATA_SET_KEY_MAX];
    if (strlen(root) + 8 > sizeof pattern)
        return status_fail(error, STATUS_INPUT, "ImageNet22k:root=%s: path is too long", root);
    snprintf(pattern, sizeof pattern, "%s/*.tar", root);
    glob_t found;
    bool archives = glob(pattern, GLOB_NOSORT, NULL, &found) == 0;
    if (archives) globfree(&found);
    return archives ? tar_set_open(kind, pattern, true, notes, error)
                    : folder_set_open(kind, root, notes, error);
}

static Status open_kind(DataSet *set, const DataSpec *spec, Error *error)
{
    switch (spec->kind) {
    case DATA_SPEC_FOLDER:
    case DATA_SPEC_IMAGENET:
        return folder_set_open(&set->kind, spec->location, &set->notes, error);
    case DATA_SPEC_PAIRS:
        return folder_set_open_pairs(&set->kind, spec->location, &set->notes, error);
    case DATA_SPEC_TAR:
        return tar_set_open(&set->kind, spec->location, false, &set->notes, error);
    case DATA_SPEC_HDF5:
        return hdf5_set_open(&set->kind, spec->location, error);
    case DATA_SPEC_SYNTHETIC:
        return synthetic_set_open(&set->kind, spec->location, error);
    case DATA_SPEC_IMAGENET22K:
        return open_imagenet22k(&set->kind, spec->location, &set->notes, error);
    }
    CHECK(!"a kind");
    return STATUS_FAILED;
}

static int64_t item_of(const DataSet *set, int64_t index)
{
    CHECK(index >= 0 && index < set->count);
    return set->items ? set->items[index] : set->first + index * set->stride;
}

/* Keeps the first `most` images of each class; unlabelled ones count as a class of their own. */
static void keep_per_class(DataSet *set, int64_t most)
{
    int64_t *taken = memory_alloc_array((size_t)set->kind.classes.count + 1, sizeof *taken);
    int64_t *items = memory_alloc_array((size_t)set->count, sizeof *items);
    int64_t count = 0;
    for (int64_t i = 0; i < set->count; i++) {
        int64_t item = item_of(set, i);
        if (taken[set->kind.label(set->kind.self, item) + 1]++ < most) items[count++] = item;
    }
    memory_free(taken);
    memory_free(set->items);
    set->items = items;
    set->count = count;
}

/* Drops the first `most` images. */
static void drop_first(DataSet *set, int64_t most)
{
    if (most > set->count) most = set->count;
    set->count -= most;
    if (set->items)
        memmove(set->items, set->items + most, (size_t)set->count * sizeof *set->items);
    else
        set->first += most * set->stride;
}

static void keep_every(DataSet *set, int64_t stride)
{
    if (stride > set->count)
        stride = set->count > 0 ? set->count : 1; /* only the first stays; avoids overflow */
    set->count = (set->count + stride - 1) / stride;
    for (int64_t i = 0; set->items && i < set->count; i++)
        set->items[i] = set->items[i * stride];
    set->stride *= stride;
}

/* Keeps `most` images, the k-th being floor(k count / most). */
static void keep_spread(DataSet *set, int64_t most)
{
    if (most >= set->count) return;
    int64_t *items = memory_alloc_array((size_t)most, sizeof *items);
    int64_t whole = set->count / most, rest = set->count % most;
    for (int64_t k = 0; k < most; k++)
        items[k] = item_of(set, k * whole + k * rest / most);
    memory_free(set->items);
    set->items = items;
    set->count = most;
}

static Status select_images(DataSet *set, const DataSpec *spec, const char *text, Error *error)
{
    set->count = set->kind.count;
    set->stride = 1;
    for (int s = 0; s < spec->step_count; s++) {
        int64_t value = spec->steps[s].value;
        switch (spec->steps[s].kind) {
        case DATA_SPEC_LIMIT:
            if (value < set->count) set->count = value;
            break;
        case DATA_SPEC_PER_CLASS:
            keep_per_class(set, value);
            break;
        case DATA_SPEC_SPREAD:
            keep_spread(set, value);
            break;
        case DATA_SPEC_OFFSET:
            drop_first(set, value);
            break;
        case DATA_SPEC_STRIDE:
            keep_every(set, value);
        }
    }
    if (set->count == 0)
        return status_fail(error, STATUS_INPUT, "data set \"%s\": no image is left of %lld", text,
                           (long long)set->kind.count);
    return STATUS_OK;
}

Status data_set_create(DataSet **out, const char *spec, Error *error)
{
    *out = NULL;
    DataSpec parsed;
    DataSet *set = memory_alloc(sizeof *set);
    set->corrupt = corrupt_list_create();
    Status status = data_spec_init(&parsed, spec, error);
    if (status == STATUS_OK) status = open_kind(set, &parsed, error);
    if (status == STATUS_OK) status = select_images(set, &parsed, spec, error);
    if (status == STATUS_OK)
        *out = set;
    else
        data_set_destroy(set);
    data_spec_fini(&parsed);
    return status;
}

/* --- chosen from other sets --- */

typedef struct {
    const DataSet *const *sets;
    const char *const *prefixes;
    const DataPlace *places;
} Chosen;

static int64_t chosen_label(const void *self, int64_t item)
{
    (void)self;
    (void)item;
    return -1;
}

static void chosen_key(const void *self, int64_t item, char *text, size_t size)
{
    const Chosen *chosen = self;
    const DataPlace *place = &chosen->places[item];
    int used = snprintf(text, size, "%s/", chosen->prefixes[place->set]);
    if ((size_t)used < size)
        data_set_key(chosen->sets[place->set], place->index, text + used, size - (size_t)used);
}

static void chosen_location(const void *self, int64_t item, char *text, size_t size)
{
    const DataPlace *place = &((const Chosen *)self)->places[item];
    data_set_location(((const Chosen *)self)->sets[place->set], place->index, text, size);
}

static Status chosen_read(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    const DataPlace *place = &((const Chosen *)self)->places[item];
    const DataSet *set = ((const Chosen *)self)->sets[place->set];
    return set->kind.read(set->kind.self, item_of(set, place->index), buffer, error);
}

DataSet *data_set_create_chosen(const DataSet *const *sets, const char *const *prefixes,
                                const DataPlace *places, int64_t count)
{
    CHECK(count >= 1);
    Chosen *chosen = memory_alloc(sizeof *chosen);
    *chosen = (Chosen){sets, prefixes, places};
    DataSet *set = memory_alloc(sizeof *set);
    *set = (DataSet){.kind = {.self = chosen,
                              .count = count,
                              .label = chosen_label,
                              .key = chosen_key,
                              .location = chosen_location,
                              .read = chosen_read,
                              .destroy = memory_free},
                     .count = count,
                     .stride = 1,
                     .corrupt = corrupt_list_create()};
    return set;
}

void data_set_destroy(DataSet *set)
{
    if (!set) return;
    if (set->kind.destroy) set->kind.destroy(set->kind.self);
    text_table_destroy(&set->kind.classes);
    text_table_destroy(&set->notes.lines);
    corrupt_list_destroy(set->corrupt);
    memory_free(set->items);
    memory_free(set);
}

int64_t data_set_count(const DataSet *set)
{
    return set->count;
}

int64_t data_set_class_count(const DataSet *set)
{
    return set->kind.classes.count;
}

const char *data_set_class_name(const DataSet *set, int64_t label)
{
    return text_table_get(&set->kind.classes, label);
}

int64_t data_set_label(const DataSet *set, int64_t index)
{
    return set->kind.label(set->kind.self, item_of(set, index));
}

void data_set_key(const DataSet *set, int64_t index, char *text, size_t size)
{
    set->kind.key(set->kind.self, item_of(set, index), text, size);
}

void data_set_location(const DataSet *set, int64_t index, char *text, size_t size)
{
    set->kind.location(set->kind.self, item_of(set, index), text, size);
}

/* Puts the location in front of the message of a failure. */
static Status with_location(const DataSet *set, int64_t index, Status status, Error *error)
{
    if (status == STATUS_OK) return status;
    char location[DATA_SET_KEY_MAX];
    data_set_location(set, index, location, sizeof location);
    return status_prefix(error, status, "%s", location);
}

Status data_set_read(const DataSet *set, int64_t index, DataBuffer *buffer, Error *error)
{
    Status status = set->kind.read(set->kind.self, item_of(set, index), buffer, error);
    return with_location(set, index, status, error);
}

Status data_set_load_image(const DataSet *set, int64_t index, Image *image, DataBuffer *buffer, Error *error)
{
    ImagePart part;
    return data_set_load_part(set, index, image, &part, NULL, NULL, buffer, error);
}

Status data_set_load_part(const DataSet *set, int64_t index, Image *image, ImagePart *part,
                          ImageChoosePart *choose, void *context, DataBuffer *buffer, Error *error)
{
    int64_t item = item_of(set, index);
    if (set->kind.load) {
        TRY(with_location(set, index, set->kind.load(set->kind.self, item, image), error));
        *part = (ImagePart){.eighths = 8, .width = image->width, .height = image->height};
        if (choose) (void)choose(context, image->width, image->height);
        return STATUS_OK;
    }
    Status status = set->kind.read(set->kind.self, item, buffer, error);
    if (status == STATUS_OK)
        status = image_decode_part(image, part, choose, context, buffer->bytes, buffer->size, error);
    return with_location(set, index, status, error);
}

bool data_set_has_masks(const DataSet *set)
{
    return set->kind.read_mask != NULL;
}

Status data_set_read_mask(const DataSet *set, int64_t index, DataBuffer *buffer, Error *error)
{
    CHECK(data_set_has_masks(set));
    Status status = set->kind.read_mask(set->kind.self, item_of(set, index), buffer, error);
    return with_location(set, index, status, error);
}

Status data_set_load_mask(const DataSet *set, int64_t index, GrayImage *mask, DataBuffer *buffer,
                          Error *error)
{
    TRY(data_set_read_mask(set, index, buffer, error));
    Status status = png_decode_gray(mask, buffer->bytes, buffer->size, error);
    if (status != STATUS_OK) status = status_prefix(error, status, "mask");
    return with_location(set, index, status, error);
}

CorruptList *data_set_corrupt(const DataSet *set)
{
    return set->corrupt;
}

int64_t data_set_skipped(const DataSet *set)
{
    return set->notes.count;
}

const char *data_set_note(const DataSet *set, int64_t i)
{
    return i >= 0 && i < set->notes.lines.count ? text_table_get(&set->notes.lines, i) : NULL;
}
