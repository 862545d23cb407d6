/* vit_weights.h - a vision transformer's weights out of and into a safetensors file.
 *
 * What the network is follows from the shapes in the file, the number of heads alone does not: it is the
 * caller's, 64 numbers a head in all that DINOv2 released. Position embeddings are taken as they are;
 * vit_weights_resample is for who asks for another grid.
 */
#ifndef DINOBATCH_CKPT_VIT_WEIGHTS_H
#define DINOBATCH_CKPT_VIT_WEIGHTS_H

#include "ckpt/vit_names.h"
#include "nn/vit.h"

enum { VIT_WEIGHTS_HEAD_DIM = 64, VIT_WEIGHTS_GRID_MAX = 512 /* patches a side that operations take */ };

/* The network that the file's shapes make: all of *config but num_heads (0), stochastic depth and
 * interpolation; layerscale is 1e-5 where there is one. STATUS_INPUT: the tensors that tell are missing or
 * of impossible shapes. */
Status vit_weights_describe(const SafetensorsFile *file, const VitNames *names, VitConfig *config,
                            Error *error);

/* Weights of the table that vit_build made, whose tensors must be all of the file's but heads that are not in
 * the table (next function): *flat [table->flat_count], memory_free, padding zero. What timm leaves out is 0,
 * and the class token's position embedding -0, which changes no class token. STATUS_INPUT:
 * weight_pieces_match, safetensors_read. */
Status vit_weights_load(const SafetensorsFile *file, const VitNames *names, const ParamTable *table,
                        float **flat, Error *error);

/* How many tensors of the file are heads that a load leaves out: Hugging Face's classifier and, if the table
 * has no heads (`with_heads` false), the reference's dino_head and ibot_head, of files with a prefix. Their
 * first names into text[size]. */
int64_t vit_weights_left_out(const SafetensorsFile *file, const VitNames *names, bool with_heads, char *text,
                             size_t size);

/* Writes a file of all parameters, as numbers of that type (F32, F16, BF16); with heads in the table, under
 * the reference's names, "backbone." is before the others. `flat` is as it was afterwards. The errors of
 * safetensors_write. */
Status vit_weights_save(const char *path, VitNaming naming, SafetensorsType type, const ParamTable *table,
                        float *flat, Error *error);

/* from[vit->...] -> to: the same parameters with the position embedding on another grid, by the rules that a
 * forward pass follows for pictures of that size (native: as it is). The tables differ in img_size alone.
 * `ops` are the host's. */
void vit_weights_resample(const Vit *vit, const ParamTable *table, const float *from, const Vit *other,
                          const ParamTable *other_table, float *to, const Ops *ops);

#endif
