/* ablation_table.c - reading a table, and what its rows mean. */
#include "ablation/ablation_table.h"

#include "base/memory.h"
#include "base/rng.h"
#include "config/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- checks --- */

static AblationTable *table_of(const YamlTable *yaml)
{
    return yaml_table_context(yaml);
}

static bool is_file_name(const char *name)
{
    return name[0] && name[0] != '.' && !strpbrk(name, "/ \t\n");
}

static Status check_name(const YamlTable *yaml, void *value, Error *error)
{
    char **name = value;
    return is_file_name(*name) ? STATUS_OK
                               : yaml_table_wrong(yaml, "name", "a word that can be a file's name", error);
}

static Status check_seeds(const YamlTable *yaml, void *value, Error *error)
{
    const YamlTexts *seeds = value;
    for (int i = 0; i < seeds->count; i++)
        if (!seeds->texts[i][0] || strspn(seeds->texts[i], "0123456789") != strlen(seeds->texts[i]) ||
            strlen(seeds->texts[i]) > 9)
            return yaml_table_wrong(yaml, "seeds", "whole numbers from 0", error);
    return STATUS_OK;
}

static Status check_evaluation(const YamlTable *yaml, void *value, Error *error)
{
    const AblationTable *table = table_of(yaml);
    const AblationEvaluation *evaluation = value;
    if (!is_file_name(evaluation->name))
        return yaml_table_wrong(yaml, "name", "a word that can be a file's name", error);
    if (evaluation->words.count < 2 || strcmp(evaluation->words.texts[0], "evaluate") != 0)
        return yaml_table_wrong(yaml, "words", "[evaluate, knn, ...]", error);
    for (int i = 0; i + 1 < table->evaluation_count; i++)
        if (strcmp(table->evaluations[i].name, evaluation->name) == 0)
            return yaml_table_wrong(yaml, "name", "another name than that of an evaluation before", error);
    return STATUS_OK;
}

/* `name` under `key` is that of a row before the one that is being read, or NULL. */
static Status check_earlier(const YamlTable *yaml, const char *key, const char *name, Error *error)
{
    const AblationTable *table = table_of(yaml);
    int row = name ? ablation_table_row(table, name) : 0;
    if (!name || (row >= 0 && row < table->row_count - 1)) return STATUS_OK;
    return yaml_table_wrong(yaml, key, "the name of a row before", error);
}

static Status check_row(const YamlTable *yaml, void *value, Error *error)
{
    const AblationTable *table = table_of(yaml);
    AblationRow *row = value;
    if (ablation_table_row(table, row->name) != table->row_count - 1)
        return yaml_table_wrong(yaml, "name", "another name than that of a row before", error);
    if (!row->job) row->job = memory_strdup("pretrain");
    bool trains = strcmp(row->job, "pretrain") == 0 || strcmp(row->job, "distill") == 0;
    if (!trains && strcmp(row->job, "none") != 0)
        return yaml_table_wrong(yaml, "job", "pretrain, distill or none", error);
    if (!trains && (!row->after || row->settings.count > 0))
        return yaml_table_wrong(yaml, "job", "with none: `after`, and no settings", error);
    TRY(check_earlier(yaml, "after", row->after, error));
    TRY(check_earlier(yaml, "beside", row->beside, error));
    for (int i = 0; i < row->settings.count; i++)
        if (!row->after && strstr(row->settings.texts[i], "{after}"))
            return yaml_table_wrong(yaml, "settings", "`after`, which {after} stands for", error);
    for (int i = 0; i < row->published.count; i++) {
        char *end;
        const char *text = row->published.texts[i];
        strtod(text, &end);
        if (strcmp(text, "-") != 0 && (end == text || *end))
            return yaml_table_wrong(yaml, "published", "numbers, or - for none", error);
    }
    return STATUS_OK;
}

/* --- tables of keys --- */

static const YamlKey EVALUATION_KEYS[] = {
    {.name = "name", .type = YAML_TEXT, .offset = offsetof(AblationEvaluation, name), .required = true},
    {.name = "words", .type = YAML_TEXTS, .offset = offsetof(AblationEvaluation, words), .required = true},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(AblationEvaluation, settings)},
    {0},
};

static const YamlKey COLUMN_KEYS[] = {
    {.name = "name", .type = YAML_TEXT, .offset = offsetof(AblationColumn, name), .required = true},
    {.name = "of", .type = YAML_TEXT, .offset = offsetof(AblationColumn, of), .required = true},
    {.name = "figure", .type = YAML_TEXT, .offset = offsetof(AblationColumn, figure), .required = true},
    {.name = "unit", .type = YAML_TEXT, .offset = offsetof(AblationColumn, unit), .required = true},
    {0},
};

