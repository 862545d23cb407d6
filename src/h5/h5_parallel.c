/* h5_parallel.c - see h5_parallel.h. Every step ends in an agreement, since the next one is collective. */
#include "h5/h5_parallel.h"

#include "base/memory.h"
#include "comm/mpi/comm_mpi.h"
#include "h5/h5_guard.h"

#include <hdf5.h>

enum { PART = 1000 }; /* numbers of a rank */

bool h5_parallel_built(void)
{
#ifdef H5_HAVE_PARALLEL
    return true;
#else
    return false;
#endif
}

#ifdef H5_HAVE_PARALLEL

typedef struct {
    Comm *comm;
    H5File named; /* its path alone, for messages */
    hid_t access, transfer, file, data;
} Trial;

static int64_t number_at(hsize_t place)
{
    return (int64_t)place * 7919 + 13;
}

static Status agree(const Trial *trial, bool good, const char *what, Error *error)
{
    Status status = STATUS_OK;
    if (!good) status = h5_guard_fail(error, STATUS_FAILED, &trial->named, NULL, what);
    return comm_agree(trial->comm, status, error);
}

/* The part of rank `owner`, written or read. */
static bool transfer_part(const Trial *trial, int owner, int64_t *numbers, bool writes)
{
    hsize_t start = (hsize_t)owner * PART, count = PART;
    hid_t here = H5Screate_simple(1, &count, NULL), there = H5Dget_space(trial->data);
    bool good = H5Sselect_hyperslab(there, H5S_SELECT_SET, &start, NULL, &count, NULL) >= 0;
    if (good && writes)
        good = H5Dwrite(trial->data, H5T_NATIVE_INT64, here, there, trial->transfer, numbers) >= 0;
    else if (good)
        good = H5Dread(trial->data, H5T_NATIVE_INT64, here, there, trial->transfer, numbers) >= 0;
    H5Sclose(here);
    H5Sclose(there);
    return good;
}

static bool close_both(Trial *trial)
{
    bool good = trial->data < 0 || H5Dclose(trial->data) >= 0;
    good = (trial->file < 0 || H5Fclose(trial->file) >= 0) && good;
    trial->data = trial->file = -1;
    return good;
}

static Status write_file(Trial *trial, int64_t *numbers, Error *error)
{
    int rank = comm_rank(trial->comm);
    hsize_t all = (hsize_t)comm_size(trial->comm) * PART;
    for (int i = 0; i < PART; i++)
        numbers[i] = number_at((hsize_t)rank * PART + (hsize_t)i);
    trial->file = H5Fcreate(trial->named.path, H5F_ACC_TRUNC, H5P_DEFAULT, trial->access);
    TRY(agree(trial, trial->file >= 0, "cannot be created by all ranks", error));
    hid_t space = H5Screate_simple(1, &all, NULL);
    trial->data =
        H5Dcreate2(trial->file, "numbers", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Sclose(space);
    TRY(agree(trial, trial->data >= 0, "takes no data set", error));
    bool good = transfer_part(trial, rank, numbers, true);
    TRY(agree(trial, good, "a collective write fails", error));
    good = close_both(trial);
    return agree(trial, good, "cannot be closed", error);
}

/* Each rank reads the next one's part. */
static Status read_file(Trial *trial, int64_t *numbers, Error *error)
{
    int owner = (comm_rank(trial->comm) + 1) % comm_size(trial->comm), wrong = 0;
    trial->file = H5Fopen(trial->named.path, H5F_ACC_RDONLY, trial->access);
    TRY(agree(trial, trial->file >= 0, "cannot be opened by all ranks", error));
    trial->data = H5Dopen2(trial->file, "numbers", H5P_DEFAULT);
    TRY(agree(trial, trial->data >= 0, "its data set is not found", error));
    bool good = transfer_part(trial, owner, numbers, false);
    TRY(agree(trial, good, "a collective read fails", error));
    for (int i = 0; i < PART; i++)
        wrong += numbers[i] != number_at((hsize_t)owner * PART + (hsize_t)i);
    Status status = STATUS_OK;
    if (wrong)
        status = status_fail(error, STATUS_INPUT, "%s: %d of %d numbers are not those that rank %d wrote",
                             trial->named.path, wrong, PART, owner);
    return comm_agree(trial->comm, status, error);
}

Status h5_parallel_try(const char *path, Comm *comm, Error *error)
{
    Trial trial = {.comm = comm, .named = {.id = -1, .path = memory_strdup(path)}, .file = -1, .data = -1};
    int64_t *numbers = memory_alloc_array(PART, sizeof *numbers);
    h5_guard_enter();
    trial.access = H5Pcreate(H5P_FILE_ACCESS);
    trial.transfer = H5Pcreate(H5P_DATASET_XFER);
    bool good = H5Pset_fapl_mpio(trial.access, comm_mpi_handle(comm), MPI_INFO_NULL) >= 0 &&
                H5Pset_dxpl_mpio(trial.transfer, H5FD_MPIO_COLLECTIVE) >= 0;
    Status status = agree(&trial, good, "libhdf5 does not take MPI-IO", error);
    if (status == STATUS_OK) status = write_file(&trial, numbers, error);
    if (status == STATUS_OK) status = read_file(&trial, numbers, error);
    close_both(&trial);
    H5Pclose(trial.access);
    H5Pclose(trial.transfer);
    h5_guard_leave();
    memory_free(numbers);
    memory_free(trial.named.path);
    return status;
}

#else

Status h5_parallel_try(const char *path, Comm *comm, Error *error)
{
    (void)comm;
    return status_fail(error, STATUS_FAILED, "%s: libhdf5 is built without MPI", path);
}

#endif
