/* cluster.c - the table of keys, and the YAML file that fills it in. */
#include "plan/cluster.h"

#include "run/options.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef enum { KEY_TEXT, KEY_DEVICE, KEY_COUNT, KEY_NUMBER } KeyType;

typedef struct {
    const char *name; /* "section.key" or "key" */
    KeyType type;
    size_t offset, size; /* of the member */
    double low, high;    /* inclusive, of COUNT and NUMBER */
} Key;

#define KEY(name_, type_, member, low_, high_)                                             \
    {                                                                                      \
        name_, type_, offsetof(Cluster, member), sizeof((Cluster *)0)->member, low_, high_ \
    }

static const Key KEYS[] = {
    KEY("name", KEY_TEXT, name, 0, 0),
    KEY("device", KEY_DEVICE, device, 0, 0),
    KEY("nodes", KEY_COUNT, nodes, 1, 1e6),
    KEY("ranks_per_node", KEY_COUNT, ranks_per_node, 1, 4096),
    KEY("rank.processor", KEY_TEXT, gpu, 0, 0),
    KEY("rank.memory_gib", KEY_NUMBER, memory_gib, 0.001, 1e6),
    KEY("rank.reserved_gib", KEY_NUMBER, reserved_gib, 0, 1e6),
    KEY("rank.parallel", KEY_COUNT, parallel, 1, 1e5),
    KEY("rank.fp32_tflops", KEY_NUMBER, fp32_tflops, 1e-6, 1e6),
    KEY("rank.bf16_tflops", KEY_NUMBER, bf16_tflops, 0, 1e6),
    KEY("rank.fp16_tflops", KEY_NUMBER, fp16_tflops, 0, 1e6),
    KEY("rank.product_share", KEY_NUMBER, product_share, 0.001, 1),
    KEY("rank.attention_share", KEY_NUMBER, attention_share, 0.001, 1),
    KEY("rank.memory_gb_s", KEY_NUMBER, memory_gb_s, 0.001, 1e6),
    KEY("rank.memory_share", KEY_NUMBER, memory_share, 0.001, 1),
    KEY("rank.step_share", KEY_NUMBER, step_share, 0.001, 1),
    KEY("rank.operation_us", KEY_NUMBER, operation_us, 0, 1e6),
    KEY("rank.host_gb_s", KEY_NUMBER, host_gb_s, 0.001, 1e6),
    KEY("network.within_gb_s", KEY_NUMBER, within_gb_s, 0.001, 1e6),
    KEY("network.within_us", KEY_NUMBER, within_us, 0, 1e6),
    KEY("network.between_gb_s", KEY_NUMBER, between_gb_s, 0.001, 1e6),
    KEY("network.between_us", KEY_NUMBER, between_us, 0, 1e6),
    KEY("network.share", KEY_NUMBER, network_share, 0.001, 1),
    KEY("disk.write_gb_s", KEY_NUMBER, write_gb_s, 1e-6, 1e6),
    KEY("host.cores_per_node", KEY_COUNT, cores_per_node, 1, 1e5),
    KEY("host.images_per_core_s", KEY_NUMBER, images_per_core_s, 1e-6, 1e6),
};
enum { KEY_COUNT_ALL = sizeof KEYS / sizeof *KEYS };

typedef struct {
    yaml_document_t document;
    const char *path;
    Cluster *cluster;
    bool given[KEY_COUNT_ALL];
    Error *error;
} Reader;

static Status unknown_key(Reader *reader, const yaml_node_t *node, const char *name)
{
    const char *names[KEY_COUNT_ALL];
    for (int i = 0; i < KEY_COUNT_ALL; i++)
        names[i] = KEYS[i].name;
    const char *near = options_nearest(name, names, KEY_COUNT_ALL);
    return status_fail(reader->error, STATUS_INPUT, "%s:%zu: unknown key %s%s%s", reader->path,
                       node->start_mark.line + 1, name, near ? "; did you mean " : "", near ? near : "");
}

static Status wrong_value(Reader *reader, const yaml_node_t *node, const Key *key, const char *expected)
{
    return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s: expected %s", reader->path,
                       node->start_mark.line + 1, key->name, expected);
}

