/* test_checkpoint.c - checkpoints on several ranks: any rank count reads what any wrote; kills, full disks
 * and damage leave the last complete one in force. */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include "base/rng.h"
#include "base/status.h"
#include "h5/h5_check.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static TempFolder temp;

static void make_folder(void)
{
    temp = temp_folder_create();
    process_end_ranks_at_once();
}

static void remove_folder(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(checkpoint, .init = make_folder, .fini = remove_folder, .timeout = 120);

/* A name inside the folder. */
static TempPath in_folder(const char *name)
{
    return temp_folder_in(&temp, "%s", name);
}

/* Runs a case and checks its exit status and, unless NULL, a text on its standard error. */
static void run_case(int ranks, const char *name, const char *const *arguments, int status, const char *text)
{
    ProcessResult result = process_run_case(ranks, name, arguments, 30);
    cr_assert_eq(result.exit_status, status, "%s on %d ranks: exit %d: %s", name, ranks, result.exit_status,
                 result.err);
    if (text) cr_assert(strstr(result.err, text), "%s: no \"%s\" in: %s", name, text, result.err);
    process_result_fini(&result);
}

static void save(int ranks, const char *iteration, const char *keep)
{
    run_case(ranks, "checkpoint_save", WORDS(temp.path, iteration, keep), 0, NULL);
}

static void flip(const char *path, int64_t offset)
{
    int fd = open(path, O_RDWR);
    unsigned char byte;
    cr_assert(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x10;
    cr_assert_eq(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

Test(checkpoint, four_ranks_write_any_number_reads)
{
    TempPath file = in_folder("model_0000012.h5");
    save(4, "12", "0");
    for (int ranks = 1; ranks <= 3; ranks++)
        run_case(ranks, "checkpoint_load", WORDS(file.text), 0, "loaded iteration 12");
    Error error = {0};
    H5Report report;
    cr_assert_eq(h5_check_file(file.text, "checkpoint", H5_CHECK_CHECKSUMS, &report, &error), STATUS_OK, "%s",
                 error.text);
    cr_assert_str_eq(report.format, "dinobatch-checkpoint");
    /* other tools see the reference's names */
    ProcessResult tool = process_run(WORDS("h5ls", "-r", file.text), 10);
    cr_assert(tool.exit_status != 127 || !getenv("CI"), "h5ls is not installed");
    if (tool.exit_status != 127) {
        cr_assert_eq(tool.exit_status, 0);
        cr_assert(strstr(tool.out, "/student/backbone/blocks/2/attn/qkv/weight Dataset {96, 32}"), "%s",
                  tool.out);
        cr_assert(strstr(tool.out, "/optimizer/exp_avg_sq/dino_head/last_layer/weight_v Dataset {101, 13}"));
    }
    process_result_fini(&tool);
    tool = process_run(WORDS("h5dump", "-A", file.text), 10);
    if (tool.exit_status != 127)
        cr_assert(tool.exit_status == 0 && strstr(tool.out, "ATTRIBUTE \"samples_seen\""));
    process_result_fini(&tool);
}

static bool same_bytes(const char *a, const char *b)
{
    FILE *first = fopen(a, "rb"), *second = fopen(b, "rb");
    cr_assert(first && second, "%s or %s is missing", a, b);
    int x, y;
    do {
        x = getc(first);
        y = getc(second);
    } while (x == y && x != EOF);
    fclose(first);
    fclose(second);
    return x == y;
}

Test(checkpoint, the_same_bytes_on_any_rank_count)
{
    TempPath one = in_folder("one"), three = in_folder("three");
    run_case(1, "checkpoint_save", WORDS(one.text, "5", "0"), 0, NULL);
    run_case(3, "checkpoint_save", WORDS(three.text, "5", "0"), 0, NULL);
    cr_assert(same_bytes(in_folder("one/model_0000005.h5").text, in_folder("three/model_0000005.h5").text));
}

Test(checkpoint, chunked_names_are_stored_unchunked)
{
    run_case(2, "checkpoint_save", WORDS(temp.path, "3", "0", "3", "32", "2"), 0, NULL);
    run_case(1, "checkpoint_load", WORDS(in_folder("model_0000003.h5").text), 0, "loaded iteration 3");
    run_case(1, "checkpoint_load", WORDS(in_folder("model_0000003.h5").text, "3", "32", "3"), 0, NULL);
}

Test(checkpoint, another_architecture_is_named)
{
    TempPath file = in_folder("model_0000001.h5");
    save(1, "1", "0");
    run_case(2, "checkpoint_load", WORDS(file.text, "4", "32"), 2,
             "another architecture: /student/backbone/blocks/3/attn/qkv/weight is not there");
    run_case(2, "checkpoint_load", WORDS(file.text, "2", "32"), 2,
             "another architecture: /student/backbone/blocks/2/attn/qkv/weight is there, but not here");
    run_case(2, "checkpoint_load", WORDS(file.text, "3", "48"), 2,
             "another architecture: /student/backbone/cls_token is [1, 1, 32] there, [1, 1, 48] here");
}

Test(checkpoint, the_teacher_alone)
{
    TempPath teacher = in_folder("eval/training_7/teacher_checkpoint.h5");
    run_case(2, "checkpoint_save", WORDS(temp.path, "7", "0", "3", "32", "0", teacher.text), 0, NULL);
    run_case(2, "checkpoint_backbone", WORDS(teacher.text), 0, NULL);
    run_case(1, "checkpoint_backbone", WORDS(in_folder("model_0000007.h5").text), 0, NULL);
    Error error = {0};
    cr_assert_eq(h5_check_file(teacher.text, "checkpoint", H5_CHECK_CHECKSUMS, NULL, &error), STATUS_OK, "%s",
                 error.text);
    run_case(1, "checkpoint_load", WORDS(teacher.text), 2, "/student is missing");
}

Test(checkpoint, a_flipped_byte_names_the_tensor)
{
    static const char tensor[] = "/optimizer/exp_avg/backbone/blocks/1/attn/qkv/weight";
    TempPath file = in_folder("model_0000001.h5");
    save(2, "1", "0");
    Error error = {0};
    H5File handle;
    H5Info info;
    cr_assert_eq(h5_file_open(&handle, file.text, &error), STATUS_OK);
    cr_assert_eq(h5_dataset_info(&handle, tensor, &info, &error), STATUS_OK);
    h5_file_close(&handle, NULL);
    flip(file.text, info.offset + 4 * info.count - 1);
    char expected[160];
    snprintf(expected, sizeof expected, "%s: damaged", tensor);
    run_case(3, "checkpoint_load", WORDS(file.text), 2, expected);
    cr_assert_eq(h5_check_file(file.text, "checkpoint", H5_CHECK_CHECKSUMS, NULL, &error), STATUS_INPUT);
    cr_assert(strstr(error.text, expected), "%s", error.text);
}

Test(checkpoint, the_newest_whole_one_is_found)
{
    run_case(2, "checkpoint_latest", WORDS(temp.path), 0, "found none");
    for (int i = 1; i <= 5; i++)
        save(1, (char[]){(char)('0' + i), '\0'}, "3");
    cr_assert_neq(access(in_folder("model_0000002.h5").text, F_OK), 0, "keep=3 keeps three");
    cr_assert_eq(access(in_folder("model_0000003.h5").text, F_OK), 0);
    run_case(2, "checkpoint_latest", WORDS(temp.path), 0, "loaded iteration 5");
    /* a newer one that last_checkpoint does not name is not trusted */
    cr_assert_eq(link(in_folder("model_0000003.h5").text, in_folder("model_0000009.h5").text), 0);
    run_case(1, "checkpoint_latest", WORDS(temp.path), 0, "loaded iteration 5");
    cr_assert_eq(truncate(in_folder("model_0000005.h5").text, 60000), 0);
    run_case(2, "checkpoint_latest", WORDS(temp.path), 0, "loaded iteration 4");
    cr_assert_eq(unlink(in_folder("model_0000005.h5").text), 0);
    run_case(1, "checkpoint_latest", WORDS(temp.path), 0, "last_checkpoint names");
    cr_assert_eq(unlink(in_folder("last_checkpoint").text), 0);
    cr_assert_eq(unlink(in_folder("model_0000009.h5").text), 0);
    run_case(1, "checkpoint_latest", WORDS(temp.path), 0, "loaded iteration 4");
    cr_assert_eq(truncate(in_folder("model_0000004.h5").text, 100), 0);
    cr_assert_eq(truncate(in_folder("model_0000003.h5").text, 0), 0);
    run_case(2, "checkpoint_latest", WORDS(temp.path), 2, "no whole checkpoint");
    run_case(2, "checkpoint_load", WORDS(in_folder("model_0000004.h5").text), 2, "not a whole HDF5 file");
}

Test(checkpoint, a_full_disk_spoils_nothing)
{
    for (int rank = 0; rank < 2; rank++)
        run_case(2, "checkpoint_full", WORDS(temp.path, rank ? "1" : "0"), 0, "File too large");
    cr_assert_neq(access(in_folder("model_0000002.h5.tmp").text, F_OK), 0);
}

Test(checkpoint, killed_ten_times_while_saving)
{
    Rng rng = rng_at((uint64_t)time(NULL), RNG_TEST, 3, (uint64_t)getpid());
    for (int round = 0; round < 10; round++) {
        bool saved =
            access(in_folder("last_checkpoint").text, F_OK) == 0; /* a short round may save nothing */
        Process storm = process_start_case(3, "checkpoint_storm", WORDS(temp.path));
        cr_assert(process_wait_for_error_text(&storm, "storm begins", 20));
        int rank = (int)rng_integer(&rng, 0, 2);
        pid_t victim = process_of_rank(&storm, rank, 5);
        cr_assert(victim > 0);
        double wait = rng_uniform(&rng, 0.01, 0.4);
        nanosleep(&(struct timespec){.tv_nsec = (long)(wait * 1e9)}, NULL);
        cr_assert_eq(kill(victim, SIGKILL), 0);
        ProcessResult result = process_finish(&storm, 10);
        cr_assert(!result.timed_out && result.exit_status != 0, "round %d: %s", round, result.err);
        /* what the round before left was whole: its loading said nothing of unusable files */
        cr_assert_null(strstr(result.err, "not usable"), "round %d: %s", round, result.err);
        cr_assert_null(strstr(result.err, "does not hold"), "round %d: %s", round, result.err);
        bool resumed = strstr(result.err, "loaded iteration") != NULL;
        cr_assert(resumed || !saved, "round %d did not resume: %s", round, result.err);
        process_result_fini(&result);
    }
    cr_assert_eq(access(in_folder("last_checkpoint").text, F_OK), 0, "not one save in ten rounds");
    run_case(2, "checkpoint_latest", WORDS(temp.path, "6", "128"), 0, "loaded iteration");
}
