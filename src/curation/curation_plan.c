/* curation_plan.c - the tables of a curation's keys, and what else must hold. */
#include "curation/curation_plan.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* What relative paths of data and models start from, and the plan itself. */
typedef struct {
    CurationPlan *plan;
    const char *root; /* with its slash; NULL: the YAML file's folder */
} Context;

static const char *root_of(const YamlTable *table)
{
    const Context *context = yaml_table_context(table);
    return context->root ? context->root : yaml_table_folder(table);
}

/* --- values --- */

/* Bytes of the prefix that `text` starts with. */
static size_t prefix_of(const char *text, const char *const *prefixes)
{
    for (int i = 0; prefixes[i]; i++)
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0) return strlen(prefixes[i]);
    return 0;
}

static Status take_spec(const YamlTable *table, void *value, Error *error)
{
    static const char *const specs[] = {"folder:", "tar:", "hdf5:", NULL};
    (void)error;
    char **text = value;
    size_t skip = prefix_of(*text, specs);
    if (skip > 0) *text = yaml_table_path(root_of(table), *text, skip);
    return STATUS_OK;
}

static Status take_specs(const YamlTable *table, void *value, Error *error)
{
    YamlTexts *texts = value;
    for (int i = 0; i < texts->count; i++)
        TRY(take_spec(table, &texts->texts[i], error));
    return STATUS_OK;
}

static Status take_path(const YamlTable *table, void *value, Error *error)
{
    static const char *const models[] = {"sscd:", NULL};
    (void)error;
    char **text = value;
    if (strcmp(*text, "untrained") != 0 && strcmp(*text, "raw-pixels") != 0)
        *text = yaml_table_path(root_of(table), *text, prefix_of(*text, models));
    return STATUS_OK;
}

/* Of the sets of a list, the last of which is `set`. */
static Status check_among(const YamlTable *table, PlanSet *sets, int count, Error *error)
{
    PlanSet *set = &sets[count - 1];
    if (!set->name[0] || strpbrk(set->name, "/ \t\n") || set->name[0] == '.')
        return yaml_table_wrong(table, "name", "a word that can be a file's name", error);
    if (!set->mode) set->mode = memory_strdup("auto");
    if (strcmp(set->mode, "auto") != 0 && strcmp(set->mode, "sample") != 0 &&
        strcmp(set->mode, "cluster") != 0)
        return yaml_table_wrong(table, "mode", "sample, cluster or auto", error);
    for (int before = 0; before + 1 < count; before++)
        if (strcmp(sets[before].name, set->name) == 0) {
            char expected[160];
            snprintf(expected, sizeof expected, "another name than %.100s, which is that of a set before",
                     set->name);
            return yaml_table_wrong(table, "name", expected, error);
        }
    return STATUS_OK;
}

static Status check_evaluation_set(const YamlTable *table, void *value, Error *error)
{
    const CurationPlan *plan = ((const Context *)yaml_table_context(table))->plan;
    (void)value;
    return check_among(table, plan->evaluation_sets, plan->evaluation_count, error);
}

static Status check_query_set(const YamlTable *table, void *value, Error *error)
{
    const CurationPlan *plan = ((const Context *)yaml_table_context(table))->plan;
    (void)value;
    return check_among(table, plan->query_sets, plan->query_count, error);
}

static Status check_network(const YamlTable *table, void *value, Error *error)
{
    CurationPlan *plan = ((const Context *)yaml_table_context(table))->plan;
    PlanNetwork *network = value;
    const char *key = network == &plan->retrieval ? "retrieval" : "copy_detection";
    if (network == &plan->retrieval) plan->has_retrieval = true;
    bool described = network->pretrain.given;
    bool untrained = network->model && strcmp(network->model, "untrained") == 0;
    if (untrained ? !described : (network->model != NULL) == described)
        return yaml_table_wrong(
            table, key, untrained ? "pretrain, which tells the network" : "either model or pretrain", error);
    network->trained = !network->model;
    return STATUS_OK;
}

/* --- tables --- */

static const YamlKey SET_KEYS[] = {
    {.name = "name", .type = YAML_TEXT, .offset = offsetof(PlanSet, name), .required = true},
    {.name = "data",
     .type = YAML_TEXT,
     .offset = offsetof(PlanSet, data),
     .required = true,
     .check = take_spec},
    {.name = "mode", .type = YAML_TEXT, .offset = offsetof(PlanSet, mode)},
    {.name = "task", .type = YAML_TEXT, .offset = offsetof(PlanSet, task)},
    {.name = "as_is", .type = YAML_BOOL, .offset = offsetof(PlanSet, as_is)},
    {.name = "published", .type = YAML_COUNT, .offset = offsetof(PlanSet, published)},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(PlanSet, settings)},
    {0},
};

