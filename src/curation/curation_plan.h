/* curation_plan.h - a whole curation as one YAML file: the pool, what must not be in it, what to look for.
 *
 *     name: lvd
 *     pool: hdf5:pool-*.h5                    # a data set spec, or a list of them
 *     evaluation_sets:
 *       - {name: imagenet_val, data: tar:val.tar}
 *     query_sets:
 *       - {name: food101, task: fine-grained, data: folder:food101, settings:
 * [curation.retrieve.mode=cluster]}
 *       - {name: imagenet22k, data: hdf5:in22k.h5, as_is: true}
 *     copy_detection: {model: "sscd:sscd.h5", words: [--resize, shorter], whiten: true}
 *     retrieval: {pretrain: {student: {arch: vit_small}, optim: {epochs: 10}}}
 *     settings: [curation.dedup.threshold=0.6]
 *
 * `settings` are key=value as on a command line: of the curation for all its steps, of a set or a network for
 * the steps about it. A network is a file (`model`), or is trained on the pool (`pretrain`: configuration
 * files, or the configuration itself); `model: untrained` is that configuration's at its first step, and
 * `model: raw-pixels` none at all. Relative paths, those in data set specs of folder:, tar: and hdf5:
 * too, are relative to a folder that the caller names, or else to the YAML file's; those of configuration
 * files always to the latter. Here they come out as paths from the working folder.
 *
 * A pool of several parts has a features file of each, so that as many jobs can extract at a time; whitening,
 * probes and a training see the first part alone.
 *
 * Source: the procedure of the DINOv2 paper, section 3 and appendix A; its Table 15 written this way is
 * jobs/configs/curation/lvd142m.yaml.
 */
#ifndef DINOBATCH_CURATION_CURATION_PLAN_H
#define DINOBATCH_CURATION_CURATION_PLAN_H

#include "run/yaml_table.h"

/* Pictures with a name. */
typedef struct {
    char *name, *data; /* owned */
    /* Query sets: */
    char *mode;         /* how it brings pictures in: "sample", "cluster" or "auto" (by its size); owned */
    char *task;         /* NULL or a word for the composition table; owned */
    bool as_is;         /* goes into the data set as it is */
    int64_t published;  /* images that the paper reports for it; 0: none */
    YamlTexts settings; /* key=value, owned */
} PlanSet;

/* Where descriptors come from. */
typedef struct {
    char *model;  /* as `extract --model` takes it, or NULL; owned */
    bool trained; /* on the pool, by `pretrain`; else that describes an untrained one */
    YamlConfiguration pretrain;
    YamlTexts words;                  /* more of extract's command line */
    YamlTexts settings;               /* key=value for training and extraction */
    bool whiten;                      /* learn whitening from the pool's own descriptors */
    char *whiten_dims, *whiten_ridge; /* as extract takes them; NULL: its defaults; owned */
    char *views;    /* of pictures that are compared as copies, as extract takes them; NULL: none; owned */
    int64_t probes; /* pictures upside down that thresholds come from (calibrate.h); 0: they are set */
} PlanNetwork;

typedef struct {
    char *name;                            /* owned */
    YamlTexts pool;                        /* data set specs, one or more */
    char *truth;                           /* folder of a planted benchmark; NULL: none; owned */
    PlanSet *evaluation_sets, *query_sets; /* owned */
    int evaluation_count, query_count;
    PlanNetwork copy_detection, retrieval;
    bool has_retrieval; /* else copy_detection serves for both */
    YamlTexts settings;
} CurationPlan;

/* `root`: what relative paths of data and models start from; NULL: the YAML file's folder. STATUS_INPUT with
 * `FILE:LINE: ...`: not YAML, an unknown key (and the nearest one), a wrong kind of value, a key that is
 * missing or given twice, two sets of one name, a name that cannot be a file's. Owned by the caller:
 * curation_plan_fini, also after a failure. Not collective. */
Status curation_plan_load(CurationPlan *plan, const char *path, const char *root, Error *error);
void curation_plan_fini(CurationPlan *plan);

#endif
