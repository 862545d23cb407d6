/* comm_mpi.h - the MPI backend of comm.h, and the one way to its MPI_Comm.
 *
 * The only header outside the transports' own files that includes mpi.h: h5 needs the MPI_Comm for parallel
 * HDF5, run makes the world's communicator. MPI must be initialised by then; this file never calls MPI_Init.
 */
#ifndef DINOBATCH_COMM_MPI_COMM_MPI_H
#define DINOBATCH_COMM_MPI_COMM_MPI_H

#include "comm/comm.h"

#include <mpi.h>

/* A communicator on a duplicate of `from`. Owned by the caller, to be destroyed before MPI_Finalize.
 * Collective over `from`. */
Comm *comm_mpi_create(MPI_Comm from);

/* The MPI communicator behind `comm`, borrowed; MPI_COMM_SELF for a self communicator. Errors on it return
 * (MPI_ERRORS_RETURN). Not collective. */
MPI_Comm comm_mpi_handle(const Comm *comm);

/* Moves at most `bytes` per message (default 16 MiB), so that tests see transfers of many pieces. The same on
 * all ranks; `comm` must be an MPI one. Not collective. */
void comm_mpi_set_piece(Comm *comm, size_t bytes);

#endif
