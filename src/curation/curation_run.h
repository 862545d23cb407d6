/* curation_run.h - what every step of a curation is given, and what steps do alike. */
#ifndef DINOBATCH_CURATION_CURATION_RUN_H
#define DINOBATCH_CURATION_CURATION_RUN_H

#include "config/config.h"
#include "curation/curation_state.h"
#include "curation/feature_source.h"
#include "index/shard_index.h"

/* All borrowed. */
typedef struct {
    const Config *config;
    const char *config_text; /* the same, resolved, as YAML */
    const char *folder;      /* where results and state lie */
    bool resume;             /* take up what a run before left in `folder` */
    const Ops *ops;          /* made for shard_index_limits */
    Comm *comm;
    Log *log;
} CurationRun;

enum { CURATION_RUN_PATH = 1024 };

/* What a file of `step` says of its making. */
CurationMeta curation_run_meta(const CurationRun *run, const char *step, const FeatureSource *source);

/* path[CURATION_RUN_PATH] = FOLDER/name. STATUS_INPUT if that is too long. */
Status curation_run_path(const CurationRun *run, const char *name, char *path, Error *error);

/* `digest` and the settings in `format`, as printf makes them. */
uint64_t curation_run_digest(uint64_t digest, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An index over the rows of that kind, with the configuration's settings; the log tells what it took. Errors
 * and collective as shard_index_create. */
Status curation_run_make_index(const CurationRun *run, const IndexRows *rows, const char *factory,
                               ShardIndex **index, Error *error);

/* curation.neighbours, or all `others` there are, of which the log then tells. */
int64_t curation_run_neighbours(const CurationRun *run, const char *name, int64_t others);

/* Writes the settings of search into a file. */
void curation_run_put_search(const CurationRun *run, CurationFile *file, int64_t neighbours);

/* Writes how similarities were normalised, if they were. */
void curation_run_put_normalization(const CurationRun *run, CurationFile *file, double background_most);

/* Writes which views of pictures were compared, if there are any. */
void curation_run_put_views(const FeatureSource *pool, CurationFile *file);

#endif
