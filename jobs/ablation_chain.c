/* ablation_chain.c - see ablation_chain.h. */
#include "ablation_chain.h"

#include "base/memory.h"

#include <string.h>

char *ablation_chain_folder(const AblationRun *run, int row)
{
    return job_chain_format("%s/row%02d_seed%s", run->folder, row + 1, run->seed);
}

static bool trains(const AblationRow *row)
{
    return strcmp(row->job, "none") != 0;
}

char *ablation_chain_model(const AblationRun *run, int row)
{
    while (!trains(&run->table->rows[row]))
        row = ablation_table_row(run->table, run->table->rows[row].after);
    return job_chain_format("%s/row%02d_seed%s/run", run->folder, row + 1, run->seed);
}

static void add_filled(ChainLink *link, const YamlTexts *texts, const AblationRun *run, const char *after)
{
    for (int i = 0; i < texts->count; i++)
        job_chain_take(link, ablation_table_fill(texts->texts[i], run->root, after));
}

static void add_training(JobChain *chain, const AblationRun *run, const char *model)
{
    const AblationTable *table = run->table;
    const AblationRow *row = &table->rows[run->row];
    YamlTexts settings = ablation_table_settings(table, run->row);
    char *after = NULL;
    if (row->after) after = ablation_chain_model(run, ablation_table_row(table, row->after));
    ChainLink *link = job_chain_begin(chain, NULL);
    JOB_CHAIN_ADD(link, "dinobatch", row->job, "--output-dir", model);
    for (int i = 0; i < table->base.files.count; i++)
        JOB_CHAIN_ADD(link, "--config-file", table->base.files.texts[i]);
    add_filled(link, &table->base.keys, run, after);
    add_filled(link, &settings, run, after);
    job_chain_take(link, job_chain_format("train.seed=%s", run->seed));
    yaml_texts_fini(&settings);
    memory_free(after);
}

void ablation_chain_init(JobChain *chain, const AblationRun *run)
{
    const AblationTable *table = run->table;
    char *folder = ablation_chain_folder(run, run->row), *model = ablation_chain_model(run, run->row);
    *chain = (JobChain){0};
    if (trains(&table->rows[run->row])) add_training(chain, run, model);
    for (int e = 0; e < table->evaluation_count; e++) {
        const AblationEvaluation *evaluation = &table->evaluations[e];
        char *output = job_chain_format("%s/%s", folder, evaluation->name);
        ChainLink *link =
            job_chain_begin(chain, job_chain_format("%s/%s.h5", output, evaluation->words.texts[1]));
        JOB_CHAIN_ADD(link, "dinobatch");
        add_filled(link, &evaluation->words, run, NULL);
        JOB_CHAIN_ADD(link, "--model", model, "--output-dir", output);
        add_filled(link, &evaluation->settings, run, NULL);
        memory_free(output);
    }
    memory_free(folder);
    memory_free(model);
}
