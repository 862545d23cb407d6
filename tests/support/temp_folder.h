/* temp_folder.h - a folder of one test, gone with it. */
#ifndef DINOBATCH_TESTS_SUPPORT_TEMP_FOLDER_H
#define DINOBATCH_TESTS_SUPPORT_TEMP_FOLDER_H

#include <stddef.h>

typedef struct {
    char path[128];
} TempFolder;

/* A new empty folder under $TMPDIR (default /tmp). */
TempFolder temp_folder_create(void);

/* Removes it with everything in it. */
void temp_folder_destroy(TempFolder *folder);

/* FOLDER/relative; the caller releases it by temp_folder_free_text. */
char *temp_folder_path(const TempFolder *folder, const char *relative);

/* A path by value, for one expression: `temp_folder_in(&temp, "%s/log.txt", run).text`. */
typedef struct {
    char text[320];
} TempPath;

/* FOLDER/relative, `relative` as printf makes it; too long a path fails the test. */
TempPath temp_folder_in(const TempFolder *folder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Writes a text file, or `size` bytes. */
void temp_folder_write(const TempFolder *folder, const char *relative, const char *text);
void temp_folder_write_bytes(const TempFolder *folder, const char *relative, const void *bytes, size_t size);

/* A whole file as text, "" when it does not exist; temp_folder_free_text. */
char *temp_folder_read(const TempFolder *folder, const char *relative);

void temp_folder_free_text(char *text);

#endif
