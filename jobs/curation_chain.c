/* curation_chain.c - which job of a curation writes what, and from what. */
#include "curation_chain.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    JobChain *chain;
    const CurationPlan *plan;
    const char *folder;
} Builder;

/* --- words --- */

/* The settings of the curation, and those of a set or a network. */
static void add_settings(const Builder *builder, ChainLink *link, const YamlTexts *own)
{
    job_chain_add_texts(link, &builder->plan->settings);
    if (own) job_chain_add_texts(link, own);
}

/* --- descriptors --- */

/* What one network is called in the folder. */
typedef struct {
    const PlanNetwork *network;
    const char *name;
} Role;

static char *features_of(const Builder *builder, const Role *role, const char *set)
{
    return job_chain_format("%s/features/%s/%s.h5", builder->folder, role->name, set);
}

static void add_training(Builder *builder, const Role *role)
{
    const PlanNetwork *network = role->network;
    if (!network->trained) return;
    ChainLink *link =
        job_chain_begin(builder->chain, job_chain_format("%s/%s/config.yaml", builder->folder, role->name));
    JOB_CHAIN_ADD(link, "dinobatch", "pretrain");
    JOB_CHAIN_ADD(link, "--output-dir");
    job_chain_take(link, job_chain_format("%s/%s", builder->folder, role->name));
    job_chain_take(link, job_chain_format("train.dataset_path=%s", builder->plan->pool.texts[0]));
    job_chain_add_configuration(link, &network->pretrain);
    job_chain_add_texts(link, &network->settings);
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
    JOB_CHAIN_ADD(link, "--whiten");
    job_chain_take(link, features_of(builder, role, WHITENING_SAMPLE));
    if (network->whiten_dims) JOB_CHAIN_ADD(link, "--whiten-dims", network->whiten_dims);
    if (network->whiten_ridge) JOB_CHAIN_ADD(link, "--whiten-ridge", network->whiten_ridge);
}

static void add_extraction(Builder *builder, const Role *role, Extraction e)
{
    const PlanNetwork *network = role->network;
    ChainLink *link = job_chain_begin(builder->chain, features_of(builder, role, e.set));
    JOB_CHAIN_ADD(link, "dinobatch", "extract", "--model");
    job_chain_take(link, network->model ? memory_strdup(network->model)
                                        : job_chain_format("%s/%s", builder->folder, role->name));
    JOB_CHAIN_ADD(link, "--data", e.data, "--output-dir", link->output);
    if (!e.learns) add_whitening(builder, role, link);
    if (e.copies && network->views) JOB_CHAIN_ADD(link, "--views", network->views);
    if (e.probes) JOB_CHAIN_ADD(link, "--upside-down");
    job_chain_add_texts(link, &network->words);
    if (!network->trained) job_chain_add_configuration(link, &network->pretrain);
    job_chain_add_texts(link, &network->settings);
}

/* Some of the pool's (first) part, under a name of its own. */
static void add_pool_sample(Builder *builder, const Role *role, Extraction e, const char *part)
{
    char *data = job_chain_format("%s%s", builder->plan->pool.texts[0], part);
    e.data = data;
    add_extraction(builder, role, e);
    memory_free(data);
}

/* Of a part's descriptors; memory_free. */
static char *pool_name(const CurationPlan *plan, int part)
{
    return plan->pool.count == 1 ? memory_strdup("pool") : job_chain_format("pool_%d", part);
}

/* The descriptors of the whole pool. */
static void add_pool(const Builder *builder, const Role *role, ChainLink *link)
{
    for (int i = 0; i < builder->plan->pool.count; i++) {
        char *name = pool_name(builder->plan, i);
        JOB_CHAIN_ADD(link, "--features");
        job_chain_take(link, features_of(builder, role, name));
        memory_free(name);
    }
}

static void add_set(Builder *builder, const Role *role, const char *prefix, const PlanSet *set, bool copies)
{
    char *name = job_chain_format("%s_%s", prefix, set->name);
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
    ChainLink *link =
        job_chain_begin(builder->chain, file ? job_chain_format("%s/%s", builder->folder, file) : NULL);
    JOB_CHAIN_ADD(link, "dinobatch", "curate", step);
    add_pool(builder, role, link);
    JOB_CHAIN_ADD(link, "--output-dir", builder->folder);
    return link;
}

