/* test_run_folder.c - the output folder of one process: made, refused, written. */
#include "../support/temp_folder.h"
#include "run/run_folder.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    TempFolder temp;
    Comm *comm;
    Log log;
} Setting;

static Setting begin(void)
{
    Setting setting = {.temp = temp_folder_create(), .comm = comm_self_create(), .log = log_create(0)};
    setting.log.silent = true;
    return setting;
}

static void end(Setting *setting)
{
    comm_destroy(setting->comm);
    temp_folder_destroy(&setting->temp);
}

static bool is_folder(const Setting *setting, const char *relative)
{
    struct stat facts;
    char *path = temp_folder_path(&setting->temp, relative);
    bool is = stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
    temp_folder_free_text(path);
    return is;
}

Test(run_folder, makes_parents_and_parts_and_appends_the_log)
{
    Setting setting = begin();
    Error error = {0};
    char *path = temp_folder_path(&setting.temp, "a/b//c///");
    setting.log.silent = false;
    for (int i = 0; i < 2; i++) {
        RunFolder folder;
        cr_assert_eq(run_folder_open(&folder, setting.comm, &setting.log, path, &error), STATUS_OK, "%s",
                     error.text);
        log_info(&setting.log, "line %d", i);
        cr_expect_eq(run_folder_make(&folder, "eval/training_7", &error), STATUS_OK);
        cr_expect_eq(run_folder_write(&folder, "config.yaml", i ? "new" : "old", &error), STATUS_OK);
        run_folder_close(&folder);
        cr_expect_null(setting.log.file);
    }
    cr_expect(is_folder(&setting, "a/b/c/checkpoints") && is_folder(&setting, "a/b/c/eval/training_7"));
    char *log = temp_folder_read(&setting.temp, "a/b/c/log.txt");
    char *config = temp_folder_read(&setting.temp, "a/b/c/config.yaml");
    cr_expect(strstr(log, " line 0\n") && strstr(log, " line 1\n"), "%s", log);
    cr_expect_str_eq(config, "new");
    temp_folder_free_text(log);
    temp_folder_free_text(config);
    temp_folder_free_text(path);
    end(&setting);
}

static void expect_refused(Setting *setting, const char *path, const char *named)
{
    RunFolder folder;
    Error error = {0};
    cr_expect_eq(run_folder_open(&folder, setting->comm, &setting->log, path, &error), STATUS_INPUT, "%s",
                 path);
    cr_expect(strstr(error.text, named), "'%s' not in '%s'", named, error.text);
    cr_expect_null(setting->log.file);
}

Test(run_folder, unusable_folders_are_input_errors_that_name_the_part)
{
    Setting setting = begin();
    char long_name[5000];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    temp_folder_write(&setting.temp, "file", "");
    char *file = temp_folder_path(&setting.temp, "file"),
         *below = temp_folder_path(&setting.temp, "file/out");
    expect_refused(&setting, file, "file: is a file, not a folder");
    expect_refused(&setting, below, "file: is a file, not a folder");
    expect_refused(&setting, "", "empty");
    expect_refused(&setting, "/proc/nothing/here", "/proc/nothing");
    expect_refused(&setting, long_name, "too long");

    /* checkpoints/ taken by a file, log.txt by a folder */
    temp_folder_write(&setting.temp, "checkpoints", "");
    expect_refused(&setting, setting.temp.path, "checkpoints: is a file");
    char *taken = temp_folder_path(&setting.temp, "other"),
         *log = temp_folder_path(&setting.temp, "other/log.txt");
    cr_assert(mkdir(taken, 0777) == 0 && mkdir(log, 0777) == 0);
    expect_refused(&setting, taken, "log.txt: cannot be written");
    temp_folder_free_text(file);
    temp_folder_free_text(below);
    temp_folder_free_text(taken);
    temp_folder_free_text(log);
    end(&setting);
}

Test(run_folder, read_only_folder_is_refused)
{
    Setting setting = begin();
    if (geteuid() == 0) {
        expect_refused(&setting, "/sys/kernel", "/sys/kernel");
        end(&setting);
        return; /* root may write to a folder without permission, but not to sysfs */
    }
    cr_assert_eq(chmod(setting.temp.path, 0555), 0);
    expect_refused(&setting, setting.temp.path, "cannot make the folder");
    chmod(setting.temp.path, 0777);
    end(&setting);
}
