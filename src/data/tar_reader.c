/* tar_reader.c - headers of 512 bytes and what they announce. */
#include "data/tar_reader.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512 };

/* Field places in a header block. */
enum {
    NAME_AT = 0,
    NAME_BYTES = 100,
    SIZE_AT = 124,
    SIZE_BYTES = 12,
    CHECKSUM_AT = 148,
    CHECKSUM_BYTES = 8,
    TYPE_AT = 156,
    MAGIC_AT = 257,
    PREFIX_AT = 345,
    PREFIX_BYTES = 155,
};

static Status damaged(const TarReader *reader, const char *what, Error *error)
{
    return status_fail(error, STATUS_INPUT, "%s: damaged archive, %s at byte %lld", reader->path, what,
                       (long long)reader->next);
}

static Status read_at(const TarReader *reader, int64_t offset, void *bytes, size_t size, Error *error)
{
    uint8_t *to = bytes;
    while (size > 0) {
        ssize_t got = pread(reader->descriptor, to, size, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return status_fail(error, STATUS_FAILED, "%s: %s", reader->path, strerror(errno));
        if (got == 0) return damaged(reader, "it became shorter while it was read", error);
        to += got;
        offset += got;
        size -= (size_t)got;
    }
    return STATUS_OK;
}

static Status refuse_compressed(const TarReader *reader, Error *error)
{
    static const struct {
        const char *name;
        uint8_t magic[6];
        size_t length;
    } kinds[] = {{"gzip", {0x1f, 0x8b}, 2},
                 {"bzip2", {'B', 'Z', 'h'}, 3},
                 {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6},
                 {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4}};
    uint8_t head[6];
    if (reader->bytes < (int64_t)sizeof head) return STATUS_OK;
    TRY(read_at(reader, 0, head, sizeof head, error));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (memcmp(head, kinds[i].magic, kinds[i].length) == 0)
            return status_fail(error, STATUS_INPUT,
                               "%s: is compressed with %s; images are read in place, so decompress it first",
                               reader->path, kinds[i].name);
    return STATUS_OK;
}

Status tar_reader_init(TarReader *reader, int descriptor, const char *path, Error *error)
{
    *reader = (TarReader){.descriptor = descriptor, .path = path, .pax_size = -1};
    struct stat file;
    if (fstat(descriptor, &file) != 0)
        return status_fail(error, STATUS_FAILED, "%s: %s", path, strerror(errno));
    if (!S_ISREG(file.st_mode)) return status_fail(error, STATUS_INPUT, "%s: not a regular file", path);
    reader->bytes = file.st_size;
    return refuse_compressed(reader, error);
}

void tar_reader_fini(TarReader *reader)
{
    data_buffer_destroy(&reader->long_name);
    data_buffer_destroy(&reader->records);
}

/* A number field: octal digits between spaces and NULs, or base 256 with the top bit set. -1: neither, or
 * beyond 62 bits. */
static int64_t parse_number(const uint8_t *field, size_t length)
{
    uint64_t value = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) return -1; /* negative, or more than 88 bits */
        for (size_t i = 1; i < length; i++) {
            if (value >> 54) return -1;
            value = value << 8 | field[i];
        }
        return (int64_t)value;
    }
    size_t i = 0;
    while (i < length && field[i] == ' ')
        i++;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(field[i] - '0');
    for (; i < length; i++)
        if (field[i] != ' ' && field[i] != '\0') return -1;
    return (int64_t)value;
}

/* Old writers summed signed chars, so both sums are right. */
static bool checksum_matches(const uint8_t *header)
{
    int64_t sum = 0, signed_sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        bool blank = i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_BYTES;
        sum += blank ? ' ' : header[i];
        signed_sum += blank ? ' ' : (int8_t)header[i];
    }
    int64_t stored = parse_number(header + CHECKSUM_AT, CHECKSUM_BYTES);
    return stored == sum || stored == signed_sum;
}

static bool is_zero(const uint8_t *block)
{
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i]) return false;
    return true;
}

/* The header's own name: prefix/name for ustar, name else. */
static void short_name(TarReader *reader, const uint8_t *header)
{
    char *to = reader->short_name;
    if (memcmp(header + MAGIC_AT, "ustar", 6) == 0 && header[PREFIX_AT]) {
        size_t length = strnlen((const char *)header + PREFIX_AT, PREFIX_BYTES);
        memcpy(to, header + PREFIX_AT, length);
        to += length;
        *to++ = '/';
    }
    size_t length = strnlen((const char *)header + NAME_AT, NAME_BYTES);
    memcpy(to, header + NAME_AT, length);
    to[length] = '\0';
}

static void keep_long_name(TarReader *reader, const void *name, size_t length)
{
    data_buffer_resize(&reader->long_name, length + 1);
    if (length > 0) memcpy(reader->long_name.bytes, name, length); /* of no bytes, `name` may be NULL */
    reader->long_name.bytes[length] = '\0';
    reader->long_name_known = true;
}

