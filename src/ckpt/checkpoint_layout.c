/* checkpoint_layout.c - tensors, pieces and the arithmetic of their checksums. */
#include "ckpt/checkpoint_layout.h"

#include "base/check.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static CheckpointTensor *append(CheckpointLayout *layout)
{
    if (layout->count == layout->capacity) {
        int64_t capacity = layout->capacity ? 2 * layout->capacity : 256;
        layout->tensors = memory_grow(layout->tensors, (size_t)layout->count * sizeof(CheckpointTensor),
                                      (size_t)capacity * sizeof(CheckpointTensor));
        layout->capacity = capacity;
    }
    CheckpointTensor *tensor = &layout->tensors[layout->count++];
    *tensor = (CheckpointTensor){0};
    return tensor;
}

/* Length of "DIGITS." at the start of `text`, or 0. */
static size_t number_and_dot(const char *text)
{
    size_t digits = 0;
    while (isdigit((unsigned char)text[digits]))
        digits++;
    return digits && text[digits] == '.' ? digits + 1 : 0;
}

void checkpoint_layout_path(char *path, size_t size, const char *role, const Param *param)
{
    static const char blocks[] = "blocks.";
    const char *name = param->name;
    const char *head = "";
    if (strncmp(name, blocks, sizeof blocks - 1) == 0) {
        /* blocks.<chunk>.<i>.: two numbers in a row occur only with chunks */
        const char *first = name + sizeof blocks - 1;
        size_t chunk = number_and_dot(first);
        if (chunk && number_and_dot(first + chunk)) {
            head = blocks;
            name = first + chunk;
        }
    }
    int length = snprintf(path, size, "%s/%s/%s%s", role, param_module_name(param->module), head, name);
    CHECK(length > 0 && (size_t)length < size);
    for (char *c = path; *c; c++)
        if (*c == '.') *c = '/';
}

const char *checkpoint_layout_ema(const CheckpointMeta *meta)
{
    return *meta->distilled_from ? "/model_ema" : "/teacher";
}

void checkpoint_layout_add_param(CheckpointLayout *layout, const char *role, const ShardMap *map,
                                 float *local, int id)
{
    const Param *param = &map->table->params[id];
    ShardRange range = shard_map_range(map, id);
    CheckpointTensor *tensor = append(layout);
    checkpoint_layout_path(tensor->path, sizeof tensor->path, role, param);
    tensor->ndim = param->ndim;
    memcpy(tensor->shape, param->shape, sizeof tensor->shape);
    tensor->count = param->count;
    tensor->start = range.start;
    tensor->held = range.count;
    tensor->data = local + range.local;
    tensor->replica = map->modules[param->module].replica;
    tensor->replicas = map->modules[param->module].replicas;
}

void checkpoint_layout_add_role(CheckpointLayout *layout, const char *role, const ShardMap *map, float *local,
                                bool backbone_only)
{
    for (int i = 0; i < map->table->count; i++)
        if (!backbone_only || map->table->params[i].module == PARAM_BACKBONE)
            checkpoint_layout_add_param(layout, role, map, local, i);
}

void checkpoint_layout_add_whole(CheckpointLayout *layout, const char *path, int ndim, const int64_t *shape,
                                 float *data, const Comm *comm)
{
    CheckpointTensor *tensor = append(layout);
    snprintf(tensor->path, sizeof tensor->path, "%s", path);
    tensor->ndim = ndim;
    tensor->count = 1;
    for (int d = 0; d < ndim; d++)
        tensor->count *= tensor->shape[d] = shape[d];
    tensor->held = tensor->count;
    tensor->data = data;
    tensor->replica = comm_rank(comm);
    tensor->replicas = comm_size(comm);
}

void checkpoint_layout_add_state(CheckpointLayout *layout, const CheckpointState *state, const Comm *comm)
{
    checkpoint_layout_add_role(layout, "/student", state->map, state->student, false);
    checkpoint_layout_add_role(layout, checkpoint_layout_ema(&state->meta), state->map, state->model_ema,
                               false);
    checkpoint_layout_add_role(layout, "/optimizer/exp_avg", state->map, state->exp_avg, false);
    checkpoint_layout_add_role(layout, "/optimizer/exp_avg_sq", state->map, state->exp_avg_sq, false);
    if (state->dino_center)
        checkpoint_layout_add_whole(layout, "/loss/dino_center", 1, &state->dino_center_count,
                                    state->dino_center, comm);
    if (state->ibot_center)
        checkpoint_layout_add_whole(layout, "/loss/ibot_center", 1, &state->ibot_center_count,
                                    state->ibot_center, comm);
}

void checkpoint_layout_fini(CheckpointLayout *layout)
{
    memory_free(layout->tensors);
    *layout = (CheckpointLayout){0};
}

int64_t checkpoint_layout_bytes(const CheckpointLayout *layout)
{
    int64_t sum = 0;
    for (int64_t t = 0; t < layout->count; t++)
        sum += layout->tensors[t].count;
    return sum * (int64_t)sizeof(float);
}

