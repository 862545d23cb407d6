/* checkpoint_layout.h - inside src/ckpt only: which tensors a file holds, and which bytes of them are whose.
 *
 * A rank holds a row-major range of each tensor (fsdp/shard_map.h), which may be empty or all of it. What it
 * reads is that; what it writes and proves is its share of that: ranks that hold the same range deal it among
 * themselves. Both are lists of pieces, each a range of one tensor with the memory it lies in.
 */
#ifndef DINOBATCH_CKPT_CHECKPOINT_LAYOUT_H
#define DINOBATCH_CKPT_CHECKPOINT_LAYOUT_H

#include "ckpt/checkpoint.h"

typedef struct {
    char path[160]; /* in the file: "/student/backbone/blocks/0/attn/qkv/weight" */
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t count;         /* elements, float32 */
    int64_t start, held;   /* this rank holds elements [start, start + held), */
    float *data;           /* here; borrowed */
    int replica, replicas; /* as number `replica` of `replicas` ranks that do */
    int64_t offset;        /* bytes from the start of the file */
    uint32_t crc;          /* on rank 0, after checkpoint_layout_combine or from the file */
} CheckpointTensor;

typedef struct {
    CheckpointTensor *tensors; /* owned */
    int64_t count, capacity;
} CheckpointLayout;

enum {
    CHECKPOINT_PIECE_MAX = 4 << 20
}; /* elements of a piece; larger ranges are several, for threads to share */

typedef struct {
    int64_t tensor; /* index in the layout */
    int64_t start;  /* first element within the tensor */
    int64_t count;
    float *data; /* of the first element; borrowed */
    uint32_t crc;
} CheckpointPiece;

typedef struct {
    CheckpointPiece *pieces; /* owned */
    int64_t count;
} CheckpointPieces;

/* The group of the student's moving average: "/teacher", in a distillation "/model_ema". */
const char *checkpoint_layout_ema(const CheckpointMeta *meta);

/* Adds the tensors of one role, "/student", from local[map->count]; the backbone alone or all modules. */
void checkpoint_layout_add_role(CheckpointLayout *layout, const char *role, const ShardMap *map, float *local,
                                bool backbone_only);

/* Everything that checkpoint_save writes of a state; of its meta, distilled_from is looked at. Not
 * collective; COMM says how many ranks hold what is not cut. */
void checkpoint_layout_add_state(CheckpointLayout *layout, const CheckpointState *state, const Comm *comm);

/* Adds one parameter of a role, as checkpoint_layout_add_role does all. */
void checkpoint_layout_add_param(CheckpointLayout *layout, const char *role, const ShardMap *map,
                                 float *local, int id);

/* Adds a tensor at `path` that every rank of COMM has, or takes, as a whole. */
void checkpoint_layout_add_whole(CheckpointLayout *layout, const char *path, int ndim, const int64_t *shape,
                                 float *data, const Comm *comm);

void checkpoint_layout_fini(CheckpointLayout *layout);

/* The path below a module of a parameter: dots become slashes, the chunk number goes. */
void checkpoint_layout_path(char *path, size_t size, const char *role, const Param *param);

int64_t checkpoint_layout_bytes(const CheckpointLayout *layout);

/* All that this rank holds, or its share of what it and others hold. */
typedef enum { CHECKPOINT_HELD, CHECKPOINT_SHARE } CheckpointDeal;
CheckpointPieces checkpoint_layout_deal(const CheckpointLayout *layout, CheckpointDeal deal);
void checkpoint_layout_pieces_fini(CheckpointPieces *pieces);

/* crcs[layout->count] of whole tensors, from all ranks' pieces, the same on every rank. The pieces together
 * cover each tensor exactly once (CHECK). Collective over COMM. */
void checkpoint_layout_combine(const CheckpointLayout *layout, const CheckpointPieces *pieces, uint32_t *crcs,
                               Comm *comm);

#endif
