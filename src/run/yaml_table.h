/* yaml_table.h - a YAML file of a fixed form, read into structs by tables of keys.
 *
 *     static const YamlKey KEYS[] = {{.name = "title", .type = YAML_TEXT, .offset = offsetof(Paper, title)},
 * {0}}; TRY(yaml_table_load(path, KEYS, &paper, error));
 *
 * Every fault is one line FILE:LINE: KEY: what was expected; an unknown key names the nearest one. It is not
 * for the configuration itself (src/config), which has a table of its own and overlays files.
 */
#ifndef DINOBATCH_RUN_YAML_TABLE_H
#define DINOBATCH_RUN_YAML_TABLE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Texts in order; zero-initialised it is empty. */
typedef struct {
    char **texts; /* owned, each too */
    int count;
} YamlTexts;

void yaml_texts_add(YamlTexts *texts, char *owned);
void yaml_texts_fini(YamlTexts *texts);

/* A configuration: files, or its keys themselves. */
typedef struct {
    YamlTexts files; /* paths from the working folder */
    YamlTexts keys;  /* key=value */
    bool given;
} YamlConfiguration;

void yaml_configuration_fini(YamlConfiguration *configuration);

typedef enum {
    YAML_TEXT,          /* char *: a plain value; owned */
    YAML_SHORT_TEXT,    /* char[size]: a plain value */
    YAML_BOOL,          /* bool */
    YAML_COUNT,         /* int64_t: a whole number from 0 */
    YAML_NUMBER,        /* double */
    YAML_TEXTS,         /* YamlTexts: a list of plain values */
    YAML_TEXT_OR_LIST,  /* YamlTexts: a list of at least one, or one plain value */
    YAML_CONFIGURATION, /* YamlConfiguration: a list of files, relative to this one, or keys and values */
    YAML_MAPPING,       /* a struct: keys and values */
    YAML_ITEMS,         /* pointer to an array (owned), and an int that counts: a list of keys and values */
} YamlType;

/* What is being read. */
typedef struct YamlTable YamlTable;

typedef struct YamlKey {
    const char *name;
    YamlType type;
    size_t offset;              /* of the member */
    size_t counter;             /* YAML_ITEMS: of the int that counts */
    size_t size;                /* YAML_ITEMS: of an item; YAML_SHORT_TEXT: of the member, its NUL included */
    double low, high;           /* YAML_COUNT, YAML_NUMBER: inclusive, unless both are 0 */
    const struct YamlKey *keys; /* YAML_MAPPING (of the struct at `offset`), YAML_ITEMS */
    bool required;
    /* After the value has been read, or each item: `value` is the member or the item. NULL: nothing. */
    Status (*check)(const YamlTable *table, void *value, Error *error);
} YamlKey;

/* Fills `out`, which is zero, from the file. STATUS_INPUT as above; what was read until then is in `out`, for
 * the caller to release. `context` is for checks. Not collective. */
Status yaml_table_load(const char *path, const YamlKey *keys, void *out, void *context, Error *error);

/* --- for checks --- */

void *yaml_table_context(const YamlTable *table);

/* The file's folder with its slash; "" for the working folder. */
const char *yaml_table_folder(const YamlTable *table);

/* STATUS_INPUT "FILE:LINE: KEY: expected ...", of the value that is being checked. */
Status yaml_table_wrong(const YamlTable *table, const char *key, const char *expected, Error *error);

/* `folder` before a relative path that starts `skip` bytes into `text`, which is released; owned. */
char *yaml_table_path(const char *folder, char *text, size_t skip);

#endif
