/* SPDX-License-Identifier: BSD-3-Clause */
/* PRPs and SGLs: every way to describe a buffer, against a flat copy; and what must be refused. */
#include <stdlib.h>

#include "core/checkers.h"
#include "core/open.h"
#include "tests/loops.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"

enum { DISK_BYTES = 4 << 20, MOST = 1 << 20 };

static struct driver d;
static struct driver_queue q;
static struct disk *disk; /* the namespace's, which outlives the test's use of it */
static unsigned page;     /* bytes */
static uint64_t random_state = 88172645463325252u;

static uint64_t random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static unsigned below(unsigned limit)
{
	return (unsigned)(random64() % limit);
}

static void open_with_pages(unsigned shift)
{
	CLEANUP_ERROR struct error err = {0};

	driver_open(&d, NULL, 1);
	if (disk_open("mem:4M", 0, &disk, &err))
		abort();
	driver_add_disk(&d, disk, NULL);
	CHECK(driver_enable(&d, 16, shift));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
	page = 1u << shift;
}

/* ------------------------------------------------------------------ lists in guest memory */

/* A buffer that is all over guest memory, as a list of pieces. */
struct piece {
	uint64_t address;
	size_t size;
};

static struct piece pieces[MOST / 4096 + 2];
static size_t nr_pieces;

static uint64_t somewhere(size_t size)
{
	static const uint64_t bases[] = {GUEST_RAM + (8 << 20), GUEST_SPLIT, GUEST_SPLIT_MIDDLE - (512 << 10)};
	unsigned base = below(3);
	size_t room = base ? 1 << 20 : 20 << 20;

	return (bases[base] + below((unsigned)(room - size))) & ~UINT64_C(3);
}

/* As PRPs have it: the first piece ends with its page, the others are whole pages. */
static void scatter_pages(size_t size)
{
	size_t offset = below(2) ? below(page / 4) * 4 : 0;

	nr_pieces = 0;
	while (size) {
		size_t n = page - offset < size ? page - offset : size;
		pieces[nr_pieces++] = (struct piece){(somewhere(page) & ~(uint64_t)(page - 1)) + offset, n};
		size -= n;
		offset = 0;
	}
}

/* Puts a list of pages from pieces[1] on into guest memory; where it begins. */
static uint64_t write_list(void)
{
	size_t left = nr_pieces - 1, entries = page / 8, offset = below(2) ? below((unsigned)entries - 1) : 0, next = 1;
	uint64_t at = guest_alloc(&d.guest, page, page), first = at + offset * 8;

	while (left) {
		struct le64 *list = guest_at(&d.guest, at);
		size_t here = entries - offset < left ? entries - offset - 1 : left; /* the last one leads on */
		for (size_t i = 0; i < here; i++)
			list[offset + i] = put64(pieces[next++].address);
		left -= here;
		if (left) {
			at = guest_alloc(&d.guest, page, page);
			list[entries - 1] = put64(at);
		}
		offset = 0;
	}
	return first;
}

static void describe_by_prps(struct nvme_sqe *sqe)
{
	sqe->prp1 = put64(pieces[0].address);
	sqe->prp2 = put64(nr_pieces == 1 ? random64() : nr_pieces == 2 ? pieces[1].address : write_list());
}

static struct nvme_sgl sgl(unsigned type, uint64_t address, size_t length)
{
	return (struct nvme_sgl){.address = put64(address), .length = put32(length), .type = (uint8_t)(type << 4)};
}

/* Pieces of any size at any byte, in segments of any number of descriptors. */
static void scatter_bytes(size_t size)
{
	nr_pieces = 0;
	while (size) {
		size_t n = 1 + below(nr_pieces < 200 ? 9000 : 60000);
		if (n > size)
			n = size;
		pieces[nr_pieces++] = (struct piece){somewhere(n) | below(4), n};
		size -= n;
	}
}

