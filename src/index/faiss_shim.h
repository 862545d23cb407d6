/* faiss_shim.h - Faiss behind a C face: inverted-file indexes over inner products.
 *
 * The one place that knows Faiss (Debian's libfaiss has headers of a C interface but none of its code).
 * Every C++ exception becomes a Status. `threads` is how many threads Faiss and the BLAS below it may use in
 * that call. Built with FAISS_GPU=1 it can move an index to the GPUs of this process. Callers use
 * shard_index.h; this is what stands below it.
 *
 * Rows are [n, d] fp32, row-major, not copied beyond the call unless said.
 */
#ifndef DINOBATCH_INDEX_FAISS_SHIM_H
#define DINOBATCH_INDEX_FAISS_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct FaissIndex FaissIndex;

/* An empty index for rows of d columns by Faiss's factory string, inner product: "Flat", "IVF1024,Flat",
 * "IVF65536,PQ64", "IVF4096,SQfp16", "IVF65536_HNSW32,PQ64". STATUS_INPUT where Faiss does not understand it,
 * or it is neither flat nor an inverted file (transforms such as OPQ: their rows are not ours). */
Status faiss_shim_create(FaissIndex **out, int64_t d, const char *factory, Error *error);

/* Fine on NULL. */
void faiss_shim_destroy(FaissIndex *index);

/* Inverted lists; 0: flat. */
int64_t faiss_shim_lists(const FaissIndex *index);

/* True where the index keeps rows as they are, so that its similarities are theirs and not a code's. */
bool faiss_shim_is_exact(const FaissIndex *index);

/* Rows in it. */
int64_t faiss_shim_rows(const FaissIndex *index);

/* Bytes of heap that it takes: rows or codes with their ids, centroids, codebooks. Memory of a GPU is not
 * counted. */
size_t faiss_shim_bytes(const FaissIndex *index);

/* Learns lists and codes from a sample; the same numbers every time. Flat: nothing to learn. STATUS_INPUT
 * when there are fewer rows than lists, or than entries of a codebook. */
Status faiss_shim_train(FaissIndex *index, int64_t n, const float *rows, int threads, Error *error);

/* lists[n] = the inverted list that each row belongs to. Flat: 0. */
Status faiss_shim_assign(const FaissIndex *index, int64_t n, const float *rows, int64_t *lists, int threads,
                         Error *error);

/* Room for counts[lists] rows in the lists of an empty index, so that adding does not grow them by doubling.
 * Flat: nothing. */
Status faiss_shim_reserve(FaissIndex *index, const int64_t *counts, Error *error);

/* Adds rows under the ids first_id, first_id + 1, ... `lists` is what faiss_shim_assign said of them. */
Status faiss_shim_add(FaissIndex *index, int64_t n, const float *rows, int64_t first_id, const int64_t *lists,
                      int threads, Error *error);

/* lists[n, nprobe]: the inverted lists to look at for each query, nearest first. */
Status faiss_shim_probe(const FaissIndex *index, int64_t n, const float *queries, int64_t nprobe,
                        int64_t *lists, int threads, Error *error);

/* The rows of one list of an index that keeps them as they are: rows[count, d], ids[count], borrowed until
 * more are added; returns count. Any thread. */
int64_t faiss_shim_list(const FaissIndex *index, int64_t list, const float **rows, const int64_t **ids);

/* similarities[n, k], ids[n, k]: the k nearest rows that are found by looking at `nprobe` lists, nearest
 * first; id -1 where there are fewer. Equal similarities come in the order of the lists. */
Status faiss_shim_search(FaissIndex *index, int64_t n, const float *queries, int64_t k, int64_t nprobe,
                         float *similarities, int64_t *ids, int threads, Error *error);

/* Faiss's own k-means: centroids[k, d] of rows[n, d] after `iterations`, all rows used; `seed` draws the
 * first ones. The reference that ours (kmeans.h) is measured against; nothing is built on it. */
Status faiss_shim_kmeans(float *centroids, int64_t k, const float *rows, int64_t n, int64_t d, int iterations,
                         bool spherical, int seed, int threads, Error *error);

/* The index as bytes (owned by the caller, memory_free) and back. */
Status faiss_shim_pack(const FaissIndex *index, void **bytes, size_t *size, Error *error);
Status faiss_shim_unpack(FaissIndex **out, const void *bytes, size_t size, Error *error);

/* Searches run on all GPUs of this process from now on, with this nprobe; nothing can be added afterwards.
 * STATUS_INPUT in a build without FAISS_GPU=1, STATUS_FAILED where there is no GPU or it has no room. */
Status faiss_shim_to_gpu(FaissIndex *index, int64_t nprobe, Error *error);

#ifdef __cplusplus
}
#endif

#endif
