/* curation_plan.c - tables of keys over libyaml's document. */
#include "curation/curation_plan.h"

#include "base/memory.h"
#include "run/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef enum {
    KEY_TEXT,
    KEY_PATH,
    KEY_SPEC,
    KEY_SPECS,
    KEY_BOOL,
    KEY_COUNT,
    KEY_TEXTS,
    KEY_TRAINING,
    KEY_SETS,
    KEY_NETWORK
} KeyType;

typedef struct {
    const char *name;
    KeyType type;
    size_t offset;  /* of the member */
    size_t counter; /* KEY_SETS: of the member that counts */
    size_t given;   /* KEY_NETWORK: of the flag that it was there; 0: none */
    bool required;
} Key;

enum { KEYS_MAX = 16 };

static const Key SET_KEYS[] = {
    {.name = "name", .type = KEY_TEXT, .offset = offsetof(PlanSet, name), .required = true},
    {.name = "data", .type = KEY_SPEC, .offset = offsetof(PlanSet, data), .required = true},
    {.name = "mode", .type = KEY_TEXT, .offset = offsetof(PlanSet, mode)},
    {.name = "task", .type = KEY_TEXT, .offset = offsetof(PlanSet, task)},
    {.name = "as_is", .type = KEY_BOOL, .offset = offsetof(PlanSet, as_is)},
    {.name = "published", .type = KEY_COUNT, .offset = offsetof(PlanSet, published)},
    {.name = "settings", .type = KEY_TEXTS, .offset = offsetof(PlanSet, settings)},
    {0},
};

static const Key NETWORK_KEYS[] = {
    {.name = "model", .type = KEY_PATH, .offset = offsetof(PlanNetwork, model)},
    {.name = "pretrain", .type = KEY_TRAINING},
    {.name = "words", .type = KEY_TEXTS, .offset = offsetof(PlanNetwork, words)},
    {.name = "settings", .type = KEY_TEXTS, .offset = offsetof(PlanNetwork, settings)},
    {.name = "whiten", .type = KEY_BOOL, .offset = offsetof(PlanNetwork, whiten)},
    {.name = "whiten_dims", .type = KEY_TEXT, .offset = offsetof(PlanNetwork, whiten_dims)},
    {.name = "whiten_ridge", .type = KEY_TEXT, .offset = offsetof(PlanNetwork, whiten_ridge)},
    {.name = "views", .type = KEY_TEXT, .offset = offsetof(PlanNetwork, views)},
    {.name = "probes", .type = KEY_COUNT, .offset = offsetof(PlanNetwork, probes)},
    {0},
};

static const Key PLAN_KEYS[] = {
    {.name = "name", .type = KEY_TEXT, .offset = offsetof(CurationPlan, name), .required = true},
    {.name = "pool", .type = KEY_SPECS, .offset = offsetof(CurationPlan, pool), .required = true},
    {.name = "truth", .type = KEY_PATH, .offset = offsetof(CurationPlan, truth)},
    {.name = "evaluation_sets",
     .type = KEY_SETS,
     .offset = offsetof(CurationPlan, evaluation_sets),
     .counter = offsetof(CurationPlan, evaluation_count)},
    {.name = "query_sets",
     .type = KEY_SETS,
     .offset = offsetof(CurationPlan, query_sets),
     .counter = offsetof(CurationPlan, query_count)},
    {.name = "copy_detection",
     .type = KEY_NETWORK,
     .offset = offsetof(CurationPlan, copy_detection),
     .required = true},
    {.name = "retrieval",
     .type = KEY_NETWORK,
     .offset = offsetof(CurationPlan, retrieval),
     .given = offsetof(CurationPlan, has_retrieval)},
    {.name = "settings", .type = KEY_TEXTS, .offset = offsetof(CurationPlan, settings)},
    {0},
};

typedef struct {
    yaml_document_t document;
    const char *path;
    char folder[4096]; /* of the YAML file, with its slash; "" for the working folder */
    char root[4096];   /* of data and models, likewise */
    Error *error;
} Reader;

static Status wrong(Reader *reader, const yaml_node_t *node, const char *key, const char *expected)
{
    return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s: expected %s", reader->path,
                       node->start_mark.line + 1, key, expected);
}

/* --- values --- */