static void describe_by_sgl(struct nvme_sqe *sqe)
{
	struct nvme_sgl *entry = NULL;
	uint64_t at;
	size_t next = 0;

	sqe->flags = (uint8_t)((1 + below(2)) << 6);
	if (nr_pieces == 1 && below(2)) {
		struct nvme_sgl only = sgl(NVME_SGL_DATA, pieces[0].address, pieces[0].size);
		memcpy(&sqe->prp1, &only, sizeof(only));
		return;
	}
	while (next < nr_pieces) {
		size_t left = nr_pieces - next, here = 1 + below(40);
		struct nvme_sgl segment;
		bool last = here >= left;
		if (last)
			here = left;
		at = guest_alloc(&d.guest, (here + 1) * 16, 16);
		segment = sgl(last ? NVME_SGL_LAST_SEGMENT : NVME_SGL_SEGMENT, at, (here + !last) * 16);
		memcpy(entry ? (void *)entry : (void *)&sqe->prp1, &segment, sizeof(segment));
		entry = guest_at(&d.guest, at);
		for (size_t i = 0; i < here; i++, next++)
			*entry++ = sgl(NVME_SGL_DATA, pieces[next].address, pieces[next].size);
	}
}

/* The buffer as one, in either direction. Pieces may overlap, so content is compared where it was put last. */
static char *guest_byte(uint64_t address)
{
	return guest_at(&d.guest, address);
}

static void fill_pieces(char *flat)
{
	size_t at = 0;

	for (size_t i = 0; i < nr_pieces; i++)
		for (size_t j = 0; j < pieces[i].size; j++)
			*guest_byte(pieces[i].address + j) = (char)random64();
	for (size_t i = 0; i < nr_pieces; i++)
		for (size_t j = 0; j < pieces[i].size; j++)
			flat[at++] = *guest_byte(pieces[i].address + j);
}

static bool overlap(void)
{
	for (size_t i = 0; i < nr_pieces; i++)
		for (size_t j = 0; j < i; j++)
			if (pieces[i].address < pieces[j].address + pieces[j].size &&
			    pieces[j].address < pieces[i].address + pieces[i].size)
				return true;
	return false;
}

static bool pieces_equal(const char *flat)
{
	size_t at = 0;

	for (size_t i = 0; i < nr_pieces; i++)
		for (size_t j = 0; j < pieces[i].size; j++)
			if (flat[at++] != *guest_byte(pieces[i].address + j))
				return false;
	return true;
}

/* One write and one read of a random range through random lists, beside the disk itself. */
static void torture_once(void (*scatter)(size_t size), void (*describe)(struct nvme_sqe *sqe), size_t most)
{
	unsigned blocks = 1 + below((unsigned)most / 512), lba = below(DISK_BYTES / 512 - blocks);
	struct nvme_sqe sqe = driver_rw(NVME_IO_WRITE, 1, lba, blocks, 0, 0);
	char *flat = malloc(blocks * 512ul), *back = malloc(blocks * 512ul);
	struct vec v = VEC_FLAT(back, blocks * 512ul);
	uint64_t free_before = d.guest.next;

	scatter(blocks * 512ul);
	fill_pieces(flat);
	describe(&sqe);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(disk_read(disk, &v, lba * 512ul, &io_plain), 0);
	CHECK_MEM(flat, back, blocks * 512ul);
	do
		scatter(blocks * 512ul);
	while (overlap());
	sqe.opcode = NVME_IO_READ;
	sqe.flags = 0;
	describe(&sqe);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK(pieces_equal(flat));
	d.guest.next = free_before;
	free(flat);
	free(back);
}

static void test_prps(void)
{
	for (unsigned shift = 12; shift <= 16; shift += 2) {
		open_with_pages(shift);
		for (unsigned i = 0; i < rounds(150); i++)
			torture_once(scatter_pages, describe_by_prps, i % 3 ? 64 << 10 : shift == 16 ? 512 << 10 : 200 << 10);
		driver_close(&d);
	}
}

