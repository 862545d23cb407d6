/* test_bad_input.c - `pretrain` on input that is wrong, broken or hostile: one clear line and status 2, or
 * skipped and named, on one rank and on two, and never a hang.
 *
 * The network is as small as it gets, so that starting the program is what costs.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include "base/rng.h"
#include "data/image_encode.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 40, SIDE = 20, ODD_FILES = 5, WORDS_MAX = 16, PATH_BYTES = 512 };

static const char TINY[] =
    "train: {batch_size_per_gpu: 2, OFFICIAL_EPOCH_LENGTH: 2, num_workers: 1}\n"
    "student: {arch: vit_custom, embed_dim: 32, depth: 1, num_heads: 2, patch_size: 8, block_chunks: 0}\n"
    "optim: {epochs: 1, warmup_epochs: 0, freeze_last_layer_epochs: 0}\n"
    "teacher: {warmup_teacher_temp_epochs: 0}\n"
    "crops: {global_crops_size: 16, local_crops_size: 16, local_crops_number: 1}\n"
    "dino: {head_n_prototypes: 16, head_hidden_dim: 16, head_bottleneck_dim: 8}\n"
    "ibot: {head_n_prototypes: 16, head_hidden_dim: 16, head_bottleneck_dim: 8}\n"
    "compute: {threads: 1}\n";

/* No rank here needs a second to clean up after another has failed. */
static void hurry_mpirun(void)
{
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1);
}

TestSuite(bad_input, .init = hurry_mpirun);

/* --- input --- */

static void make_folder(const TempFolder *temp, const char *relative)
{
    char *path = temp_folder_path(temp, relative);
    cr_assert_eq(mkdir(path, 0700), 0, "%s", path);
    temp_folder_free_text(path);
}

static void write_picture(const TempFolder *temp, const char *relative, uint64_t seed)
{
    uint8_t pixels[SIDE * SIDE * 3];
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)rng_u32(&rng);
    DataBuffer buffer = {0};
    cr_assert_eq(image_encode_png(&buffer, pixels, SIDE, SIDE, 3, NULL), STATUS_OK);
    temp_folder_write_bytes(temp, relative, buffer.bytes, buffer.size);
    data_buffer_destroy(&buffer);
}

/* A folder with the configuration and data sets: good, mixed (one broken of four), broken, empty. */
static TempFolder create_input(void)
{
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "tiny.yaml", TINY);
    make_folder(&temp, "good");
    make_folder(&temp, "mixed");
    make_folder(&temp, "broken");
    make_folder(&temp, "empty");
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "good/%d.png", i);
        write_picture(&temp, name, (uint64_t)i);
        snprintf(name, sizeof name, "mixed/%d.png", i);
        write_picture(&temp, name, (uint64_t)i);
    }
    temp_folder_write(&temp, "mixed/odd.jpg", "this is no picture");
    temp_folder_write(&temp, "broken/a.jpg", "this is no picture");
    temp_folder_write(&temp, "broken/b.png", "\x89PNG\r\n\x1a\n and no more");
    temp_folder_write(&temp, "broken/c.png", "");
    return temp;
}

/* $DATA_DIR/bad into path[PATH_BYTES]; without it the test is skipped, but not in CI. */
static void find_bad_files(char *path)
{
    const char *data = getenv("DATA_DIR");
    snprintf(path, PATH_BYTES, "%s/bad", data && *data ? data : "../shared/data");
    if (access(path, R_OK) == 0) return;
    cr_assert(!getenv("CI"), "%s is missing", path);
    cr_skip_test("%s is missing", path);
}

static void link_file(const char *from, const TempFolder *temp, const char *relative)
{
    char *to = temp_folder_path(temp, relative), *real = realpath(from, NULL);
    cr_assert(real, "%s", from);
    cr_assert_eq(symlink(real, to), 0, "%s", to);
    free(real);
    temp_folder_free_text(to);
}

/* --- running --- */

/* `dinobatch pretrain` in the tiny configuration on the data set KIND:FOLDER/DATA; ranks 0: without mpirun.
 */
