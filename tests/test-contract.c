/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract suite over every kind, over every pair of kinds, and over deeper stacks, at 512 and 4096 byte blocks. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/loop.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/open.h"
#include "formats/vhdx.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tables.h"
#include "tests/tap.h"
#include "tests/volume.h"

/* Odd in number of blocks of either size, and of granules, pages and 2 MiB pieces. */
#define SIZE (UINT64_C(5) * 1024 * 1024 + 3 * 4096)
#define SMALL (UINT64_C(300) * 1024)

/* ------------------------------------------------------------------ specs */

/*
 * Specs are written with SIZE, SMALL, FILE, DATABASE (of SIZE bytes), LITTLE, BASELITTLE (of SMALL bytes), VHDFIXED, VHDDYNAMIC,
 * VHDSMALL (with small blocks), VHDCHILD (images of SIZE bytes), TABLE (a file with
 * two partitions), XDYNAMIC, XFIXED, XCHILD (VHDX files), RESERVATIONS, VOLUME, KEY and BLOCK in capitals.
 */
struct word {
	const char *word, *text;
};

static void append(char *out, size_t room, const char *text, size_t length)
{
	size_t used = strlen(out);

	if (used + length + 1 > room) {
		printf("Bail out! a spec is too long\n");
		exit(99);
	}
	memcpy(out + used, text, length);
	out[used + length] = 0;
}

static void expand(const char *pattern, const struct word *words, char *out, size_t room)
{
	out[0] = 0;
	while (*pattern) {
		const struct word *w = words;
		while (w->word && strncmp(pattern, w->word, strlen(w->word)))
			w++;
		append(out, room, w->word ? w->text : pattern, w->word ? strlen(w->text) : 1);
		pattern += w->word ? strlen(w->word) : 1;
	}
}

/* A file with data, zeroes written out, and holes. */
static const char *make_file(const char *name, uint64_t size)
{
	const char *path = tmppath(name);
	struct random r = random_stream(50);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	static char data[65536];

	if (fd < 0 || ftruncate(fd, (off_t)size))
		printf("Bail out! cannot make %s\n", path);
	for (uint64_t at = 0; at + sizeof(data) < size; at += (random_below(&r, 3) + 1) * sizeof(data)) {
		random_fill(&r, data, sizeof(data));
		if (random_once_in(&r, 4))
			memset(data, 0, sizeof(data));
		if (pwrite(fd, data, sizeof(data), (off_t)at) < 0)
			printf("Bail out! cannot write %s\n", path);
	}
	close(fd);
	return path;
}

/* A key for crypt. */
static const char *make_key(void)
{
	const char *path = tmppath("key");
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	for (unsigned i = 0; i < 64; i++)
		if (dprintf(fd, "%02x", i) < 0)
			printf("Bail out! cannot write %s\n", path);
	close(fd);
	return path;
}

/* A LUKS2 volume with sectors of a block, which KEY opens. */
static const char *make_volume(const char *name, uint32_t block)
{
	const char *path = tmppath(name);

	volume_make(path, SIZE, block, make_key());
	return path;
}

/* A database of a disk with some data. */
static const char *make_database(const char *name, uint64_t size, uint32_t block)
{
	const char *path = tmppath(name);
	struct random r = random_stream(51);
	static char data[65536];
	char spec[600];
	struct disk *d;

	unlink(path);
	snprintf(spec, sizeof(spec), "sql:%s;create=%" PRIu64 ";block=%" PRIu32, path, size, block);
	if (disk_open(spec, 0, &d, NULL)) {
		printf("Bail out! cannot make %s\n", path);
		exit(99);
	}
	for (uint64_t at = 0; at + sizeof(data) < size; at += (random_below(&r, 3) + 1) * sizeof(data)) {
		random_fill(&r, data, sizeof(data));
		disk_write(d, &VEC_FLAT(data, sizeof(data)), at, &io_plain);
	}
	disk_close(d, NULL);
	return path;
}

