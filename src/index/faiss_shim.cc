/* faiss_shim.cc - see faiss_shim.h. C++ for Faiss's sake alone; what needs no Faiss is done in C elsewhere.
 */
#include "index/faiss_shim.h"

extern "C" {
#include "base/memory.h"
}

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <omp.h>
#include <vector>

#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <faiss/invlists/InvertedLists.h>
#ifdef DINOBATCH_FAISS_GPU
#include <faiss/gpu/GpuAutoTune.h>
#include <faiss/gpu/GpuCloner.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#endif

struct FaissIndex {
    std::unique_ptr<faiss::Index> index; /* on the host */
    faiss::IndexIVF *ivf = nullptr;      /* the same, where it has lists */
#ifdef DINOBATCH_FAISS_GPU
    std::vector<std::unique_ptr<faiss::gpu::StandardGpuResources>> resources;
    std::unique_ptr<faiss::Index> gpu; /* what is searched, once it is there; goes before the resources */
#endif
};

namespace
{

/* OpenMP's thread count of the calling thread, which Faiss and the BLAS ask, and back. */
class Threads
{
  public:
    explicit Threads(int threads) : before(omp_get_max_threads())
    {
        omp_set_num_threads(threads > 0 ? threads : 1);
    }
    ~Threads()
    {
        omp_set_num_threads(before);
    }

  private:
    int before;
};

/* Runs `body`; its exceptions become a status and one line. */
template <typename Body> Status guarded(Error *error, Status status, const char *what, Body body)
{
    try {
        body();
        return STATUS_OK;
    } catch (const faiss::FaissException &failure) {
        return status_fail(error, status, "Faiss, %s: %s", what, failure.msg.c_str());
    } catch (const std::exception &failure) {
        return status_fail(error, STATUS_FAILED, "Faiss, %s: %s", what, failure.what());
    } catch (...) {
        return status_fail(error, STATUS_FAILED, "Faiss, %s: unknown failure", what);
    }
}

void adopt(FaissIndex *shim, faiss::Index *index)
{
    shim->index.reset(index);
    shim->ivf = dynamic_cast<faiss::IndexIVF *>(index);
    if (!shim->ivf) return;
    /* Sizes of samples are the caller's decision, who checks them; Faiss would warn on stderr. */
    shim->ivf->cp.min_points_per_centroid = 1;
    if (auto *ivfpq = dynamic_cast<faiss::IndexIVFPQ *>(index)) {
        ivfpq->pq.cp.min_points_per_centroid = 1;
        /* Orders codes so that their Hamming distance means something; minutes of annealing for a filter that
         * nobody here uses. */
        ivfpq->do_polysemous_training = false;
    }
}

} // namespace

Status faiss_shim_create(FaissIndex **out, int64_t d, const char *factory, Error *error)
{
    *out = nullptr;
    auto shim = std::make_unique<FaissIndex>();
    Status status = guarded(error, STATUS_INPUT, factory, [&] {
        adopt(shim.get(), faiss::index_factory(static_cast<int>(d), factory, faiss::METRIC_INNER_PRODUCT));
    });
    if (status != STATUS_OK) return status;
    if (shim->ivf && shim->ivf->nlist < 1)
        return status_fail(error, STATUS_INPUT, "%s: an index has one inverted list at least", factory);
    bool flat = dynamic_cast<faiss::IndexFlat *>(shim->index.get()) != nullptr;
    if (!flat && !shim->ivf)
        return status_fail(error, STATUS_INPUT,
                           "%s: an index is Flat or begins with IVF (IVF4096,Flat; IVF65536,PQ64)", factory);
    *out = shim.release();
    return STATUS_OK;
}

void faiss_shim_destroy(FaissIndex *index)
{
    delete index;
}

int64_t faiss_shim_lists(const FaissIndex *index)
{
    return index->ivf ? static_cast<int64_t>(index->ivf->nlist) : 0;
}

