/* h5_grids.h - inside src/h5 only: rows of items of different shapes behind each other, and where each
 * begins. */
#ifndef DINOBATCH_H5_H5_GRIDS_H
#define DINOBATCH_H5_H5_GRIDS_H

#include "h5/h5_schema.h"

/* STATUS_INPUT unless offsets rise from 0 to the object's rows, each by the product of the item's grid, whose
 * sides are 1 or more. `info` is that of the object, all checked against the schema. */
Status h5_grids_check(const H5File *file, const H5SchemaObject *object, const H5Info *info, Error *error);

#endif
