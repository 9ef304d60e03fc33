/* SPDX-License-Identifier: BSD-3-Clause */
/* I/O commands: what they do to the disk, and the status of each thing that can go wrong. */
#include <pthread.h>
#include <stdlib.h>

#include "core/open.h"
#include "tests/loops.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define FUA (UINT32_C(1) << 30)
#define DEAC (UINT32_C(1) << 25)

static struct driver d;
static struct driver_queue q;
static struct disk *disk;
static struct trap *trap;
static uint64_t data; /* two pages */

static void begin(struct disk *under, const struct nvme_namespace_options *options)
{
	driver_open(&d, NULL, 1);
	disk = under;
	driver_add_disk(&d, disk, options);
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
	data = guest_alloc(&d.guest, 8192, 4096);
}

static struct disk *open_spec(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *opened;

	if (disk_open(spec, 0, &opened, &err)) {
		printf("Bail out! %s\n", error_text(&err));
		exit(99);
	}
	return opened;
}

static void begin_spec(const char *spec)
{
	begin(open_spec(spec), NULL);
}

static void begin_trap(const struct trap_options *options)
{
	trap = trap_create(options);
	begin(&trap->disk, NULL);
	trap_reset(trap);
}

static char *at(uint64_t offset)
{
	return guest_at(&d.guest, data + offset);
}

static uint16_t run(uint8_t opcode, uint64_t lba, unsigned blocks, uint32_t cdw12)
{
	struct nvme_sqe sqe = driver_rw(opcode, 1, lba, blocks, data, data + 4096);

	sqe.cdw12 = put32(get32(sqe.cdw12) | cdw12);
	return driver_run(&q, &sqe, NULL);
}

/* Fills that many blocks of 512 bytes of the disk with a byte. */
static void fill_disk(uint64_t lba, unsigned blocks, int byte)
{
	char *block = malloc(blocks * 512ul);
	struct vec v = VEC_FLAT(block, blocks * 512ul);

	memset(block, byte, blocks * 512ul);
	CHECK_EQ(disk_write(disk, &v, lba * 512, &io_plain), 0);
	free(block);
}

static int disk_byte(uint64_t offset)
{
	char block[4096];
	struct vec v = VEC_FLAT(block, disk_info(disk)->block_size);

	CHECK_EQ(disk_read(disk, &v, offset / v.size * v.size, &io_plain), 0);
	return block[offset % v.size];
}

/* ------------------------------------------------------------------ read, write, flush */

static void test_read_and_write(void)
{
	begin_spec("mem:1M");
	memset(at(0), 3, 8192);
	CHECK_EQ(run(NVME_IO_WRITE, 5, 16, 0), 0);
	CHECK_EQ(disk_byte(5 * 512), 3);
	CHECK_EQ(disk_byte(21 * 512 - 1), 3);
	CHECK_EQ(disk_byte(21 * 512), 0);
	memset(at(0), 0, 8192);
	CHECK_EQ(run(NVME_IO_READ, 4, 2, 0), 0);
	CHECK_EQ(*at(511), 0);
	CHECK_EQ(*at(512), 3);
	driver_close(&d);
}

static void test_ranges(void)
{
	static const struct {
		uint64_t lba;
		unsigned blocks;
		uint16_t status;
	} cases[] = {
		{2047, 1, 0}, {2048, 1, NVME_LBA_OUT_OF_RANGE}, {2047, 2, NVME_LBA_OUT_OF_RANGE},
		{UINT64_MAX, 1, NVME_LBA_OUT_OF_RANGE}, {UINT64_MAX - 3, 8, NVME_LBA_OUT_OF_RANGE},
		{UINT64_C(1) << 54, 1, NVME_LBA_OUT_OF_RANGE}, {(UINT64_C(1) << 55) + 1, 1, NVME_LBA_OUT_OF_RANGE},
	};
	static const uint8_t opcodes[] = {NVME_IO_READ, NVME_IO_WRITE, NVME_IO_COMPARE, NVME_IO_VERIFY,
					  NVME_IO_WRITE_ZEROES, NVME_IO_WRITE_UNCORRECTABLE};

	begin_spec("mem:1M");
	for (unsigned i = 0; i < sizeof(opcodes); i++)
		for (unsigned j = 0; j < sizeof(cases) / sizeof(cases[0]); j++) {
			run(NVME_IO_WRITE_ZEROES, 0, 2048, 0);
			if (!CHECK_EQ(run(opcodes[i], cases[j].lba, cases[j].blocks, 0), cases[j].status))
				tap_diag("opcode 0x%x, case %u", opcodes[i], j);
		}
	driver_close(&d);
}

