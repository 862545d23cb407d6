/* fuzz_tar.c - any bytes as a tar archive: every member lies inside it, reading moves forward and ends, and a
 * data set opened on it answers for each of its images.
 *
 * The mutator repairs header checksums three times out of four; without that no changed header is believed.
 */
#include "fuzz.h"

#include "base/check.h"
#include "data/data_set.h"
#include "data/tar_reader.h"
#include "data/tar_set.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 512, CHECKSUM_AT = 148, CHECKSUM_BYTES = 8, MAGIC_AT = 257 };

static void check_message(Status status, const Error *error)
{
    CHECK(status == STATUS_OK || status == STATUS_INPUT);
    CHECK((status == STATUS_OK) == (error->text[0] == '\0'));
    CHECK(strchr(error->text, '\n') == NULL);
}

static void walk(int descriptor, int64_t size)
{
    TarReader reader;
    TarMember member;
    Error error = {0};
    bool found = true;
    int64_t before = 0;
    Status status = tar_reader_init(&reader, descriptor, "a.tar", &error);
    while (status == STATUS_OK && found) {
        status = tar_reader_next(&reader, &member, &found, &error);
        if (status != STATUS_OK || !found) break;
        CHECK(member.offset >= BLOCK && member.size >= 0 && member.offset + member.size <= size);
        CHECK(reader.next > before && strlen(member.name) <= TAR_READER_MAX_HEADER);
        before = reader.next;
    }
    check_message(status, &error);
    tar_reader_fini(&reader);
}

static void open_set(const char *path, bool class_by_archive, int64_t size)
{
    DataKind kind = {0};
    DataNotes notes = {0};
    DataBuffer buffer = {0};
    Error error = {0};
    Status status = tar_set_open(&kind, path, class_by_archive, &notes, &error);
    check_message(status, &error);
    CHECK(status != STATUS_OK || kind.count > 0);
    for (int64_t i = 0; status == STATUS_OK && i < kind.count; i++) {
        char text[DATA_SET_KEY_MAX];
        int64_t label = kind.label(kind.self, i);
        CHECK(label >= -1 && label < kind.classes.count);
        kind.key(kind.self, i, text, sizeof text);
        CHECK(data_kind_is_image_name(text));
        kind.location(kind.self, i, text, sizeof text);
        error = (Error){0};
        CHECK(kind.read(kind.self, i, &buffer, &error) == STATUS_OK && (int64_t)buffer.size <= size);
    }
    data_buffer_destroy(&buffer);
    if (kind.self) kind.destroy(kind.self);
    text_table_destroy(&kind.classes);
    text_table_destroy(&notes.lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int descriptor = memfd_create("a.tar", MFD_CLOEXEC);
    CHECK(descriptor >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t written = write(descriptor, data + done, size - done);
        CHECK(written > 0);
        done += (size_t)written;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    walk(descriptor, (int64_t)size);
    open_set(path, false, (int64_t)size);
    open_set(path, true, (int64_t)size);
    close(descriptor);
    return 0;
}

/* Every block that calls itself a header gets its checksum. */
static void repair_tar(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + BLOCK <= size; at += BLOCK) {
        uint8_t *header = data + at;
        if (memcmp(header + MAGIC_AT, "ustar", 5) != 0) continue;
        unsigned sum = 0;
        memset(header + CHECKSUM_AT, ' ', CHECKSUM_BYTES);
        for (size_t i = 0; i < BLOCK; i++)
            sum += header[i];
        char digits[CHECKSUM_BYTES];
        snprintf(digits, sizeof digits, "%06o", sum);
        memcpy(header + CHECKSUM_AT, digits, sizeof digits);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 4) repair_tar(data, size);
    return size;
}