static const YamlKey ROW_KEYS[] = {
    {.name = "name", .type = YAML_TEXT, .offset = offsetof(AblationRow, name), .required = true},
    {.name = "job", .type = YAML_TEXT, .offset = offsetof(AblationRow, job)},
    {.name = "after", .type = YAML_TEXT, .offset = offsetof(AblationRow, after)},
    {.name = "beside", .type = YAML_TEXT, .offset = offsetof(AblationRow, beside)},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(AblationRow, settings)},
    {.name = "published", .type = YAML_TEXTS, .offset = offsetof(AblationRow, published)},
    {.name = "aside", .type = YAML_BOOL, .offset = offsetof(AblationRow, aside)},
    {0},
};

#define ITEMS(member, counted, of)                                 \
    .type = YAML_ITEMS, .offset = offsetof(AblationTable, member), \
    .counter = offsetof(AblationTable, counted), .size = sizeof(of), .required = true

static const YamlKey TABLE_KEYS[] = {
    {.name = "name",
     .type = YAML_TEXT,
     .offset = offsetof(AblationTable, name),
     .required = true,
     .check = check_name},
    {.name = "title", .type = YAML_TEXT, .offset = offsetof(AblationTable, title), .required = true},
    {.name = "source", .type = YAML_TEXT, .offset = offsetof(AblationTable, source)},
    {.name = "base", .type = YAML_CONFIGURATION, .offset = offsetof(AblationTable, base), .required = true},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(AblationTable, settings)},
    {.name = "cumulative", .type = YAML_BOOL, .offset = offsetof(AblationTable, cumulative)},
    {.name = "seeds",
     .type = YAML_TEXT_OR_LIST,
     .offset = offsetof(AblationTable, seeds),
     .required = true,
     .check = check_seeds},
    {.name = "evaluations",
     ITEMS(evaluations, evaluation_count, AblationEvaluation),
     .keys = EVALUATION_KEYS,
     .check = check_evaluation},
    {.name = "columns", ITEMS(columns, column_count, AblationColumn), .keys = COLUMN_KEYS},
    {.name = "rows", ITEMS(rows, row_count, AblationRow), .keys = ROW_KEYS, .check = check_row},
    {0},
};

/* What can only be seen when everything has been read, whatever the order of keys. */
static Status check_whole(const AblationTable *table, const char *path, Error *error)
{
    if (table->row_count == 0 || table->column_count == 0)
        return status_fail(error, STATUS_INPUT, "%s: a table has rows and columns", path);
    for (int c = 0; c < table->column_count; c++) {
        int e = 0;
        while (e < table->evaluation_count && strcmp(table->evaluations[e].name, table->columns[c].of) != 0)
            e++;
        if (e == table->evaluation_count)
            return status_fail(error, STATUS_INPUT, "%s: column %s: there is no evaluation %s", path,
                               table->columns[c].name, table->columns[c].of);
    }
    for (int r = 0; r < table->row_count; r++) {
        int count = table->rows[r].published.count;
        if (count > 0 && count != table->column_count)
            return status_fail(error, STATUS_INPUT, "%s: row %s: %d published figures for %d columns", path,
                               table->rows[r].name, count, table->column_count);
    }
    return STATUS_OK;
}

Status ablation_table_load(AblationTable *table, const char *path, Error *error)
{
    *table = (AblationTable){0};
    TRY(yaml_table_load(path, TABLE_KEYS, table, table, error));
    return check_whole(table, path, error);
}

void ablation_table_fini(AblationTable *table)
{
    for (int i = 0; i < table->evaluation_count; i++) {
        memory_free(table->evaluations[i].name);
        yaml_texts_fini(&table->evaluations[i].words);
        yaml_texts_fini(&table->evaluations[i].settings);
    }
    for (int i = 0; i < table->column_count; i++) {
        const AblationColumn *c = &table->columns[i];
        char *owned[] = {c->name, c->of, c->figure, c->unit};
        for (int k = 0; k < 4; k++)
            memory_free(owned[k]);
    }
    for (int i = 0; i < table->row_count; i++) {
        AblationRow *row = &table->rows[i];
        memory_free(row->name);
        memory_free(row->job);
        memory_free(row->after);
        memory_free(row->beside);
        yaml_texts_fini(&row->settings);
        yaml_texts_fini(&row->published);
    }
    void *owned[] = {table->name,        table->title,   table->source,
                     table->evaluations, table->columns, table->rows};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        memory_free(owned[i]);
    yaml_configuration_fini(&table->base);
    yaml_texts_fini(&table->settings);
    yaml_texts_fini(&table->seeds);
    *table = (AblationTable){0};
}