static void test_flags_reach_the_disk(void)
{
	begin_trap(&(const struct trap_options){.flags = DISK_FUA, .discard = DISK_DISCARD_ZEROES});
	CHECK_EQ(run(NVME_IO_WRITE, 0, 1, 0), 0);
	CHECK_EQ(trap->log[0].flags, 0);
	CHECK_EQ(run(NVME_IO_WRITE, 0, 1, FUA), 0);
	CHECK_EQ(trap->log[1].flags, IO_FUA);
	CHECK_EQ(run(NVME_IO_WRITE_ZEROES, 0, 1, FUA), 0);
	CHECK_EQ(trap->log[2].flags, IO_FUA);
	CHECK_EQ(run(NVME_IO_WRITE_ZEROES, 0, 1, DEAC), 0);
	CHECK_EQ(trap->log[3].flags, IO_MAY_UNMAP);
	/* without a write cache every write is durable at once */
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_WRITE_CACHE, 0, 0), 0);
	CHECK_EQ(trap->log[4].op, TRAP_FLUSH);
	CHECK_EQ(run(NVME_IO_WRITE, 0, 1, 0), 0);
	CHECK_EQ(trap->log[5].flags, IO_FUA);
	driver_close(&d);
}

static void test_flush(void)
{
	struct nvme_sqe sqe;

	begin_trap(&(const struct trap_options){0});
	driver_add(&d, "mem:1M", NULL);
	sqe = driver_admin_command(NVME_IO_FLUSH, 1, 0, 0, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(trap->counts[TRAP_FLUSH], 1);
	sqe.nsid = put32(NVME_NSID_ALL);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(trap->counts[TRAP_FLUSH], 2);
	trap_fail(trap, 1 << TRAP_FLUSH, 1, -EIO);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INTERNAL_ERROR);
	sqe.nsid = put32(3);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_NAMESPACE);
	sqe.nsid = put32(0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_NAMESPACE);
	driver_close(&d);
}

static void test_statuses(void)
{
	static const struct {
		int status;
		uint16_t nvme;
		bool dnr;
	} cases[] = {
		{-EIO, NVME_INTERNAL_ERROR, false},        {-EROFS, NVME_READ_ONLY_RANGE, true},
		{-EBADE, NVME_RESERVATION_CONFLICT, true}, {-ECANCELED, NVME_PREEMPTED, false},
		{-ENOSPC, NVME_CAPACITY_EXCEEDED, true},   {-ENOMEM, NVME_INTERNAL_ERROR, false},
		{-ERANGE, NVME_LBA_OUT_OF_RANGE, true},    {-ENOMEDIUM, NVME_NAMESPACE_NOT_READY, false},
		{-EFAULT, NVME_DATA_TRANSFER_ERROR, true}, {-ETIMEDOUT, NVME_INTERNAL_ERROR, false},
	};
	static const uint16_t media[] = {NVME_UNRECOVERED_READ, NVME_WRITE_FAULT, NVME_GUARD_CHECK,
					 NVME_APPLICATION_TAG_CHECK, NVME_REFERENCE_TAG_CHECK};
	struct nvme_sqe sqe;
	struct driver_result r;

	begin_trap(&(const struct trap_options){0});
	sqe = driver_rw(NVME_IO_READ, 1, 0, 1, data, 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		trap_fail(trap, 1 << TRAP_READ, 1, cases[i].status);
		CHECK_EQ(driver_run(&q, &sqe, &r), cases[i].nvme);
		CHECK_EQ(r.dnr, cases[i].dnr);
	}
	for (unsigned i = 0; i < 5; i++) {
		trap->fail_medium = (enum medium_error)i;
		trap_fail(trap, 1 << TRAP_READ, 1, -ENODATA);
		CHECK_EQ(driver_run(&q, &sqe, &r), media[i]);
		CHECK(r.dnr);
	}
	driver_close(&d);
}

