/* curation_chain.c - which job of a curation writes what, and from what. */
#include "curation_chain.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    CurationChain *chain;
    const CurationPlan *plan;
    const char *folder;
} Builder;

/* --- words --- */

__attribute__((format(printf, 1, 2))) static char *text_of(const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int size = vsnprintf(NULL, 0, format, list) + 1;
    char *text = memory_alloc((size_t)size);
    vsnprintf(text, (size_t)size, format, again);
    va_end(again);
    va_end(list);
    return text;
}

/* A new link "dinobatch JOB ..."; takes over `output`. The pointer holds until the next one. */
static ChainLink *begin(Builder *builder, char *output)
{
    CurationChain *chain = builder->chain;
    size_t old = (size_t)chain->count * sizeof *chain->links;
    chain->links = memory_grow(chain->links, old, old + sizeof *chain->links);
    ChainLink *link = &chain->links[chain->count++];
    *link = (ChainLink){.output = output};
    return link;
}

/* Takes over `word`. */
static void add(ChainLink *link, char *word)
{
    size_t old = link->argv ? (size_t)link->argc + 1 : 0, size = sizeof *link->argv;
    link->argv = memory_grow(link->argv, old * size, ((size_t)link->argc + 2) * size);
    link->argv[link->argc++] = word;
    link->argv[link->argc] = NULL;
}

void curation_chain_add_word(ChainLink *link, const char *word)
{
    add(link, memory_strdup(word));
}

/* Copies of words, NULL at the end. */
static void add_words(ChainLink *link, const char *const *words)
{
    for (; *words; words++)
        add(link, memory_strdup(*words));
}
#define ADD(link, ...) add_words(link, (const char *const[]){__VA_ARGS__, NULL})

static void add_texts(ChainLink *link, const PlanTexts *texts)
{
    for (int i = 0; i < texts->count; i++)
        add(link, memory_strdup(texts->texts[i]));
}

/* The settings of the curation, and those of a set or a network. */
static void add_settings(const Builder *builder, ChainLink *link, const PlanTexts *own)
{
    add_texts(link, &builder->plan->settings);
    if (own) add_texts(link, own);
}

/* --- descriptors --- */

/* What one network is called in the folder. */
typedef struct {
    const PlanNetwork *network;
    const char *name;
} Role;

static char *features_of(const Builder *builder, const Role *role, const char *set)
{
    return text_of("%s/features/%s/%s.h5", builder->folder, role->name, set);
}

static void add_configuration(ChainLink *link, const PlanNetwork *network)
{
    for (int i = 0; i < network->files.count; i++)
        ADD(link, "--config-file", network->files.texts[i]);
    add_texts(link, &network->keys);
}

static void add_training(Builder *builder, const Role *role)
{
    const PlanNetwork *network = role->network;
    if (!network->trained) return;
    ChainLink *link = begin(builder, text_of("%s/%s/config.yaml", builder->folder, role->name));
    ADD(link, "dinobatch", "pretrain");
    ADD(link, "--output-dir");
    add(link, text_of("%s/%s", builder->folder, role->name));
    add(link, text_of("train.dataset_path=%s", builder->plan->pool.texts[0]));
    add_configuration(link, network);
    add_texts(link, &network->settings);
}

/* What of a set is extracted. */
typedef struct {
    const char *set, *data;
    bool learns; /* whitening from it: as it is, without views */
    bool copies; /* its pictures are compared as copies: with views */
    bool probes; /* upside down */
} Extraction;

/* Rows that whitening is learnt from, at most: as many as whitening.h looks at. */
#define WHITENING_SAMPLE "pool_sample"
#define WHITENING_SPREAD ";spread=65536"

static void add_whitening(const Builder *builder, const Role *role, ChainLink *link)
{
    const PlanNetwork *network = role->network;
    if (!network->whiten) return;
    ADD(link, "--whiten");
    add(link, features_of(builder, role, WHITENING_SAMPLE));
    if (network->whiten_dims) ADD(link, "--whiten-dims", network->whiten_dims);
    if (network->whiten_ridge) ADD(link, "--whiten-ridge", network->whiten_ridge);
}

static void add_extraction(Builder *builder, const Role *role, Extraction e)
{
    const PlanNetwork *network = role->network;
    ChainLink *link = begin(builder, features_of(builder, role, e.set));
    ADD(link, "dinobatch", "extract", "--model");
    add(link, network->model ? memory_strdup(network->model) : text_of("%s/%s", builder->folder, role->name));
    ADD(link, "--data", e.data, "--output-dir", link->output);
    if (!e.learns) add_whitening(builder, role, link);
    if (e.copies && network->views) ADD(link, "--views", network->views);
    if (e.probes) ADD(link, "--upside-down");
    add_texts(link, &network->words);
    if (!network->trained) add_configuration(link, network);
    add_texts(link, &network->settings);
}

