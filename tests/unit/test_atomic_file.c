/* test_atomic_file.c - replacing files: contents, leftovers, refusal. */
#include "../support/temp_folder.h"
#include "base/atomic_file.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(atomic_file, replaces_and_leaves_nothing_behind)
{
    TempFolder temp = temp_folder_create();
    char *path = temp_folder_path(&temp, "file"), *temporary = temp_folder_path(&temp, "file.tmp");
    temp_folder_write(&temp, "file.tmp", "left by a job that was killed");
    const char *texts[] = {"first", "", "third, longer than the first"};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(atomic_file_write(path, texts[i], strlen(texts[i]), NULL), STATUS_OK);
        char *now = temp_folder_read(&temp, "file");
        cr_expect_str_eq(now, texts[i]);
        cr_expect_neq(access(temporary, F_OK), 0);
        temp_folder_free_text(now);
    }
    temp_folder_free_text(path);
    temp_folder_free_text(temporary);
    temp_folder_destroy(&temp);
}

Test(atomic_file, failure_keeps_the_old_file_and_names_it)
{
    TempFolder temp = temp_folder_create();
    Error error = {0};
    char *path = temp_folder_path(&temp, "folder"), *inside = temp_folder_path(&temp, "folder/kept");
    cr_assert_eq(mkdir(path, 0777), 0);
    temp_folder_write(&temp, "folder/kept", "kept");
    cr_expect_eq(atomic_file_write(path, "x", 1, &error),
                 STATUS_FAILED); /* a folder cannot be replaced by a file */
    cr_expect(strstr(error.text, path), "%s", error.text);
    cr_expect_eq(access(inside, F_OK), 0);
    char *temporary = temp_folder_path(&temp, "folder.tmp");
    cr_expect_neq(access(temporary, F_OK), 0);
    cr_expect_eq(atomic_file_write("/nonexistent/file", "x", 1, &error), STATUS_FAILED);
    cr_expect_eq(atomic_file_write("/dev/full/x", "x", 1, &error), STATUS_FAILED);
    temp_folder_free_text(path);
    temp_folder_free_text(inside);
    temp_folder_free_text(temporary);
    temp_folder_destroy(&temp);
}
