/* faiss_peer.cc - see faiss_peer.h. */
#include "faiss_peer.h"

#include <algorithm>
#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>

void faiss_peer_kmeans(int64_t n, int64_t d, const float *rows, int64_t k, int iterations, bool spherical,
                       int seed, float *centroids)
{
    faiss::ClusteringParameters parameters;
    parameters.niter = iterations;
    parameters.spherical = spherical;
    parameters.seed = seed;
    parameters.min_points_per_centroid = 1;
    parameters.max_points_per_centroid = static_cast<int>(n);
    faiss::Clustering clustering(static_cast<int>(d), static_cast<int>(k), parameters);
    faiss::IndexFlatL2 index(d);
    clustering.train(n, rows, index);
    std::copy(clustering.centroids.begin(), clustering.centroids.end(), centroids);
}
