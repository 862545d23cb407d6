/* calibrate.h - thresholds for a descriptor from the pool itself, without knowing one duplicate.
 *
 * 0.6 and 0.45 are for SSCD (DINOv2 paper, appendix A.3). For any other descriptor: pictures of the pool that
 * are turned upside down, the probes, look like pictures of the pool but have no copies in it. So whatever is
 * like a probe is so by chance, and the threshold is the least one above which a probe has, on average,
 * curation.calibrate.false_links neighbours in the pool (false_references among the references). A probe that
 * is like its own upright picture (a sky, a pattern) tells nothing: only pool rows that are more like it than
 * that count. Similarities are those of deduplicate.h and exclude.h, views and score normalisation included.
 * The 99th percentile of the probes' backgrounds is background_most (knn_graph.h). Ours; no source.
 *
 * Writes FOLDER/calibrate.h5 about the probes: /similarity, that of the nearest pool row that counts, and as
 * attributes what calibrate_apply puts into a configuration. Memory of a rank, bytes: 50 for each probe of
 * all ranks, beside index and search.
 */
#ifndef DINOBATCH_CURATION_CALIBRATE_H
#define DINOBATCH_CURATION_CALIBRATE_H

#include "curation/curation_run.h"

typedef struct {
    double threshold, background_most;
} CalibratedSearch;

typedef struct {
    int64_t probes;
    CalibratedSearch pool, references; /* references: zeros without any */
    bool has_references;
    char path[CURATION_RUN_PATH]; /* of the file */
} Calibration;

/* `references`: NULL or a set as exclude takes it. STATUS_INPUT where the three are of different models or
 * views. Others as of shard_search_run. The outcome is agreed. Collective over COMM. */
Status calibrate_run(Calibration *result, const FeatureSource *pool, const FeatureSource *probes,
                     const FeatureSource *references, const CurationRun *run, Error *error);

/* Thresholds and bounds of that file become those of the configuration. STATUS_INPUT if it is no file of
 * calibrate, is of other features than `pool`, or was made with another curation.score_normalization. Not
 * collective. */
Status calibrate_apply(const char *path, const FeatureSource *pool, Config *config, Error *error);

#endif
