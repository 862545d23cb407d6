/* test_hostile_files.c - every job that is given an HDF5 file, given one that libhdf5 crashes on: one line
 * that names the file, and status 2.
 */
#include "../support/curate_steps.h"
#include "../support/h5_damage.h"
#include "../support/h5_kinds.h"

#include "h5/h5_check.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT_SECONDS = 60, TRIALS_MAX = 400, WORDS_MAX = 14 };

static const char TINY[] =
    "train: {dataset_path: 'synthetic:classes=2,size=16,count=8,seed=0', batch_size_per_gpu: 2, "
    "OFFICIAL_EPOCH_LENGTH: 2, num_workers: 0}\n"
    "student: {arch: vit_custom, embed_dim: 16, depth: 1, num_heads: 2, patch_size: 8, block_chunks: 0}\n"
    "optim: {epochs: 1, warmup_epochs: 0, freeze_last_layer_epochs: 0}\n"
    "teacher: {warmup_teacher_temp_epochs: 0}\n"
    "crops: {global_crops_size: 16, local_crops_size: 16, local_crops_number: 1}\n"
    "dino: {head_n_prototypes: 8, head_hidden_dim: 8, head_bottleneck_dim: 4}\n"
    "ibot: {head_n_prototypes: 8, head_hidden_dim: 8, head_bottleneck_dim: 4}\n"
    "compute: {threads: 1}\n";

/* A file on which libhdf5 crashes, if there is one among many; else one that it refuses. */
static void write_crashing(const TempPath *path)
{
    H5Victim victim;
    Comm *comm = comm_self_create();
    h5_kinds_write(H5_KINDS_FEATURES, path->text, comm);
    comm_destroy(comm);
    h5_damage_learn(&victim, path->text);
    for (uint64_t trial = 1; trial < TRIALS_MAX; trial += 2) { /* those with right checksums */
        bool sealed;
        char told[160];
        Error error = {0};
        h5_damage_apply(&victim, 3, trial, &sealed, told, sizeof told);
        Status status = h5_check_file(path->text, NULL, H5_CHECK_STRUCTURE, NULL, &error);
        if (status != STATUS_OK && strstr(error.text, "the HDF5 library breaks on it")) break;
    }
    h5_damage_fini(&victim);
}

/* Words of a command line: BAD is the bad file, GOOD a features file, IN their folder. */
typedef const char *Command[WORDS_MAX];

static const Command COMMANDS[] = {
    {"pretrain", "--config-file", "IN/tiny.yaml", "--output-dir", "IN/a", "train.resume_from=BAD"},
    {"pretrain", "--config-file", "IN/tiny.yaml", "--output-dir", "IN/b", "student.pretrained_weights=BAD"},
    {"pretrain", "--config-file", "IN/tiny.yaml", "--output-dir", "IN/c", "train.dataset_path=hdf5:BAD"},
    {"extract", "--model", "BAD", "--data", "synthetic:count=8", "--output-dir", "IN/o.h5"},
    {"extract", "--model", "sscd:BAD", "--data", "synthetic:count=8", "--output-dir", "IN/o.h5"},
    {"extract", "--model", "raw-pixels", "--data", "hdf5:BAD", "--output-dir", "IN/o.h5"},
    {"extract", "--model", "raw-pixels", "--data", "synthetic:count=8", "--whiten", "BAD", "--output-dir",
     "IN/o.h5"},
    {"evaluate", "knn", "--model", "BAD", "--train-data", "synthetic:count=8", "--val-data",
     "synthetic:count=8", "--output-dir", "IN/e"},
    {"evaluate", "knn", "--train-features", "BAD", "--val-features", "BAD", "--output-dir", "IN/e"},
    {"evaluate", "logreg", "--train-features", "BAD", "--val-features", "GOOD", "--output-dir", "IN/e"},
    {"evaluate", "linear", "--model", "BAD", "--train-data", "synthetic:count=8", "--val-data",
     "synthetic:count=8", "--output-dir", "IN/e"},
    {"evaluate", "retrieval", "--train-features", "GOOD", "--val-features", "BAD", "--output-dir", "IN/e"},
    {"evaluate", "segmentation", "--model", "BAD", "--train-data", "synthetic:count=8", "--val-data",
     "synthetic:count=8", "--output-dir", "IN/e"},
    {"visualize", "neighbours", "--train-features", "BAD", "--data", "synthetic:count=8", "--output",
     "IN/o.png"},
    {"visualize", "pca", "--model", "BAD", "--data", "synthetic:count=8", "--output", "IN/o.png"},
    {"visualize", "duplicates", "--curation", "BAD", "--data", "synthetic:count=8", "--output", "IN/o.png"},
    {"visualize", "neighbours", "--curation", "BAD", "--data", "synthetic:count=8", "--queries",
     "synthetic:count=8", "--output", "IN/o.png"},
    {"convert", "BAD", "IN/o.safetensors"},
    {"pack", "--data", "hdf5:BAD", "--output-dir", "IN/p"},
    {"validate", "BAD"},
    {"curate", "dedup", "--features", "BAD", "--output-dir", "IN/d"},
    {"curate", "dedup", "--features", "GOOD", "--calibration", "BAD", "--output-dir", "IN/d"},
    {"curate", "exclude", "--features", "GOOD", "--keep", "BAD", "--reference", "GOOD", "--output-dir",
     "IN/d"},
    {"curate", "retrieve", "--features", "GOOD", "--queries", "BAD", "--name", "q", "--output-dir", "IN/d"},
    {"curate", "assemble", "--features", "GOOD", "--data", "synthetic:count=8", "--part", "BAD",
     "--output-dir", "IN/d"},
    {"curate", "score", "--features", "GOOD", "--truth", "IN", "--dedup", "BAD", "--output-dir", "IN/d"},
};

enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS, AT_ONCE = 2 };

/* A word with what BAD, GOOD and IN stand for. */
static TempPath spell(const TempFolder *temp, const char *word)
{
    static const struct {
        const char *name, *file;
    } names[] = {{"BAD", "/bad.h5"}, {"GOOD", "/good.h5"}, {"IN/", "/"}};
    TempPath spelt;
    snprintf(spelt.text, sizeof spelt.text, "%s", word);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *at = strstr(word, names[i].name);
        if (!at) continue;
        snprintf(spelt.text, sizeof spelt.text, "%.*s%s%s%s", (int)(at - word), word, temp->path,
                 names[i].file, at + strlen(names[i].name));
        break;
    }
    return spelt;
}

static Process start(const TempFolder *temp, const Command *command)
{
    TempPath spelt[WORDS_MAX];
    const char *words[WORDS_MAX + 1] = {NULL};
    for (int w = 0; w < WORDS_MAX && (*command)[w]; w++) {
        spelt[w] = spell(temp, (*command)[w]);
        words[w] = spelt[w].text;
    }
    return process_start_dinobatch(0, words);
}

static void finish(Process *process, const Command *command, const char *bad)
{
    ProcessResult result = process_finish(process, LIMIT_SECONDS);
    const char *line = strstr(result.err, "error: ");
    cr_expect_eq(result.exit_status, 2, "%s %s: exit %d: %s", (*command)[0], (*command)[1],
                 result.exit_status, result.err);
    cr_expect(line && strstr(line, bad) && !strstr(line + 1, "error: "), "%s %s: %s", (*command)[0],
              (*command)[1], result.err);
    process_result_fini(&result);
}

Test(hostile_files, every_job_refuses_a_file_that_libhdf5_crashes_on, .timeout = 300)
{
    TempFolder temp = temp_folder_create();
    TempPath bad = temp_folder_in(&temp, "bad.h5");
    const double degrees[] = {0, 10, 50, 90};
    temp_folder_write(&temp, "tiny.yaml", TINY);
    curate_steps_write_angles(&temp, "good.h5", degrees, 4, NULL);
    write_crashing(&bad);
    for (int first = 0; first < COMMAND_COUNT; first += AT_ONCE) {
        Process running[AT_ONCE];
        for (int i = first; i < COMMAND_COUNT && i < first + AT_ONCE; i++)
            running[i - first] = start(&temp, &COMMANDS[i]);
        for (int i = first; i < COMMAND_COUNT && i < first + AT_ONCE; i++)
            finish(&running[i - first], &COMMANDS[i], bad.text);
    }
    temp_folder_destroy(&temp);
}
