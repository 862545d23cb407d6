/* small_disk.c - unshare, mount, and a file that takes the room. */
#include "small_disk.h"

#include "base/check.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ATTEMPTS = 100 };

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return written;
}

/* A name space of users in which we are root, for the one of mounts that comes with it. */
static bool become_root(void)
{
    char users[48], groups[48];
    snprintf(users, sizeof users, "0 %u 1", (unsigned)geteuid());
    snprintf(groups, sizeof groups, "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/setgroups", "deny") &&
           write_text("/proc/self/uid_map", users) && write_text("/proc/self/gid_map", groups);
}

bool small_disk_mount(const char *folder, int64_t bytes)
{
    char size[48];
    snprintf(size, sizeof size, "size=%lld", (long long)bytes);
    if (unshare(CLONE_NEWNS) != 0 && !become_root()) return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("dinobatch", folder, "tmpfs", 0, size) == 0;
}

void small_disk_unmount(const char *folder)
{
    umount2(folder, MNT_DETACH);
}

static void hog(const char *folder, char *path, size_t size)
{
    CHECK(snprintf(path, size, "%s/hog", folder) < (int)size);
}

void small_disk_fill(const char *folder, int64_t left)
{
    char path[320];
    struct statvfs facts;
    hog(folder, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    off_t end = lseek(fd, 0, SEEK_END);
    for (int i = 0; i < ATTEMPTS; i++) { /* the job takes room at the same time */
        CHECK(statvfs(folder, &facts) == 0);
        int64_t bytes = (int64_t)(facts.f_bavail * facts.f_bsize) - left;
        if (bytes <= 0 || fallocate(fd, 0, end, bytes) == 0) break;
    }
    close(fd);
}

void small_disk_clear(const char *folder)
{
    char path[320];
    hog(folder, path, sizeof path);
    unlink(path);
}