/* One "LENGTH KEY=VALUE\n" of `left` bytes; returns its length, 0 if malformed. */
static size_t parse_record(TarReader *reader, const char *record, size_t left)
{
    size_t length = 0, digits = 0;
    while (digits < left && digits < 8 && record[digits] >= '0' && record[digits] <= '9')
        length = 10 * length + (size_t)(record[digits++] - '0');
    if (digits == 0 || digits == left || record[digits] != ' ') return 0;
    if (length > left || length < digits + 4 || record[length - 1] != '\n') return 0;
    const char *key = record + digits + 1;
    size_t rest = length - digits - 2; /* without the newline */
    const char *equals = memchr(key, '=', rest);
    if (!equals) return 0;
    size_t key_length = (size_t)(equals - key), value_length = rest - key_length - 1;
    if (key_length == 4 && memcmp(key, "path", 4) == 0) {
        keep_long_name(reader, equals + 1, value_length);
    } else if (key_length == 4 && memcmp(key, "size", 4) == 0) {
        int64_t size = 0;
        for (size_t i = 0; i < value_length; i++) {
            char c = equals[1 + i];
            if (c < '0' || c > '9' || i >= 18) return 0;
            size = 10 * size + (c - '0');
        }
        reader->pax_size = size;
    } else if (key_length >= 10 && memcmp(key, "GNU.sparse", 10) == 0) {
        reader->sparse = true;
    }
    return length;
}

/* Contents of a header that describes the next member: type 'L' (name) or 'x' (pax records). */
static Status read_extension(TarReader *reader, char type, int64_t offset, int64_t size, Error *error)
{
    if (size > TAR_READER_MAX_HEADER) return damaged(reader, "oversized extension header", error);
    data_buffer_resize(&reader->records, (size_t)size);
    TRY(read_at(reader, offset, reader->records.bytes, (size_t)size, error));
    const char *text = (const char *)reader->records.bytes;
    if (type == 'L') {
        keep_long_name(reader, text, size ? strnlen(text, (size_t)size) : 0);
        return STATUS_OK;
    }
    for (size_t at = 0; at < (size_t)size;) {
        size_t length = parse_record(reader, text + at, (size_t)size - at);
        if (!length) return damaged(reader, "malformed pax record", error);
        at += length;
    }
    return STATUS_OK;
}

/* Reads the header at `next` and checks that its contents lie in the archive; *end at the end marker. */
static Status read_header(TarReader *reader, uint8_t header[BLOCK], int64_t *size, bool *end, Error *error)
{
    *end = reader->next >= reader->bytes;
    if (*end) return STATUS_OK;
    if (reader->bytes - reader->next < BLOCK) return damaged(reader, "cut header", error);
    TRY(read_at(reader, reader->next, header, BLOCK, error));
    *end = is_zero(header);
    if (*end) return STATUS_OK;
    if (!checksum_matches(header)) return damaged(reader, "no tar header", error);
    *size = parse_number(header + SIZE_AT, SIZE_BYTES);
    char type = (char)header[TYPE_AT];
    bool extension = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    if (!extension && reader->pax_size >= 0) *size = reader->pax_size;
    /* Links and folders may carry a size without contents. */
    if (type >= '1' && type <= '6') *size = 0;
    if (*size < 0 || *size > reader->bytes - reader->next - BLOCK)
        return damaged(reader, "a member that ends beyond the archive", error);
    return STATUS_OK;
}

static TarMemberKind kind_of(char type, bool sparse)
{
    if (type == '1' || type == '2') return TAR_LINK;
    bool file = type == '0' || type == '\0' || type == '7';
    return file && !sparse ? TAR_FILE : TAR_OTHER;
}

Status tar_reader_next(TarReader *reader, TarMember *member, bool *found, Error *error)
{
    reader->pax_size = -1;
    reader->long_name_known = reader->sparse = false;
    for (;;) {
        uint8_t header[BLOCK] = {0};
        int64_t size = 0;
        bool end;
        TRY(read_header(reader, header, &size, &end, error));
        *found = !end;
        if (end) return STATUS_OK;
        char type = (char)header[TYPE_AT];
        int64_t offset = reader->next + BLOCK;
        if (type == 'L' || type == 'x') TRY(read_extension(reader, type, offset, size, error));
        reader->next = offset + (size + BLOCK - 1) / BLOCK * BLOCK;
        if (type == 'L' || type == 'x' || type == 'K' || type == 'g') continue;
        if (!reader->long_name_known) short_name(reader, header);
        member->name = reader->long_name_known ? (const char *)reader->long_name.bytes : reader->short_name;
        member->kind = kind_of(type, reader->sparse);
        member->offset = offset;
        member->size = size;
        return STATUS_OK;
    }
}
