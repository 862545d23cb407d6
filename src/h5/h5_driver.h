/* h5_driver.h - inside src/h5 only: how libhdf5 writes to a file, so that it survives a full disk.
 *
 * libhdf5 does not get over a write that fails: a file whose close fails is closed again, and crashed on,
 * when the process ends. This driver does what the library's own one (sec2) does, and the file is the same;
 * but a failed write is kept for us, and the library never hears of it.
 */
#ifndef DINOBATCH_H5_H5_DRIVER_H
#define DINOBATCH_H5_H5_DRIVER_H

#include <stdint.h>

/* Makes a file access property list use it; below 0: libhdf5 refuses. The lock must be held. */
int h5_driver_use(int64_t fapl);

/* The error number of the first write to the file that failed; 0: none has so far. */
int h5_driver_failure(int64_t file);

/* Before H5Fclose: *outcome, which must outlive it, will have that number after it, of all writes. */
void h5_driver_tell(int64_t file, int *outcome);

#endif