/* A path from `folder`; behind a prefix like "sscd:" that ends `skip` bytes into it. */
static char *from_folder(const char *folder, const char *text, size_t skip)
{
    bool moves = text[skip] != '/' && text[skip] != '\0';
    size_t size = strlen(text) + strlen(folder) + 1;
    char *path = memory_alloc(size);
    snprintf(path, size, "%.*s%s%s", (int)skip, text, moves ? folder : "", text + skip);
    return path;
}

static size_t prefix_of(const char *text, const char *const *prefixes)
{
    for (int i = 0; prefixes[i]; i++)
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0) return strlen(prefixes[i]);
    return 0;
}

static char *value_of(const Reader *reader, KeyType type, const char *text)
{
    static const char *const specs[] = {"folder:", "tar:", "hdf5:", NULL}, *const models[] = {"sscd:", NULL};
    if (type == KEY_TEXT || type == KEY_TEXTS) return memory_strdup(text);
    if (type == KEY_TRAINING) return from_folder(reader->folder, text, 0);
    if (type == KEY_PATH && (strcmp(text, "untrained") == 0 || strcmp(text, "raw-pixels") == 0))
        return memory_strdup(text);
    bool is_spec = type == KEY_SPEC || type == KEY_SPECS;
    size_t skip = prefix_of(text, is_spec ? specs : models);
    return is_spec && skip == 0 ? memory_strdup(text) : from_folder(reader->root, text, skip);
}

static Status read_text(Reader *reader, const yaml_node_t *node, const Key *key, char **out)
{
    if (node->type != YAML_SCALAR_NODE) return wrong(reader, node, key->name, "a plain value");
    *out = value_of(reader, key->type, (const char *)node->data.scalar.value);
    return STATUS_OK;
}

static Status read_texts(Reader *reader, const yaml_node_t *node, const Key *key, PlanTexts *out)
{
    if (node->type != YAML_SEQUENCE_NODE) return wrong(reader, node, key->name, "a list [a, b]");
    const yaml_node_item_t *items = node->data.sequence.items.start;
    int count = (int)(node->data.sequence.items.top - items);
    out->texts = memory_alloc_array((size_t)count + 1, sizeof *out->texts);
    for (int i = 0; i < count; i++) {
        const yaml_node_t *item = yaml_document_get_node(&reader->document, items[i]);
        TRY(read_text(reader, item, key, &out->texts[i]));
        out->count++;
    }
    return STATUS_OK;
}

/* A list, or one plain value. At least one. */
static Status read_specs(Reader *reader, const yaml_node_t *node, const Key *key, PlanTexts *out)
{
    if (node->type != YAML_SCALAR_NODE) {
        TRY(read_texts(reader, node, key, out));
        return out->count > 0 ? STATUS_OK
                              : wrong(reader, node, key->name, "a data set spec, or a list of them");
    }
    out->texts = memory_alloc_array(1, sizeof *out->texts);
    TRY(read_text(reader, node, key, &out->texts[0]));
    out->count = 1;
    return STATUS_OK;
}

static Status read_bool(Reader *reader, const yaml_node_t *node, const Key *key, bool *out)
{
    const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "";
    *out = strcmp(text, "true") == 0;
    return *out || strcmp(text, "false") == 0 ? STATUS_OK : wrong(reader, node, key->name, "true or false");
}

static Status read_count(Reader *reader, const yaml_node_t *node, const Key *key, int64_t *out)
{
    const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "";
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    bool good = end != text && !*end && !errno && *out >= 0;
    return good ? STATUS_OK : wrong(reader, node, key->name, "a whole number, 0 or more");
}

/* --- a training's configuration --- */

static void add_text(PlanTexts *texts, char *text)
{
    size_t size = (size_t)texts->count * sizeof *texts->texts;
    texts->texts = memory_grow(texts->texts, size, size + sizeof *texts->texts);
    texts->texts[texts->count++] = text;
}

/* "[a, b]" of plain values. */
static Status list_text(Reader *reader, const yaml_node_t *node, const char *key, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *value = yaml_document_get_node(&reader->document, *item);
        if (value->type != YAML_SCALAR_NODE) return wrong(reader, value, key, "a list of plain values");
        const char *separator = item > node->data.sequence.items.start ? ", " : "";
        used += (size_t)snprintf(text + used, size - used, "%s%s", separator,
                                 (const char *)value->data.scalar.value);
        if (used + 2 > size) return wrong(reader, value, key, "a shorter list");
    }
    snprintf(text + used, size - used, "]");
    return STATUS_OK;
}

/* A configuration file's mapping as key=value, `prefix` before each key; its keys are checked by who runs
 * them. */
