/* weight_pieces.c - see weight_pieces.h. */
#include "ckpt/weight_pieces.h"

#include "base/check.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NAMED_MAX = 3, LIST_BYTES = 360 };

WeightPiece *weight_pieces_add(WeightPieces *pieces, const char *name, int ndim, const int64_t *shape,
                               int64_t offset)
{
    if (pieces->count == pieces->capacity) {
        int64_t capacity = pieces->capacity ? 2 * pieces->capacity : 256;
        pieces->pieces = memory_grow(pieces->pieces, (size_t)pieces->count * sizeof *pieces->pieces,
                                     (size_t)capacity * sizeof *pieces->pieces);
        pieces->capacity = capacity;
    }
    WeightPiece *piece = &pieces->pieces[pieces->count++];
    *piece = (WeightPiece){.ndim = ndim, .offset = offset, .count = 1};
    CHECK((size_t)snprintf(piece->name, sizeof piece->name, "%s", name) < sizeof piece->name);
    for (int d = 0; d < ndim; d++) {
        piece->shape[d] = shape[d];
        piece->count *= shape[d];
    }
    return piece;
}

void weight_pieces_fini(WeightPieces *pieces)
{
    memory_free(pieces->pieces);
    *pieces = (WeightPieces){0};
}

/* --- matching --- */

/* A kind of difference: how often, and the first few in words. */
typedef struct {
    int64_t count;
    char text[LIST_BYTES];
    size_t used;
} Difference;

static void tell(Difference *difference, const char *text)
{
    if (difference->count++ >= NAMED_MAX) return;
    size_t room = sizeof difference->text - difference->used;
    int wanted = snprintf(difference->text + difference->used, room, "%s%.*s",
                          difference->count > 1 ? ", " : "", LIST_BYTES / NAMED_MAX - 4, text);
    difference->used += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

/* "; 2 missing (a, b)" behind text[*used]. */
static void append(char *text, size_t size, const Difference *difference, const char *kind)
{
    size_t used = strlen(text);
    if (difference->count > 0)
        snprintf(text + used, size - used, "; %" PRId64 " %s (%s%s)", difference->count, kind,
                 difference->text, difference->count > NAMED_MAX ? ", ..." : "");
}

static bool same_shape(const WeightPiece *piece, const SafetensorsTensor *tensor)
{
    return piece->ndim == tensor->ndim &&
           memcmp(piece->shape, tensor->shape, (size_t)piece->ndim * sizeof *piece->shape) == 0;
}

static void tell_shapes(Difference *difference, const WeightPiece *piece, const SafetensorsTensor *tensor)
{
    char there[64], here[64], text[LIST_BYTES];
    safetensors_shape_text(there, sizeof there, tensor->ndim, tensor->shape);
    safetensors_shape_text(here, sizeof here, piece->ndim, piece->shape);
    snprintf(text, sizeof text, "%.60s %.20s not %.20s", piece->name, there, here);
    tell(difference, text);
}

Status weight_pieces_match(const WeightPieces *pieces, const SafetensorsFile *file, WeightIgnored ignored,
                           const char *what, Error *error)
{
    Difference missing = {0}, unexpected = {0}, shaped = {0};
    bool *claimed = memory_alloc_array((size_t)file->count + 1, sizeof *claimed);
    int64_t matched = 0;
    for (int64_t i = 0; i < pieces->count; i++) {
        const WeightPiece *piece = &pieces->pieces[i];
        const SafetensorsTensor *tensor = safetensors_find(file, piece->name);
        if (!tensor) {
            tell(&missing, piece->name);
            continue;
        }
        claimed[tensor - file->tensors] = true;
        if (same_shape(piece, tensor))
            matched++;
        else
            tell_shapes(&shaped, piece, tensor);
    }
    for (int64_t t = 0; t < file->count; t++)
        if (!claimed[t] && !ignored(file->tensors[t].name)) tell(&unexpected, file->tensors[t].name);
    memory_free(claimed);
    if (missing.count + unexpected.count + shaped.count == 0) return STATUS_OK;
    char text[4 * LIST_BYTES] = "";
    append(text, sizeof text, &missing, "missing");
    append(text, sizeof text, &unexpected, "unexpected");
    append(text, sizeof text, &shaped, "of another shape");
    return status_fail(error, STATUS_INPUT, "%s: not %s: of %" PRId64 " tensors %" PRId64 " match%s",
                       file->path, what, pieces->count, matched, text);
}

int64_t weight_pieces_ignored(const SafetensorsFile *file, WeightIgnored ignored, char *text, size_t size)
{
    Difference left = {0};
    for (int64_t t = 0; t < file->count; t++)
        if (ignored(file->tensors[t].name)) tell(&left, file->tensors[t].name);
    snprintf(text, size, "%s%s", left.text, left.count > NAMED_MAX ? ", ..." : "");
    return left.count;
}

Status weight_pieces_read(const WeightPieces *pieces, const SafetensorsFile *file, float *flat, Error *error)
{
    for (int64_t i = 0; i < pieces->count; i++) {
        const WeightPiece *piece = &pieces->pieces[i];
        const SafetensorsTensor *tensor = safetensors_find(file, piece->name);
        TRY(safetensors_read(file, tensor, 0, piece->count, flat + piece->offset, error));
    }
    return STATUS_OK;
}

Status weight_pieces_write(const WeightPieces *pieces, const char *path, SafetensorsType type,
                           const float *flat, Error *error)
{
    SafetensorsSource *sources = memory_alloc_array((size_t)pieces->count + 1, sizeof *sources);
    for (int64_t i = 0; i < pieces->count; i++) {
        const WeightPiece *piece = &pieces->pieces[i];
        sources[i] = (SafetensorsSource){.name = piece->name,
                                         .ndim = piece->ndim,
                                         .shape = piece->shape,
                                         .values = flat + piece->offset,
                                         .type = type};
    }
    Status status = safetensors_write(path, sources, pieces->count, error);
    memory_free(sources);
    return status;
}
