/* param_table.h - every parameter of a model, as a table.
 *
 * Layers add their parameters under the reference's state-dict names when a model is built; init, checkpoint,
 * sharding, parameter groups and the moving average walk the table and know nothing of layers. All values lie
 * in one flat fp32 buffer per role (student weights, gradients, moments, teacher weights) at the same
 * offsets.
 */
#ifndef DINOBATCH_TENSOR_PARAM_TABLE_H
#define DINOBATCH_TENSOR_PARAM_TABLE_H

#include "base/rng.h"
#include "tensor/tensor.h"

/* How a parameter starts (golden README, trap 10; dinov2/models/vision_transformer.py, layers/dino_head.py).
 */
typedef enum {
    PARAM_INIT_CONSTANT,         /* init_value everywhere */
    PARAM_INIT_NORMAL,           /* normal with std init_value */
    PARAM_INIT_TRUNCATED_NORMAL, /* normal with std init_value, cut at -2 and 2 */
    PARAM_INIT_UNIFORM,          /* uniform in +-init_value */
} ParamInit;

/* Sub-modules: clipped separately, named as the first part of the path in checkpoints. */
typedef enum { PARAM_BACKBONE = 0, PARAM_DINO_HEAD, PARAM_IBOT_HEAD, PARAM_MODULE_COUNT } ParamModule;

typedef struct {
    char name[80]; /* within its module: "blocks.0.attn.qkv.weight" */
    ParamModule module;
    int unit; /* what is gathered and reduced together: embeddings, block i, norm, a head */
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t count;  /* elements */
    int64_t offset; /* of the first element in a flat buffer; a multiple of PARAM_ALIGNMENT */
    ParamInit init;
    double init_value;
    /* set by optim/param_groups */
    double lr_multiplier;
    double wd_multiplier;
    bool is_last_layer; /* frozen during the first epochs */
} Param;

typedef struct {
    Param *params; /* owned */
    int count;
    int capacity;
    int64_t flat_count; /* elements of a flat buffer, padding included; padding is zero and stays zero */
    int unit_count;
} ParamTable;

enum { PARAM_ALIGNMENT = 16 }; /* elements: one cache line of fp32 */

void param_table_init(ParamTable *table);
void param_table_fini(ParamTable *table);

/* "backbone", "dino_head", "ibot_head". */
const char *param_module_name(ParamModule module);

/* Opens a new unit for the parameters added next; returns its number. */
int param_table_begin_unit(ParamTable *table);

/* What param_table_add needs beside the name. */
typedef struct {
    ParamModule module;
    ParamInit init;
    double init_value;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
} ParamSpec;

/* Adds a parameter to the current unit, returns its id. The name is "prefix" + "suffix". */
int param_table_add(ParamTable *table, const ParamSpec *spec, const char *prefix, const char *suffix);

/* The id of a module's parameter by name, or -1. */
int param_table_find(const ParamTable *table, ParamModule module, const char *name);

/* The parameter's values inside a flat fp32 buffer, in its own shape. */
Tensor param_view(const ParamTable *table, int id, float *flat);

/* Fills flat[flat_count] with initial values: each parameter from its own stream of (seed, name), so that the
 * result does not depend on order, ranks or other parameters. Padding becomes zero. */
void param_table_initialise(const ParamTable *table, uint64_t seed, float *flat);

/* Weights as the layers read them: fp32 masters, and beside them optional reduced-precision copies of the
 * matrices at the same offsets. */
typedef struct {
    const ParamTable *table;
    float *master;     /* [flat_count] */
    uint16_t *reduced; /* [flat_count] bf16 or fp16, or NULL: matrices are read in fp32 */
    Dtype reduced_dtype;
} Weights;

/* The type of activations that go with these weights. */
static inline Dtype weights_act(const Weights *weights)
{
    return weights->reduced ? weights->reduced_dtype : DTYPE_F32;
}

/* A matrix operand in compute precision; flattened to [shape[0], rest]. id -1 gives the empty tensor. */
Tensor weights_matrix(const Weights *weights, int id);

/* A vector operand (bias, norm, token), always fp32, as [count]. id -1 gives the empty tensor. */
Tensor weights_vector(const Weights *weights, int id);

/* The gradient's view for a parameter: [shape[0], rest] / [count] of flat fp32. id -1 gives the empty tensor.
 */
Tensor param_matrix_view(const ParamTable *table, int id, float *flat);
Tensor param_vector_view(const ParamTable *table, int id, float *flat);

#endif
