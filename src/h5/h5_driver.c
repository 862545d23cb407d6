/* h5_driver.c - see h5_driver.h. Source: what HDF5's reference manual asks of a virtual file driver. Only for
 * files of one process; locks, which network file systems refuse, are not taken. */
#include "h5/h5_driver.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    H5FD_t base; /* libhdf5's part; must be first */
    int fd;
    haddr_t eoa, eof; /* end of what is allocated; end of what is written */
    int failure;      /* errno of the first write that did not succeed; 0: all did */
    int *outcome;     /* gets `failure` at the end; or NULL */
} Driver;

#define MAX_ADDRESS ((haddr_t)INT64_MAX)

static void keep_failure(Driver *driver)
{
    if (driver->failure == 0) driver->failure = errno;
}

static H5FD_t *open_file(const char *name, unsigned flags, hid_t fapl, haddr_t max_address)
{
    (void)fapl;
    (void)max_address;
    struct stat facts;
    int mode = (flags & H5F_ACC_RDWR ? O_RDWR : O_RDONLY) | (flags & H5F_ACC_TRUNC ? O_TRUNC : 0) |
               (flags & H5F_ACC_CREAT ? O_CREAT : 0) | (flags & H5F_ACC_EXCL ? O_EXCL : 0);
    int fd = open(name, mode | O_CLOEXEC, 0666);
    if (fd < 0) return NULL;
    if (fstat(fd, &facts) != 0) {
        close(fd);
        return NULL;
    }
    Driver *driver = memory_alloc(sizeof *driver);
    driver->fd = fd;
    driver->eof = (haddr_t)facts.st_size;
    return &driver->base;
}

static herr_t close_file(H5FD_t *base)
{
    Driver *driver = (Driver *)base;
    if (close(driver->fd) != 0) keep_failure(driver);
    if (driver->outcome) *driver->outcome = driver->failure;
    memory_free(driver);
    return 0;
}

/* The same file on the disk compares equal. */
static int compare(const H5FD_t *a, const H5FD_t *b)
{
    struct stat x, y;
    if (fstat(((const Driver *)a)->fd, &x) != 0 || fstat(((const Driver *)b)->fd, &y) != 0) return -1;
    if (x.st_dev != y.st_dev) return x.st_dev < y.st_dev ? -1 : 1;
    return (x.st_ino > y.st_ino) - (x.st_ino < y.st_ino);
}

/* sec2's, so that files come out the same. */
static herr_t query(const H5FD_t *base, unsigned long *flags)
{
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_POSIX_COMPAT_HANDLE | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t get_eoa(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return ((const Driver *)base)->eoa;
}

static herr_t set_eoa(H5FD_t *base, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((Driver *)base)->eoa = address;
    return 0;
}

static haddr_t get_eof(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return ((const Driver *)base)->eof;
}

static herr_t get_handle(H5FD_t *base, hid_t fapl, void **handle)
{
    (void)fapl;
    *handle = base;
    return 0;
}

/* Beyond the end there are zeros. */
static herr_t read_bytes(H5FD_t *base, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t bytes,
                         void *buffer)
{
    (void)type;
    (void)dxpl;
    Driver *driver = (Driver *)base;
    char *to = buffer;
    while (bytes > 0) {
        ssize_t n = pread(driver->fd, to, bytes, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) {
            memset(to, 0, bytes);
            return 0;
        }
        to += n;
        address += (haddr_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static herr_t write_bytes(H5FD_t *base, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t bytes,
                          const void *buffer)
{
    (void)type;
    (void)dxpl;
    Driver *driver = (Driver *)base;
    const char *from = buffer;
    haddr_t end = address + bytes;
    while (bytes > 0) {
        ssize_t n = pwrite(driver->fd, from, bytes, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            keep_failure(driver);
            break;
        }
        from += n;
        address += (haddr_t)n;
        bytes -= (size_t)n;
    }
    if (end > driver->eof) driver->eof = end;
    return 0;
}

static herr_t truncate_file(H5FD_t *base, hid_t dxpl, hbool_t closing)
{
    (void)dxpl;
    (void)closing;
    Driver *driver = (Driver *)base;
    if (driver->eoa == driver->eof) return 0;
    if (ftruncate(driver->fd, (off_t)driver->eoa) != 0) keep_failure(driver);
    driver->eof = driver->eoa;
    return 0;
}

int h5_driver_use(int64_t fapl)
{
    static const H5FD_class_t class = {.name = "dinobatch",
                                       .maxaddr = MAX_ADDRESS,
                                       .fc_degree = H5F_CLOSE_WEAK,
                                       .open = open_file,
                                       .close = close_file,
                                       .cmp = compare,
                                       .query = query,
                                       .get_eoa = get_eoa,
                                       .set_eoa = set_eoa,
                                       .get_eof = get_eof,
                                       .get_handle = get_handle,
                                       .read = read_bytes,
                                       .write = write_bytes,
                                       .truncate = truncate_file,
                                       .fl_map = H5FD_FLMAP_DICHOTOMY};
    hid_t driver = H5FDregister(&class);
    herr_t result = driver < 0 ? -1 : H5Pset_driver(fapl, driver, NULL);
    if (driver >= 0) H5FDunregister(driver); /* the list and its files keep their own references */
    return result;
}

static Driver *driver_of(int64_t file)
{
    void *handle = NULL;
    return H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0 ? NULL : handle;
}

int h5_driver_failure(int64_t file)
{
    const Driver *driver = driver_of(file);
    return driver ? driver->failure : 0;
}

void h5_driver_tell(int64_t file, int *outcome)
{
    Driver *driver = driver_of(file);
    *outcome = 0;
    if (driver) driver->outcome = outcome;
}
