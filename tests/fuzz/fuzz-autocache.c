/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whatever was done to the files of a cache: it opens, and each read gives the bytes of the source.
 *
 * An input is a list of what is done to a cache that is warm (struct change). Bytes anywhere in a file, files of other lengths, units
 * that lie at another's place; and, so that more than the checks of them is reached, headers whose sum is put right, and
 * right entries, for any unit and any sectors, in any place. What is not done is an entry that is right for wrong bytes: such
 * a cache was forged.
 */
#include <endian.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "core/open.h"
#include "layers/autocache-sum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two chunks, the last unit is not whole; between the head and the tail is a hole. */
#define IMAGE_BYTES ((2u << 20) + 5 * UNIT + 1536)
#define HEAD_BYTES (12 * UNIT)
#define TAIL_AT (IMAGE_BYTES - 9 * UNIT - 1536)
#define NONCE_AT 56u
#define HEADER_SUM_AT 4088u

enum { HEADER, INDEX, DATA, RECENCY, FILES };

static const char *const names[FILES] = {"header", "index", "data", "recency"};

/* One step, as it stands in the input. */
struct change {
	uint8_t what;      /* enum what, modulo CHANGES */
	uint8_t file;      /* modulo FILES */
	uint8_t count;     /* WRITE: bytes that follow */
	uint8_t sectors;   /* ENTRY */
	uint32_t at, from; /* places in the file, or units; modulo what there is */
};
_Static_assert(sizeof(struct change) == 12, "a change");

enum what { WRITE, CUT, MEND, ENTRY, MOVE, CHANGES };

static char folder[64], root[80], cache[96], image[80];
static uint8_t content[IMAGE_BYTES];
static struct {
	uint8_t *bytes;
	size_t size;
} warm[FILES];
static struct sums sums;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_root(void)
{
	nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void remove_all(void)
{
	nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int open_file(unsigned file)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", cache, names[file]);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	return fd;
}

static void write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
	if (pwrite(fd, bytes, size, (off_t)offset) != (ssize_t)size)
		abort();
}

/* ------------------------------------------------------------------ the oracle */

static void check(struct disk *d, uint64_t offset, uint64_t length)
{
	static uint8_t bytes[64 * UNIT];

	if (disk_read(d, &VEC_FLAT(bytes, length), offset, &io_plain) || memcmp(bytes, content + offset, length))
		abort();
}

/* What has data, from the hole a bit as well; the second time it comes from what was mended. */
static void read_all(struct disk *d)
{
	for (unsigned i = 0; i < 2; i++) {
		check(d, 512, HEAD_BYTES);
		check(d, 0, HEAD_BYTES + UNIT);
		for (uint64_t at = TAIL_AT - 512; at < IMAGE_BYTES; at += 1536)
			check(d, at, IMAGE_BYTES - at < 1536 ? IMAGE_BYTES - at : 1536);
		check(d, TAIL_AT, IMAGE_BYTES - TAIL_AT);
	}
}

static void check_zero_runs(struct disk *d)
{
	CLEANUP_EXTENTS struct extents runs = {0};

	extents_init(&runs, 0, IMAGE_BYTES, 1000);
	if (disk_extents(d, &runs, &io_plain))
		abort();
	for (size_t i = 0; i < runs.count; i++) {
		const struct extent *e = &runs.list[i];
		if (e->flags & EXTENT_ZERO)
			for (uint64_t at = 0; at < e->length; at++)
				if (content[e->offset + at])
					abort();
	}
}

static void open_and_check(void)
{
	char spec[300];
	struct disk *d;

	snprintf(spec, sizeof(spec), "autocache:k;max=1G;root=%s:file:%s;ro", root, image);
	if (disk_open(spec, 0, &d, NULL) || disk_size(d) != IMAGE_BYTES)
		abort();
	check_zero_runs(d);
	read_all(d);
	check_zero_runs(d);
	if (disk_close(d, NULL))
		abort();
}

/* ------------------------------------------------------------------ the warm cache */

static void make_image(void)
{
	int fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	for (size_t i = 0; i < IMAGE_BYTES; i++)
		if ((i < HEAD_BYTES || i >= TAIL_AT) && i / UNIT % 4 != 2)
			content[i] = (uint8_t)((i * 2654435761u >> 11) ^ (i >> 9) * 37);
	if (fd < 0 || ftruncate(fd, IMAGE_BYTES))
		abort();
	write_at(fd, content, HEAD_BYTES, 0);
	write_at(fd, content + TAIL_AT, IMAGE_BYTES - TAIL_AT, TAIL_AT);
	close(fd);
}