static void add_file(const Builder *builder, ChainLink *link, const char *option, const char *file)
{
    JOB_CHAIN_ADD(link, option);
    job_chain_take(link, job_chain_format("%s/%s", builder->folder, file));
}

/* The file that says which rows of the pool are left for retrieval. */
static const char *left_by(const CurationPlan *plan)
{
    return plan->evaluation_count > 0 ? "exclude.h5" : "dedup.h5";
}

static void add_references(const Builder *builder, const Role *role, ChainLink *link)
{
    for (int i = 0; i < builder->plan->evaluation_count; i++) {
        char *set = job_chain_format("evaluation_%s", builder->plan->evaluation_sets[i].name);
        JOB_CHAIN_ADD(link, "--reference");
        job_chain_take(link, features_of(builder, role, set));
        memory_free(set);
    }
}

static void add_deduplication(Builder *builder, const Role *role)
{
    const CurationPlan *plan = builder->plan;
    bool calibrates = role->network->probes > 0;
    if (calibrates) {
        ChainLink *link = begin_step(builder, "calibrate", "calibrate.h5", role);
        JOB_CHAIN_ADD(link, "--probes");
        job_chain_take(link, features_of(builder, role, "probes"));
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
        char *file = job_chain_format("retrieve_%s.h5", set->name);
        ChainLink *link = begin_step(builder, "retrieve", file, role);
        memory_free(file);
        add_file(builder, link, "--keep", left_by(plan));
        JOB_CHAIN_ADD(link, "--queries");
        job_chain_take(
            link, job_chain_format("%s/features/%s/query_%s.h5", builder->folder, role->name, set->name));
        JOB_CHAIN_ADD(link, "--name", set->name);
        if (clusters) add_file(builder, link, "--clusters", "cluster.h5");
        job_chain_take(link, job_chain_format("curation.retrieve.mode=%s", set->mode));
        add_settings(builder, link, &set->settings);
    }
}

static void add_assembly(Builder *builder, const Role *role)
{
    const CurationPlan *plan = builder->plan;
    if (plan->query_count == 0) return;
    ChainLink *link =
        job_chain_begin(builder->chain, job_chain_format("%s/composition.csv", builder->folder));
    JOB_CHAIN_ADD(link, "dinobatch", "curate", "assemble");
    for (int i = 0; i < plan->pool.count; i++)
        JOB_CHAIN_ADD(link, "--data", plan->pool.texts[i]);
    add_pool(builder, role, link);
    for (int i = 0; i < plan->query_count; i++) {
        const PlanSet *set = &plan->query_sets[i];
        JOB_CHAIN_ADD(link, "--part");
        job_chain_take(link, set->as_is ? job_chain_format("%s=%s", set->name, set->data)
                                        : job_chain_format("%s/retrieve_%s.h5", builder->folder, set->name));
    }
    JOB_CHAIN_ADD(link, "--output-dir", builder->folder);
    add_settings(builder, link, NULL);
}

static void add_score(Builder *builder, const Role *role)
{
    if (!builder->plan->truth) return;
    ChainLink *link = begin_step(builder, "score", NULL, role);
    JOB_CHAIN_ADD(link, "--truth", builder->plan->truth);
    add_file(builder, link, "--dedup", "dedup.h5");
    if (builder->plan->evaluation_count > 0) add_file(builder, link, "--exclude", "exclude.h5");
    for (int i = 0; i < builder->plan->query_count; i++) {
        const PlanSet *set = &builder->plan->query_sets[i];
        if (set->as_is) continue;
        char *file = job_chain_format("retrieve_%s.h5", set->name);
        add_file(builder, link, "--retrieved", file);
        memory_free(file);
    }
}

void curation_chain_init(JobChain *chain, const CurationPlan *plan, const char *folder)
{
    *chain = (JobChain){0};
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
