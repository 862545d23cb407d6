/* h5_attribute.h - attributes: small named values on the root, a group or a data set.
 *
 * Text is fixed-length UTF-8; numbers are int64, float64 or uint32 (checksums), scalars or vectors. Writing a
 * name that exists replaces its value in place where type and length agree, and is STATUS_FAILED otherwise.
 */
#ifndef DINOBATCH_H5_H5_ATTRIBUTE_H
#define DINOBATCH_H5_H5_ATTRIBUTE_H

#include "h5/h5_dataset.h"

enum { H5_MAX_ATTRIBUTE_BYTES = 1 << 20 }; /* a larger one is refused when reading */

/* What an attribute is. */
typedef struct {
    bool exists;
    H5Type type;
    size_t item_bytes;
    int64_t count; /* 1 for a scalar */
} H5AttributeInfo;

/* Describes attribute `name` of `object` ("/" for the root); a missing one is no error. */
Status h5_attribute_info(const H5File *file, const char *object, const char *name, H5AttributeInfo *info,
                         Error *error);

Status h5_attribute_write_text(const H5File *file, const char *object, const char *name, const char *text,
                               Error *error);
Status h5_attribute_write_ints(const H5File *file, const char *object, const char *name,
                               const int64_t *values, int64_t count, Error *error);
Status h5_attribute_write_doubles(const H5File *file, const char *object, const char *name,
                                  const double *values, int64_t count, Error *error);
Status h5_attribute_write_u32(const H5File *file, const char *object, const char *name, uint32_t value,
                              Error *error);

/* One value each. */
Status h5_attribute_write_int(const H5File *file, const char *object, const char *name, int64_t value,
                              Error *error);
Status h5_attribute_write_double(const H5File *file, const char *object, const char *name, double value,
                                 Error *error);

/* *text: owned by the caller (memory_free). Missing or of another type: STATUS_INPUT, *text NULL. */
Status h5_attribute_read_text(const H5File *file, const char *object, const char *name, char **text,
                              Error *error);

/* Into values[count]; another number of values is STATUS_INPUT. */
Status h5_attribute_read_ints(const H5File *file, const char *object, const char *name, int64_t *values,
                              int64_t count, Error *error);
Status h5_attribute_read_doubles(const H5File *file, const char *object, const char *name, double *values,
                                 int64_t count, Error *error);
Status h5_attribute_read_u32(const H5File *file, const char *object, const char *name, uint32_t *value,
                             Error *error);

/* Reads every attribute of an object that any of our formats may have, and forgets it. STATUS_INPUT: one
 * cannot be read. */
Status h5_attribute_check_all(const H5File *file, const char *object, Error *error);

#endif
