/* exclude.h - pool rows that are too like a reference: test images of evaluations and their copies.
 *
 * Source: DINOv2 paper, section 3 and appendix A.3 ("relative deduplication"): edges with a cosine above 0.45
 * between the pool and the references and within the pool; a connected component that holds a reference loses
 * all its pool rows.
 *
 * The pool rows look for references, not the other way round: a reference that names its k nearest pool rows
 * loses sight of the copies beyond k, but a pool row needs to know no more than its one most similar
 * reference. Where the index over the references is not exact (curation.exclude.index), references look for
 * their k nearest pool rows, too, and what either side finds counts. Then, with curation.exclude.links=pool,
 * edges within the pool are made as in deduplicate.h; two rows that are like one reference both go already,
 * so references are no part of these components. With links=none a row goes if it is like a reference itself.
 *
 * Where the features hold views of each picture (the same ones of pool and references), a picture is as like
 * a reference as a view of either is to the whole other one at best. So views of pool pictures look for whole
 * references, then whole pool pictures for views of references, and links are those of deduplicate.h.
 *
 * With curation.score_normalization pool pictures look for references, each against the background of its own
 * nearest references, and references for pool pictures, as pictures of the pool do in deduplicate.h and by
 * its threshold: what either side finds counts.
 *
 * Writes FOLDER/exclude.h5 about all pool rows, also those that the set (an earlier /keep) has not: /keep = 1
 * for rows of the set that stay, /group = lowest row of the component (links=pool), -1 for rows that are not
 * of the set, /reference = row of the most similar reference that is above the threshold, or -1, /similarity.
 * Memory of a rank, bytes: 21 for each of its rows beside index, search and edges; afterwards, without these,
 * 80 at most.
 */
#ifndef DINOBATCH_CURATION_EXCLUDE_H
#define DINOBATCH_CURATION_EXCLUDE_H

#include "curation/curation_run.h"

typedef struct {
    int64_t rows;       /* of the set */
    int64_t references; /* rows of the reference files */
    int64_t neighbours; /* of a pool row that were looked at */
    int64_t direct;     /* rows that are like a reference themselves */
    int64_t edges;      /* within the pool, from each end */
    int64_t excluded;
    int64_t kept;
    char path[CURATION_RUN_PATH]; /* of the file */
} Exclusion;

/* STATUS_INPUT where pool and references are of different models, or have different views. `keep`: the
 * curation file that `pool` was opened with, or NULL. Others as of deduplicate_run. The outcome is agreed.
 * Collective over COMM. */
Status exclude_run(Exclusion *result, const FeatureSource *pool, const char *keep,
                   const FeatureSource *references, const CurationRun *run, Error *error);

#endif