/* Some of the pool's (first) part, under a name of its own. */
static void add_pool_sample(Builder *builder, const Role *role, Extraction e, const char *part)
{
    char *data = text_of("%s%s", builder->plan->pool.texts[0], part);
    e.data = data;
    add_extraction(builder, role, e);
    memory_free(data);
}

/* Of a part's descriptors; memory_free. */
static char *pool_name(const CurationPlan *plan, int part)
{
    return plan->pool.count == 1 ? memory_strdup("pool") : text_of("pool_%d", part);
}

/* The descriptors of the whole pool. */
static void add_pool(const Builder *builder, const Role *role, ChainLink *link)
{
    for (int i = 0; i < builder->plan->pool.count; i++) {
        char *name = pool_name(builder->plan, i);
        ADD(link, "--features");
        add(link, features_of(builder, role, name));
        memory_free(name);
    }
}

static void add_set(Builder *builder, const Role *role, const char *prefix, const PlanSet *set, bool copies)
{
    char *name = text_of("%s_%s", prefix, set->name);
    add_extraction(builder, role, (Extraction){.set = name, .data = set->data, .copies = copies});
    memory_free(name);
}

/* `copies`: the role compares pictures as copies; `queries`: it answers query sets. */
static void add_extractions(Builder *builder, const Role *role, bool copies, bool queries)
{
    const CurationPlan *plan = builder->plan;
    if (role->network->whiten)
        add_pool_sample(builder, role, (Extraction){.set = WHITENING_SAMPLE, .learns = true},
                        WHITENING_SPREAD);
    for (int i = 0; i < plan->pool.count; i++) {
        char *name = pool_name(plan, i);
        add_extraction(builder, role,
                       (Extraction){.set = name, .data = plan->pool.texts[i], .copies = copies});
        memory_free(name);
    }
    if (copies && role->network->probes > 0) {
        char part[64];
        snprintf(part, sizeof part, ";spread=%lld", (long long)role->network->probes);
        add_pool_sample(builder, role, (Extraction){.set = "probes", .copies = true, .probes = true}, part);
    }
    for (int i = 0; copies && i < plan->evaluation_count; i++)
        add_set(builder, role, "evaluation", &plan->evaluation_sets[i], true);
    for (int i = 0; queries && i < plan->query_count; i++)
        if (!plan->query_sets[i].as_is) add_set(builder, role, "query", &plan->query_sets[i], false);
}

/* --- steps --- */

static ChainLink *begin_step(Builder *builder, const char *step, const char *file, const Role *role)
{
    ChainLink *link = begin(builder, file ? text_of("%s/%s", builder->folder, file) : NULL);
    ADD(link, "dinobatch", "curate", step);
    add_pool(builder, role, link);
    ADD(link, "--output-dir", builder->folder);
    return link;
}

static void add_file(const Builder *builder, ChainLink *link, const char *option, const char *file)
{
    ADD(link, option);
    add(link, text_of("%s/%s", builder->folder, file));
}

/* The file that says which rows of the pool are left for retrieval. */
static const char *left_by(const CurationPlan *plan)
{
    return plan->evaluation_count > 0 ? "exclude.h5" : "dedup.h5";
}

static void add_references(const Builder *builder, const Role *role, ChainLink *link)
{
    for (int i = 0; i < builder->plan->evaluation_count; i++) {
        char *set = text_of("evaluation_%s", builder->plan->evaluation_sets[i].name);
        ADD(link, "--reference");
        add(link, features_of(builder, role, set));
        memory_free(set);
    }
}

static void add_deduplication(Builder *builder, const Role *role)
{
    const CurationPlan *plan = builder->plan;
    bool calibrates = role->network->probes > 0;
    if (calibrates) {
        ChainLink *link = begin_step(builder, "calibrate", "calibrate.h5", role);
        ADD(link, "--probes");
        add(link, features_of(builder, role, "probes"));
        add_references(builder, role, link);
        add_settings(builder, link, NULL);
    }
    ChainLink *dedup = begin_step(builder, "dedup", "dedup.h5", role);
    if (calibrates) add_file(builder, dedup, "--calibration", "calibrate.h5");
    add_settings(builder, dedup, NULL);
    if (plan->evaluation_count == 0) return;
    ChainLink *exclude = begin_step(builder, "exclude", "exclude.h5", role);
    add_file(builder, exclude, "--keep", "dedup.h5");
    add_references(builder, role, exclude);
    if (calibrates) add_file(builder, exclude, "--calibration", "calibrate.h5");
    add_settings(builder, exclude, NULL);
}

static bool wants_clusters(const CurationPlan *plan)
{
    for (int i = 0; i < plan->query_count; i++)
        if (!plan->query_sets[i].as_is && strcmp(plan->query_sets[i].mode, "sample") != 0) return true;
    return false;
}