static ProcessResult pretrain(int ranks, const TempFolder *temp, const char *kind, const char *data,
                              const char *const *more)
{
    char spec[PATH_BYTES];
    char *config = temp_folder_path(temp, "tiny.yaml"), *output = temp_folder_path(temp, "run");
    snprintf(spec, sizeof spec, "train.dataset_path=%s:%s/%s", kind, temp->path, data);
    const char *words[WORDS_MAX + 1] = {"pretrain", "--config-file", config, "--output-dir", output, spec};
    for (int count = 6; more && *more; more++) {
        cr_assert(count < WORDS_MAX);
        words[count++] = *more;
    }
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    temp_folder_free_text(config);
    temp_folder_free_text(output);
    return result;
}

static int count_text(const char *text, const char *wanted)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, wanted)); at += strlen(wanted))
        count++;
    return count;
}

static void expect_refused(const ProcessResult *result, const char *said)
{
    cr_expect_eq(result->exit_status, 2, "exit %d: %s", result->exit_status, result->err);
    cr_expect_eq(count_text(result->err, "error: "), 1, "%s", result->err);
    cr_expect(strstr(result->err, said), "'%s' not in: %s", said, result->err);
    cr_expect_str_empty(result->out);
}

/* --- configuration and data sets --- */

typedef struct {
    char kind[16], data[16], word[48];
    char said[64]; /* in the one error line */
    int ranks;
} Refusal;

ParameterizedTestParameters(bad_input, refused_in_one_line)
{
    static Refusal refusals[] = {
        {"folder", "good", "optim.epoch=3", "unknown key; did you mean 'optim.epochs'?", 0},
        {"folder", "good", "optim.epoch=3", "unknown key; did you mean 'optim.epochs'?", 2},
        {"folder", "good", "optim.epochs=many", "optim.epochs: expected an integer", 0},
        {"folder", "good", "optim.epochs=many", "optim.epochs: expected an integer", 2},
        {"folder", "nowhere", "", "nowhere: No such file", 0},
        {"folder", "nowhere", "", "nowhere: No such file", 2},
        {"folder", "empty", "", "empty: no image in it", 0},
        {"folder", "empty", "", "empty: no image in it", 2},
        {"folder", "broken", "", "no readable image", 0},
        {"folder", "broken", "", "no readable image", 2},
        {"tar", "mixed/odd.jpg", "", "odd.jpg: damaged archive", 0},
        {"hdf5", "mixed/odd.jpg", "", "odd.jpg: not a whole HDF5 file", 2},
        {"nonsense", "good", "", "expected folder:DIR, tar:FILE", 0},
        {"folder", "good", "train.global_batch_size=3", "train.global_batch_size", 2},
    };
    return cr_make_param_array(Refusal, refusals, sizeof refusals / sizeof *refusals);
}

ParameterizedTest(Refusal *refusal, bad_input, refused_in_one_line, .timeout = 60)
{
    TempFolder temp = create_input();
    const char *more[] = {refusal->word[0] ? refusal->word : NULL, NULL};
    ProcessResult result = pretrain(refusal->ranks, &temp, refusal->kind, refusal->data, more);
    expect_refused(&result, refusal->said);
    process_result_fini(&result);
    temp_folder_destroy(&temp);
}

/* Every file that cannot be decoded is named once, whatever the ranks, and the run goes on to its end.
 * Returns how many were named. */
static int expect_named_once(const ProcessResult *result, const char *fate)
{
    int named = 0;
    for (int i = 0; i < ODD_FILES; i++) {
        char line[64];
        snprintf(line, sizeof line, "odd/odd%d.jpg: not a JPEG or PNG; skipped", i);
        int times = count_text(result->err, line);
        cr_expect_leq(times, 1, "%s", result->err);
        named += times;
    }
    char total[128];
    snprintf(total, sizeof total, "%d file%s could not be decoded; %s", named, named == 1 ? "" : "s", fate);
    cr_expect_eq(count_text(result->err, "; skipped"), named, "%s", result->err);
    cr_expect_eq(count_text(result->err, total), 1, "%s: %s", total, result->err);
    cr_expect_eq(count_text(result->err, "could not be decoded"), 1, "%s", result->err);
    return named;
}

static int train_on_odd_files(int ranks, const TempFolder *temp)
{
    const char *more[] = {"train.global_batch_size=6", "optim.epochs=3", "--no-resume", "--json", NULL};
    ProcessResult result = pretrain(ranks, temp, "folder", "odd", more);
    cr_expect_eq(result.exit_status, 0, "exit %d: %s", result.exit_status, result.err);
    cr_expect(strstr(result.out, "\"iterations\":6"), "%s", result.out);
    int named = expect_named_once(&result, "each was replaced by the next sample");
    process_result_fini(&result);
    return named;
}

