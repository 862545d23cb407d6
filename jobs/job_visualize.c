/* job_visualize.c - pictures of what a model sees and how a training went.
 *
 *   dinobatch visualize pca|matches|attention --model CHECKPOINT|RUN_FOLDER --data SPEC --output FILE.png
 *                 [--which teacher|student] [--count N] [--size PIXELS] [--drawn PIXELS]
 *       pca, matches: [--foreground auto|above|below|all] [--threshold DEVIATIONS]
 *       pca: [--columns N]   matches: [--lines N]   attention: [--block N] [--mass SHARE]
 *   dinobatch visualize curves --run RUN_FOLDER... --output FILE.png
 *   dinobatch visualize duplicates --curation dedup.h5 --data SPEC... --output FILE.png
 *   dinobatch visualize neighbours --output FILE.png --data SPEC... [--queries SPEC...]
 *                 --curation retrieve_NAME.h5 | --train-features FILE [--val-features FILE] | --model PATH
 *       the last two: [--count N] [--columns N] [--drawn PIXELS]
 */
#include "job_visualize.h"

#include "base/check.h"
#include "data/data_spec.h"
#include "report/training_curves.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_visualize_options[] = {
    {"output", "FILE.png", "the picture", false},
    {"model", "PATH", "checkpoint file, or run folder (its newest checkpoint)", false},
    {"which", "teacher|student", "with --model: whose weights (default: teacher)", false},
    {"data", "SPEC",
     "images, as a data set spec, of which evenly spaced ones are taken (pca, matches, attention); "
     "the pictures that are searched, by one option each where features are of several sets (duplicates, "
     "neighbours)",
     true},
    {"count", "N",
     "pictures (default: pca 8, attention 4, matches 2: pairs in order); duplicates, neighbours: rows of "
     "pictures (default: 16)",
     false},
    {"size", "PIXELS",
     "shorter side of the network's input, rounded to whole patches (default: four times the "
     "training's, 448 at most)",
     false},
    {"drawn", "PIXELS",
     "side of a picture as it is drawn: the shorter one, about (pca, matches, attention; default: 224), the "
     "longer one (duplicates, neighbours; default: 96)",
     false},
    {"columns", "N", "pictures a row (default: pca 8, duplicates and neighbours 9)", false},
    {"foreground", "auto|above|below|all",
     "patches on which side of the first component's threshold (default: auto, the side that is "
     "less at borders)",
     false},
    {"threshold", "DEVIATIONS", "of the first component, in its standard deviations (default: Otsu's)",
     false},
    {"lines", "N", "at most, for each pair (default: 20)", false},
    {"block", "N", "of which block, from 1 (default: the last)", false},
    {"mass", "SHARE", "instead of maps the picture, dim but for the patches that hold that share, as 0.6",
     false},
    {"curation", "FILE", "file of curate dedup (duplicates), of curate retrieve (neighbours)", false},
    {"train-features", "FILE", "features file of the pictures that are searched", false},
    {"val-features", "FILE", "features file of the queries (default: those that are searched)", false},
    {"queries", "SPEC", "the queries' images, as a data set spec (default: those of --data)", true},
    {"no-captions", NULL, "no text on the picture", false},
    {"run", "FOLDER", "a training's run folder, by one option each to compare several", true},
    {0},
};

const OptionsKind job_visualize_kinds[] = {
    {"pca", "output model which data count size drawn columns foreground threshold"},
    {"matches", "output model which data count size drawn foreground threshold lines"},
    {"attention", "output model which data count size drawn block mass no-captions"},
    {"curves", "output run"},
    {"duplicates", "output data count drawn columns curation"},
    {"neighbours",
     "output model which data count drawn columns curation train-features val-features queries no-captions"},
    {0},
};

Status job_visualize_number(const JobContext *context, const char *name, int64_t fallback, int64_t most,
                            int64_t *value, Error *error)
{
    const char *text = options_get(context->options, name);
    *value = fallback;
    if (!text) return STATUS_OK;
    *value = data_spec_number(text, strlen(text));
    if (*value >= 1 && *value <= most) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected a number from 1 to %lld", name, text,
                       (long long)most);
}

static void print_result(const JobContext *context, const char *what, const char *output)
{
    if (comm_rank(context->comm) != 0) return;
    if (!context->json) {
        printf("%s\n", output);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", what);
    cJSON_AddStringToObject(tree, "output", output);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* Rank 0 draws. */
static Status visualize_curves(JobContext *context, Error *error)
{
    const char *const *runs;
    int count = options_get_all(context->options, "run", &runs);
    if (count == 0) return status_fail(error, STATUS_INPUT, "visualize curves needs --run FOLDER");
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0)
        status = training_curves_draw(runs, count, options_get(context->options, "output"), error);
    return comm_agree(context->comm, status, error);
}

Status job_visualize(JobContext *context, Error *error)
{
    static const struct {
        const char *name, *what;
        Status (*draw)(JobContext *context, Error *error);
    } kinds[] = {{"pca", "visualize pca", job_visualize_pca},
                 {"matches", "visualize matches", job_visualize_matches},
                 {"attention", "visualize attention", job_visualize_attention},
                 {"curves", "visualize curves", visualize_curves},
                 {"duplicates", "visualize duplicates", job_visualize_duplicates},
                 {"neighbours", "visualize neighbours", job_visualize_neighbours}};
    const char *output = options_get(context->options, "output");
    if (!output) return status_fail(error, STATUS_INPUT, "visualize needs --output FILE.png");
    size_t k = 0;
    while (k < sizeof kinds / sizeof *kinds && strcmp(context->options->words[0], kinds[k].name) != 0)
        k++;
    CHECK(k < sizeof kinds / sizeof *kinds); /* options_parse refuses what job_visualize_kinds has not */
    TRY(kinds[k].draw(context, error));
    print_result(context, kinds[k].what, output);
    return STATUS_OK;
}