static const YamlKey NETWORK_KEYS[] = {
    {.name = "model", .type = YAML_TEXT, .offset = offsetof(PlanNetwork, model), .check = take_path},
    {.name = "pretrain", .type = YAML_CONFIGURATION, .offset = offsetof(PlanNetwork, pretrain)},
    {.name = "words", .type = YAML_TEXTS, .offset = offsetof(PlanNetwork, words)},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(PlanNetwork, settings)},
    {.name = "whiten", .type = YAML_BOOL, .offset = offsetof(PlanNetwork, whiten)},
    {.name = "whiten_dims", .type = YAML_TEXT, .offset = offsetof(PlanNetwork, whiten_dims)},
    {.name = "whiten_ridge", .type = YAML_TEXT, .offset = offsetof(PlanNetwork, whiten_ridge)},
    {.name = "views", .type = YAML_TEXT, .offset = offsetof(PlanNetwork, views)},
    {.name = "probes", .type = YAML_COUNT, .offset = offsetof(PlanNetwork, probes)},
    {0},
};

static const YamlKey PLAN_KEYS[] = {
    {.name = "name", .type = YAML_TEXT, .offset = offsetof(CurationPlan, name), .required = true},
    {.name = "pool",
     .type = YAML_TEXT_OR_LIST,
     .offset = offsetof(CurationPlan, pool),
     .required = true,
     .check = take_specs},
    {.name = "truth", .type = YAML_TEXT, .offset = offsetof(CurationPlan, truth), .check = take_path},
    {.name = "evaluation_sets",
     .type = YAML_ITEMS,
     .offset = offsetof(CurationPlan, evaluation_sets),
     .counter = offsetof(CurationPlan, evaluation_count),
     .size = sizeof(PlanSet),
     .keys = SET_KEYS,
     .check = check_evaluation_set},
    {.name = "query_sets",
     .type = YAML_ITEMS,
     .offset = offsetof(CurationPlan, query_sets),
     .counter = offsetof(CurationPlan, query_count),
     .size = sizeof(PlanSet),
     .keys = SET_KEYS,
     .check = check_query_set},
    {.name = "copy_detection",
     .type = YAML_MAPPING,
     .offset = offsetof(CurationPlan, copy_detection),
     .keys = NETWORK_KEYS,
     .required = true,
     .check = check_network},
    {.name = "retrieval",
     .type = YAML_MAPPING,
     .offset = offsetof(CurationPlan, retrieval),
     .keys = NETWORK_KEYS,
     .check = check_network},
    {.name = "settings", .type = YAML_TEXTS, .offset = offsetof(CurationPlan, settings)},
    {0},
};

Status curation_plan_load(CurationPlan *plan, const char *path, const char *root, Error *error)
{
    *plan = (CurationPlan){0};
    char folder[4096];
    if (root && snprintf(folder, sizeof folder, "%s/", root) >= (int)sizeof folder)
        return status_fail(error, STATUS_INPUT, "%.100s...: the path is too long", root);
    Context context = {.plan = plan, .root = root ? folder : NULL};
    return yaml_table_load(path, PLAN_KEYS, plan, &context, error);
}

/* --- end --- */

static void sets_fini(PlanSet *sets, int count)
{
    for (int i = 0; i < count; i++) {
        memory_free(sets[i].name);
        memory_free(sets[i].data);
        memory_free(sets[i].mode);
        memory_free(sets[i].task);
        yaml_texts_fini(&sets[i].settings);
    }
    memory_free(sets);
}

static void network_fini(PlanNetwork *network)
{
    memory_free(network->model);
    memory_free(network->whiten_dims);
    memory_free(network->whiten_ridge);
    memory_free(network->views);
    yaml_configuration_fini(&network->pretrain);
    yaml_texts_fini(&network->words);
    yaml_texts_fini(&network->settings);
}

void curation_plan_fini(CurationPlan *plan)
{
    memory_free(plan->name);
    yaml_texts_fini(&plan->pool);
    memory_free(plan->truth);
    sets_fini(plan->evaluation_sets, plan->evaluation_count);
    sets_fini(plan->query_sets, plan->query_count);
    network_fini(&plan->copy_detection);
    network_fini(&plan->retrieval);
    yaml_texts_fini(&plan->settings);
    *plan = (CurationPlan){0};
}
