/* options.c - getopt_long over the common options and a job's own, and the usage text made of the same
 * tables. */
#include "run/options.h"

#include "base/check.h"
#include "base/memory.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { OWN_FIRST = 1000, WORD_MAX_BYTES = 64, KINDS_BYTES = 256 };

typedef enum {
    COMMON_CONFIG_FILE = 1,
    COMMON_OUTPUT_DIR,
    COMMON_NO_RESUME,
    COMMON_ALLOW_CONFIG_CHANGE,
    COMMON_PRINT_CONFIG,
    COMMON_JSON,
    COMMON_HELP,
    COMMON_END
} Common;

/* In the order of Common. */
static const OptionSpec COMMON[] = {
    {"config-file", "FILE", "YAML that overlays the defaults; later files win", true},
    {"output-dir", "DIR", "folder for everything the job writes", false},
    {"no-resume", NULL, "start anew although OUTPUT holds a checkpoint", false},
    {"allow-config-change", NULL, "resume although keys differ from the checkpoint's", false},
    {"print-config", NULL, "print the resolved configuration and leave", false},
    {"json", NULL, "make the last line on stdout one JSON object with the results", false},
    {"help", NULL, "this text and the configuration keys", false},
};
enum { COMMON_COUNT = sizeof COMMON / sizeof *COMMON };

static int count_own(const OptionsWanted *wanted)
{
    int count = 0;
    while (wanted->options && wanted->options[count].name)
        count++;
    CHECK(count <= OPTIONS_OWN_MAX);
    return count;
}

/* --- nearest name --- */

/* Levenshtein's distance; words are short. */
static int distance(const char *a, const char *b)
{
    int row[WORD_MAX_BYTES + 1];
    int na = (int)strlen(a), nb = (int)strlen(b);
    if (na > WORD_MAX_BYTES || nb > WORD_MAX_BYTES) return WORD_MAX_BYTES;
    for (int j = 0; j <= nb; j++)
        row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < shorter ? change : shorter;
        }
    }
    return row[nb];
}

