/* h5_schema_parse.c - a schema's YAML, read by libyaml into the struct that checking uses. */
#include "base/check.h"
#include "h5/h5_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* What the reading functions share. */
typedef struct {
    yaml_document_t document;
    const char *source;
    Error *error;
} Reader;

static Status fail_at(Reader *reader, const yaml_node_t *node, const char *what)
{
    return status_fail(reader->error, STATUS_INPUT, "%s:%zu: %s", reader->source, node->start_mark.line + 1,
                       what);
}

static yaml_node_t *node_at(Reader *reader, int id)
{
    return yaml_document_get_node(&reader->document, id);
}

/* Copies a scalar into text[size]. */
static Status read_text(Reader *reader, const yaml_node_t *node, char *text, size_t size)
{
    if (node->type != YAML_SCALAR_NODE) return fail_at(reader, node, "expected a plain value");
    if (node->data.scalar.length >= size) return fail_at(reader, node, "too long");
    snprintf(text, size, "%s", (const char *)node->data.scalar.value);
    return STATUS_OK;
}

static Status read_int(Reader *reader, const yaml_node_t *node, int64_t *value)
{
    char text[24];
    TRY(read_text(reader, node, text, sizeof text));
    char *end;
    *value = strtoll(text, &end, 10);
    if (end == text || *end || *value < 0) return fail_at(reader, node, "expected a whole number");
    return STATUS_OK;
}

static Status read_bool(Reader *reader, const yaml_node_t *node, bool *value)
{
    char text[8];
    TRY(read_text(reader, node, text, sizeof text));
    *value = strcmp(text, "true") == 0;
    if (!*value && strcmp(text, "false") != 0) return fail_at(reader, node, "expected true or false");
    return STATUS_OK;
}

static Status read_type(Reader *reader, const yaml_node_t *node, H5Type *type)
{
    char text[16];
    TRY(read_text(reader, node, text, sizeof text));
    *type = h5_type_parse(text);
    return *type == H5_TYPE_OTHER ? fail_at(reader, node, "no such type") : STATUS_OK;
}

/* "n", "n+1", "3". */
static Status read_dim(Reader *reader, const yaml_node_t *node, H5SchemaDim *dim)
{
    char text[32];
    TRY(read_text(reader, node, text, sizeof text));
    size_t name_length = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
    if (name_length >= sizeof dim->name) return fail_at(reader, node, "too long");
    memcpy(dim->name, text, name_length);
    const char *rest = text + name_length;
    if (!*rest && name_length) return STATUS_OK;
    char *end;
    dim->plus = strtoll(rest, &end, 10);
    bool joined = name_length ? *rest == '+' : *rest != '+';
    if (!joined || end == rest || *end || dim->plus < 0)
        return fail_at(reader, node, "expected a dim like n or n+1");
    return STATUS_OK;
}

static Status read_checksum(Reader *reader, const yaml_node_t *node, H5Checksum *checksum)
{
    char text[16];
    TRY(read_text(reader, node, text, sizeof text));
    if (strcmp(text, "crc32") != 0 && strcmp(text, "items") != 0)
        return fail_at(reader, node, "expected crc32 or items");
    *checksum = strcmp(text, "items") == 0 ? H5_CHECKSUM_ITEMS : H5_CHECKSUM_ATTRIBUTE;
    return STATUS_OK;
}

/* The entries of a list, one by one: *count of at most `limit`. */
static Status read_list(Reader *reader, const yaml_node_t *node, int limit, int *count)
{
    if (node->type != YAML_SEQUENCE_NODE) return fail_at(reader, node, "expected a list");
    *count = (int)(node->data.sequence.items.top - node->data.sequence.items.start);
    return *count < 1 || *count > limit ? fail_at(reader, node, "too few or too many entries") : STATUS_OK;
}