/* A VHDX file with some data. */
static const char *make_vhdx(const char *name, const char *options, uint32_t block)
{
	const char *path = tmppath(name);
	struct random r = random_stream(52);
	static char data[65536];
	char spec[600];
	struct disk *d;

	unlink(path);
	snprintf(spec, sizeof(spec), "vhdx:%s;create=%" PRIu64 ";sector=%" PRIu32 "%s", path, SIZE, block, options);
	if (disk_open(spec, 0, &d, NULL)) {
		printf("Bail out! cannot make %s\n", path);
		exit(99);
	}
	for (uint64_t at = 0; at + sizeof(data) < SIZE; at += (random_below(&r, 5) + 1) * sizeof(data)) {
		random_fill(&r, data, sizeof(data));
		disk_write(d, &VEC_FLAT(data, sizeof(data)), at, &io_plain);
	}
	disk_close(d, NULL);
	return path;
}

/* One with a parent in the same folder. */
static const char *make_child(const char *name, uint32_t block)
{
	const char *path = tmppath(name);

	unlink(path);
	if (vhdx_create_child(path, make_vhdx("parent.vhdx", ";block=1M", block), 2 << 20, NULL)) {
		printf("Bail out! cannot make %s\n", path);
		exit(99);
	}
	return path;
}

/* A file with a GPT, the partitions as large as there is room, and data in them. */
static const char *make_table(const char *name, uint64_t size, uint32_t block)
{
	const char *path = make_file(name, size);
	uint64_t middle = size / 2 / block;
	char spec[600];
	struct disk *d;

	snprintf(spec, sizeof(spec), "file:%s;block=%" PRIu32, path, block);
	if (disk_open(spec, 0, &d, NULL)) {
		printf("Bail out! cannot open %s\n", path);
		exit(99);
	}
	disk_write_zeroes(d, 0, gpt_first_usable(d) * block, &io_plain);
	disk_write_zeroes(d, (gpt_last_usable(d) + 1) * block, size - (gpt_last_usable(d) + 1) * block, &io_plain);
	gpt_write(d);
	gpt_set(d, 1, gpt_first_usable(d), middle - 1, "one");
	gpt_set(d, 2, middle, gpt_last_usable(d), "two");
	disk_close(d, NULL);
	return path;
}

/* An image with some data; a differencing one over a dynamic one. `options`: of create=. */
static void make_image(const char *path, const char *options)
{
	struct random r = random_stream(52);
	static char data[65536];
	char spec[1300];
	struct disk *d;

	unlink(path);
	snprintf(spec, sizeof(spec), "vhd:%s;%s", path, options);
	if (disk_open(spec, 0, &d, NULL)) {
		printf("Bail out! cannot make %s\n", spec);
		exit(99);
	}
	for (uint64_t at = 0; at + sizeof(data) < disk_size(d); at += (random_below(&r, 3) + 1) * sizeof(data)) {
		random_fill(&r, data, sizeof(data));
		disk_write(d, &VEC_FLAT(data, sizeof(data)), at, &io_plain);
	}
	disk_close(d, NULL);
}

static const char *make_vhd(const char *type, uint64_t size, uint32_t block)
{
	const char *path = tmppath("image.vhd"), *base = tmppath("base.vhd");
	char options[600];

	if (!strcmp(type, "differencing")) {
		snprintf(options, sizeof(options), "create=%" PRIu64 ";exact;block=%" PRIu32, size, 2 * block);
		make_image(base, options);
		snprintf(options, sizeof(options), "create;type=differencing;parent=%s;block=%" PRIu32, base, block);
	} else if (block) {
		snprintf(options, sizeof(options), "create=%" PRIu64 ";exact;block=%" PRIu32, size, block);
	} else {
		snprintf(options, sizeof(options), "create=%" PRIu64 ";exact;type=%s", size, type);
	}
	make_image(path, options);
	return path;
}