static void add_piece(CheckpointPieces *pieces, int64_t *capacity, CheckpointPiece piece)
{
    size_t size = sizeof *pieces->pieces;
    if (pieces->count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 256;
        pieces->pieces = memory_grow(pieces->pieces, (size_t)pieces->count * size, (size_t)*capacity * size);
    }
    pieces->pieces[pieces->count++] = piece;
}

/* Of the tensors that `replicas` ranks hold alike, one after the other as one run of elements, the pieces in
 * part `part` of `parts`. */
static void deal_alike(const CheckpointLayout *layout, int replicas, int part, int parts,
                       CheckpointPieces *pieces, int64_t *capacity)
{
    int64_t total = 0, before = 0;
    for (int64_t t = 0; t < layout->count; t++)
        if (layout->tensors[t].replicas == replicas) total += layout->tensors[t].held;
    int64_t begin = total / parts * part + (part < total % parts ? part : total % parts);
    int64_t end = begin + total / parts + (part < total % parts);
    for (int64_t t = 0; t < layout->count; t++) {
        const CheckpointTensor *tensor = &layout->tensors[t];
        if (tensor->replicas != replicas) continue;
        int64_t first = begin > before ? begin - before : 0;
        int64_t last = end - before < tensor->held ? end - before : tensor->held;
        for (int64_t at = first; at < last; at += CHECKPOINT_PIECE_MAX) {
            int64_t count = last - at < CHECKPOINT_PIECE_MAX ? last - at : CHECKPOINT_PIECE_MAX;
            add_piece(
                pieces, capacity,
                (CheckpointPiece){
                    .tensor = t, .start = tensor->start + at, .count = count, .data = tensor->data + at});
        }
        before += tensor->held;
    }
}

CheckpointPieces checkpoint_layout_deal(const CheckpointLayout *layout, CheckpointDeal deal)
{
    CheckpointPieces pieces = {0};
    int64_t capacity = 0;
    for (int64_t t = 0; t < layout->count; t++) {
        const CheckpointTensor *tensor = &layout->tensors[t];
        int64_t earlier = 0;
        while (layout->tensors[earlier].replicas != tensor->replicas)
            earlier++;
        if (earlier < t) continue; /* dealt with its like */
        bool held = deal == CHECKPOINT_HELD;
        deal_alike(layout, tensor->replicas, held ? 0 : tensor->replica, held ? 1 : tensor->replicas, &pieces,
                   &capacity);
    }
    return pieces;
}

void checkpoint_layout_pieces_fini(CheckpointPieces *pieces)
{
    memory_free(pieces->pieces);
    *pieces = (CheckpointPieces){0};
}

/* A piece as it travels. */
typedef struct {
    int64_t tensor, start, count, crc;
} Record;

static int compare_records(const void *a, const void *b)
{
    const Record *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->start > y->start) - (x->start < y->start);
}

/* All ranks' records, in order of tensor and start; slots that a rank leaves empty have tensor -1. */
static Record *gather(const CheckpointPieces *pieces, int64_t *count, Comm *comm)
{
    enum { WORDS = sizeof(Record) / sizeof(int64_t) };
    int64_t most = pieces->count;
    comm_all_reduce(comm, &most, 1, DTYPE_I64, COMM_MAX, NULL);
    Record *mine = memory_alloc_array((size_t)most + 1, sizeof *mine);
    for (int64_t i = 0; i < most; i++) {
        const CheckpointPiece *piece = &pieces->pieces[i];
        mine[i] = i < pieces->count ? (Record){piece->tensor, piece->start, piece->count, piece->crc}
                                    : (Record){.tensor = -1};
    }
    *count = most * comm_size(comm);
    Record *all = memory_alloc_array((size_t)*count + 1, sizeof *all);
    if (most > 0) comm_all_gather(comm, all, mine, most * WORDS, DTYPE_I64, NULL);
    memory_free(mine);
    if (*count) qsort(all, (size_t)*count, sizeof *all, compare_records);
    return all;
}

void checkpoint_layout_combine(const CheckpointLayout *layout, const CheckpointPieces *pieces, uint32_t *crcs,
                               Comm *comm)
{
    int64_t count;
    Record *all = gather(pieces, &count, comm);
    int64_t i = 0;
    while (i < count && all[i].tensor < 0)
        i++;
    for (int64_t t = 0; t < layout->count; t++) {
        uLong crc = crc32(0, NULL, 0);
        int64_t done = 0;
        for (; i < count && all[i].tensor == t; i++) {
            CHECK(all[i].start == done);
            crc = crc32_combine(crc, (uLong)all[i].crc, (z_off_t)(all[i].count * (int64_t)sizeof(float)));
            done += all[i].count;
        }
        CHECK(done == layout->tensors[t].count);
        crcs[t] = (uint32_t)crc;
    }
    CHECK(i == count);
    memory_free(all);
}
