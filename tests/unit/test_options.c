/* test_options.c - the command line: what goes where, and the words of a refusal. */
#include "base/memory.h"
#include "run/options.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

static const OptionSpec OWN[] = {
    {"data", "SPEC", "a data set", true},
    {"resolution", "PIXELS", "side of the picture", false},
    {"quick", NULL, "skip the slow part", false},
    {0},
};
static const OptionsWanted WANTED = {.options = OWN, .words = "IN OUT", .min_words = 1, .max_words = 2};

enum { WORDS_MAX = 16 };

/* Parses "dinobatch" and the words up to NULL. */
static Status parse(Options *options, const OptionsWanted *wanted, const char *const *words, Error *error)
{
    char *argv[WORDS_MAX] = {"dinobatch"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    return options_parse(options, wanted, argc, argv, error);
}

#define PARSE(options, wanted, error, ...) parse(options, wanted, (const char *[]){__VA_ARGS__, NULL}, error)

Test(options, everything_goes_to_its_place_in_any_order)
{
    Options options;
    Error error = {0};
    Status status = PARSE(&options, &WANTED, &error, "convert", "in.h5", "--config-file", "a.yaml",
                          "optim.epochs=5", "--data=folder:x", "--json", "--config-file=b.yaml",
                          "--output-dir", "out", "--no-resume", "--quick", "--data", "hdf5:y=z");
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
    cr_expect_str_eq(options.job, "convert");
    cr_assert_eq(options.config_file_count, 2);
    cr_expect_str_eq(options.config_files[0], "a.yaml");
    cr_expect_str_eq(options.config_files[1], "b.yaml");
    cr_expect_str_eq(options.output_dir, "out");
    cr_expect(options.json && options.no_resume && !options.allow_config_change && !options.print_config);
    cr_assert_eq(options.override_count, 1);
    cr_expect_str_eq(options.overrides[0], "optim.epochs=5");
    cr_assert_eq(options.word_count, 1);
    cr_expect_str_eq(options.words[0], "in.h5");
    const char *const *data;
    cr_assert_eq(options_get_all(&options, "data", &data), 2);
    cr_expect_str_eq(data[0], "folder:x");
    cr_expect_str_eq(data[1], "hdf5:y=z");
    cr_expect_str_eq(options_get(&options, "data"), "hdf5:y=z");
    cr_expect_str_eq(options_get(&options, "quick"), "");
    cr_expect_null(options_get(&options, "resolution"));
    options_fini(&options);
}

Test(options, overrides_are_told_from_words)
{
    Options options;
    cr_assert_eq(
        PARSE(&options, &WANTED, NULL, "convert", "a.b_1=x=y", "./a=b.h5", "MODEL.WEIGHTS=", "folder:a=b"),
        STATUS_OK);
    cr_assert_eq(options.override_count, 2);
    cr_expect_str_eq(options.overrides[0], "a.b_1=x=y");
    cr_expect_str_eq(options.overrides[1], "MODEL.WEIGHTS=");
    cr_assert_eq(options.word_count, 2);
    cr_expect_str_eq(options.words[0], "./a=b.h5");
    cr_expect_str_eq(options.words[1], "folder:a=b");
    options_fini(&options);
    /* After --, words that look like options. */
    cr_assert_eq(PARSE(&options, &WANTED, NULL, "convert", "--", "--in", "x.y=3"), STATUS_OK);
    cr_expect_str_eq(options.words[0], "--in");
    cr_expect_eq(options.override_count, 1);
    options_fini(&options);
}

static void expect_refused(const char *const *words, const char *said)
{
    Options options;
    Error error = {0};
    cr_expect_eq(parse(&options, &WANTED, words, &error), STATUS_INPUT, "%s", said);
    cr_expect(strstr(error.text, said), "'%s' not in '%s'", said, error.text);
    options_fini(&options);
}

#define REFUSED(said, ...) expect_refused((const char *[]){__VA_ARGS__, NULL}, said)

Test(options, refusals_name_the_word_and_the_nearest_option)
{
    REFUSED("unknown option --config-flie; did you mean --config-file?", "convert", "a", "--config-flie",
            "x");
    REFUSED("unknown option --dat4=3; did you mean --data?", "convert", "--dat4=3", "a");
    REFUSED("unknown option --resolutino; did you mean --resolution?", "convert", "a", "b", "--resolutino");
    REFUSED("unknown option --zzzzzzzz; see dinobatch convert --help", "convert", "--zzzzzzzz");
    REFUSED("unknown option -v", "convert", "-v");
    REFUSED("unknown option -v", "convert", "-vx", "a");
    REFUSED("--output-dir needs a value", "convert", "a", "--output-dir");
    REFUSED("--output-dir: the folder's name is empty", "convert", "a", "--output-dir=");
    REFUSED("--output-dir is given twice", "convert", "a", "--output-dir=x", "--output-dir=y");
    REFUSED("--resolution is given twice", "convert", "a", "--resolution=1", "--resolution=2");
    REFUSED("--quick takes no value", "convert", "a", "--quick=yes");
    REFUSED("unexpected word 'c'", "convert", "a", "b", "c");
    REFUSED("expected IN OUT", "convert", "--json");
}

Test(options, help_needs_nothing_and_lists_everything)
{
    Options options;
    cr_assert_eq(PARSE(&options, &WANTED, NULL, "convert", "--help"), STATUS_OK);
    cr_expect(options.help);
    options_fini(&options);
    char *text = options_help("convert", &WANTED);
    const char *expected[] = {"usage: dinobatch convert IN OUT [OPTION]",
                              "--data SPEC",
                              "(may be repeated)",
                              "--resolution PIXELS",
                              "--quick",
                              "--allow-config-change"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        cr_expect(strstr(text, expected[i]), "'%s' not in:\n%s", expected[i], text);
    memory_free(text);
}

static const OptionsKind KINDS[] = {{"up", "data resolution"}, {"down", "data"}, {"data", "resolution"}, {0}};
static const OptionsWanted TURN = {
    .options = OWN, .words = "up|down|data [X]", .min_words = 1, .max_words = 2, .kinds = KINDS};

static void expect_of_kinds(const char *const *words, Status status, const char *said)
{
    Options options;
    Error error = {0};
    cr_expect_eq(parse(&options, &TURN, words, &error), status, "%s", said);
    cr_expect(strstr(error.text, said), "%s: %s", said, error.text);
    options_fini(&options);
}

#define OF_KINDS(status, said, ...) expect_of_kinds((const char *[]){__VA_ARGS__, NULL}, status, said)

Test(options, an_option_is_of_kinds_of_a_job)
{
    OF_KINDS(STATUS_OK, "", "turn", "up", "--data=a", "--resolution=3", "other");
    OF_KINDS(STATUS_OK, "", "turn", "data", "--resolution=3");
    OF_KINDS(STATUS_INPUT, "turn down takes no --resolution, which is of up, data", "turn", "--resolution=3",
             "down");
    OF_KINDS(STATUS_INPUT, "turn data takes no --data, which is of up, down", "turn", "data", "--data=x");
    OF_KINDS(STATUS_INPUT, "turn up takes no --quick", "turn", "up", "--quick");
    OF_KINDS(STATUS_INPUT, "turn dat: expected one of up, down, data", "turn", "dat");
    OF_KINDS(STATUS_OK, "", "turn", "dat", "--help");
    char *text = options_help("turn", &TURN);
    cr_expect(strstr(text, "--data SPEC              up, down: a data set (may be repeated)\n"), "%s", text);
    memory_free(text);
}

Test(options, nearest_name)
{
    const char *const names[] = {"pretrain", "distil", "extract", "evaluate"};
    cr_expect_str_eq(options_nearest("pretrian", names, 4), "pretrain");
    cr_expect_str_eq(options_nearest("eval", names, 4), "evaluate");
    cr_expect_str_eq(options_nearest("exract", names, 4), "extract");
    cr_expect_null(options_nearest("visualize", names, 4));
    cr_expect_null(options_nearest("", names, 4));
    cr_expect_null(options_nearest("x", names, 0));
}