static struct {
	struct contract contract;
	char spec[600];
} now;

static void run_contract(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (disk_open(now.spec, now.contract.open_flags, &d, &err)) {
		if (err.status == -EINVAL && strstr(now.spec, ";direct"))
			SKIP("no direct I/O in this folder");
		tap_diag("%s", error_text(&err));
		CHECK(!"it opens");
		return;
	}
	disk_close(d, NULL);
	CHECK_EQ(contract_run(&now.contract), 0);
}

/* Whole rows of the stripes in the list below. */
static uint32_t resize_step_of(const char *pattern)
{
	unsigned chunk, members = 1;

	if (sscanf(pattern, "striped:%uK", &chunk) != 1)
		return 0;
	while ((pattern = strchr(pattern, ',')))
		pattern++, members++;
	return chunk * 1024 * members;
}

/* The suite over `pattern` as a test of that name. */
/* It takes long, so it is two programs, each with a part of the specs. */
#ifdef CONTRACT_IMAGES
#define ABOUT_IMAGES true
#else
#define ABOUT_IMAGES false
#endif

static bool is_elsewhere(const char *pattern)
{
	return ABOUT_IMAGES != (strstr(pattern, "vhd") || strstr(pattern, "fault:"));
}

static void check_spec(const char *pattern, uint32_t block, struct contract expected)
{
	if (is_elsewhere(pattern))
		return;

	char size[24], small[24], block_text[24], name[300];
	const char *file = make_file("file", SIZE), *little = make_file("little", SMALL);
	const char *database = strstr(pattern, "DATABASE") ? make_database("database", SIZE, block) : "";
	const char *table = strstr(pattern, "TABLE") ? make_table("table", SIZE, block) : "";
	const char *base = strstr(pattern, "BASELITTLE") ? make_database("base-little", SMALL, block) : "";
	const char *fixed = strstr(pattern, "VHDFIXED") ? make_vhd("fixed", SIZE, 0) : "";
	const char *dynamic = strstr(pattern, "VHDDYNAMIC") ? make_vhd("dynamic", SIZE, 2 << 20) : "";
	const char *blocky = strstr(pattern, "VHDSMALL") ? make_vhd("dynamic", SIZE, 64 << 10) : "";
	const char *child = strstr(pattern, "VHDCHILD") ? make_vhd("differencing", SIZE, 512 << 10) : "";
	const char *xdynamic = strstr(pattern, "XDYNAMIC") ? make_vhdx("dynamic.vhdx", ";block=1M", block) : "";
	const char *xfixed = strstr(pattern, "XFIXED") ? make_vhdx("fixed.vhdx", ";type=fixed", block) : "";
	const char *xchild = strstr(pattern, "XCHILD") ? make_child("child.vhdx", block) : "";
	const char *volume = strstr(pattern, "VOLUME") ? make_volume("volume", block) : "";
	const struct word words[] = {{"SIZE", size},         {"SMALL", small},  {"FILE", file}, {"LITTLE", little},
				     {"VHDFIXED", fixed},    {"VHDDYNAMIC", dynamic}, {"VHDSMALL", blocky}, {"VHDCHILD", child},
				     {"DATABASE", database}, {"BASELITTLE", base}, {"TABLE", table},
				     {"BLOCK", block_text},
				     {"RESERVATIONS", tmppath("reservations")},
				     {"XDYNAMIC", xdynamic}, {"XFIXED", xfixed}, {"XCHILD", xchild},
				     {"KEY", make_key()},    {"VOLUME", volume}, {0}};

	snprintf(size, sizeof(size), "%" PRIu64, SIZE);
	snprintf(small, sizeof(small), "%" PRIu64, SMALL);
	snprintf(block_text, sizeof(block_text), "%" PRIu32, block);
	expand(pattern, words, now.spec, sizeof(now.spec));
	now.contract = expected;
	now.contract.name = pattern;
	now.contract.spec = now.spec;
	now.contract.block_size = block;
	now.contract.may_tear = strstr(pattern, "file:") || strstr(pattern, "vhd:") || strstr(pattern, "vhdx:");
	now.contract.resize_step = resize_step_of(pattern);
	snprintf(name, sizeof(name), "%s (%" PRIu32 ")", pattern, block);
	tap_run(name, run_contract);
}