static void extract_odd_files(int ranks, const TempFolder *temp)
{
    char spec[PATH_BYTES], model[PATH_BYTES], output[PATH_BYTES];
    snprintf(spec, sizeof spec, "folder:%s/odd", temp->path);
    snprintf(model, sizeof model, "%s/run", temp->path);
    snprintf(output, sizeof output, "%s/features.h5", temp->path);
    const char *words[] = {"extract",
                           "--model",
                           model,
                           "--data",
                           spec,
                           "--output-dir",
                           output,
                           "evaluation.crop_size=16",
                           "evaluation.resize_size=16",
                           NULL};
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 0, "exit %d: %s", result.exit_status, result.err);
    cr_expect_eq(expect_named_once(&result, "each is left out"), ODD_FILES);
    process_result_fini(&result);
}

/* The samples are the same on every number of ranks, so the same files are met. */
Test(bad_input, corrupt_files_are_named_once_on_every_number_of_ranks, .timeout = 90)
{
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "tiny.yaml", TINY);
    make_folder(&temp, "odd");
    for (int i = 0; i < 8; i++) {
        char name[32];
        snprintf(name, sizeof name, "odd/%d.png", i);
        write_picture(&temp, name, (uint64_t)i);
        snprintf(name, sizeof name, "odd/odd%d.jpg", i);
        if (i < ODD_FILES) temp_folder_write(&temp, name, "this is no picture");
    }
    int named = train_on_odd_files(0, &temp);
    cr_expect(named >= 2, "only %d met", named);
    cr_expect_eq(train_on_odd_files(2, &temp), named);
    cr_expect_eq(train_on_odd_files(3, &temp), named);
    extract_odd_files(2, &temp);
    temp_folder_destroy(&temp);
}

/* --- the collection of hostile pictures --- */

typedef struct {
    char name[64];
    char expect[16]; /* decode, reject, either */
} BadFile;

enum { BAD_FILES_MAX = 64 };

/* The first two columns of expected.csv. */
static int read_expected(const char *folder, BadFile *files)
{
    char path[PATH_BYTES + 32], line[1024];
    snprintf(path, sizeof path, "%s/expected.csv", folder);
    FILE *csv = fopen(path, "r");
    cr_assert(csv, "%s", path);
    int count = 0;
    while (fgets(line, sizeof line, csv))
        if (count < BAD_FILES_MAX &&
            sscanf(line, "%63[^,],%15[^,]", files[count].name, files[count].expect) == 2 &&
            strcmp(files[count].name, "file") != 0)
            count++;
    fclose(csv);
    cr_assert(count > 10, "%d files in %s", count, path);
    return count;
}

static void expect_named_as_told(const BadFile *file, const char *err)
{
    char mark[80];
    snprintf(mark, sizeof mark, "/%s: ", file->name);
    int named = count_text(err, mark);
    if (strcmp(file->expect, "decode") == 0) cr_expect_eq(named, 0, "%s: %s", file->name, err);
    if (strcmp(file->expect, "reject") == 0)
        cr_expect_eq(named, 1, "%s named %d times: %s", file->name, named, err);
}

/* Each alone with one good picture: both are read in the first batch. Every second one, so that the two tests
 * that call this run side by side. */
static void run_each(int first)
{
    char folder[PATH_BYTES];
    BadFile files[BAD_FILES_MAX];
    find_bad_files(folder);
    int count = read_expected(folder, files);
    for (int i = first; i < count; i += 2) {
        TempFolder temp = temp_folder_create();
        char from[PATH_BYTES + 80], relative[80];
        temp_folder_write(&temp, "tiny.yaml", TINY);
        make_folder(&temp, "one");
        write_picture(&temp, "one/good.png", (uint64_t)i);
        snprintf(from, sizeof from, "%s/%.63s", folder, files[i].name);
        snprintf(relative, sizeof relative, "one/%s", files[i].name);
        link_file(from, &temp, relative);
        ProcessResult result =
            pretrain(0, &temp, "folder", "one", (const char *[]){"train.OFFICIAL_EPOCH_LENGTH=1", NULL});
        cr_expect_eq(result.exit_status, 0, "%s: exit %d: %s", files[i].name, result.exit_status, result.err);
        expect_named_as_told(&files[i], result.err);
        process_result_fini(&result);
        temp_folder_destroy(&temp);
    }
}