bool faiss_shim_is_exact(const FaissIndex *index)
{
    return !index->ivf || dynamic_cast<const faiss::IndexIVFFlat *>(index->ivf) != nullptr;
}

int64_t faiss_shim_rows(const FaissIndex *index)
{
    return index->index->ntotal;
}

size_t faiss_shim_bytes(const FaissIndex *index)
{
    const size_t row = static_cast<size_t>(index->index->d) * sizeof(float);
    if (!index->ivf) return static_cast<size_t>(index->index->ntotal) * row;
    size_t bytes = static_cast<size_t>(index->ivf->quantizer->ntotal) * row;
    if (auto *ivfpq = dynamic_cast<const faiss::IndexIVFPQ *>(index->ivf))
        bytes += (ivfpq->pq.centroids.capacity() + ivfpq->precomputed_table.size()) * sizeof(float);
    const auto rows = static_cast<size_t>(index->ivf->ntotal);
    return bytes + rows * (index->ivf->code_size + sizeof(int64_t));
}

Status faiss_shim_train(FaissIndex *index, int64_t n, const float *rows, int threads, Error *error)
{
    if (index->ivf && n < faiss_shim_lists(index))
        return status_fail(error, STATUS_INPUT, "%lld inverted lists cannot be learnt from %lld rows",
                           static_cast<long long>(faiss_shim_lists(index)), static_cast<long long>(n));
    Threads scope(threads);
    return guarded(error, STATUS_INPUT, "training", [&] { index->index->train(n, rows); });
}

Status faiss_shim_assign(const FaissIndex *index, int64_t n, const float *rows, int64_t *lists, int threads,
                         Error *error)
{
    if (!index->ivf) {
        std::fill(lists, lists + n, 0);
        return STATUS_OK;
    }
    Threads scope(threads);
    return guarded(error, STATUS_FAILED, "assignment",
                   [&] { index->ivf->quantizer->assign(n, rows, lists); });
}

Status faiss_shim_reserve(FaissIndex *index, const int64_t *counts, Error *error)
{
    return guarded(error, STATUS_FAILED, "memory for rows", [&] {
        auto *lists = index->ivf ? dynamic_cast<faiss::ArrayInvertedLists *>(index->ivf->invlists) : nullptr;
        for (size_t l = 0; lists && l < lists->nlist; l++) {
            lists->resize(l, static_cast<size_t>(counts[l])); /* as much as that, and no more */
            lists->resize(l, 0);                              /* keeps the memory */
        }
    });
}

Status faiss_shim_add(FaissIndex *index, int64_t n, const float *rows, int64_t first_id, const int64_t *lists,
                      int threads, Error *error)
{
    Threads scope(threads);
    return guarded(error, STATUS_FAILED, "adding rows", [&] {
        if (!index->ivf) {
            index->index->add(n, rows);
            return;
        }
        std::vector<int64_t> ids(static_cast<size_t>(n));
        for (size_t i = 0; i < ids.size(); i++)
            ids[i] = first_id + static_cast<int64_t>(i);
        index->ivf->add_core(n, rows, ids.data(), lists);
    });
}

Status faiss_shim_probe(const FaissIndex *index, int64_t n, const float *queries, int64_t nprobe,
                        int64_t *lists, int threads, Error *error)
{
    Threads scope(threads);
    return guarded(error, STATUS_FAILED, "choice of lists", [&] {
        std::vector<float> similarities(static_cast<size_t>(n * nprobe));
        index->ivf->quantizer->search(n, queries, nprobe, similarities.data(), lists);
    });
}

int64_t faiss_shim_list(const FaissIndex *index, int64_t list, const float **rows, const int64_t **ids)
{
    const auto number = static_cast<size_t>(list);
    *rows = reinterpret_cast<const float *>(index->ivf->invlists->get_codes(number));
    *ids = index->ivf->invlists->get_ids(number);
    return static_cast<int64_t>(index->ivf->invlists->list_size(number));
}