/* ------------------------------------------------------------------ one by one */

static const uint32_t blocks[] = {512, 4096};

static const char *const leaves[] = {
	"mem:SIZE;block=BLOCK",
	"null:SIZE;block=BLOCK",
	"file:FILE;block=BLOCK",
	"file:FILE;direct;block=BLOCK",
	"file:FILE;ro;block=BLOCK",
	"mmap:FILE;block=BLOCK",
	"sql:DATABASE",
	"sql:DATABASE;ro",
	"vhdx:XDYNAMIC",
	"vhdx:XDYNAMIC;ro",
	"vhdx:XFIXED",
	"vhdx:XCHILD",
};

static const char *const stacks[] = {
	"ro:mem:SIZE;block=BLOCK",
	"slice:32768,4M:mem:SIZE;block=BLOCK",
	"slice:4096:file:FILE;block=BLOCK",
	"slice:4096:file:FILE;direct;block=BLOCK",
	"memdiff:file:FILE;block=BLOCK",
	"memdiff:memdiff:file:FILE;block=BLOCK",
	"memdiff:memdiff:memdiff:mem:SIZE;block=BLOCK",
	"slice:12288,3M:memdiff:file:FILE;block=BLOCK",
	"ro:slice:12288,3M:memdiff:file:FILE;block=BLOCK",
	"memdiff:slice:8192,2129920:memdiff:slice:4096:file:FILE;direct;block=BLOCK",
	"memdiff:ro:slice:40960:mem:SIZE;block=BLOCK",
	"layers:[mem:SIZE;block=BLOCK]",
	"layers:[mem:,file:FILE;block=BLOCK]",
	"layers:[mem:;write_through,file:FILE;block=BLOCK]",
	"layers:[mem:,mem:;read_cache,file:FILE;block=BLOCK]",
	"layers:[mem:,mem:,mem:,mem:1M,slice:4096:mem:SIZE;block=BLOCK]",
	"slice:4096:layers:[mem:,mem:2M,memdiff:file:FILE;block=BLOCK]",
	"ro:mmap:FILE;block=BLOCK",
	"slice:4096:mmap:FILE;block=BLOCK",
	"slice:12288,3M:memdiff:mmap:FILE;block=BLOCK",
	"autocache::file:FILE;block=BLOCK",
	"autocache:over-ram:mem:SIZE;block=BLOCK",
	"autocache:over-layers:memdiff:file:FILE;block=BLOCK",
	"autocache::slice:8192:file:FILE;direct;block=BLOCK",
	"ro:autocache::file:FILE;block=BLOCK",
	"slice:12288,3M:autocache::file:FILE;block=BLOCK",
	"memdiff:autocache::file:FILE;block=BLOCK",
	"memdiff:autocache:outer:autocache:inner:file:FILE;block=BLOCK",
	"delay:0:mem:SIZE;block=BLOCK",
	"fault::mem:SIZE;block=BLOCK",
	"fault:any=io,after=1000000000:file:FILE;block=BLOCK",
	"fault:read=medium,at=1P,len=1G,heal;read-iops=1000000000:memdiff:file:FILE;block=BLOCK",
	"fault:;cache:mem:SIZE;block=BLOCK",
	"fault:;cache;atomic=8K:file:FILE;block=BLOCK",
	"fault:;cache=100K;in-order:file:FILE;direct;block=BLOCK",
	"slice:12288,3M:fault:;cache=1M:slice:4096:file:FILE;block=BLOCK",
	"memdiff:fault:;cache:sql:DATABASE",
	"fault:;cache:ro:mem:SIZE;block=BLOCK",
	"ro:fault:;cache:fault:;cache=16K:mem:SIZE;block=BLOCK",
	"fault:;cache=64K:fault:;cache:sql:DATABASE",
	"striped:4K:[mem:2M;block=BLOCK,mem:2M;block=BLOCK]",
	"striped:12K:[mem:1M;block=BLOCK,mem:1M;block=BLOCK,mem:1M;block=BLOCK]",
	"striped:64K;truncate:[mem:SIZE;block=BLOCK,file:FILE;block=BLOCK]",
	"striped:8K;truncate:[null:1M;block=BLOCK,null:2M;block=BLOCK]",
	"ro:striped::[sql:DATABASE]",
	"slice:4096:striped:4K:[memdiff:file:FILE;direct;block=BLOCK,mem:SIZE;block=BLOCK]",
	"memdiff:striped:16K:[delay:0:file:FILE;block=BLOCK]",
	"striped:8K;truncate:[striped:4K:[mem:1M;block=BLOCK,slice:0:mem:1M;block=BLOCK],mem:3M;block=BLOCK]",
	"memdiff:delay:0:slice:4096:file:FILE;direct;block=BLOCK",
	"sqldiff:DATABASE:file:FILE;block=BLOCK",
	"sqldiff:DATABASE:mem:3M;block=BLOCK",
	"sqldiff:DATABASE:null:7M;block=BLOCK",
	"memdiff:sql:DATABASE",
	"memdiff:vhdx:XCHILD",
	"layers:[vhdx:XCHILD,file:FILE;block=BLOCK]",
	"layers:[mem:;read_cache,vhdx:XDYNAMIC]",
	"slice:12288,3M:vhdx:XDYNAMIC",
	"crypt:xts-aes-256:KEY;holes=zero:vhdx:XDYNAMIC",
	"part:1:file:TABLE;block=BLOCK",
	"part:2:file:TABLE;direct;block=BLOCK",
	"ro:part:1:file:TABLE;block=BLOCK",
	"memdiff:part:2:file:TABLE;block=BLOCK",
	"part:1:memdiff:file:TABLE;block=BLOCK",
	"part:2:mmap:TABLE;block=BLOCK",
	"part:1:autocache::file:TABLE;block=BLOCK",
	"slice:12288,1M:part:2:file:TABLE;block=BLOCK",
	"sqldiff:DATABASE:part:2:file:TABLE;block=BLOCK",
	"slice:12288,3M:sqldiff:DATABASE:slice:4096:file:FILE;block=BLOCK",
	"prwrap:mem:SIZE;block=BLOCK",
	"prwrap:file:FILE;direct;block=BLOCK",
	"prwrap;persist=RESERVATIONS:file:FILE;block=BLOCK",
	"ro:prwrap:memdiff:file:FILE;block=BLOCK",
	"slice:12288,3M:prwrap:slice:4096:file:FILE;block=BLOCK",
	"memdiff:prwrap:mem:SIZE;block=BLOCK",
	"prwrap:ro:mem:SIZE;block=BLOCK",
	"prwrap:prwrap:memdiff:null:SIZE;block=BLOCK",
	"crypt:xts-aes-256:KEY:mem:SIZE;block=BLOCK",
	"crypt:xts-aes-256:KEY;holes=zero:mem:SIZE;block=BLOCK",
	"crypt:xts-aes-256:KEY:file:FILE;block=BLOCK",
	"crypt:xts-aes-256:KEY;holes=zero:file:FILE;direct;block=BLOCK",
	"ro:crypt:xts-aes-256:KEY:mem:SIZE;block=BLOCK",
	"crypt:xts-aes-256:KEY:ro:file:FILE;block=BLOCK",
	"crypt:xts-aes-256:KEY:slice:4096:file:FILE;block=BLOCK",
	"slice:12288,3M:crypt:xts-aes-256:KEY;holes=zero:mem:SIZE;block=BLOCK",
	"crypt:xts-aes-256:KEY;holes=zero:memdiff:crypt:xts-aes-256:KEY:memdiff:file:FILE;block=BLOCK",
	"memdiff:crypt:xts-aes-256:KEY:file:FILE;block=BLOCK",
	"luks:KEY:file:VOLUME",
	"luks:KEY;holes=zero:file:VOLUME",
	"luks:KEY;holes=zero:file:VOLUME;block=BLOCK",
	"ro:luks:KEY:file:VOLUME;direct;block=BLOCK",
	"luks:KEY:memdiff:file:VOLUME;block=BLOCK",
	"slice:12288,3M:luks:KEY;holes=zero:memdiff:file:VOLUME",
};