/* A list over several pages: 1 MiB in pages of 4 KiB is 257 entries, from an offset on. */
static void test_prp_list_that_chains(void)
{
	struct nvme_sqe sqe = driver_rw(NVME_IO_WRITE, 1, 0, 2048, 0, 0);
	char *back = malloc(1 << 20);
	struct vec v = VEC_FLAT(back, 1 << 20);
	uint64_t list, data;
	struct le64 *entries;

	open_with_pages(12);
	list = guest_alloc(&d.guest, 3 * 4096, 4096);
	data = guest_alloc(&d.guest, 2 << 20, 4096);
	entries = guest_at(&d.guest, list);
	/* two entries on the first page, of which the second leads to the second page, and so on */
	entries[510] = put64(data + 4096);
	entries[511] = put64(list + 4096);
	for (unsigned i = 0; i < 254; i++)
		entries[512 + i] = put64(data + (i + 2) * 4096);
	for (unsigned i = 0; i < 1 << 20; i++)
		*guest_byte(data + i) = (char)random64();
	sqe.prp1 = put64(data);
	sqe.prp2 = put64(list + 4096 - 16);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(disk_read(disk, &v, 0, &io_plain), 0);
	CHECK_MEM(back, guest_byte(data), 1 << 20);
	free(back);
	driver_close(&d);
}

static void test_sgls(void)
{
	open_with_pages(12);
	for (unsigned i = 0; i < rounds(150); i++)
		torture_once(scatter_bytes, describe_by_sgl, i % 3 ? 64 << 10 : 300 << 10);
	driver_close(&d);
}

/* ------------------------------------------------------------------ what is refused */

static uint16_t run_prps(uint64_t prp1, uint64_t prp2, unsigned blocks)
{
	struct nvme_sqe sqe = driver_rw(NVME_IO_READ, 1, 0, blocks, prp1, prp2);

	return driver_run(&q, &sqe, NULL);
}

static void test_bad_prps(void)
{
	uint64_t list;

	open_with_pages(12);
	list = guest_alloc(&d.guest, 4096, 4096);
	CHECK_EQ(run_prps(GUEST_RAM + 1, 0, 1), NVME_PRP_INVALID_OFFSET);
	CHECK_EQ(run_prps(GUEST_RAM + 4, GUEST_RAM + 4096 + 4, 8), NVME_PRP_INVALID_OFFSET);
	CHECK_EQ(run_prps(GUEST_RAM, list + 4, 24), NVME_PRP_INVALID_OFFSET);
	*(struct le64 *)guest_at(&d.guest, list) = put64(GUEST_RAM + 8);
	CHECK_EQ(run_prps(GUEST_RAM, list, 24), NVME_PRP_INVALID_OFFSET);
	CHECK_EQ(run_prps(GUEST_NOWHERE, 0, 1), NVME_DATA_TRANSFER_ERROR);
	CHECK_EQ(run_prps(UINT64_MAX & ~UINT64_C(0xfff), GUEST_RAM, 16), NVME_DATA_TRANSFER_ERROR);
	CHECK_EQ(run_prps(GUEST_RAM, GUEST_NOWHERE, 24), NVME_DATA_TRANSFER_ERROR);
	CHECK_EQ(run_prps(GUEST_RAM, GUEST_NOWHERE, 16), NVME_DATA_TRANSFER_ERROR);
	CHECK_EQ(run_prps(GUEST_ROM, 0, 1), NVME_DATA_TRANSFER_ERROR); /* a read of the disk writes there */
	CHECK_EQ(run_prps(GUEST_RAM, list, 2049), NVME_INVALID_FIELD);  /* more than MDTS */
	driver_close(&d);
}

