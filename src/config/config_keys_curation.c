/* config_keys_curation.c - rows of curation. All are ours; numbers of the paper (DINOv2, section 3 and
 * appendix A) are the defaults where it says one. No training reads them, so all may change on resume.
 */
#include "config/config_keys.h"

const ConfigKey CONFIG_KEYS_CURATION[] = {
    {CONFIG_KEY(curation.neighbours, "64",
                "nearest neighbours that are looked at for each row of the graph of duplicates"),
     .low = 1, .high = 4096, .may_change = true, .ours = true},
    {CONFIG_KEY(
         curation.index, "Flat",
         "index over the pool as Faiss's factory writes it: Flat = exact, IVF4096,Flat, IVF65536,PQ64"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(curation.nprobe, "32", "inverted lists that a query looks at; not for Flat"), .low = 1,
     .high = 1e9, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.refine, "4",
                "of codes (PQ, SQ): this times as many candidates are compared by their rows; 0 = none are"),
     .low = 0, .high = 1024, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.train_rows, "0",
                "rows that an index learns its lists and codes from; 0 = 64 a list, 16384 at least"),
     .low = 0, .high = 1e12, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.block_queries, "4096", "rows of all ranks together that are looked up at a time"),
     .low = 1, .high = 1e7, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.gpu, "false", "search on GPUs; for a program built with FAISS_GPU=1, not for Flat"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(curation.seed, "0", "seed of samples that indexes and clusters learn from"), .low = 0,
     .high = 9e15, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.save_minutes, "10",
                "minutes after which a step saves what it needs to go on; 0 = after every block"),
     .low = 0, .high = 1e6, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.score_normalization, "false",
                "compare not cosines but how far they are above a row's background, the mean cosine to the "
                "farther half of its neighbours, as SSCD advises; thresholds are then such differences"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(
         curation.calibrate.false_links, "0.01",
         "neighbours above the threshold that a picture without copies may have in the pool, on average"),
     .low = 0, .high = 64, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.calibrate.false_references, "0.002", "the same among the references"), .low = 0,
     .high = 64, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.dedup.threshold, "0.6", "rows of a higher cosine are duplicates; 0.6 is for SSCD"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.dedup.background_most, "1",
                "with curation.score_normalization: a greater background counts as this one"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.threshold, "0.45",
                "rows of a higher cosine to a reference, and to each other, go; 0.45 is for SSCD"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.background_most, "1", "the same of a row's neighbours among the references"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.links, "pool",
                "pool = rows go together with all that they are linked to in the pool, as in the paper; none "
                "= only rows that are like a reference themselves"),
     .choices = "pool|none", .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.index, "Flat", "index over the references, as curation.index"),
     .may_change = true, .ours = true},

    {CONFIG_KEY(curation.cluster.k, "100000", "clusters of the pool"), .low = 1, .high = 2e9,
     .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.iterations, "20", "iterations of k-means"), .low = 0, .high = 1e6,
     .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.batch_rows, "0",
                "rows of all ranks that one iteration looks at; 0 = all of them"),
     .low = 0, .high = 1e12, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.spherical, "true", "centroids are of unit length, as rows are"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.init, "rows",
                "first centroids: rows = rows of the pool, plus_plus = k-means++ on a sample, for some "
                "thousands of clusters at most"),
     .choices = "rows|plus_plus", .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.levels, "[0]",
                "clusters of the levels above, from the second on, descending: centroids are clustered "
                "again; [0] = none"),
     .low = 0, .high = 2e9, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.cluster.sample, "0",
                "rows of a balanced sample: the same number from each cluster, level by level, where it has "
                "as many; 0 = none is taken"),
     .low = 0, .high = 1e12, .may_change = true, .ours = true},

    {CONFIG_KEY(curation.retrieve.mode, "auto",
                "sample = the pool rows nearest to each query; cluster = rows of the clusters that queries "
                "lie in; auto = cluster for query sets of switch_size pictures or less"),
     .choices = "auto|sample|cluster", .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.switch_size, "1000000",
                "pictures of the largest query set that auto takes by clusters"),
     .low = 0, .high = 1e12, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.neighbours, "4", "sample: pool rows for each query"), .low = 1,
     .high = 4096, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.collisions, "keep",
                "sample: of a row that several queries brought in, keep = all stay in the file and in the "
                "counts, remove = the one of the most similar query"),
     .choices = "keep|remove", .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.min_queries, "3", "cluster: a cluster needs more queries than this"),
     .low = 0, .high = 1e12, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.per_cluster, "10000", "cluster: rows of one cluster, at most"), .low = 1,
     .high = 1e12, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.retrieve.cap, "1000000", "cluster: rows of one query set, at most"), .low = 1,
     .high = 1e12, .may_change = true, .ours = true},
};

const int CONFIG_KEYS_CURATION_COUNT = sizeof CONFIG_KEYS_CURATION / sizeof *CONFIG_KEYS_CURATION;
