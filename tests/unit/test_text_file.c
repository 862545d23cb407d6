/* test_text_file.c - whole files up to a size, and what is none. */
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "base/text_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void refused(const char *path, size_t most, const char *said)
{
    char *text;
    size_t size;
    Error error = {0};
    cr_expect_eq(text_file_read(path, most, &text, &size, &error), STATUS_INPUT);
    cr_expect(strncmp(error.text, path, strlen(path)) == 0 && strstr(error.text, said), "%s", error.text);
    cr_expect_null(text);
}

Test(text_file, is_read_whole_or_refused)
{
    enum { LONG = 200000 }; /* more than one piece */
    TempFolder temp = temp_folder_create();
    TempPath path = temp_folder_in(&temp, "a.txt");
    char *written = memory_alloc(LONG), *text;
    size_t size;
    Error error = {0};
    for (int i = 0; i < LONG; i++)
        written[i] = (char)('a' + i % 26);
    const int lengths[] = {0, 1, 65535, 65536, LONG};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = (size_t)lengths[i];
        temp_folder_write_bytes(&temp, "a.txt", written, n);
        cr_assert_eq(text_file_read(path.text, n, &text, &size, &error), STATUS_OK, "%s", error.text);
        cr_expect(size == n && memcmp(text, written, n) == 0 && text[n] == '\0', "%zu", n);
        memory_free(text);
        if (n > 0) refused(path.text, n - 1, "larger than ");
    }
    temp_folder_write_bytes(&temp, "a.txt", "a\0b", 3);
    refused(path.text, 100, "not a text");
    refused("/dev/zero", 1 << 20, "larger than 1048576 bytes");
    refused(temp.path, 100, "cannot be read: Is a directory");
    refused("/nowhere", 100, "No such file");
    memory_free(written);
    temp_folder_destroy(&temp);
}