static void test_read_only(void)
{
	static const uint8_t writes[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES, NVME_IO_WRITE_UNCORRECTABLE, NVME_IO_DATASET,
					 NVME_IO_COPY};

	begin_spec("ro:mem:1M");
	for (unsigned i = 0; i < sizeof(writes); i++)
		CHECK_EQ(run(writes[i], 0, 1, 0), NVME_WRITE_PROTECTED);
	CHECK_EQ(run(NVME_IO_READ, 0, 1, 0), 0);
	CHECK_EQ(run(NVME_IO_FLUSH, 0, 1, 0), 0);
	driver_close(&d);
}

static void test_unknown_commands(void)
{
	begin_spec("mem:1M");
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		struct nvme_sqe sqe = driver_rw((uint8_t)opcode, 1, 0, 1, data, 0);
		struct driver_result r;
		uint16_t status = driver_run(&q, &sqe, &r);
		bool known = opcode <= 2 || opcode == 4 || opcode == 5 || opcode == 8 || opcode == 9 || opcode == 0xc ||
			     opcode == 0x19;
		CHECK_EQ(status == NVME_INVALID_OPCODE, !known); /* without reservations, those as well */
	}
	driver_close(&d);
}

static void test_reserved_flags(void)
{
	struct nvme_sqe sqe;

	begin_spec("mem:1M");
	sqe = driver_rw(NVME_IO_READ, 1, 0, 1, data, 0);
	sqe.flags = 3 << 6;
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_FIELD);
	sqe.flags = 3;
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_FIELD);
	sqe = driver_admin_command(NVME_ADMIN_IDENTIFY, 0, data, 1, 0);
	sqe.flags = 1 << 6;
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), NVME_INVALID_FIELD);
	driver_close(&d);
}

/* ------------------------------------------------------------------ zeroes, holes */

static void test_write_zeroes(void)
{
	begin_spec("mem:1M");
	fill_disk(0, 64, 7);
	CHECK_EQ(run(NVME_IO_WRITE_ZEROES, 8, 8, 0), 0);
	CHECK_EQ(disk_byte(8 * 512 - 1), 7);
	CHECK_EQ(disk_byte(8 * 512), 0);
	CHECK_EQ(disk_byte(16 * 512 - 1), 0);
	CHECK_EQ(disk_byte(16 * 512), 7);
	driver_close(&d);
}

static uint16_t deallocate(unsigned count, uint32_t attributes)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_IO_DATASET, 1, data, count - 1, attributes);

	sqe.prp2 = put64(data + 4096);
	return driver_run(&q, &sqe, NULL);
}

