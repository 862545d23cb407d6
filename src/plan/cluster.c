/* cluster.c - the table of keys, and the YAML file that fills it in. */
#include "plan/cluster.h"

#include "run/yaml_table.h"

#include <stddef.h>
#include <string.h>

/* What the file says; the device by its name. */
typedef struct {
    Cluster cluster;
    char device[8];
} Description;

static Status check_device(const YamlTable *yaml, void *value, Error *error)
{
    const char *name = value;
    return strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0
               ? STATUS_OK
               : yaml_table_wrong(yaml, "device", "cpu or cuda", error);
}

#define MEMBER(member) .offset = offsetof(Description, cluster.member), .required = true
#define TEXT(name_, member)                                                                          \
    {                                                                                                \
        .name = name_, .type = YAML_SHORT_TEXT, .size = sizeof((Cluster *)0)->member, MEMBER(member) \
    }
#define COUNT(name_, member, most)                                                \
    {                                                                             \
        .name = name_, .type = YAML_COUNT, .low = 1, .high = most, MEMBER(member) \
    }
#define NUMBER(name_, member, least, most)                                             \
    {                                                                                  \
        .name = name_, .type = YAML_NUMBER, .low = least, .high = most, MEMBER(member) \
    }
#define SECTION(name_, keys_)                                                \
    {                                                                        \
        .name = name_, .type = YAML_MAPPING, .keys = keys_, .required = true \
    }

static const YamlKey RANK_KEYS[] = {
    TEXT("processor", gpu),
    NUMBER("memory_gib", memory_gib, 0.001, 1e6),
    NUMBER("reserved_gib", reserved_gib, 0, 1e6),
    COUNT("parallel", parallel, 1e5),
    NUMBER("fp32_tflops", fp32_tflops, 1e-6, 1e6),
    NUMBER("bf16_tflops", bf16_tflops, 0, 1e6),
    NUMBER("fp16_tflops", fp16_tflops, 0, 1e6),
    NUMBER("product_share", product_share, 0.001, 1),
    NUMBER("attention_share", attention_share, 0.001, 1),
    NUMBER("memory_gb_s", memory_gb_s, 0.001, 1e6),
    NUMBER("memory_share", memory_share, 0.001, 1),
    NUMBER("step_share", step_share, 0.001, 1),
    NUMBER("operation_us", operation_us, 0, 1e6),
    NUMBER("host_gb_s", host_gb_s, 0.001, 1e6),
    {0},
};

static const YamlKey NETWORK_KEYS[] = {
    NUMBER("within_gb_s", within_gb_s, 0.001, 1e6),   NUMBER("within_us", within_us, 0, 1e6),
    NUMBER("between_gb_s", between_gb_s, 0.001, 1e6), NUMBER("between_us", between_us, 0, 1e6),
    NUMBER("share", network_share, 0.001, 1),         {0},
};

static const YamlKey DISK_KEYS[] = {NUMBER("write_gb_s", write_gb_s, 1e-6, 1e6), {0}};

static const YamlKey HOST_KEYS[] = {
    COUNT("cores_per_node", cores_per_node, 1e5),
    NUMBER("images_per_core_s", images_per_core_s, 1e-6, 1e6),
    {0},
};

static const YamlKey KEYS[] = {
    TEXT("name", name),
    {.name = "device",
     .type = YAML_SHORT_TEXT,
     .offset = offsetof(Description, device),
     .size = sizeof((Description *)0)->device,
     .required = true,
     .check = check_device},
    COUNT("nodes", nodes, 1e6),
    COUNT("ranks_per_node", ranks_per_node, 4096),
    SECTION("rank", RANK_KEYS),
    SECTION("network", NETWORK_KEYS),
    SECTION("disk", DISK_KEYS),
    SECTION("host", HOST_KEYS),
    {0},
};

Status cluster_load(Cluster *cluster, const char *path, Error *error)
{
    Description description = {0};
    Status status = yaml_table_load(path, KEYS, &description, NULL, error);
    *cluster = description.cluster;
    cluster->device = strcmp(description.device, "cuda") == 0 ? DEVICE_CUDA : DEVICE_CPU;
    return status;
}

/* --- rates --- */

static double peak(const Cluster *c, Dtype dtype)
{
    double tflops = dtype == DTYPE_BF16 ? c->bf16_tflops : dtype == DTYPE_F16 ? c->fp16_tflops : 0;
    return (tflops > 0 ? tflops : c->fp32_tflops) * 1e12;
}

double cluster_product_rate(const Cluster *cluster, Dtype dtype)
{
    return peak(cluster, dtype) * cluster->product_share;
}

double cluster_attention_rate(const Cluster *cluster, Dtype dtype)
{
    return peak(cluster, dtype) * cluster->attention_share;
}

double cluster_memory_rate(const Cluster *cluster)
{
    return cluster->memory_gb_s * 1e9 * cluster->memory_share;
}
