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
    {CONFIG_KEY(curation.dedup.threshold, "0.6", "rows of a higher cosine are duplicates; 0.6 is for SSCD"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.threshold, "0.45",
                "rows of a higher cosine to a reference, and to each other, go; 0.45 is for SSCD"),
     .low = -1, .high = 1, .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.links, "pool",
                "pool = rows go together with all that they are linked to in the pool, as in the paper; none "
                "= only rows that are like a reference themselves"),
     .choices = "pool|none", .may_change = true, .ours = true},
    {CONFIG_KEY(curation.exclude.index, "Flat", "index over the references, as curation.index"),
     .may_change = true, .ours = true},
};

const int CONFIG_KEYS_CURATION_COUNT = sizeof CONFIG_KEYS_CURATION / sizeof *CONFIG_KEYS_CURATION;