static void test_dataset_management(void)
{
	struct nvme_dsm_range *list;

	begin_spec("mem:1M");
	list = (struct nvme_dsm_range *)at(0);
	fill_disk(0, 2048, 7);
	for (unsigned i = 0; i < 256; i++)
		list[i] = (struct nvme_dsm_range){.lba = put64(i * 8), .blocks = put32(i % 2 ? 4 : 8)};
	CHECK_EQ(deallocate(256, 0), 0);
	CHECK_EQ(disk_byte(0), 7); /* only hints */
	CHECK_EQ(deallocate(256, 4), 0);
	CHECK_EQ(disk_byte(7 * 512), 0);
	CHECK_EQ(disk_byte(11 * 512), 0);
	CHECK_EQ(disk_byte(12 * 512), 7);
	CHECK_EQ(disk_byte(2047 * 512), 7);
	fill_disk(0, 2048, 7);
	list[1].blocks = put32(2041); /* one too many: nothing is done */
	CHECK_EQ(deallocate(2, 4), NVME_LBA_OUT_OF_RANGE);
	CHECK_EQ(disk_byte(0), 7);
	list[1].lba = put64(UINT64_MAX);
	CHECK_EQ(deallocate(2, 4), NVME_LBA_OUT_OF_RANGE);
	driver_close(&d);
}

/* Reads of what is deallocated fail where the host wants it so. */
static void test_dulbe(void)
{
	begin_spec("mem:1M");
	fill_disk(0, 8, 7);
	CHECK_EQ(run(NVME_IO_READ, 8, 8, 0), 0);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ERROR_RECOVERY, 1, 1 << 16), 0);
	CHECK_EQ(run(NVME_IO_READ, 0, 8, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 0, 16, 0), NVME_DEALLOCATED);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ERROR_RECOVERY, 1, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 0, 16, 0), 0);
	driver_close(&d);
}

static void test_write_uncorrectable(void)
{
	struct nvme_sqe sqe;
	struct driver_result r;
	void *page;

	begin_spec("mem:1M");
	fill_disk(0, 64, 7);
	CHECK_EQ(run(NVME_IO_WRITE_UNCORRECTABLE, 10, 4, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 0, 10, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 14, 2, 0), 0);
	CHECK_EQ(run(NVME_IO_VERIFY, 0, 64, 0), NVME_UNRECOVERED_READ);
	CHECK_EQ(run(NVME_IO_COMPARE, 13, 1, 0), NVME_UNRECOVERED_READ);
	sqe = driver_rw(NVME_IO_READ, 1, 8, 8, data, 0);
	CHECK_EQ(driver_run(&q, &sqe, &r), NVME_UNRECOVERED_READ);
	CHECK_EQ(driver_log(&d, NVME_LOG_ERRORS, 0, 64, 0, false, &page), 0);
	CHECK_EQ(get64(((struct nvme_log_error *)page)->lba), 10);
	/* writing makes them good again, some at a time */
	CHECK_EQ(run(NVME_IO_WRITE, 11, 2, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 11, 2, 0), 0);
	CHECK_EQ(run(NVME_IO_READ, 10, 1, 0), NVME_UNRECOVERED_READ);
	CHECK_EQ(run(NVME_IO_READ, 13, 1, 0), NVME_UNRECOVERED_READ);
	CHECK_EQ(run(NVME_IO_WRITE_ZEROES, 0, 64, 0), 0);
	CHECK_EQ(run(NVME_IO_VERIFY, 0, 64, 0), 0);
	driver_close(&d);
}

/* Against a map of blocks. */
static void test_uncorrectable_ranges(void)
{
	bool bad[256] = {false};
	uint32_t state = 1;

	begin_spec("mem:1M");
	for (unsigned i = 0; i < rounds(2000); i++) {
		unsigned lba, blocks;
		bool expected = false;
		state = state * 1103515245 + 12345;
		lba = state >> 16 & 255;
		blocks = 1 + (state >> 8 & 15);
		if (lba + blocks > 256)
			continue;
		for (unsigned j = 0; j < blocks; j++)
			expected |= bad[lba + j];
		if (state >> 28 < 6) {
			CHECK_EQ(run(NVME_IO_READ, lba, blocks, 0), expected ? NVME_UNRECOVERED_READ : 0);
			continue;
		}
		expected = state >> 28 & 1;
		CHECK_EQ(run(expected ? NVME_IO_WRITE_UNCORRECTABLE : NVME_IO_WRITE, lba, blocks, 0), 0);
		memset(bad + lba, expected, blocks);
	}
	driver_close(&d);
}