static Status read_keys(Reader *reader, const yaml_node_t *node, const char *prefix, PlanTexts *out)
{
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&reader->document, pair->value);
        if (name->type != YAML_SCALAR_NODE) return wrong(reader, name, "pretrain", "names of keys");
        char key[256], text[1024];
        int length = snprintf(key, sizeof key, "%s%s", prefix, (const char *)name->data.scalar.value);
        if (length >= (int)sizeof key - 1) return wrong(reader, name, "pretrain", "shorter names of keys");
        if (value->type == YAML_MAPPING_NODE) {
            snprintf(key + length, sizeof key - (size_t)length, ".");
            TRY(read_keys(reader, value, key, out));
            continue;
        }
        if (value->type == YAML_SEQUENCE_NODE)
            TRY(list_text(reader, value, key, text, sizeof text));
        else if (snprintf(text, sizeof text, "%s", (const char *)value->data.scalar.value) >=
                 (int)sizeof text)
            return wrong(reader, value, key, "a shorter value");
        size_t size = strlen(key) + strlen(text) + 2;
        char *setting = memory_alloc(size);
        snprintf(setting, size, "%s=%s", key, text);
        add_text(out, setting);
    }
    return STATUS_OK;
}

static Status read_training(Reader *reader, const yaml_node_t *node, const Key *key, PlanNetwork *network)
{
    network->trained = true;
    if (node->type == YAML_MAPPING_NODE) return read_keys(reader, node, "", &network->keys);
    if (node->type == YAML_SEQUENCE_NODE) return read_texts(reader, node, key, &network->files);
    return wrong(reader, node, key->name, "a list of configuration files, or keys and values");
}

/* --- mappings --- */

static Status read_mapping(Reader *reader, const yaml_node_t *node, const Key *keys, void *out);

static Status read_sets(Reader *reader, const yaml_node_t *node, const Key *key, PlanSet **out, int *count)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return wrong(reader, node, key->name, "a list of {name: ..., data: ...}");
    const yaml_node_item_t *items = node->data.sequence.items.start;
    int total = (int)(node->data.sequence.items.top - items);
    *out = memory_alloc_array((size_t)total + 1, sizeof **out);
    for (int i = 0; i < total; i++) {
        const yaml_node_t *item = yaml_document_get_node(&reader->document, items[i]);
        PlanSet *set = &(*out)[(*count)++];
        TRY(read_mapping(reader, item, SET_KEYS, set));
        if (!set->name[0] || strpbrk(set->name, "/ \t\n") || set->name[0] == '.')
            return wrong(reader, item, "name", "a word that can be a file's name");
        if (!set->mode) set->mode = memory_strdup("auto");
        if (strcmp(set->mode, "auto") != 0 && strcmp(set->mode, "sample") != 0 &&
            strcmp(set->mode, "cluster") != 0)
            return wrong(reader, item, "mode", "sample, cluster or auto");
        for (int before = 0; before < i; before++)
            if (strcmp((*out)[before].name, set->name) == 0)
                return status_fail(reader->error, STATUS_INPUT, "%s:%zu: two sets are called %s",
                                   reader->path, item->start_mark.line + 1, set->name);
    }
    return STATUS_OK;
}

static Status read_network(Reader *reader, const yaml_node_t *node, const Key *key, PlanNetwork *network)
{
    TRY(read_mapping(reader, node, NETWORK_KEYS, network));
    bool untrained = network->model && strcmp(network->model, "untrained") == 0;
    if (untrained ? !network->trained : (network->model != NULL) == network->trained)
        return wrong(reader, node, key->name,
                     untrained ? "pretrain, which tells the network" : "either model or pretrain");
    network->trained = !network->model;
    return STATUS_OK;
}

static Status read_member(Reader *reader, const yaml_node_t *node, const Key *key, char *out)
{
    void *member = out + key->offset;
    switch (key->type) {
    case KEY_TEXT:
    case KEY_PATH:
    case KEY_SPEC:
        return read_text(reader, node, key, member);
    case KEY_BOOL:
        return read_bool(reader, node, key, member);
    case KEY_COUNT:
        return read_count(reader, node, key, member);
    case KEY_TEXTS:
        return read_texts(reader, node, key, member);
    case KEY_SPECS:
        return read_specs(reader, node, key, member);
    case KEY_TRAINING:
        return read_training(reader, node, key, member);
    case KEY_SETS:
        return read_sets(reader, node, key, member, (int *)(void *)(out + key->counter));
    case KEY_NETWORK:
        if (key->given) *(bool *)(out + key->given) = true;
        return read_network(reader, node, key, member);
    }
    return STATUS_OK;
}

