/* faiss_peer.h - Faiss's own k-means and flat search, which ours are compared with. */
#ifndef DINOBATCH_TESTS_INDEX_FAISS_PEER_H
#define DINOBATCH_TESTS_INDEX_FAISS_PEER_H

#ifdef __cplusplus
extern "C" {
#endif

#include <stdbool.h>
#include <stdint.h>

/* centroids[k, d] of rows[n, d] after `iterations`, all rows used. */
void faiss_peer_kmeans(int64_t n, int64_t d, const float *rows, int64_t k, int iterations, bool spherical,
                       int seed, float *centroids);

#ifdef __cplusplus
}
#endif

#endif