/* ------------------------------------------------------------------ compare */

static void test_compare(void)
{
	begin_spec("mem:1M");
	fill_disk(0, 16, 7);
	memset(at(0), 7, 8192);
	CHECK_EQ(run(NVME_IO_COMPARE, 0, 16, 0), 0);
	*at(8191) = 8;
	CHECK_EQ(run(NVME_IO_COMPARE, 0, 16, 0), NVME_COMPARE_FAILURE);
	CHECK_EQ(run(NVME_IO_COMPARE, 0, 15, 0), 0);
	driver_close(&d);
}

/* Compare and Write with what lies at `data` and `data` + 4096; the two statuses. */
static void fused(uint64_t lba, unsigned blocks, uint16_t *compare, uint16_t *write)
{
	struct nvme_sqe first = driver_rw(NVME_IO_COMPARE, 1, lba, blocks, data, 0);
	struct nvme_sqe second = driver_rw(NVME_IO_WRITE, 1, lba, blocks, data + 4096, 0);
	struct driver_result r;
	uint16_t cid;

	first.flags = NVME_FUSE_FIRST;
	second.flags = NVME_FUSE_SECOND;
	cid = driver_submit(&q, &first);
	driver_submit(&q, &second);
	driver_ring(&q);
	for (unsigned i = 0; i < 2; i++) {
		if (!CHECK(driver_wait(&q, &r)))
			return;
		*(r.cid == cid ? compare : write) = r.status;
	}
}

static void test_compare_and_write(void)
{
	uint16_t compare = 0xffff, write = 0xffff;

	begin_spec("mem:1M");
	memset(at(4096), 9, 4096);
	fused(3, 1, &compare, &write);
	CHECK_EQ(compare, 0);
	CHECK_EQ(write, 0);
	CHECK_EQ(disk_byte(3 * 512), 9);
	CHECK_EQ(disk_byte(4 * 512), 0);
	memset(at(4096), 10, 4096);
	fused(3, 1, &compare, &write);
	CHECK_EQ(compare, NVME_COMPARE_FAILURE);
	CHECK_EQ(write, NVME_ABORT_FAILED_FUSED);
	CHECK_EQ(disk_byte(3 * 512), 9);
	fused(3, 2, &compare, &write);
	CHECK_EQ(compare, NVME_ATOMIC_UNIT_EXCEEDED);
	CHECK_EQ(write, NVME_ABORT_FAILED_FUSED);
	driver_close(&d);
}

static void test_half_a_fused_pair(void)
{
	struct nvme_sqe sqe;

	begin_spec("mem:1M");
	sqe = driver_rw(NVME_IO_COMPARE, 1, 0, 1, data, 0);
	sqe.flags = NVME_FUSE_FIRST;
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_ABORT_MISSING_FUSED);
	sqe = driver_rw(NVME_IO_WRITE, 1, 0, 1, data, 0);
	sqe.flags = NVME_FUSE_SECOND;
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_ABORT_MISSING_FUSED);
	sqe = driver_rw(NVME_IO_COMPARE, 1, 0, 1, data, 0);
	sqe.flags = NVME_FUSE_FIRST;
	driver_submit(&q, &sqe);
	sqe.flags = 0;
	driver_submit(&q, &sqe);
	driver_ring(&q);
	for (unsigned i = 0; i < 2; i++) {
		struct driver_result r;
		REQUIRE(driver_wait(&q, &r));
		CHECK_EQ(r.status, r.cid % 2 ? 0 : NVME_ABORT_MISSING_FUSED);
	}
	driver_close(&d);
}