static bool has(const char *text, const char *part)
{
	return strstr(text, part) != NULL;
}

/* Images have sectors of 512 bytes, and nothing else. Resizing them is slow by its flushes: the first ones are enough for that. */
#define RESIZED_IMAGES 4
static const char *const image_stacks[] = {
	"vhd:VHDFIXED",
	"vhd:VHDDYNAMIC",
	"vhd:VHDSMALL",
	"vhd:VHDCHILD",
	"vhd:VHDDYNAMIC;ro",
	"vhd:VHDCHILD;ro",
	"ro:vhd:VHDFIXED",
	"memdiff:vhd:VHDCHILD",
	"slice:12288,3M:vhd:VHDCHILD",
	"layers:[vhd:VHDCHILD,file:FILE]",
	"layers:[vhd:VHDDYNAMIC,file:FILE]",
	"layers:[vhd:VHDCHILD;write_through,file:FILE]",
	"layers:[mem:,vhd:VHDCHILD,file:LITTLE]",
	"vhd:VHDCHILD;parent=\"file:FILE\"",
};

/* What stands on null keeps only what a memdiff holds. */
static bool forgets(const char *pattern)
{
	return has(pattern, "null:") && !has(pattern, "diff:");
}

/* CONTRACT_LONG in the environment runs all there is, each for as long as a kind alone. */
static bool is_short(void)
{
	return !getenv("CONTRACT_LONG");
}