/* A list of which every page leads to itself describes as much as its entries do, and ends with the data. */
static void test_prp_list_in_a_circle(void)
{
	struct le64 *entries;
	uint64_t list;

	open_with_pages(12);
	list = guest_alloc(&d.guest, 4096, 4096);
	entries = guest_at(&d.guest, list);
	for (unsigned i = 0; i < 512; i++)
		entries[i] = put64(list);
	CHECK_EQ(run_prps(GUEST_RAM + (4 << 20), list + 4096 - 8, 64), 0);
	driver_close(&d);
}

static uint16_t run_sgl(struct nvme_sgl first, uint8_t opcode, unsigned blocks)
{
	struct nvme_sqe sqe = driver_rw(opcode, 1, 0, blocks, 0, 0);

	sqe.flags = 1 << 6;
	memcpy(&sqe.prp1, &first, sizeof(first));
	return driver_run(&q, &sqe, NULL);
}

static void test_bad_sgls(void)
{
	struct nvme_sgl *list, odd;
	uint64_t at;

	open_with_pages(12);
	at = guest_alloc(&d.guest, 4096, 4096);
	list = guest_at(&d.guest, at);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_DATA, GUEST_RAM, 512), NVME_IO_READ, 2), NVME_SGL_INVALID_LENGTH);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_DATA, GUEST_RAM, 99999), NVME_IO_READ, 2), 0); /* longer is fine */
	CHECK_EQ(run_sgl(sgl(5, GUEST_RAM, 512), NVME_IO_READ, 1), NVME_SGL_INVALID_TYPE);
	odd = sgl(NVME_SGL_DATA, GUEST_RAM, 512);
	odd.type |= 1;
	CHECK_EQ(run_sgl(odd, NVME_IO_READ, 1), NVME_SGL_INVALID_TYPE);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 15), NVME_IO_READ, 1), NVME_SGL_INVALID_SEGMENT);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 0), NVME_IO_READ, 1), NVME_SGL_INVALID_SEGMENT);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_LAST_SEGMENT, GUEST_NOWHERE, 32), NVME_IO_READ, 1), NVME_DATA_TRANSFER_ERROR);
	list[0] = sgl(NVME_SGL_DATA, GUEST_RAM, 100);
	list[1] = sgl(NVME_SGL_DATA, GUEST_RAM, 412);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_LAST_SEGMENT, at, 32), NVME_IO_READ, 1), 0);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 32), NVME_IO_READ, 1), NVME_SGL_INVALID_SEGMENT); /* leads nowhere */
	list[1] = sgl(NVME_SGL_LAST_SEGMENT, at, 16);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_LAST_SEGMENT, at, 32), NVME_IO_READ, 1), NVME_SGL_INVALID_SEGMENT);
	list[0] = sgl(NVME_SGL_SEGMENT, at, 16); /* not the last of its segment */
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 32), NVME_IO_READ, 1), NVME_SGL_INVALID_SEGMENT);
	driver_close(&d);
}

static void test_sgl_in_a_circle(void)
{
	struct nvme_sgl *list;
	uint64_t at;

	open_with_pages(12);
	at = guest_alloc(&d.guest, 4096, 4096);
	list = guest_at(&d.guest, at);
	list[0] = sgl(NVME_SGL_DATA, GUEST_RAM, 0);
	list[1] = sgl(NVME_SGL_SEGMENT, at, 32);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 32), NVME_IO_READ, 1), NVME_SGL_INVALID_COUNT);
	list[0] = sgl(NVME_SGL_SEGMENT, at, 16);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_SEGMENT, at, 16), NVME_IO_READ, 1), NVME_SGL_INVALID_COUNT);
	driver_close(&d);
}

/* ------------------------------------------------------------------ special places */

