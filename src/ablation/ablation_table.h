/* ablation_table.h - an ablation table as one YAML file: rows that differ in some keys, and what is measured.
 *
 *     name: recipe
 *     title: The training recipe, from iBOT to DINOv2
 *     source: Table 1 of the DINOv2 paper, ViT-L on ImageNet-22k
 *     base: [../train/vitl14.yaml]
 *     settings: [train.dataset_path=folder:{root}/train]
 *     cumulative: true
 *     seeds: [0, 1]
 *     evaluations:
 *       - {name: knn, words: [evaluate, knn], settings: ["evaluation.knn_k=[20]"]}
 *     columns:
 *       - {name: k-NN, of: knn, figure: knn_top1_k20, unit: "%"}
 *     rows:
 *       - {name: iBOT, settings: [...], published: [72.9]}
 *       - {name: + KoLeo, settings: [dino.koleo_loss_weight=0.1], published: [78.9]}
 *       - {name: distilled, job: distill, after: iBOT, settings: ["distillation.checkpoint_path={after}"]}
 *
 * A row is trained with the base, the table's settings, those of the rows before it where the table is
 * cumulative, and its own. `{root}` is a folder of data that the caller names, `{after}` the run folder of
 * the row that `after` names, of the same seed. A row with `job: none` has nothing to train: it is another
 * row's weights (`after`) under other evaluations. `published: [-]` has no figure. `beside: iBOT` measures
 * a row's difference to that row before it, not to the one above. A row that is marked `aside` is trained for
 * others, and is no row of the report.
 *
 * Source: the tables of the DINOv2 paper, section 6; the reference has none of this.
 */
#ifndef DINOBATCH_ABLATION_ABLATION_TABLE_H
#define DINOBATCH_ABLATION_ABLATION_TABLE_H

#include "run/yaml_table.h"

/* A job that measures. */
typedef struct {
    char *name;         /* of its folder; owned */
    YamlTexts words;    /* of its command line: [evaluate, knn, --train-data, ...] */
    YamlTexts settings; /* key=value */
} AblationEvaluation;

typedef struct {
    char *name;   /* at the head of the report's column; owned */
    char *of;     /* evaluation; owned */
    char *figure; /* in its result file; owned */
    char *unit;   /* owned */
} AblationColumn;

typedef struct {
    char *name;         /* owned */
    char *job;          /* "pretrain", "distill" or "none"; owned */
    char *after;        /* the row whose run folder `{after}` is; NULL: none; owned */
    char *beside;       /* the row that it is compared with; NULL: the one above; owned */
    YamlTexts settings; /* key=value */
    YamlTexts published;
    bool aside;
} AblationRow;

typedef struct {
    char *name, *title, *source; /* owned; `source` may be NULL */
    YamlConfiguration base;
    YamlTexts settings;
    bool cumulative;
    YamlTexts seeds;                 /* whole numbers from 0; at least one */
    AblationEvaluation *evaluations; /* owned, like the next two */
    AblationColumn *columns;
    AblationRow *rows;
    int evaluation_count, column_count, row_count;
} AblationTable;

/* STATUS_INPUT with `FILE:LINE: ...`: as yaml_table.h says, two rows or evaluations of one name, a column of
 * no evaluation, an `after` or `beside` that is no row before, as many published figures as columns or none.
 * Owned by the caller: ablation_table_fini, also after a failure. Not collective. */
Status ablation_table_load(AblationTable *table, const char *path, Error *error);
void ablation_table_fini(AblationTable *table);

/* The row's place by name, or -1. */
int ablation_table_row(const AblationTable *table, const char *name);

/* What the paper reports, or NaN. */
double ablation_table_published(const AblationTable *table, int row, int column);

/* key=value of the row's training, in order, placeholders as they stand: of the table, of the rows before it
 * in a cumulative one, its own. Owned by the caller. */
YamlTexts ablation_table_settings(const AblationTable *table, int row);

/* What the row's figures depend on, seed and placeholders aside, as 16 hexadecimal digits: the keys that
 * differ from their defaults, the evaluations, and the same of the row that it comes after. Two figures with
 * one digest are of the same experiment. STATUS_INPUT: a configuration file or a key is wrong. */
enum { ABLATION_DIGEST = 17 };
Status ablation_table_digest(const AblationTable *table, int row, char digest[ABLATION_DIGEST], Error *error);

/* `text` with {root} and {after} replaced; memory_free. */
char *ablation_table_fill(const char *text, const char *root, const char *after);

#endif