/* ThreadSanitizer makes the suite many times slower, and looks for races, which the same code has in any company. */
static bool is_shorter(void)
{
#ifdef __SANITIZE_THREAD__
	return is_short();
#else
	return false;
#endif
}

static void check_leaves(void)
{
	for (size_t i = 0; i < sizeof(leaves) / sizeof(*leaves); i++)
		for (size_t b = is_shorter() ? i % 2 : 0; b < 2; b += is_shorter() ? 2 : 1)
			check_spec(leaves[i], blocks[b], (struct contract){.forgets = forgets(leaves[i])});
}

/* The short form has each at one of the two block sizes, and shorter. */
static void check_stacks(void)
{
	for (size_t i = 0; i < sizeof(stacks) / sizeof(*stacks); i++)
		for (size_t b = is_short() ? i % 2 : 0; b < 2; b += is_short() ? 2 : 1)
			check_spec(stacks[i], blocks[b], (struct contract){.forgets = forgets(stacks[i]), .brief = is_short()});
}

/* ------------------------------------------------------------------ every pair, and every pair over every leaf */

static const char *const outers[] = {"ro:", "slice:12288,98304:", "slice:4096:", "memdiff:", "prwrap:",
				     "crypt:xts-aes-256:KEY;holes=zero:"};
static const char *const inners[] = {"ro:", "slice:8192,204800:", "slice:4096:", "memdiff:", "prwrap:",
				     "crypt:xts-aes-256:KEY:"};
static const char *const little_leaves[] = {
	"mem:SMALL;block=BLOCK",
	"null:SMALL;block=BLOCK",
	"file:LITTLE;block=BLOCK",
	"mmap:LITTLE;block=BLOCK",
	"sql:BASELITTLE",
};