Status faiss_shim_search(FaissIndex *index, int64_t n, const float *queries, int64_t k, int64_t nprobe,
                         float *similarities, int64_t *ids, int threads, Error *error)
{
    Threads scope(threads);
    return guarded(error, STATUS_FAILED, "search", [&] {
        if (index->ivf) {
            size_t all = index->ivf->nlist, wanted = static_cast<size_t>(std::max<int64_t>(nprobe, 1));
            index->ivf->nprobe = std::min(wanted, all);
        }
        faiss::Index *searched = index->index.get();
#ifdef DINOBATCH_FAISS_GPU
        if (index->gpu) searched = index->gpu.get();
#endif
        searched->search(n, queries, k, similarities, ids);
    });
}

Status faiss_shim_kmeans(float *centroids, int64_t k, const float *rows, int64_t n, int64_t d, int iterations,
                         bool spherical, int seed, int threads, Error *error)
{
    Threads scope(threads);
    return guarded(error, STATUS_FAILED, "k-means", [&] {
        faiss::ClusteringParameters parameters;
        parameters.niter = iterations;
        parameters.spherical = spherical;
        parameters.seed = seed;
        parameters.min_points_per_centroid = 1;
        parameters.max_points_per_centroid = static_cast<int>(n);
        faiss::Clustering clustering(static_cast<int>(d), static_cast<int>(k), parameters);
        faiss::IndexFlatL2 nearest(d);
        clustering.train(n, rows, nearest);
        std::copy(clustering.centroids.begin(), clustering.centroids.end(), centroids);
    });
}

Status faiss_shim_pack(const FaissIndex *index, void **bytes, size_t *size, Error *error)
{
    return guarded(error, STATUS_FAILED, "packing", [&] {
        faiss::VectorIOWriter writer;
        faiss::write_index(index->index.get(), &writer);
        *size = writer.data.size();
        *bytes = memory_alloc(*size);
        std::memcpy(*bytes, writer.data.data(), *size);
    });
}

Status faiss_shim_unpack(FaissIndex **out, const void *bytes, size_t size, Error *error)
{
    *out = nullptr;
    auto shim = std::make_unique<FaissIndex>();
    Status status = guarded(error, STATUS_FAILED, "unpacking", [&] {
        faiss::VectorIOReader reader;
        const auto *first = static_cast<const uint8_t *>(bytes);
        reader.data.assign(first, first + size);
        adopt(shim.get(), faiss::read_index(&reader));
    });
    if (status == STATUS_OK) *out = shim.release();
    return status;
}

#ifdef DINOBATCH_FAISS_GPU
Status faiss_shim_to_gpu(FaissIndex *index, int64_t nprobe, Error *error)
{
    return guarded(error, STATUS_FAILED, "moving to the GPUs", [&] {
        std::vector<faiss::gpu::GpuResourcesProvider *> providers;
        std::vector<int> devices;
        for (int device = 0; device < faiss::gpu::getNumDevices(); device++) {
            index->resources.push_back(std::make_unique<faiss::gpu::StandardGpuResources>());
            providers.push_back(index->resources.back().get());
            devices.push_back(device);
        }
        FAISS_THROW_IF_NOT_MSG(!devices.empty(), "no GPU");
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = true;
        index->gpu.reset(
            faiss::gpu::index_cpu_to_gpu_multiple(providers, devices, index->index.get(), &options));
        if (index->ivf)
            faiss::gpu::GpuParameterSpace().set_index_parameter(index->gpu.get(), "nprobe",
                                                                static_cast<double>(nprobe));
    });
}
#else
Status faiss_shim_to_gpu(FaissIndex *index, int64_t nprobe, Error *error)
{
    (void)index;
    (void)nprobe;
    return status_fail(error, STATUS_INPUT, "searching on GPUs needs a build with FAISS_GPU=1");
}
#endif
