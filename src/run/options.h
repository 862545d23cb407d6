/* options.h - the command line: JOB, the options that every job has, those a job declares, and key=value
 * overrides.
 *
 *     dinobatch JOB [--config-file FILE]... [--output-dir DIR] [--no-resume] [--allow-config-change]
 *                   [--print-config] [--json] [--help] [job's own options] [word]... [key=value]...
 *
 * A word KEY=VALUE whose KEY is dotted identifiers overrides the configuration; other words are the job's
 * (write
 * ./a=b.h5 for a file with such a name). Not thread-safe: getopt_long has state of its own.
 */
#ifndef DINOBATCH_RUN_OPTIONS_H
#define DINOBATCH_RUN_OPTIONS_H

#include "base/status.h"

#include <stdbool.h>

/* A long option of one job. Tables end with an entry without name. */
typedef struct {
    const char *name;     /* "data" for --data */
    const char *argument; /* "SPEC"; NULL: a switch without argument */
    const char *help;     /* one line */
    bool repeats;         /* may be given more than once */
} OptionSpec;

/* What one kind of a job, as `evaluate knn`, takes of the job's options. Tables end with an entry without
 * name. */
typedef struct {
    const char *name;    /* the job's first word */
    const char *options; /* their names, a space between */
} OptionsKind;

/* What a job takes beside the common options; all static. */
typedef struct {
    const OptionSpec *options; /* may be NULL */
    const char *words;         /* for the usage line: "knn|linear", "IN OUT"; NULL: none */
    int min_words, max_words;
    const OptionsKind *kinds; /* what the first word may be; NULL: anything */
} OptionsWanted;

enum { OPTIONS_OWN_MAX = 24 };

/* Strings are borrowed from argv, arrays are owned. */
typedef struct {
    const char *job;
    const char **config_files;
    int config_file_count;
    const char *output_dir; /* NULL: not given */
    bool no_resume, allow_config_change, print_config, json, help;
    const char **words;
    int word_count;
    const char **overrides;
    int override_count;
    const OptionSpec *own;                    /* the job's table; borrowed */
    const char **own_values[OPTIONS_OWN_MAX]; /* by place in the table; "" for a switch */
    int own_counts[OPTIONS_OWN_MAX];
} Options;

/* Parses argv, whose argv[1] is the job's name. With --help nothing is required. Own storage, released by
 * options_fini, on failure too. STATUS_INPUT with one line (the nearest name for an unknown option, whose an
 * option of another kind is). argv may be permuted. */
Status options_parse(Options *options, const OptionsWanted *wanted, int argc, char **argv, Error *error);
void options_fini(Options *options);

/* The job's own option: its (last) value, "" for a switch that was given, NULL when not given. The name must
 * be in its table. */
const char *options_get(const Options *options, const char *name);

/* All values of a repeated option; returns their number. */
int options_get_all(const Options *options, const char *name, const char *const **values);

/* The usage text of a job: usage line, its options, the common options. memory_free. */
char *options_help(const char *job, const OptionsWanted *wanted);

/* The name in names[count] that is most like `word`, or NULL when none is near enough to be meant. */
const char *options_nearest(const char *word, const char *const *names, int count);

#endif
