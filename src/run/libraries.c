/* libraries.c - one line per library that a result can depend on. */
#include "run/libraries.h"

#include <cjson/cJSON.h>
#include <dnnl.h>
#include <hdf5.h>
#include <jpeglib.h>
#include <mpi.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>
#include <zlib.h>

static Library *next(Library *libraries, int *count, const char *name)
{
    Library *library = &libraries[(*count)++];
    library->name = name;
    return library;
}

static void add(Library *libraries, int *count, const char *name, const char *version)
{
    Library *library = next(libraries, count, name);
    snprintf(library->version, sizeof library->version, "%s", version);
    library->version[strcspn(library->version, "\n")] = '\0';
}

/* The library's name and package only: "Open MPI v4.1.4, package: ...". */
static void add_mpi(Library *libraries, int *count)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length); /* allowed before MPI_Init */
    text[strcspn(text, ",\n")] = '\0';
    add(libraries, count, "mpi", text);
}

static void add_hdf5(Library *libraries, int *count)
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
    const char *kind = "parallel";
#else
    const char *kind = "serial";
#endif
    Library *library = next(libraries, count, "hdf5");
    snprintf(library->version, sizeof library->version, "%u.%u.%u %s", major, minor, release, kind);
}

int libraries_list(Library libraries[LIBRARIES_MAX])
{
    int count = 0;
    add_mpi(libraries, &count);
    add_hdf5(libraries, &count);
    const dnnl_version_t *dnnl = dnnl_version();
    Library *library = next(libraries, &count, "dnnl");
    snprintf(library->version, sizeof library->version, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    add(libraries, &count, "faiss", FAISS_VERSION); /* of its headers, in C++; linked statically */
    library = next(libraries, &count, "jpeg");
    snprintf(library->version, sizeof library->version, "libjpeg API %d, turbo %d.%d.%d", JPEG_LIB_VERSION,
             LIBJPEG_TURBO_VERSION_NUMBER / 1000000, LIBJPEG_TURBO_VERSION_NUMBER / 1000 % 1000,
             LIBJPEG_TURBO_VERSION_NUMBER % 1000);
    add(libraries, &count, "png", png_get_libpng_ver(NULL));
    add(libraries, &count, "yaml", yaml_get_version_string());
    add(libraries, &count, "cjson", cJSON_Version());
    add(libraries, &count, "zlib", zlibVersion());
    return count;
}