static void test_pair_that_does_not_match(void)
{
	struct nvme_sqe first, second;
	struct driver_result r;
	uint16_t statuses[2] = {0};

	begin_spec("mem:1M");
	first = driver_rw(NVME_IO_COMPARE, 1, 0, 1, data, 0);
	second = driver_rw(NVME_IO_WRITE, 1, 1, 1, data, 0);
	first.flags = NVME_FUSE_FIRST;
	second.flags = NVME_FUSE_SECOND;
	driver_submit(&q, &first);
	driver_submit(&q, &second);
	driver_ring(&q);
	for (unsigned i = 0; i < 2; i++) {
		REQUIRE(driver_wait(&q, &r));
		statuses[r.cid % 2] = r.status;
	}
	CHECK_EQ(statuses[0], NVME_INVALID_FIELD);
	CHECK_EQ(statuses[1], NVME_ABORT_FAILED_FUSED);
	driver_close(&d);
}

/* Two queues on two loops count up in one block by Compare and Write: no step is lost. */
struct counter {
	struct driver_queue queue;
	uint64_t data;
	unsigned steps;
};

static uint16_t count_once(struct counter *c)
{
	struct nvme_sqe first = driver_rw(NVME_IO_COMPARE, 1, 0, 1, c->data, 0);
	struct nvme_sqe second = driver_rw(NVME_IO_WRITE, 1, 0, 1, c->data + 4096, 0);
	struct driver_result r;
	uint16_t status = 0;

	first.flags = NVME_FUSE_FIRST;
	second.flags = NVME_FUSE_SECOND;
	driver_submit(&c->queue, &first);
	driver_submit(&c->queue, &second);
	driver_ring(&c->queue);
	for (unsigned i = 0; i < 2; i++) {
		if (!CHECK(driver_wait(&c->queue, &r)))
			return 0xffff;
		status |= r.status;
	}
	return status;
}

static void *count_up(void *argument)
{
	struct counter *c = argument;
	struct nvme_sqe read = driver_rw(NVME_IO_READ, 1, 0, 1, c->data, 0);

	for (unsigned i = 0; i < c->steps;) {
		uint16_t status;
		if (!CHECK_EQ(driver_run(&c->queue, &read, NULL), 0))
			break;
		memcpy(guest_at(&d.guest, c->data + 4096), guest_at(&d.guest, c->data), 512);
		++*(uint32_t *)guest_at(&d.guest, c->data + 4096);
		status = count_once(c);
		if (status == 0xffff)
			break;
		i += !status;
	}
	return NULL;
}