static Status read_attribute(Reader *reader, const yaml_node_t *node, const char *key, H5SchemaAttribute *a)
{
    char text[160];
    if (strcmp(key, "type") == 0) return read_type(reader, node, &a->type);
    if (strcmp(key, "count") == 0) return read_int(reader, node, &a->count);
    if (strcmp(key, "optional") == 0) return read_bool(reader, node, &a->optional);
    if (strcmp(key, "text") == 0) return read_text(reader, node, text, sizeof text);
    return fail_at(reader, node, "no such key of an attribute");
}

static Status read_object(Reader *reader, const yaml_node_t *node, const char *key, H5SchemaObject *o)
{
    char text[160];
    if (strcmp(key, "tree") == 0) return read_bool(reader, node, &o->is_tree);
    if (strcmp(key, "optional") == 0) return read_bool(reader, node, &o->optional);
    if (strcmp(key, "with") == 0) return read_text(reader, node, o->with, sizeof o->with);
    if (strcmp(key, "same_as") == 0) return read_text(reader, node, o->same_as, sizeof o->same_as);
    if (strcmp(key, "offsets") == 0) return read_text(reader, node, o->offsets, sizeof o->offsets);
    if (strcmp(key, "grid") == 0) return read_text(reader, node, o->grid, sizeof o->grid);
    if (strcmp(key, "crc") == 0) return read_text(reader, node, o->crc, sizeof o->crc);
    if (strcmp(key, "checksum") == 0) return read_checksum(reader, node, &o->checksum);
    if (strcmp(key, "text") == 0) return read_text(reader, node, text, sizeof text);
    if (strcmp(key, "types") == 0) {
        TRY(read_list(reader, node, H5_SCHEMA_MAX_TYPES, &o->type_count));
        for (int i = 0; i < o->type_count; i++)
            TRY(read_type(reader, node_at(reader, node->data.sequence.items.start[i]), &o->types[i]));
        return STATUS_OK;
    }
    if (strcmp(key, "unless") == 0) {
        TRY(read_list(reader, node, H5_SCHEMA_MAX_UNLESS, &o->unless_count));
        for (int i = 0; i < o->unless_count; i++)
            TRY(read_text(reader, node_at(reader, node->data.sequence.items.start[i]), o->unless[i],
                          sizeof o->unless[i]));
        return STATUS_OK;
    }
    if (strcmp(key, "dims") == 0) {
        TRY(read_list(reader, node, H5_MAX_DIMS, &o->ndim));
        for (int i = 0; i < o->ndim; i++)
            TRY(read_dim(reader, node_at(reader, node->data.sequence.items.start[i]), &o->dims[i]));
        return STATUS_OK;
    }
    return fail_at(reader, node, "no such key of an object");
}

/* Pairs of a mapping; NULL when the node is none. */
static const yaml_node_pair_t *pairs_of(const yaml_node_t *node, int *count)
{
    *count = 0;
    if (node->type != YAML_MAPPING_NODE) return NULL;
    *count = (int)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    return node->data.mapping.pairs.start;
}

static Status read_attributes(Reader *reader, const yaml_node_t *node, H5Schema *schema)
{
    int count, keys;
    const yaml_node_pair_t *pairs = pairs_of(node, &count);
    if (!pairs || count > H5_SCHEMA_MAX_ATTRIBUTES)
        return fail_at(reader, node, "expected attributes by name");
    for (int i = 0; i < count; i++) {
        H5SchemaAttribute *a = &schema->attributes[schema->attribute_count++];
        a->count = 1;
        TRY(read_text(reader, node_at(reader, pairs[i].key), a->name, sizeof a->name));
        const yaml_node_t *body = node_at(reader, pairs[i].value);
        const yaml_node_pair_t *fields = pairs_of(body, &keys);
        if (!fields) return fail_at(reader, body, "expected a mapping");
        for (int k = 0; k < keys; k++) {
            char key[16];
            TRY(read_text(reader, node_at(reader, fields[k].key), key, sizeof key));
            TRY(read_attribute(reader, node_at(reader, fields[k].value), key, a));
        }
        if (a->type != H5_TYPE_I64 && a->type != H5_TYPE_F64 && a->type != H5_TYPE_TEXT)
            return fail_at(reader, body, "an attribute is int64, float64 or text");
    }
    return STATUS_OK;
}