static Status read_value(Reader *reader, const yaml_node_t *node, const Key *key)
{
    if (node->type != YAML_SCALAR_NODE) return wrong_value(reader, node, key, "a plain value");
    const char *text = (const char *)node->data.scalar.value;
    void *member = (char *)reader->cluster + key->offset;
    if (key->type == KEY_TEXT) {
        if (node->data.scalar.length >= key->size) return wrong_value(reader, node, key, "a shorter text");
        snprintf(member, key->size, "%s", text);
        return STATUS_OK;
    }
    if (key->type == KEY_DEVICE) {
        bool cuda = strcmp(text, "cuda") == 0;
        if (!cuda && strcmp(text, "cpu") != 0) return wrong_value(reader, node, key, "cpu or cuda");
        *(DeviceKind *)member = cuda ? DEVICE_CUDA : DEVICE_CPU;
        return STATUS_OK;
    }
    char *end, expected[64];
    double value = strtod(text, &end);
    bool whole = key->type == KEY_COUNT;
    if (end == text || *end || !(value >= key->low && value <= key->high) ||
        (whole && value != floor(value))) {
        snprintf(expected, sizeof expected, "%s from %g to %g", whole ? "a whole number" : "a number",
                 key->low, key->high);
        return wrong_value(reader, node, key, expected);
    }
    if (whole)
        *(int64_t *)member = (int64_t)value;
    else
        *(double *)member = value;
    return STATUS_OK;
}

static Status read_key(Reader *reader, const yaml_node_t *name_node, const yaml_node_t *node,
                       const char *name)
{
    int i = 0;
    while (i < KEY_COUNT_ALL && strcmp(KEYS[i].name, name) != 0)
        i++;
    if (i == KEY_COUNT_ALL) return unknown_key(reader, name_node, name);
    if (reader->given[i])
        return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s is given twice", reader->path,
                           name_node->start_mark.line + 1, name);
    reader->given[i] = true;
    return read_value(reader, node, &KEYS[i]);
}

/* The keys of a mapping; `section` is "" or the name of the mapping. Sections are no deeper. */
static Status read_mapping(Reader *reader, const yaml_node_t *mapping, const char *section)
{
    if (!mapping || mapping->type != YAML_MAPPING_NODE)
        return status_fail(reader->error, STATUS_INPUT, "%s: expected keys and values", reader->path);
    const yaml_node_pair_t *pairs = mapping->data.mapping.pairs.start;
    int64_t count = mapping->data.mapping.pairs.top - pairs;
    for (int64_t i = 0; i < count; i++) {
        const yaml_node_t *key = yaml_document_get_node(&reader->document, pairs[i].key);
        const yaml_node_t *value = yaml_document_get_node(&reader->document, pairs[i].value);
        char name[128];
        const char *text = key->type == YAML_SCALAR_NODE ? (const char *)key->data.scalar.value : "";
        snprintf(name, sizeof name, "%s%s%.60s", section, *section ? "." : "", text);
        if (value->type == YAML_MAPPING_NODE && !*section)
            TRY(read_mapping(reader, value, name));
        else
            TRY(read_key(reader, key, value, name));
    }
    return STATUS_OK;
}

static Status check_all_given(Reader *reader)
{
    for (int i = 0; i < KEY_COUNT_ALL; i++)
        if (!reader->given[i])
            return status_fail(reader->error, STATUS_INPUT, "%s: %s is not given", reader->path,
                               KEYS[i].name);
    return STATUS_OK;
}

Status cluster_load(Cluster *cluster, const char *path, Error *error)
{
    *cluster = (Cluster){0};
    Reader reader = {.path = path, .cluster = cluster, .error = error};
    FILE *file = fopen(path, "re");
    if (!file) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    yaml_parser_t parser;
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, file);
    Status status = STATUS_OK;
    if (!yaml_parser_load(&parser, &reader.document)) {
        status = status_fail(error, STATUS_INPUT, "%s:%zu: not YAML: %s", path, parser.problem_mark.line + 1,
                             parser.problem ? parser.problem : "no reason given");
    } else {
        status = read_mapping(&reader, yaml_document_get_root_node(&reader.document), "");
        if (status == STATUS_OK) status = check_all_given(&reader);
        yaml_document_delete(&reader.document);
    }
    yaml_parser_delete(&parser);
    fclose(file);
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