static void test_compare_and_write_is_one_step(void)
{
	static struct counter counters[2];
	pthread_t threads[2];

	driver_open(&d, NULL, 2);
	disk = open_spec("mem:1M");
	driver_add_disk(&d, disk, NULL);
	CHECK(driver_enable(&d, 16, 12));
	for (unsigned i = 0; i < 2; i++) {
		counters[i] = (struct counter){.data = guest_alloc(&d.guest, 8192, 4096), .steps = rounds(400)};
		CHECK_EQ(driver_create_pair(&d, &counters[i].queue, i + 1, 16), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		threads_start(&threads[i], 1, count_up, &counters[i]);
	threads_join(threads, 2);
	CHECK_EQ((disk_byte(0) & 255) | (disk_byte(1) & 255) << 8, 2 * rounds(400));
	driver_close(&d);
}

/* ------------------------------------------------------------------ copy */

static uint16_t copy_to(uint64_t lba, unsigned ranges, struct driver_result *r)
{
	struct nvme_sqe sqe = driver_rw(NVME_IO_COPY, 1, lba, ranges, data, data + 4096);

	return driver_run(&q, &sqe, r);
}

static void test_copy(void)
{
	struct nvme_copy_range *list;
	struct driver_result r;

	begin_spec("mem:8M");
	list = (struct nvme_copy_range *)at(0);
	for (unsigned i = 0; i < 16; i++)
		fill_disk(i, 1, (int)i + 1);
	list[0] = (struct nvme_copy_range){.lba = put64(4), .blocks = put16(1)};
	list[1] = (struct nvme_copy_range){.lba = put64(0), .blocks = put16(3)};
	CHECK_EQ(copy_to(100, 2, &r), 0);
	CHECK_EQ(r.dw0, 2);
	CHECK_EQ(disk_byte(100 * 512), 5);
	CHECK_EQ(disk_byte(101 * 512), 6);
	CHECK_EQ(disk_byte(102 * 512), 1);
	CHECK_EQ(disk_byte(105 * 512), 4);
	CHECK_EQ(disk_byte(106 * 512), 0);
	CHECK_EQ(copy_to(1, 2, &r), 0); /* onto its own source */
	CHECK_EQ(disk_byte(1 * 512), 5);
	CHECK_EQ(disk_byte(3 * 512), 1);
	CHECK_EQ(disk_byte(6 * 512), 4);
	list[0].blocks = put16(2048); /* one more than MSSRL */
	CHECK_EQ(copy_to(0, 1, &r), NVME_SIZE_LIMIT_EXCEEDED);
	CHECK_EQ(copy_to(0, 129, &r), NVME_SIZE_LIMIT_EXCEEDED);
	for (unsigned i = 0; i < 5; i++)
		list[i] = (struct nvme_copy_range){.blocks = put16(2047)};
	CHECK_EQ(copy_to(0, 4, &r), 0);
	CHECK_EQ(copy_to(0, 5, &r), NVME_SIZE_LIMIT_EXCEEDED); /* more than MCL */
	list[0].lba = put64(16384 - 2047);
	CHECK_EQ(copy_to(0, 1, &r), NVME_LBA_OUT_OF_RANGE);
	list[0].lba = put64(0);
	CHECK_EQ(copy_to(16384 - 2047, 1, &r), NVME_LBA_OUT_OF_RANGE);
	driver_close(&d);
}

/* ------------------------------------------------------------------ 4096-byte blocks */

static void blocks_of_4096(struct disk *under, uint32_t block_size)
{
	struct nvme_id_namespace *id;
	void *page;

	begin(under, &(const struct nvme_namespace_options){.block_size = block_size});
	CHECK_EQ(driver_identify(&d, 0, 1, &page), 0);
	id = page;
	CHECK_EQ(get64(id->nsze), 256);
	CHECK_EQ(id->lbaf[id->flbas & 15].lbads, 12);
	memset(at(0), 6, 8192);
	CHECK_EQ(run(NVME_IO_WRITE, 254, 2, 0), 0);
	CHECK_EQ(run(NVME_IO_WRITE, 255, 2, 0), NVME_LBA_OUT_OF_RANGE);
	CHECK_EQ(disk_byte(254 * 4096 - 1), 0);
	CHECK_EQ(disk_byte(254 * 4096), 6);
	driver_close(&d);
}

static void test_blocks_of_4096(void)
{
	blocks_of_4096(open_spec("mem:1M;block=4096"), 0);
	blocks_of_4096(open_spec("mem:1M"), 4096);
}

int main(void)
{
	TAP_RUN(test_read_and_write);
	TAP_RUN(test_ranges);
	TAP_RUN(test_flags_reach_the_disk);
	TAP_RUN(test_flush);
	TAP_RUN(test_statuses);
	TAP_RUN(test_read_only);
	TAP_RUN(test_unknown_commands);
	TAP_RUN(test_reserved_flags);
	TAP_RUN(test_write_zeroes);
	TAP_RUN(test_dataset_management);
	TAP_RUN(test_dulbe);
	TAP_RUN(test_write_uncorrectable);
	TAP_RUN(test_uncorrectable_ranges);
	TAP_RUN(test_compare);
	TAP_RUN(test_compare_and_write);
	TAP_RUN(test_half_a_fused_pair);
	TAP_RUN(test_pair_that_does_not_match);
	TAP_RUN(test_compare_and_write_is_one_step);
	TAP_RUN(test_copy);
	TAP_RUN(test_blocks_of_4096);
	return TAP_DONE();
}