static void add_retrieval(Builder *builder, const Role *role)
{
    const CurationPlan *plan = builder->plan;
    bool clusters = wants_clusters(plan);
    if (clusters) {
        ChainLink *link = begin_step(builder, "cluster", "cluster.h5", role);
        add_file(builder, link, "--keep", left_by(plan));
        add_settings(builder, link, NULL);
    }
    for (int i = 0; i < plan->query_count; i++) {
        const PlanSet *set = &plan->query_sets[i];
        if (set->as_is) continue;
        char *file = text_of("retrieve_%s.h5", set->name);
        ChainLink *link = begin_step(builder, "retrieve", file, role);
        memory_free(file);
        add_file(builder, link, "--keep", left_by(plan));
        ADD(link, "--queries");
        add(link, text_of("%s/features/%s/query_%s.h5", builder->folder, role->name, set->name));
        ADD(link, "--name", set->name);
        if (clusters) add_file(builder, link, "--clusters", "cluster.h5");
        add(link, text_of("curation.retrieve.mode=%s", set->mode));
        add_settings(builder, link, &set->settings);
    }
}

static void add_assembly(Builder *builder, const Role *role)
{
    const CurationPlan *plan = builder->plan;
    if (plan->query_count == 0) return;
    ChainLink *link = begin(builder, text_of("%s/composition.csv", builder->folder));
    ADD(link, "dinobatch", "curate", "assemble");
    for (int i = 0; i < plan->pool.count; i++)
        ADD(link, "--data", plan->pool.texts[i]);
    add_pool(builder, role, link);
    for (int i = 0; i < plan->query_count; i++) {
        const PlanSet *set = &plan->query_sets[i];
        ADD(link, "--part");
        add(link, set->as_is ? text_of("%s=%s", set->name, set->data)
                             : text_of("%s/retrieve_%s.h5", builder->folder, set->name));
    }
    ADD(link, "--output-dir", builder->folder);
    add_settings(builder, link, NULL);
}

static void add_score(Builder *builder, const Role *role)
{
    if (!builder->plan->truth) return;
    ChainLink *link = begin_step(builder, "score", NULL, role);
    ADD(link, "--truth", builder->plan->truth);
    add_file(builder, link, "--dedup", "dedup.h5");
    if (builder->plan->evaluation_count > 0) add_file(builder, link, "--exclude", "exclude.h5");
    for (int i = 0; i < builder->plan->query_count; i++) {
        const PlanSet *set = &builder->plan->query_sets[i];
        if (set->as_is) continue;
        char *file = text_of("retrieve_%s.h5", set->name);
        add_file(builder, link, "--retrieved", file);
        memory_free(file);
    }
}

void curation_chain_init(CurationChain *chain, const CurationPlan *plan, const char *folder)
{
    *chain = (CurationChain){0};
    Builder builder = {.chain = chain, .plan = plan, .folder = folder};
    Role copy = {&plan->copy_detection, "copy_detection"};
    Role retrieval = plan->has_retrieval ? (Role){&plan->retrieval, "retrieval"} : copy;
    add_training(&builder, &copy);
    add_extractions(&builder, &copy, true, !plan->has_retrieval);
    add_deduplication(&builder, &copy);
    if (plan->has_retrieval) {
        add_training(&builder, &retrieval);
        add_extractions(&builder, &retrieval, false, true);
    }
    add_retrieval(&builder, &retrieval);
    add_assembly(&builder, &retrieval);
    add_score(&builder, &copy);
}

void curation_chain_fini(CurationChain *chain)
{
    for (int i = 0; i < chain->count; i++) {
        ChainLink *link = &chain->links[i];
        for (int w = 0; w < link->argc; w++)
            memory_free(link->argv[w]);
        memory_free(link->argv);
        memory_free(link->output);
    }
    memory_free(chain->links);
    *chain = (CurationChain){0};
}

static bool is_plain(const char *word)
{
    if (!*word) return false;
    for (; *word; word++)
        if (!isalnum((unsigned char)*word) && !strchr("_-+=./:,@%", *word)) return false;
    return true;
}

static size_t quote(const char *word, char *out)
{
    char *at = out;
    *at++ = '\'';
    static const char quoted[] = "'\\''";
    for (; *word; word++) {
        size_t size = *word == '\'' ? sizeof quoted - 1 : 1;
        memcpy(at, size > 1 ? quoted : word, size);
        at += size;
    }
    *at++ = '\'';
    return (size_t)(at - out);
}

char *curation_chain_text(const ChainLink *link)
{
    size_t size = 1, used = 0;
    for (int w = 0; w < link->argc; w++)
        size += 4 * strlen(link->argv[w]) + 3;
    char *text = memory_alloc(size);
    for (int w = 0; w < link->argc; w++) {
        const char *word = link->argv[w];
        if (w > 0) text[used++] = ' ';
        if (is_plain(word))
            used += (size_t)snprintf(text + used, size - used, "%s", word);
        else
            used += quote(word, text + used);
    }
    text[used] = '\0';
    return text;
}