const char *options_nearest(const char *word, const char *const *names, int count)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 2; /* farther away it was not meant */
    for (int i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        /* A beginning of a name is near, however much is missing. */
        if (strlen(word) >= 3 && strncmp(word, names[i], strlen(word)) == 0) d = 1;
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

/* --- parsing --- */

static void append(const char ***list, int *count, const char *text)
{
    size_t old = (size_t)*count * sizeof **list;
    *list = memory_grow((void *)*list, old, old + sizeof **list);
    (*list)[(*count)++] = text;
}

/* KEY=VALUE with a KEY of dotted identifiers. */
static bool is_override(const char *word)
{
    const char *c = word;
    for (;;) {
        if (!isalpha((unsigned char)*c) && *c != '_') return false;
        while (isalnum((unsigned char)*c) || *c == '_')
            c++;
        if (*c == '=') return true;
        if (*c++ != '.') return false;
    }
}

static Status take_common(Options *options, Common which, const char *value, Error *error)
{
    switch (which) {
    case COMMON_CONFIG_FILE:
        append(&options->config_files, &options->config_file_count, value);
        break;
    case COMMON_OUTPUT_DIR:
        if (options->output_dir) return status_fail(error, STATUS_INPUT, "--output-dir is given twice");
        if (!*value) return status_fail(error, STATUS_INPUT, "--output-dir: the folder's name is empty");
        options->output_dir = value;
        break;
    case COMMON_NO_RESUME:
        options->no_resume = true;
        break;
    case COMMON_ALLOW_CONFIG_CHANGE:
        options->allow_config_change = true;
        break;
    case COMMON_PRINT_CONFIG:
        options->print_config = true;
        break;
    case COMMON_JSON:
        options->json = true;
        break;
    case COMMON_HELP:
        options->help = true;
        break;
    case COMMON_END:
        break;
    }
    return STATUS_OK;
}

static Status take_own(Options *options, int place, const char *value, Error *error)
{
    const OptionSpec *spec = &options->own[place];
    if (options->own_counts[place] && !spec->repeats)
        return status_fail(error, STATUS_INPUT, "--%s is given twice", spec->name);
    append(&options->own_values[place], &options->own_counts[place], value ? value : "");
    return STATUS_OK;
}

/* What getopt could not take: `word` as the user wrote it. */
static Status refuse(const Options *options, const OptionsWanted *wanted, const char *word, Error *error)
{
    const char *names[COMMON_COUNT + OPTIONS_OWN_MAX];
    int count = 0, own = count_own(wanted);
    for (int i = 0; i < COMMON_COUNT; i++)
        names[count++] = COMMON[i].name;
    for (int i = 0; i < own; i++)
        names[count++] = wanted->options[i].name;

    char plain[WORD_MAX_BYTES + 1];
    snprintf(plain, sizeof plain, "%s", word + strspn(word, "-"));
    plain[strcspn(plain, "=")] = '\0';
    for (int i = 0; i < count; i++)
        if (strcmp(plain, names[i]) == 0)
            return status_fail(error, STATUS_INPUT, "--%s takes no value", plain);
    const char *near = options_nearest(plain, names, count);
    if (near)
        return status_fail(error, STATUS_INPUT, "%s: unknown option %s; did you mean --%s?", options->job,
                           word, near);
    return status_fail(error, STATUS_INPUT, "%s: unknown option %s; see dinobatch %s --help", options->job,
                       word, options->job);
}

static void fill_getopt(struct option *table, const OptionSpec *specs, int count, int first)
{
    for (int i = 0; i < count; i++)
        table[i] = (struct option){specs[i].name, specs[i].argument ? required_argument : no_argument, NULL,
                                   first + i};
}

static Status parse_options(Options *options, const OptionsWanted *wanted, int argc, char **argv,
                            Error *error)
{
    struct option table[COMMON_COUNT + OPTIONS_OWN_MAX + 1] = {0};
    int own = count_own(wanted);
    fill_getopt(table, COMMON, COMMON_COUNT, 1);
    fill_getopt(table + COMMON_COUNT, wanted->options, own, OWN_FIRST);
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int index = -1;
        int code = getopt_long(argc, argv, ":", table, &index);
        if (code == -1) return STATUS_OK;
        if (code == ':')
            return status_fail(error, STATUS_INPUT, "%s: %s needs a value", options->job, argv[optind - 1]);
        if (code == '?') {
            /* A short option stays inside its word, which getopt may not have left yet. */
            char letter[3] = {'-', (char)optopt, '\0'};
            bool is_short = optopt > ' ' && optopt < 127;
            return refuse(options, wanted, is_short ? letter : argv[optind - 1], error);
        }
        if (code >= OWN_FIRST)
            TRY(take_own(options, code - OWN_FIRST, optarg, error));
        else
            TRY(take_common(options, (Common)code, optarg, error));
    }
}

static Status check_words(const Options *options, const OptionsWanted *wanted, Error *error)
{
    if (options->word_count > wanted->max_words)
        return status_fail(error, STATUS_INPUT,
                           "%s: unexpected word '%s'; keys are set by key=value, see dinobatch %s --help",
                           options->job, options->words[wanted->max_words], options->job);
    if (options->word_count < wanted->min_words && !options->help && !options->print_config)
        return status_fail(error, STATUS_INPUT, "%s: expected %s; see dinobatch %s --help", options->job,
                           wanted->words, options->job);
    return STATUS_OK;
}

