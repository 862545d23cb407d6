/* job_chain.h - jobs that follow each other, as command lines.
 *
 *     ChainLink *link = job_chain_begin(&chain, NULL);
 *     JOB_CHAIN_ADD(link, "dinobatch", "pretrain", "--output-dir");
 *     job_chain_take(link, job_chain_format("%s/run", folder));
 */
#ifndef DINOBATCH_JOBS_JOB_CHAIN_H
#define DINOBATCH_JOBS_JOB_CHAIN_H

#include "run/yaml_table.h"

/* One job. */
typedef struct {
    char **argv; /* [argc + 1] "dinobatch", its name, its words; NULL at the end; owned, each too */
    int argc;
    char *output; /* a file that is there when it is done; NULL: it only prints, and is run each time; owned
                   */
} ChainLink;

/* Zero-initialised it is empty. */
typedef struct {
    ChainLink *links; /* owned */
    int count;
} JobChain;

void job_chain_fini(JobChain *chain);

/* A new link without words at the end; takes over `output`. The pointer holds until the next one. */
ChainLink *job_chain_begin(JobChain *chain, char *output);

/* One word more at the end, a copy; or `word` itself, which is taken over. */
void job_chain_add(ChainLink *link, const char *word);
void job_chain_take(ChainLink *link, char *word);

/* Copies of words; NULL at the end of the first kind. */
void job_chain_add_words(ChainLink *link, const char *const *words);
void job_chain_add_texts(ChainLink *link, const YamlTexts *texts);
#define JOB_CHAIN_ADD(link, ...) job_chain_add_words(link, (const char *const[]){__VA_ARGS__, NULL})

/* Its files as --config-file, its keys as key=value. */
void job_chain_add_configuration(ChainLink *link, const YamlConfiguration *configuration);

/* memory_free. */
char *job_chain_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The command line as one would type it, words with unusual letters in single quotes; memory_free. */
char *job_chain_text(const ChainLink *link);

#endif