#define NR_WRAPPERS (sizeof(inners) / sizeof(*inners))
#define NR_LEAVES (sizeof(little_leaves) / sizeof(*little_leaves))

/* Half of them at 512, half at 4096 bytes. The short form has every third one: each pair over one leaf at least. */
static void check_pairs(void)
{
	char pattern[200];

	for (size_t i = 0; i < NR_WRAPPERS * NR_WRAPPERS * NR_LEAVES; i++) {
		size_t outer = i % NR_WRAPPERS, inner = i / NR_WRAPPERS % NR_WRAPPERS;
		size_t leaf = i / NR_WRAPPERS / NR_WRAPPERS;
		snprintf(pattern, sizeof(pattern), "%s%s%s", outers[outer], inners[inner], little_leaves[leaf]);
		if (has(pattern, "KEY:null:"))
			continue; /* zeroes are noise there, whatever was written */
		if (is_short() && (outer + 2 * inner + leaf) % (is_shorter() ? 5 : 3))
			continue;
		check_spec(pattern, blocks[(outer + inner + leaf) % 2],
			   (struct contract){.forgets = forgets(pattern), .brief = is_short(),
					     .without = CONTRACT_LIFE | CONTRACT_FIBERS});
	}
}

/* Decorators that hand all on: each over and under the others. */
static void check_forwarders(void)
{
	static const char *const forwarders[] = {"delay:0:", "delay:1us;flush=0;jitter=1us:", "fault::",
						  "fault:;cache=64K:"};
	static const char *const orders[] = {"%1$s%2$s%3$s", "%2$s%1$s%3$s"};
	char pattern[200];

	/* those of fault in every other place: that is what there is time for */
	for (size_t i = 0; i < 4 * 2 * NR_WRAPPERS; i++) {
		const char *leaf = little_leaves[i % 2 * 2];
		if (i % 4 > 1 && (i / 4 + i) % 2)
			continue;
		snprintf(pattern, sizeof(pattern), orders[i / 4 % 2], forwarders[i % 4], inners[i / 8], leaf);
		check_spec(pattern, blocks[i / 8 % 2], (struct contract){.brief = is_short(), .without = CONTRACT_LIFE | CONTRACT_FIBERS});
	}
}

/* ------------------------------------------------------------------ as large as a disk can be */

static void check_largest(void)
{
	static const char *const patterns[] = {
		"mem:9223372036854775296;block=BLOCK", "null:9223372036854775296;block=BLOCK",
		"memdiff:null:9223372036854775296;block=BLOCK", "slice:512:null:9223372036854775296;block=BLOCK",
		"ro:mem:9223372036854775296;block=BLOCK", "mem:8191P;block=BLOCK",
		"autocache::null:9223372036854775296;block=BLOCK",
		"memdiff:autocache::null:9223372036854775296;block=BLOCK",
		"striped:512:[null:4611686018427387392;block=BLOCK,null:4611686018427387392;block=BLOCK]",
		"striped:1536:[null:3072P;block=BLOCK,null:3072P;block=BLOCK]",
	};
	const struct contract expected = {.without = ~(unsigned)(CONTRACT_FACTS | CONTRACT_RANGE | CONTRACT_LIFE) |
						     CONTRACT_CONTENT};

	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		check_spec(patterns[i], 512, expected);
	check_spec("mem:9223372036854771712;block=BLOCK", 4096, expected);
	check_spec("memdiff:null:9223372036854771712;block=BLOCK", 4096, expected);
	check_spec("memdiff:null:9223372036854710272;block=BLOCK", 65536, expected);
}

