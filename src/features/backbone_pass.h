/* backbone_pass.h - a loaded backbone over pictures of one size: their tokens after the final norm.
 *
 *     Arena plan = arena_measuring();
 *     backbone_pass_lay_out(backbone, device, &largest, &plan);
 *     Arena arena = device_arena_create(device, &plan);
 *     ...; BackbonePass pass = backbone_pass_lay_out(backbone, device, &images, &arena);
 *     backbone_pass_run(backbone, ops, &pass);              // pass.tokens
 */
#ifndef DINOBATCH_FEATURES_BACKBONE_PASS_H
#define DINOBATCH_FEATURES_BACKBONE_PASS_H

#include "nn/vit.h"

/* A backbone whose weights are in place, in the memory of the device that computes. All borrowed. */
typedef struct {
    const Vit *vit;
    const Weights *weights;
    const NnHooks *hooks; /* NULL: every weight lies here */
    Tensor levels;        /* [3, 256] fp32: what the grey levels of images are to it (data/pixel_levels.h) */
} FeatureBackbone;

typedef struct {
    uint8_t *images; /* [n, 3, height, width] grey levels */
    int64_t n, height, width;
    bool class_tokens, patches; /* which tokens the final norm is computed for */
    int64_t blocks;             /* as of VitInput */
} BackboneImages;

/* What a pass of n images needs; lives in the arena. */
typedef struct {
    VitPass pass;
    Tensor rows;   /* [tokens] int32: of the pack */
    Tensor tokens; /* [tokens, D] fp32: the class tokens [n, D], then the patch tokens [n * patches, D], as
                      they are wanted */
    Tensor stats;  /* [tokens, 2] fp32 */
} BackbonePass;

/* What ops must be made for. */
OpsLimits backbone_pass_limits(const FeatureBackbone *backbone, int64_t n, int64_t height, int64_t width);

/* On a real arena the images are on their way to the device when it returns. A pass of more images or more
 * patches, given to a measuring arena, bounds all smaller ones. */
BackbonePass backbone_pass_lay_out(const FeatureBackbone *backbone, Device *device,
                                   const BackboneImages *images, Arena *arena);

/* pass->tokens. */
void backbone_pass_run(const FeatureBackbone *backbone, const Ops *ops, BackbonePass *pass);

#endif