static Status unknown_key(Reader *reader, const yaml_node_t *node, const char *name, const Key *keys)
{
    const char *names[KEYS_MAX];
    int count = 0;
    while (keys[count].name)
        names[count] = keys[count].name, count++;
    const char *near = options_nearest(name, names, count);
    return status_fail(reader->error, STATUS_INPUT, "%s:%zu: unknown key %.60s%s%s", reader->path,
                       node->start_mark.line + 1, name, near ? "; did you mean " : "", near ? near : "");
}

static Status read_mapping(Reader *reader, const yaml_node_t *node, const Key *keys, void *out)
{
    if (!node || node->type != YAML_MAPPING_NODE)
        return status_fail(reader->error, STATUS_INPUT, "%s:%zu: expected keys and values", reader->path,
                           node ? node->start_mark.line + 1 : 1);
    bool given[KEYS_MAX] = {false};
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    int64_t count = node->data.mapping.pairs.top - pairs;
    for (int64_t i = 0; i < count; i++) {
        const yaml_node_t *name = yaml_document_get_node(&reader->document, pairs[i].key);
        const yaml_node_t *value = yaml_document_get_node(&reader->document, pairs[i].value);
        const char *text = name->type == YAML_SCALAR_NODE ? (const char *)name->data.scalar.value : "";
        int k = 0;
        while (keys[k].name && strcmp(keys[k].name, text) != 0)
            k++;
        if (!keys[k].name) return unknown_key(reader, name, text, keys);
        if (given[k])
            return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s is given twice", reader->path,
                               name->start_mark.line + 1, text);
        given[k] = true;
        TRY(read_member(reader, value, &keys[k], out));
    }
    for (int k = 0; keys[k].name; k++)
        if (keys[k].required && !given[k])
            return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s is not given", reader->path,
                               node->start_mark.line + 1, keys[k].name);
    return STATUS_OK;
}

static Status take_folders(Reader *reader, const char *root)
{
    const char *slash = strrchr(reader->path, '/');
    size_t length = slash ? (size_t)(slash - reader->path) + 1 : 0;
    if (length >= sizeof reader->folder || (root && strlen(root) + 1 >= sizeof reader->root))
        return status_fail(reader->error, STATUS_INPUT, "%s: the path is too long",
                           root ? root : reader->path);
    memcpy(reader->folder, reader->path, length);
    if (root)
        snprintf(reader->root, sizeof reader->root, "%s/", root);
    else
        memcpy(reader->root, reader->folder, length);
    return STATUS_OK;
}

Status curation_plan_load(CurationPlan *plan, const char *path, const char *root, Error *error)
{
    *plan = (CurationPlan){0};
    Reader reader = {.path = path, .error = error};
    TRY(take_folders(&reader, root));
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
        status = read_mapping(&reader, yaml_document_get_root_node(&reader.document), PLAN_KEYS, plan);
        yaml_document_delete(&reader.document);
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}

/* --- end --- */

static void texts_fini(PlanTexts *texts)
{
    for (int i = 0; i < texts->count; i++)
        memory_free(texts->texts[i]);
    memory_free(texts->texts);
}

static void sets_fini(PlanSet *sets, int count)
{
    for (int i = 0; i < count; i++) {
        memory_free(sets[i].name);
        memory_free(sets[i].data);
        memory_free(sets[i].mode);
        memory_free(sets[i].task);
        texts_fini(&sets[i].settings);
    }
    memory_free(sets);
}

static void network_fini(PlanNetwork *network)
{
    memory_free(network->model);
    memory_free(network->whiten_dims);
    memory_free(network->whiten_ridge);
    memory_free(network->views);
    texts_fini(&network->files);
    texts_fini(&network->keys);
    texts_fini(&network->words);
    texts_fini(&network->settings);
}

void curation_plan_fini(CurationPlan *plan)
{
    memory_free(plan->name);
    texts_fini(&plan->pool);
    memory_free(plan->truth);
    sets_fini(plan->evaluation_sets, plan->evaluation_count);
    sets_fini(plan->query_sets, plan->query_count);
    network_fini(&plan->copy_detection);
    network_fini(&plan->retrieval);
    texts_fini(&plan->settings);
    *plan = (CurationPlan){0};
}
