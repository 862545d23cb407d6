/* ssl_network.h - one of the two networks of a step: its shape, this rank's part of its weights, and the full
 * copies of them that passes read.
 *
 * Source: dinov2/train/ssl_meta_arch.py (the `student` and `teacher` module dictionaries). Student and
 * teacher may be of different shapes: in a distillation they are.
 */
#ifndef DINOBATCH_SSL_SSL_NETWORK_H
#define DINOBATCH_SSL_SSL_NETWORK_H

#include "config/config.h"
#include "fsdp/sharded_weights.h"
#include "nn/dino_head.h"
#include "nn/vit.h"

typedef struct {
    Vit vit;
    DinoHead dino_head, ibot_head; /* ibot_head is not built when the head is shared or iBOT is off */
    bool shared_head;              /* masked patches go through dino_head */
    ParamTable table;
    ShardMap map; /* what this rank holds of it */
    float *local; /* [map.count] fp32 of ops->device: this rank's part; owned */
    ShardedWeights copies;
    Weights weights[PARAM_MODULE_COUNT]; /* views of the copies */
    NnHooks hooks;
} SslNetwork;

/* What the backbone of a configuration looks like. */
VitConfig ssl_vit_config(const Config *config);

/* Adds the heads on a backbone of that width to its table. ibot_head is left as it is where iBOT has no head
 * of its own. */
void ssl_build_heads(const Config *config, int64_t width, DinoHead *dino_head, DinoHead *ibot_head,
                     ParamTable *table);

/* Adds one network's parameters to an initialised table, in the order of units: backbone, heads. vit is
 * released by vit_fini. */
void ssl_build_networks(const Config *config, Vit *vit, DinoHead *dino_head, DinoHead *ibot_head,
                        ParamTable *table);

/* The type that matrices of each module are read in: what was asked for where the processor multiplies such
 * numbers, else fp32. */
void ssl_network_precision(const ConfigPrecisions *asked, const Ops *ops, Dtype act[PARAM_MODULE_COUNT]);

/* The network that `config` describes, cut as `ranks` says; its part of the weights is allocated, and is
 * zero. `ranks` must outlive it. Not collective. */
void ssl_network_init(SslNetwork *network, const Config *config, const FsdpRanks *ranks, Device *device);

/* Full copies in the given types, with hooks that ask for them. `teacher`: by the teacher's strategies.
 * `other`: the network of the same shape that shares the backbone's rooms, or NULL; it must outlive this
 * one. */
void ssl_network_make_copies(SslNetwork *network, const Ops *ops, bool teacher,
                             const Dtype act[PARAM_MODULE_COUNT], ShardedWeights *other);

void ssl_network_fini(SslNetwork *network, Device *device);

/* The head that scores patches. */
const DinoHead *ssl_network_patch_head(const SslNetwork *network);

#endif