static void keep(unsigned file)
{
	int fd = open_file(file);
	struct stat st;

	if (fstat(fd, &st) || !(warm[file].bytes = malloc((size_t)st.st_size + 1)) ||
	    pread(fd, warm[file].bytes, (size_t)st.st_size, 0) != st.st_size)
		abort();
	warm[file].size = (size_t)st.st_size;
	close(fd);
}

static void prepare(void)
{
	uint64_t nonce;

	snprintf(folder, sizeof(folder), "%s", "/tmp/fuzz-autocache.XXXXXX");
	if (!mkdtemp(folder))
		abort();
	atexit(remove_all);
	snprintf(root, sizeof(root), "%s/root", folder);
	snprintf(cache, sizeof(cache), "%s/k.platter", root);
	snprintf(image, sizeof(image), "%s/image", folder);
	make_image();
	if (mkdir(root, 0700))
		abort();
	open_and_check();
	for (unsigned i = 0; i < FILES; i++)
		keep(i);
	memcpy(&nonce, warm[HEADER].bytes + NONCE_AT, sizeof(nonce));
	sums_init(&sums, le64toh(nonce));
}

/* Whatever the last input has left. */
static void make_warm(void)
{
	remove_root();
	if (mkdir(root, 0700) || mkdir(cache, 0700))
		abort();
	for (unsigned i = 0; i < FILES; i++) {
		int fd = open_file(i);
		size_t head = warm[i].size < HEAD_BYTES ? warm[i].size : HEAD_BYTES;
		write_at(fd, warm[i].bytes, head, 0);
		if (i == DATA && warm[i].size > TAIL_AT)
			write_at(fd, warm[i].bytes + TAIL_AT, warm[i].size - TAIL_AT, TAIL_AT);
		else if (i != DATA)
			write_at(fd, warm[i].bytes + head, warm[i].size - head, head);
		close(fd);
	}
}

/* ------------------------------------------------------------------ changes */

static void mend_header(int fd)
{
	uint8_t header[HEADER_SUM_AT];
	uint64_t sum;

	if (pread(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header))
		return;
	sum = htole64(XXH3_64bits(header, sizeof(header)));
	write_at(fd, &sum, sizeof(sum), HEADER_SUM_AT);
}

/* What is right for the unit at `from`, or would be, in the place of that at `at`. */
static void put_entry(int fd, const struct change *c)
{
	uint32_t units = IMAGE_BYTES / UNIT, unit = c->from % units;
	uint8_t bytes[UNIT];
	uint64_t entry;

	memcpy(bytes, content + unit * (size_t)UNIT, UNIT);
	sum_clear_others(bytes, c->sectors);
	entry = c->sectors ? htole64(sum_entry(&sums, unit, c->sectors, sum_hash(bytes))) : 0;
	write_at(fd, &entry, sizeof(entry), c->at % (units + 8) * (uint64_t)sizeof(entry));
}

static void move_unit(int fd, const struct change *c)
{
	uint32_t units = IMAGE_BYTES / UNIT;
	uint8_t bytes[UNIT] = {0};

	if (pread(fd, bytes, UNIT, c->from % units * (off_t)UNIT) >= 0)
		write_at(fd, bytes, UNIT, c->at % units * (uint64_t)UNIT);
}

/* Returns how many bytes behind the change belong to it. */
static size_t apply(const struct change *c, const uint8_t *rest, size_t left)
{
	enum what what = c->what % CHANGES;
	unsigned file = what == MEND ? HEADER : what == ENTRY ? INDEX : what == MOVE ? DATA : c->file % FILES;
	size_t count = what == WRITE ? (c->count < left ? c->count : left) : 0;
	int fd = open_file(file);

	if (what == WRITE)
		write_at(fd, rest, count, c->at % (warm[file].size + 4096));
	else if (what == CUT && ftruncate(fd, c->at % (warm[file].size + 4096)))
		abort();
	else if (what == MEND)
		mend_header(fd);
	else if (what == ENTRY)
		put_entry(fd, c);
	else if (what == MOVE)
		move_unit(fd, c);
	close(fd);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct change c;

	if (!folder[0])
		prepare();
	make_warm();
	while (size >= sizeof(c)) {
		size_t used;
		memcpy(&c, data, sizeof(c));
		used = sizeof(c) + apply(&c, data + sizeof(c), size - sizeof(c));
		data += used;
		size -= used;
	}
	open_and_check();
	open_and_check();
	return 0;
}
