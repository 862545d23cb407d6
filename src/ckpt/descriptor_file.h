/* descriptor_file.h - the weights of a copy-detection network as an HDF5 file.
 *
 * Format: hdf5_schemas/descriptor.yaml. Reading proves every checksum, the work dealt over the ranks, and
 * names what is missing, unexpected or of another shape.
 */
#ifndef DINOBATCH_CKPT_DESCRIPTOR_FILE_H
#define DINOBATCH_CKPT_DESCRIPTOR_FILE_H

#include "base/status.h"
#include "comm/comm.h"
#include "nn/resnet.h"

/* The root attributes. */
typedef struct {
    ResnetConfig config;
    double mean[3], std[3]; /* of the input's normalisation */
    char source[256];       /* where the weights come from */
} DescriptorMeta;

/* "sscd_resnet50", "sscd_resnet18": the word for files. */
const char *descriptor_file_arch(ResnetArch arch);

/* STATUS_INPUT: no such file, another kind, an unknown arch. The outcome is agreed. Collective over COMM. */
Status descriptor_file_read_meta(const char *path, DescriptorMeta *meta, Comm *comm, Error *error);

/* flat[table->flat_count] of the table that resnet_build made for the file's meta; padding is left alone. The
 * errors of checkpoint_load (ckpt/checkpoint.h); the outcome is agreed. Collective over COMM. */
Status descriptor_file_load(const char *path, const ParamTable *table, float *flat, Comm *comm, Error *error);

/* Writes all of that, the same on every rank, making the file's folder; the file has its name when it is
 * whole. The outcome is agreed. Collective over COMM. */
Status descriptor_file_save(const char *path, const DescriptorMeta *meta, const ParamTable *table,
                            float *flat, Comm *comm, Error *error);

#endif
