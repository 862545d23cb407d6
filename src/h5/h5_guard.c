/* h5_guard.c - one lock for the process, silence, and the reason behind a failure. */
#include "h5/h5_guard.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The one static of this folder: libhdf5 keeps its own state in globals and is built without thread safety,
 * so what protects it has to be as global as they are. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;

void h5_guard_enter(void)
{
    pthread_mutex_lock(&library_lock);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* its stack traces are for developers; we say one line */
    H5Eclear2(H5E_DEFAULT);
}

void h5_guard_leave(void)
{
    pthread_mutex_unlock(&library_lock);
}

/* Keeps the innermost description: what happened, without the way up. */
static herr_t keep_first(unsigned n, const H5E_error2_t *entry, void *reason)
{
    if (n == 0 && entry->desc) snprintf(reason, 160, "%s", entry->desc);
    return 0;
}

Status h5_guard_fail(Error *error, Status status, const H5File *file, const char *object, const char *what)
{
    char reason[160] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, reason);
    const char *separator = object ? ": " : "";
    if (!object) object = "";
    if (!reason[0]) return status_fail(error, status, "%s: %s%s%s", file->path, object, separator, what);
    return status_fail(error, status, "%s: %s%s%s (%s)", file->path, object, separator, what, reason);
}

Status h5_guard_not_written(Error *error, const H5File *file, int failure)
{
    return status_fail(error, STATUS_FAILED, "%s: cannot write: %s", file->path, strerror(failure));
}

static hid_t half_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    /* sign at 15, 5 bits of exponent at 10, 10 bits of mantissa at 0, then bias: h5py's float16 */
    if (H5Tset_fields(type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, 15) < 0) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

static hid_t text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (H5Tset_size(type, bytes) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0 ||
        H5Tset_strpad(type, H5T_STR_NULLPAD) < 0) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

int64_t h5_guard_type(H5Type type, size_t item_bytes)
{
    switch (type) {
    case H5_TYPE_F16:
        return half_type();
    case H5_TYPE_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case H5_TYPE_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case H5_TYPE_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case H5_TYPE_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case H5_TYPE_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case H5_TYPE_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case H5_TYPE_U64:
        return H5Tcopy(H5T_STD_U64LE);
    case H5_TYPE_TEXT:
        return text_type(item_bytes);
    default:
        return -1;
    }
}

H5Type h5_guard_classify(int64_t type_id)
{
    H5T_class_t class = H5Tget_class(type_id);
    if (class == H5T_STRING) return H5Tis_variable_str(type_id) == 0 ? H5_TYPE_TEXT : H5_TYPE_OTHER;
    if (class != H5T_INTEGER && class != H5T_FLOAT) return H5_TYPE_OTHER;
    for (int t = H5_TYPE_F16; t < H5_TYPE_TEXT; t++) {
        hid_t candidate = h5_guard_type((H5Type)t, 0);
        htri_t equal = H5Tequal(type_id, candidate);
        H5Tclose(candidate);
        if (equal > 0) return (H5Type)t;
    }
    return H5_TYPE_OTHER;
}
