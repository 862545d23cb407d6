/* weight_pieces.h - a network's parameters as the tensors of a safetensors file: what must be there, under
 * which names, and where it goes in a flat buffer.
 *
 * A file fits when every piece is there in its shape and nothing else is; what does not is listed, so that a
 * wrong guess about the network is seen at a glance.
 */
#ifndef DINOBATCH_CKPT_WEIGHT_PIECES_H
#define DINOBATCH_CKPT_WEIGHT_PIECES_H

#include "ckpt/safetensors.h"
#include "tensor/param_table.h"

typedef struct {
    char name[128]; /* in the file */
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t offset, count; /* elements of the flat buffer */
} WeightPiece;

typedef struct {
    WeightPiece *pieces; /* owned */
    int64_t count, capacity;
} WeightPieces;

/* Adds a piece of that name and shape at flat[offset]; returns it until the next one is added. */
WeightPiece *weight_pieces_add(WeightPieces *pieces, const char *name, int ndim, const int64_t *shape,
                               int64_t offset);
void weight_pieces_fini(WeightPieces *pieces);

/* Whether a tensor of the file may be there without a piece. */
typedef bool (*WeightIgnored)(const char *name);

/* How many of a file's tensors are ignored, and the first few of them: "a, b, ..." into text[size]. */
int64_t weight_pieces_ignored(const SafetensorsFile *file, WeightIgnored ignored, char *text, size_t size);

/* STATUS_INPUT with one line: how many match, and which are missing, unexpected or of another shape, the
 * first few by name. `what` is the network in words. */
Status weight_pieces_match(const WeightPieces *pieces, const SafetensorsFile *file, WeightIgnored ignored,
                           const char *what, Error *error);

/* flat[...] of every piece, after a match. */
Status weight_pieces_read(const WeightPieces *pieces, const SafetensorsFile *file, float *flat, Error *error);

/* A file of all pieces in their order, as numbers of that type (F32, F16, BF16). */
Status weight_pieces_write(const WeightPieces *pieces, const char *path, SafetensorsType type,
                           const float *flat, Error *error);

#endif