static void check_read_only_open(void)
{
	const struct contract expected = {.open_flags = OPEN_READ_ONLY};

	check_spec("mem:SIZE;block=BLOCK", 512, expected);
	check_spec("file:FILE;block=BLOCK", 4096, expected);
	check_spec("memdiff:file:FILE;block=BLOCK", 512, expected);
	check_spec("mmap:FILE;block=BLOCK", 512, expected);
	check_spec("slice:4096:file:FILE;block=BLOCK", 4096, expected);
	check_spec("part:1:file:TABLE;block=BLOCK", 4096, expected);
	check_spec("sql:DATABASE", 512, expected);
	check_spec("sqldiff:DATABASE:file:FILE;block=BLOCK", 4096, expected);
}

/* ------------------------------------------------------------------ a block device */

/* A loop device over `path`, which ends when the descriptor is closed; -1: none can be had here. */
static int attach_loop(const char *path, char name[64])
{
	struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, number, fd = -1;

	number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	if (control >= 0)
		close(control);
	if (number < 0)
		return -1;
	snprintf(name, 64, "/dev/loop%d", number);
	file = open(path, O_RDWR | O_CLOEXEC);
	fd = open(name, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, file) || ioctl(fd, LOOP_SET_STATUS64, &info))) {
		close(fd);
		fd = -1;
	}
	if (file >= 0)
		close(file);
	return fd;
}

static void test_second_writer_of_a_device(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *writer = NULL, *second = NULL, *reader = NULL;

	CHECK_EQ(disk_open(now.spec, 0, &writer, NULL), 0);
	CHECK_EQ(disk_open(now.spec, 0, &second, &err), -EBUSY);
	CHECK(strstr(error_text(&err), "for writing by one user") != NULL);
	CHECK_EQ(disk_open(now.spec, OPEN_READ_ONLY, &reader, NULL), 0);
	CHECK_EQ(disk_close(reader, NULL), 0);
	CHECK_EQ(disk_close(writer, NULL), 0);
}

static void test_no_device(void)
{
	SKIP("no loop device can be had");
}

static void check_device(void)
{
	static const char *const patterns[] = {"file:DEVICE", "file:DEVICE;direct", "file:DEVICE;block=4096",
					       "file:DEVICE;ro", "mmap:DEVICE", "memdiff:slice:4096:file:DEVICE"};
	char device[64];
	int fd = attach_loop(make_file("behind-device", SIZE), device);
	const struct word words[] = {{"DEVICE", device}, {0}};

	if (fd < 0) {
		TAP_RUN(test_no_device);
		return;
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
		expand(patterns[i], words, now.spec, sizeof(now.spec));
		now.contract = (struct contract){.name = patterns[i], .spec = now.spec, .size = strstr(patterns[i], "slice")
											    ? SIZE - 4096 : SIZE,
						 .may_tear = true};
		tap_run(patterns[i], run_contract);
	}
	expand(patterns[0], words, now.spec, sizeof(now.spec));
	TAP_RUN(test_second_writer_of_a_device);
	close(fd);
}

int main(void)
{
	setenv("PLATTER_AUTO_CACHE_PATH", tmppath("caches"), 1);
	/* whole disks are copied all the time, and fresh pages for each copy take longer than the copy */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	check_leaves();
	check_stacks();
	for (size_t i = 0; i < sizeof(image_stacks) / sizeof(*image_stacks); i++)
		check_spec(image_stacks[i], 512, (struct contract){.without = i < RESIZED_IMAGES ? 0 : CONTRACT_RESIZE | CONTRACT_FIBERS});
	check_spec("mem:SIZE;block=BLOCK", 1024, (struct contract){0});
	check_spec("mem:6M;block=BLOCK", 65536, (struct contract){0});
	check_spec("mmap:FILE;block=BLOCK", 1024, (struct contract){0});
	check_spec("sql:DATABASE", 1024, (struct contract){0});
	check_pairs();
	check_forwarders();
	if (!ABOUT_IMAGES) {
		check_read_only_open();
		check_largest();
		check_device();
	}
	return TAP_DONE();
}
