/* cluster.h - a described cluster: what its nodes, links and disks can do, from a small YAML file.
 *
 * jobs/configs/clusters holds a few, with the source of every number. Rates are the manufacturer's; the
 * shares of them that are really reached stand beside them, so that a reader sees what was assumed.
 */
#ifndef DINOBATCH_PLAN_CLUSTER_H
#define DINOBATCH_PLAN_CLUSTER_H

#include "base/dtype.h"
#include "base/status.h"
#include "device/device.h"

/* In the units of the file: GiB, TFLOP/s, GB/s (1e9 bytes), microseconds. */
typedef struct {
    char name[96];
    DeviceKind device;             /* DEVICE_CUDA: a rank has a GPU; DEVICE_CPU: a share of a node's cores */
    int64_t nodes, ranks_per_node; /* of the whole cluster */
    char gpu[48];                  /* what a rank computes on: "A100" */
    double memory_gib;             /* of a rank: of its GPU, or of its share of the node */
    double reserved_gib;           /* of it, for what is not ours: context, kernels, buffers of NCCL */
    int64_t parallel;              /* multiprocessors of the GPU, or threads of the rank */
    double fp32_tflops, bf16_tflops, fp16_tflops; /* dense products; 0: the processor has none */
    double product_share, attention_share;        /* of these rates, reached */
    double memory_gb_s, memory_share;
    double step_share;               /* of all that, whole steps reach */
    double operation_us;             /* the least that an operation takes */
    double host_gb_s;                /* between host and GPU */
    double within_gb_s, within_us;   /* of one rank to others of its node, each way; of one message */
    double between_gb_s, between_us; /* of a node to others, each way, all adapters together */
    double network_share;            /* of both bandwidths, reached by collectives */
    double write_gb_s;               /* of a checkpoint, all ranks together */
    int64_t cores_per_node;
    double images_per_core_s; /* decoded and cropped */
} Cluster;

/* STATUS_INPUT with one line `FILE:LINE: key: expected ...`. Every key must be given, none twice. */
Status cluster_load(Cluster *cluster, const char *path, Error *error);

/* Products of such numbers, FLOP/s reached. */
double cluster_product_rate(const Cluster *cluster, Dtype dtype);
double cluster_attention_rate(const Cluster *cluster, Dtype dtype);

/* Bytes of memory that a second moves. */
double cluster_memory_rate(const Cluster *cluster);

#endif