static Status read_objects(Reader *reader, const yaml_node_t *node, H5Schema *schema)
{
    int count, keys;
    const yaml_node_pair_t *pairs = pairs_of(node, &count);
    if (!pairs || count > H5_SCHEMA_MAX_OBJECTS) return fail_at(reader, node, "expected objects by path");
    for (int i = 0; i < count; i++) {
        H5SchemaObject *o = &schema->objects[schema->object_count++];
        TRY(read_text(reader, node_at(reader, pairs[i].key), o->path, sizeof o->path));
        const yaml_node_t *body = node_at(reader, pairs[i].value);
        const yaml_node_pair_t *fields = pairs_of(body, &keys);
        if (!fields || o->path[0] != '/')
            return fail_at(reader, body, "expected an absolute path and a mapping");
        for (int k = 0; k < keys; k++) {
            char key[16];
            TRY(read_text(reader, node_at(reader, fields[k].key), key, sizeof key));
            TRY(read_object(reader, node_at(reader, fields[k].value), key, o));
        }
        bool items = o->checksum == H5_CHECKSUM_ITEMS;
        if (!o->type_count || (!o->is_tree && !o->ndim) || (items && !(o->offsets[0] && o->crc[0])) ||
            (o->grid[0] && !o->offsets[0]))
            return fail_at(reader, body, "types, dims, or offsets and crc are missing");
    }
    return STATUS_OK;
}

static Status read_schema(Reader *reader, H5Schema *schema)
{
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    if (!root) return status_fail(reader->error, STATUS_INPUT, "%s: empty", reader->source);
    int count;
    const yaml_node_pair_t *pairs = pairs_of(root, &count);
    for (int i = 0; i < count; i++) {
        char key[16];
        TRY(read_text(reader, node_at(reader, pairs[i].key), key, sizeof key));
        const yaml_node_t *value = node_at(reader, pairs[i].value);
        if (strcmp(key, "format") == 0)
            TRY(read_text(reader, value, schema->format, sizeof schema->format));
        else if (strcmp(key, "format_version") == 0)
            TRY(read_int(reader, value, &schema->version));
        else if (strcmp(key, "attributes") == 0)
            TRY(read_attributes(reader, value, schema));
        else if (strcmp(key, "objects") == 0)
            TRY(read_objects(reader, value, schema));
        else
            return fail_at(reader, value, "no such key of a schema");
    }
    if (!schema->format[0] || !schema->version || !schema->object_count)
        return fail_at(reader, root, "format, format_version or objects are missing");
    return STATUS_OK;
}

Status h5_schema_parse(H5Schema *schema, const char *source, const char *text, Error *error)
{
    *schema = (H5Schema){0};
    yaml_parser_t parser;
    CHECK(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    Reader reader = {.source = source, .error = error};
    Status status;
    if (!yaml_parser_load(&parser, &reader.document)) {
        status = status_fail(error, STATUS_INPUT, "%s:%zu: %s", source, parser.problem_mark.line + 1,
                             parser.problem ? parser.problem : "not YAML");
    } else {
        status = read_schema(&reader, schema);
        yaml_document_delete(&reader.document);
    }
    yaml_parser_delete(&parser);
    return status;
}

void h5_schema_load(H5Schema *schema, const char *kind)
{
    for (const H5SchemaText *entry = h5_schema_texts; entry->name; entry++) {
        if (strcmp(entry->name, kind) != 0) continue;
        CHECK(h5_schema_parse(schema, entry->name, entry->text, NULL) == STATUS_OK);
        return;
    }
    CHECK(!"an embedded schema of that name");
}