/* Whether `names`, with spaces between, has `name`. */
static bool has_name(const char *names, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at += length)
        if ((at == names || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    return false;
}

/* text: the kinds that take option `name` ("knn, linear"; NULL: all kinds). Returns whether some do not. */
static bool list_kinds(const OptionsWanted *wanted, const char *name, char text[KINDS_BYTES])
{
    bool some_not = false;
    text[0] = '\0';
    for (const OptionsKind *kind = wanted->kinds; kind && kind->name; kind++) {
        size_t used = strlen(text);
        if (name && !has_name(kind->options, name))
            some_not = true;
        else
            snprintf(text + used, KINDS_BYTES - used, "%s%s", used ? ", " : "", kind->name);
    }
    return some_not;
}

/* The first word is a kind of the job, and the options that were given are this kind's. */
static Status check_kind(const Options *options, const OptionsWanted *wanted, Error *error)
{
    if (!wanted->kinds || options->word_count == 0 || options->help) return STATUS_OK;
    const char *word = options->words[0];
    const OptionsKind *kind = wanted->kinds;
    char kinds[KINDS_BYTES];
    while (kind->name && strcmp(kind->name, word) != 0)
        kind++;
    if (!kind->name) {
        list_kinds(wanted, NULL, kinds);
        return status_fail(error, STATUS_INPUT, "%s %s: expected one of %s", options->job, word, kinds);
    }
    for (int i = 0; options->own[i].name; i++) {
        if (options->own_counts[i] == 0 || has_name(kind->options, options->own[i].name)) continue;
        list_kinds(wanted, options->own[i].name, kinds);
        return status_fail(error, STATUS_INPUT, "%s %s takes no --%s, which is of %s", options->job, word,
                           options->own[i].name, kinds);
    }
    return STATUS_OK;
}

Status options_parse(Options *options, const OptionsWanted *wanted, int argc, char **argv, Error *error)
{
    CHECK(argc >= 2);
    *options = (Options){.job = argv[1], .own = wanted->options};
    /* The job's name takes the place of the program's, which getopt passes over. */
    TRY(parse_options(options, wanted, argc - 1, argv + 1, error));
    for (int i = 1 + optind; i < argc; i++) {
        if (is_override(argv[i]))
            append(&options->overrides, &options->override_count, argv[i]);
        else
            append(&options->words, &options->word_count, argv[i]);
    }
    TRY(check_words(options, wanted, error));
    return check_kind(options, wanted, error);
}

void options_fini(Options *options)
{
    memory_free((void *)options->config_files);
    memory_free((void *)options->words);
    memory_free((void *)options->overrides);
    for (int i = 0; i < OPTIONS_OWN_MAX; i++)
        memory_free((void *)options->own_values[i]);
    *options = (Options){0};
}

/* --- asking --- */

static int place_of(const Options *options, const char *name)
{
    for (int i = 0; options->own && options->own[i].name; i++)
        if (strcmp(options->own[i].name, name) == 0) return i;
    CHECK(0 && "an option of this job's table");
    return -1;
}

const char *options_get(const Options *options, const char *name)
{
    int place = place_of(options, name);
    int count = options->own_counts[place];
    return count ? options->own_values[place][count - 1] : NULL;
}

int options_get_all(const Options *options, const char *name, const char *const **values)
{
    int place = place_of(options, name);
    *values = options->own_values[place];
    return options->own_counts[place];
}

/* --- help --- */

static void print_specs(FILE *out, const OptionsWanted *wanted, const OptionSpec *specs, int count)
{
    for (int i = 0; i < count; i++) {
        char left[80], kinds[KINDS_BYTES] = "";
        bool some = wanted && list_kinds(wanted, specs[i].name, kinds);
        snprintf(left, sizeof left, "--%s%s%s", specs[i].name, specs[i].argument ? " " : "",
                 specs[i].argument ? specs[i].argument : "");
        fprintf(out, "  %-24s %s%s%s%s\n", left, some ? kinds : "", some ? ": " : "", specs[i].help,
                specs[i].repeats ? " (may be repeated)" : "");
    }
}

char *options_help(const char *job, const OptionsWanted *wanted)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(out);
    fprintf(out, "usage: dinobatch %s%s%s [OPTION]... [key=value]...\n", job, wanted->words ? " " : "",
            wanted->words ? wanted->words : "");
    int own = count_own(wanted);
    if (own) fprintf(out, "\noptions of this job:\n");
    print_specs(out, wanted, wanted->options, own);
    fprintf(out, "\noptions of every job:\n");
    print_specs(out, NULL, COMMON, COMMON_COUNT);
    fclose(out);
    char *copy = memory_strndup(text, size);
    memory_free(text);
    return copy;
}
