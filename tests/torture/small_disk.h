/* small_disk.h - a file system small enough to be filled: a tmpfs that only this process and those it starts
 * see. It takes a mount name space, which root has, and other users where the kernel gives them name spaces
 * of their own. One in a process.
 */
#ifndef DINOBATCH_TESTS_TORTURE_SMALL_DISK_H
#define DINOBATCH_TESTS_TORTURE_SMALL_DISK_H

#include <stdbool.h>
#include <stdint.h>

/* Mounts `bytes` at `folder`; false where that is not permitted: the folder is then as large as its disk.
 * Before any other thread exists. */
bool small_disk_mount(const char *folder, int64_t bytes);

void small_disk_unmount(const char *folder);

/* Fills all but `left` bytes of the file system at `folder`, again if it has more by now; gives them back. */
void small_disk_fill(const char *folder, int64_t left);
void small_disk_clear(const char *folder);

#endif