/* --- rows --- */

int ablation_table_row(const AblationTable *table, const char *name)
{
    for (int i = 0; i < table->row_count; i++)
        if (strcmp(table->rows[i].name, name) == 0) return i;
    return -1;
}

double ablation_table_published(const AblationTable *table, int row, int column)
{
    const YamlTexts *published = &table->rows[row].published;
    if (column >= published->count || strcmp(published->texts[column], "-") == 0) return NAN;
    return strtod(published->texts[column], NULL);
}

static void add_copies(YamlTexts *to, const YamlTexts *from)
{
    for (int i = 0; i < from->count; i++)
        yaml_texts_add(to, memory_strdup(from->texts[i]));
}

YamlTexts ablation_table_settings(const AblationTable *table, int row)
{
    YamlTexts all = {0};
    add_copies(&all, &table->settings);
    for (int r = table->cumulative ? 0 : row; r <= row; r++)
        if (r == row || !table->rows[r].aside) add_copies(&all, &table->rows[r].settings);
    return all;
}

static uint64_t hash_texts(uint64_t hash, const YamlTexts *texts)
{
    for (int i = 0; i < texts->count; i++)
        hash = rng_hash_text(hash, texts->texts[i]);
    return rng_hash_text(hash, "");
}

static Status override(Config *config, const char *setting, Error *error)
{
    char *filled = ablation_table_fill(setting, "ROOT", "AFTER");
    Status status = config_override(config, filled, error);
    memory_free(filled);
    return status;
}

/* Keys that differ from their defaults, so that a new key with its default changes nothing. */
static Status hash_config(const AblationTable *table, int row, uint64_t *hash, Error *error)
{
    Config plain, config;
    config_init(&plain);
    config_init(&config);
    Status status = STATUS_OK;
    YamlTexts settings = ablation_table_settings(table, row);
    for (int i = 0; i < table->base.files.count && status == STATUS_OK; i++)
        status = config_load_file(&config, table->base.files.texts[i], error);
    for (int i = 0; i < table->base.keys.count && status == STATUS_OK; i++)
        status = override(&config, table->base.keys.texts[i], error);
    for (int i = 0; i < settings.count && status == STATUS_OK; i++)
        status = override(&config, settings.texts[i], error);
    if (status == STATUS_OK) status = config_check(&config, error);
    ConfigDiff diff = {0};
    if (status == STATUS_OK) config_diff_init(&diff, &plain, &config);
    for (int i = 0; i < diff.count; i++) {
        *hash = rng_hash_text(*hash, diff.items[i].key);
        *hash = rng_hash_text(*hash, diff.items[i].after);
    }
    if (status == STATUS_OK) config_diff_fini(&diff);
    yaml_texts_fini(&settings);
    config_fini(&plain);
    config_fini(&config);
    return status;
}

static Status hash_row(const AblationTable *table, int row, uint64_t *hash, Error *error)
{
    const AblationRow *r = &table->rows[row];
    *hash = rng_hash_text(*hash, r->job);
    if (strcmp(r->job, "none") != 0) TRY(hash_config(table, row, hash, error));
    return r->after ? hash_row(table, ablation_table_row(table, r->after), hash, error) : STATUS_OK;
}

Status ablation_table_digest(const AblationTable *table, int row, char digest[ABLATION_DIGEST], Error *error)
{
    uint64_t hash = RNG_HASH_START;
    Status status = hash_row(table, row, &hash, error);
    if (status != STATUS_OK) return status_prefix(error, status, "row %s", table->rows[row].name);
    for (int e = 0; e < table->evaluation_count; e++) {
        hash = hash_texts(hash, &table->evaluations[e].words);
        hash = hash_texts(hash, &table->evaluations[e].settings);
    }
    snprintf(digest, ABLATION_DIGEST, "%016" PRIx64, hash);
    return STATUS_OK;
}

/* Every `word` in the text becomes `by`; the text is released. */
static char *replace(char *text, const char *word, const char *by)
{
    size_t length = strlen(word), count = 0;
    for (const char *at = text; (at = strstr(at, word)); at += length)
        count++;
    char *filled = memory_alloc(strlen(text) + count * strlen(by) + 1), *to = filled;
    for (const char *at = text; *at;) {
        bool here = strncmp(at, word, length) == 0;
        size_t size = here ? strlen(by) : 1;
        memcpy(to, here ? by : at, size);
        to += size;
        at += here ? length : 1;
    }
    *to = '\0';
    memory_free(text);
    return filled;
}

char *ablation_table_fill(const char *text, const char *root, const char *after)
{
    char *filled = replace(memory_strdup(text), "{root}", root);
    return after ? replace(filled, "{after}", after) : filled;
}
