/* h5_schema.h - the file kinds as YAML (hdf5_schemas/ *.yaml, embedded at build), and checking files against
 * them.
 *
 * A schema lists root attributes, data sets (types, dims by name that must agree over the file) and trees of
 * tensors whose names come from the model. Objects that it does not list are refused, attributes are not.
 * hdf5_schemas/checkpoint.yaml says how to read and write one.
 */
#ifndef DINOBATCH_H5_H5_SCHEMA_H
#define DINOBATCH_H5_H5_SCHEMA_H

#include "h5/h5_dataset.h"

enum {
    H5_SCHEMA_MAX_ATTRIBUTES = 48,
    H5_SCHEMA_MAX_OBJECTS = 24,
    H5_SCHEMA_MAX_TYPES = 3,
    H5_SCHEMA_MAX_UNLESS = 2,
};

typedef struct {
    char name[48];
    H5Type type;   /* int64, float64 or text */
    int64_t count; /* values; 1 unless the schema says otherwise */
    bool optional;
} H5SchemaAttribute;

/* "n", "n+1" or "3": a named size plus a constant, or a constant alone (name empty). */
typedef struct {
    char name[16];
    int64_t plus;
} H5SchemaDim;

/* How an object's bytes are proved right. */
typedef enum {
    H5_CHECKSUM_FLETCHER32, /* by reading it */
    H5_CHECKSUM_ATTRIBUTE,  /* `crc32` attribute of the data set: zlib's crc32 of its bytes */
    H5_CHECKSUM_ITEMS,      /* bytes of item i, [offsets[i], offsets[i+1]), against crc[i] */
} H5Checksum;

typedef struct {
    char path[48];
    bool is_tree; /* a group of tensors of any names; dims do not apply */
    bool optional;
    char with[48];                         /* exists if and only if this object does; empty: on its own */
    char unless[H5_SCHEMA_MAX_UNLESS][48]; /* may be missing where one of these is there */
    int unless_count;
    char same_as[48]; /* a tree with the same names and shapes as that one; empty: on its own */
    H5Type types[H5_SCHEMA_MAX_TYPES];
    int type_count;
    H5SchemaDim dims[H5_MAX_DIMS];
    int ndim;
    H5Checksum checksum;
    char offsets[48], crc[48]; /* of H5_CHECKSUM_ITEMS: data sets of [n+1] uint64 and [n] uint32 */
    char grid[48]; /* with offsets, of rows of items behind each other: data set of [n, 2] int64, whose
                      product is the item's rows; empty: none */
} H5SchemaObject;

typedef struct {
    char format[48]; /* value of the root attribute `format` */
    int64_t version; /* value of `format_version` */
    H5SchemaAttribute attributes[H5_SCHEMA_MAX_ATTRIBUTES];
    int attribute_count;
    H5SchemaObject objects[H5_SCHEMA_MAX_OBJECTS];
    int object_count;
} H5Schema;

/* How far to check: names, types, shapes and sizes, or every byte as well. */
typedef enum { H5_CHECK_STRUCTURE, H5_CHECK_CHECKSUMS } H5CheckDepth;

/* One embedded schema: stem of its file, and its text. The table ends with {NULL, NULL}. */
typedef struct {
    const char *name;
    const char *text;
} H5SchemaText;

extern const H5SchemaText h5_schema_texts[]; /* made by hdf5_schemas/embed.sh */

/* The schema of a kind: "dataset", "checkpoint", "descriptor", "features", "curation", "result". CHECK-fails
 * on another. */
void h5_schema_load(H5Schema *schema, const char *kind);

/* Reads a schema's YAML. STATUS_INPUT names the line at fault; `source` names the text in messages. */
Status h5_schema_parse(H5Schema *schema, const char *source, const char *text, Error *error);

/* Writes the root attributes `format` and `format_version`. */
Status h5_schema_stamp(const H5Schema *schema, const H5File *file, Error *error);

/* Checks an open file. STATUS_INPUT with one line that names the object. */
Status h5_schema_check(const H5Schema *schema, const H5File *file, H5CheckDepth depth, Error *error);

#endif