/* What falls into the bucket is nowhere; what is written does not come from it. */
static void test_bit_bucket(void)
{
	struct nvme_sgl *list;
	uint64_t at, data;
	char block[1024];
	struct vec v = VEC_FLAT(block, 1024);

	open_with_pages(12);
	for (unsigned i = 0; i < 1024; i++)
		block[i] = (char)(i / 4 + 1);
	CHECK_EQ(disk_write(disk, &v, 0, &io_plain), 0);
	at = guest_alloc(&d.guest, 4096, 4096);
	data = guest_alloc(&d.guest, 4096, 4096);
	list = guest_at(&d.guest, at);
	list[0] = sgl(NVME_SGL_DATA, data, 100);
	list[1] = sgl(NVME_SGL_BUCKET, GUEST_NOWHERE, 824);
	list[2] = sgl(NVME_SGL_DATA, data + 100, 100);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_LAST_SEGMENT, at, 48), NVME_IO_READ, 2), 0);
	CHECK_MEM(guest_at(&d.guest, data), block, 100);
	CHECK_MEM(guest_at(&d.guest, data + 100), block + 924, 100);
	list[2] = sgl(NVME_SGL_DATA, data + 100, 412);
	CHECK_EQ(run_sgl(sgl(NVME_SGL_LAST_SEGMENT, at, 48), NVME_IO_WRITE, 1), 0);
	CHECK_EQ(disk_read(disk, &v, 0, &io_plain), 0);
	CHECK_MEM(block, guest_at(&d.guest, data), 512);
	driver_close(&d);
}

#ifndef CHECKERS_TSAN
/* Memory that can only be copied is bounced, alone and beside memory that is mapped. */
static void test_memory_that_is_copied(void)
{
	struct nvme_sqe sqe;
	uint64_t mapped;

	open_with_pages(12);
	mapped = guest_alloc(&d.guest, 4096, 4096);
	memset(guest_byte(GUEST_UNMAPPED), 7, 4096);
	memset(guest_byte(mapped), 8, 4096);
	sqe = driver_rw(NVME_IO_WRITE, 1, 0, 16, GUEST_UNMAPPED, mapped);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	sqe = driver_rw(NVME_IO_READ, 1, 0, 16, mapped, GUEST_UNMAPPED + 4096);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(*guest_byte(mapped + 4095), 7);
	CHECK_EQ(*guest_byte(GUEST_UNMAPPED + 4096), 8);
	CHECK_EQ(*guest_byte(GUEST_UNMAPPED + 8191), 8);
	CHECK(atomic_load(&d.guest.copies) >= 2);
	driver_close(&d);
}
#endif

/* Whoever takes memory away waits for those who use it. */
static void test_memory_is_held(void)
{
	struct nvme_counters counters = {0};
	struct nvme_sqe sqe;
	struct driver_result r;
	uint64_t to, start;

	driver_open(&d, NULL, 1);
	driver_add(&d, "delay:500:mem:1M", NULL);
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
	to = guest_alloc(&d.guest, 4096, 4096);
	sqe = driver_rw(NVME_IO_READ, 1, 0, 1, to, 0);
	driver_submit(&q, &sqe);
	driver_ring(&q);
	for (unsigned i = 0; i < 5000 && !counters.in_flight; i++) {
		wait_sleep(1000000);
		nvme_counters(d.c, &counters);
	}
	wait_sleep(20000000); /* it has begun */
	start = wait_now();
	grace_wait(&d.guest.holders);
	CHECK(wait_now() - start > 100000000);
	CHECK(driver_wait(&q, &r));
	driver_close(&d);
}

int main(void)
{
	TAP_RUN(test_prps);
	TAP_RUN(test_prp_list_that_chains);
	TAP_RUN(test_sgls);
	TAP_RUN(test_bad_prps);
	TAP_RUN(test_prp_list_in_a_circle);
	TAP_RUN(test_bad_sgls);
	TAP_RUN(test_sgl_in_a_circle);
	TAP_RUN(test_bit_bucket);
#ifndef CHECKERS_TSAN
	TAP_RUN(test_memory_that_is_copied);
#endif
	TAP_RUN(test_memory_is_held);
	return TAP_DONE();
}