Test(bad_input, each_hostile_picture_on_its_own, .timeout = 120)
{
    run_each(0);
}

Test(bad_input, each_other_hostile_picture_on_its_own, .timeout = 120)
{
    run_each(1);
}

static void run_all(const char *decode)
{
    char folder[PATH_BYTES], batch[48];
    BadFile files[BAD_FILES_MAX];
    find_bad_files(folder);
    int count = read_expected(folder, files);
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "tiny.yaml", TINY);
    make_folder(&temp, "all");
    for (int i = 0; i < count; i++) {
        char from[PATH_BYTES + 80], relative[80];
        snprintf(from, sizeof from, "%s/%.63s", folder, files[i].name);
        snprintf(relative, sizeof relative, "all/%.63s", files[i].name);
        link_file(from, &temp, relative);
    }
    snprintf(batch, sizeof batch, "train.batch_size_per_gpu=%d", (count + 1) / 2);
    ProcessResult result = pretrain(2, &temp, "folder", "all", (const char *[]){batch, decode, NULL});
    cr_expect_eq(result.exit_status, 0, "exit %d: %s", result.exit_status, result.err);
    for (int i = 0; i < count; i++)
        expect_named_as_told(&files[i], result.err);
    process_result_fini(&result);
    temp_folder_destroy(&temp);
}

Test(bad_input, all_hostile_pictures_on_two_ranks, .timeout = 60)
{
    run_all("data.decode=exact");
}

Test(bad_input, all_hostile_pictures_with_scaled_decode, .timeout = 60)
{
    run_all("data.decode=scaled");
}

/* Odd names of good pictures; only the link that leads nowhere may be passed over. */
Test(bad_input, tar_of_odd_names, .timeout = 60)
{
    char folder[PATH_BYTES], from[PATH_BYTES + 32];
    find_bad_files(folder);
    snprintf(from, sizeof from, "%s/oddnames.tar", folder);
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "tiny.yaml", TINY);
    link_file(from, &temp, "odd.tar");
    ProcessResult result =
        pretrain(2, &temp, "tar", "odd.tar", (const char *[]){"train.batch_size_per_gpu=8", NULL});
    cr_expect_eq(result.exit_status, 0, "exit %d: %s", result.exit_status, result.err);
    cr_expect(strstr(result.err, "a link inside an archive; skipped"), "%s", result.err);
    cr_expect_eq(count_text(result.err, "; skipped"), 1, "%s", result.err);
    process_result_fini(&result);
    temp_folder_destroy(&temp);
}

/* --- checkpoints --- */

static void shorten(const TempFolder *temp, const char *relative)
{
    struct stat facts;
    char *path = temp_folder_path(temp, relative);
    cr_assert_eq(stat(path, &facts), 0, "%s", path);
    cr_assert_eq(truncate(path, facts.st_size * 2 / 3), 0);
    temp_folder_free_text(path);
}

/* Resuming from another architecture and from a cut file. */
static void run_checkpoints(int ranks)
{
    TempFolder temp = create_input();
    ProcessResult first = pretrain(ranks, &temp, "folder", "good", NULL);
    cr_assert_eq(first.exit_status, 0, "exit %d: %s", first.exit_status, first.err);
    ProcessResult other = pretrain(ranks, &temp, "folder", "good",
                                   (const char *[]){"student.embed_dim=64", "--allow-config-change", NULL});
    expect_refused(&other, "another architecture");
    shorten(&temp, "run/checkpoints/model_0000001.h5");
    ProcessResult cut = pretrain(ranks, &temp, "folder", "good", NULL);
    expect_refused(&cut, "model_0000001.h5: not a whole HDF5 file");
    process_result_fini(&first);
    process_result_fini(&other);
    process_result_fini(&cut);
    temp_folder_destroy(&temp);
}

Test(bad_input, checkpoint_cut_or_of_another_architecture, .timeout = 60)
{
    run_checkpoints(0);
}

Test(bad_input, checkpoint_cut_or_of_another_architecture_on_two_ranks, .timeout = 60)
{
    run_checkpoints(2);
}
