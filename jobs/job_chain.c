/* job_chain.c - see job_chain.h. */
#include "job_chain.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

char *job_chain_format(const char *format, ...)
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

ChainLink *job_chain_begin(JobChain *chain, char *output)
{
    size_t old = (size_t)chain->count * sizeof *chain->links;
    chain->links = memory_grow(chain->links, old, old + sizeof *chain->links);
    ChainLink *link = &chain->links[chain->count++];
    *link = (ChainLink){.output = output};
    return link;
}

void job_chain_take(ChainLink *link, char *word)
{
    size_t old = link->argv ? (size_t)link->argc + 1 : 0, size = sizeof *link->argv;
    link->argv = memory_grow(link->argv, old * size, ((size_t)link->argc + 2) * size);
    link->argv[link->argc++] = word;
    link->argv[link->argc] = NULL;
}

void job_chain_add(ChainLink *link, const char *word)
{
    job_chain_take(link, memory_strdup(word));
}

void job_chain_add_words(ChainLink *link, const char *const *words)
{
    for (; *words; words++)
        job_chain_add(link, *words);
}

void job_chain_add_texts(ChainLink *link, const YamlTexts *texts)
{
    for (int i = 0; i < texts->count; i++)
        job_chain_add(link, texts->texts[i]);
}

void job_chain_add_configuration(ChainLink *link, const YamlConfiguration *configuration)
{
    for (int i = 0; i < configuration->files.count; i++)
        JOB_CHAIN_ADD(link, "--config-file", configuration->files.texts[i]);
    job_chain_add_texts(link, &configuration->keys);
}

void job_chain_fini(JobChain *chain)
{
    for (int i = 0; i < chain->count; i++) {
        ChainLink *link = &chain->links[i];
        for (int w = 0; w < link->argc; w++)
            memory_free(link->argv[w]);
        memory_free(link->argv);
        memory_free(link->output);
    }
    memory_free(chain->links);
    *chain = (JobChain){0};
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

char *job_chain_text(const ChainLink *link)
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
