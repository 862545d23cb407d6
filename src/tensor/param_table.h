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

/* The precisions in which a parameter is read where the compute precision has 16 bits. */
typedef enum {
    PARAM_READ_EXACT,   /* vectors: fp32 */
    PARAM_READ_BOTH,    /* prototypes: their norms fp32, their products 16 bits */
    PARAM_READ_REDUCED, /* matrices: 16 bits alone */
    PARAM_READ_COUNT
} ParamRead;

/* Sub-modules: clipped separately, named as the first part of the path in checkpoints. */
typedef enum { PARAM_BACKBONE = 0, PARAM_DINO_HEAD, PARAM_IBOT_HEAD, PARAM_MODULE_COUNT } ParamModule;

typedef struct {
    char name[80]; /* within its module: "blocks.0.attn.qkv.weight" */
    ParamModule module;
    int unit; /* what is gathered and reduced together: embeddings, block i, norm, a head */
    ParamRead read;
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

/* Elements of the flat buffer that belong to one unit. With 16-bit compute precision the fp32 values of
 * [first, exact_end) and the 16-bit values of [reduced_first, end) are read: param_table_lay_out puts
 * parameters in the order of ParamRead; where it has not, both ranges are the whole unit. */
typedef struct {
    ParamModule module;
    int64_t first, reduced_first, exact_end, end;
} ParamUnit;

typedef struct {
    Param *params; /* owned */
    int count;
    int capacity;
    int64_t flat_count; /* elements of a flat buffer, padding included; padding is zero and stays zero */
    ParamUnit *units;   /* owned */
    int unit_count;
} ParamTable;

enum { PARAM_ALIGNMENT = 16 }; /* elements: one cache line of fp32 */

void param_table_init(ParamTable *table);
void param_table_fini(ParamTable *table);

/* "backbone", "dino_head", "ibot_head". */
const char *param_module_name(ParamModule module);

/* Opens a new unit for the parameters of `module` added next; returns its number. */
int param_table_begin_unit(ParamTable *table, ParamModule module);

/* What param_table_add needs beside the name. */
typedef struct {
    ParamModule module;
    ParamInit init;
    double init_value;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    ParamRead read;
} ParamSpec;

/* Adds a parameter to the current unit, returns its id. The name is "prefix" + "suffix". */
int param_table_add(ParamTable *table, const ParamSpec *spec, const char *prefix, const char *suffix);

/* The id of a module's parameter by name, or -1. */
int param_table_find(const ParamTable *table, ParamModule module, const char *name);

/* Moves the parameters of units that will be cut into `shards`[module] > 1 equal parts into the order of
 * ParamRead, with padding such that [first, exact_end) and
 * [exact_end, end) are multiples of shards * PARAM_ALIGNMENT. After the last parameter, before any flat
 * buffer is made. With 1 everywhere nothing moves. */
void param_table_lay_out(ParamTable *table, const int shards[PARAM_MODULE_COUNT]);

/* The parameter's values inside a flat fp32 buffer, in its own shape. */
Tensor param_view(const ParamTable *table, int id, float *flat);

/* Initial values of one parameter, values[count]: from its own stream of (seed, name), so that they do not
 * depend on order, ranks or other parameters. */
void param_initialise(const Param *param, uint64_t seed, float *values);

/* Fills flat[flat_count] with initial values; padding becomes zero. */
void param_table_initialise(const ParamTable *table, uint64_t seed, float *flat);

/* One role's values (weights, gradients): all in one flat buffer, or each unit's in a place of its own, which
 * may move or go while nobody uses the unit. */
typedef struct {
    const ParamTable *table;
    float *flat;         /* [flat_count], or NULL: */
    float *const *units; /* [unit_count], each from the unit's first element */
} ParamValues;

/* All in one flat buffer. */
static inline ParamValues param_values_flat(const ParamTable *table, float *flat)
{
    return (ParamValues){table, flat, NULL};
}

/* A parameter as a matrix [shape[0], rest], or as a vector [count]. id -1 gives the empty tensor. */
Tensor param_matrix_view(ParamValues values, int id);
Tensor param_vector_view(ParamValues values, int id);

/* Weights as the layers read them: fp32 masters, and beside them optional reduced-precision copies of the
 * matrices. */
typedef struct {
    ParamValues master;
    uint16_t *reduced;              /* flat [flat_count] bf16 or fp16, or NULL */
    uint16_t *const *reduced_units; /* each unit's, from its reduced_first, or NULL; with neither, matrices
                                        are read in fp32 */
    Dtype reduced_dtype;
} Weights;

/* The type of activations that go with these weights. */
static inline Dtype weights_act(const Weights *weights)
{
    return weights->reduced || weights->reduced_units ? weights->reduced_dtype : DTYPE_F32;
}

/* A matrix operand in compute precision; flattened to [shape[0], rest]. id -1 gives the empty tensor. */
Tensor weights_matrix(const Weights *weights, int id);

/* A vector operand (bias, norm, token), always fp32, as [count]. id -1 gives the empty tensor. */
Tensor weights_vector(const Weights *weights, int id);

#endif
