/* config_keys.h - the one table of keys: name, type, place in the Config, default, bounds, meaning.
 *
 * Everything that walks the configuration (defaults, YAML reader, overrides, notes, dump, help, diff) walks
 * this table; to add a key, add a member to Config and a row to one of the config_keys_*.c files.
 */
#ifndef DINOBATCH_CONFIG_CONFIG_KEYS_H
#define DINOBATCH_CONFIG_CONFIG_KEYS_H

#include "config/config.h"

typedef enum {
    CONFIG_TYPE_BOOL,
    CONFIG_TYPE_INTEGER,
    CONFIG_TYPE_NUMBER,
    CONFIG_TYPE_STRING,
    CONFIG_TYPE_CHOICE,
    CONFIG_TYPE_PAIR, /* two numbers */
    CONFIG_TYPE_LIST, /* 1..CONFIG_LIST_MAX integers */
} ConfigType;

typedef struct {
    const char *name;    /* dotted */
    const char *initial; /* default as YAML writes it, "" for an empty string; pairs and lists as "[a, b]" */
    const char *help;
    size_t offset; /* in Config */
    ConfigType type;
    double low, high;    /* inclusive, of INTEGER, NUMBER and each element of PAIR and LIST */
    const char *choices; /* "a|b=other name of b|c", values 0, 1, 2; CHOICE only */
    const char *inert;   /* a key of the reference without a meaning here: why */
    bool may_change;     /* may differ when a run is resumed */
    bool ours;           /* not a key of the reference */
} ConfigKey;

/* Type by the member itself, so that a row and its member cannot disagree (enums are the default). */
#define CONFIG_TYPE_OF(member) \
    _Generic(((Config *)0)->member,                                                                          \
        bool: CONFIG_TYPE_BOOL,                                                                              \
        int64_t: CONFIG_TYPE_INTEGER,                                                                        \
        double: CONFIG_TYPE_NUMBER,                                                                          \
        char *: CONFIG_TYPE_STRING,                                                                          \
        double *: CONFIG_TYPE_PAIR,                                                                          \
        ConfigList: CONFIG_TYPE_LIST,                                                                        \
        default: CONFIG_TYPE_CHOICE)

/* The part of a row that every key has: `{CONFIG_KEY(optim.epochs, "100", "..."), .low = 1, .high = 10}`. */
#define CONFIG_KEY(member, default_text, help_text)                                                      \
    .name = #member, .initial = (default_text), .help = (help_text), .offset = offsetof(Config, member), \
    .type = CONFIG_TYPE_OF(member)

/* The sections, each in a file of its own; the order of the table is the order of the dump. */
extern const ConfigKey CONFIG_KEYS_PRECISION[];
extern const int CONFIG_KEYS_PRECISION_COUNT;
extern const ConfigKey CONFIG_KEYS_MODEL[];
extern const int CONFIG_KEYS_MODEL_COUNT;
extern const ConfigKey CONFIG_KEYS_TRAIN[];
extern const int CONFIG_KEYS_TRAIN_COUNT;
extern const ConfigKey CONFIG_KEYS_DATA[];
extern const int CONFIG_KEYS_DATA_COUNT;
extern const ConfigKey CONFIG_KEYS_CURATION[];
extern const int CONFIG_KEYS_CURATION_COUNT;

int config_keys_count(void);

/* Row `index` of the table, 0 <= index < config_keys_count(). */
const ConfigKey *config_keys_at(int index);

/* The index of a dotted name, or -1. */
int config_keys_find(const char *name);

/* The index of the first key of a section, that is of a proper prefix of keys ("optim",
 * "compute_precision.teacher"); -1 if there is no such section. The keys of a section are consecutive. */
int config_keys_section(const char *name);

/* The known key or section that `name` most likely meant: the least edit distance over whole names, or over
 * last components plus one (so that `epochs` finds `optim.epochs`). Writes it to `nearest`. */
void config_keys_nearest(const char *name, char *nearest, size_t size);

#endif
