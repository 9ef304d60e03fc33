/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guests that mean ill: entries and registers of any content, from several threads, memory that changes while it is read or is
 * gone. Whatever they do, a reset leads out of it, and memory of ours is not touched (which is for sanitizers to say).
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/checkers.h"
#include "tests/loops.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"

#ifdef CHECKERS_TSAN
#define RACES __attribute__((no_sanitize_thread))
#else
#define RACES
#endif

static struct driver d;
static struct driver_queue q;
static _Atomic bool stop;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void begin(unsigned nr_loops)
{
	driver_open(&d, NULL, nr_loops);
	driver_add(&d, "mem:4M", NULL);
	driver_add(&d, "prwrap:mem:1M", NULL);
	d.guest.next = GUEST_RAM + (16 << 20); /* our rings are not where entries point to */
	CHECK(driver_enable(&d, 64, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
}

/* It can be reset and used. */
static void check_alive(void)
{
	struct nvme_sqe sqe;
	void *page;

	nvme_reset(d.c);
	d.guest.next = GUEST_RAM + (16 << 20);
	d.shadow = 0;
	CHECK(driver_enable(&d, 64, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
	CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
	sqe = driver_admin_command(NVME_IO_FLUSH, 1, 0, 0, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
}

/* ------------------------------------------------------------------ entries */

static uint64_t random_address(uint64_t *state)
{
	static const uint64_t bases[] = {GUEST_RAM, GUEST_RAM, GUEST_SPLIT_MIDDLE - 8192, GUEST_RAM + GUEST_RAM_BYTES - 8192,
					 GUEST_ROM, GUEST_NOWHERE, UINT64_MAX - 8192, 0};
	uint64_t r = next(state);

	return bases[r % 8] + (r >> 8 & 0xffff & (r >> 30 & 1 ? ~UINT64_C(0) : ~UINT64_C(4095)));
}

static struct nvme_sqe random_entry(uint64_t *state, bool admin)
{
	static const uint8_t admin_opcodes[] = {1, 2, 5, 6, 8, 9, 10, 0x14, 0x18, 0x80};
	static const uint8_t io_opcodes[] = {0, 1, 2, 4, 5, 8, 9, 0xc, 0xd, 0xe, 0x11, 0x15, 0x19};
	struct nvme_sqe sqe;
	uint64_t r = next(state);
	uint8_t *bytes = (uint8_t *)&sqe;

	for (unsigned i = 0; i < sizeof(sqe); i++)
		bytes[i] = (uint8_t)next(state);
	sqe.opcode = admin ? admin_opcodes[r % sizeof(admin_opcodes)] : io_opcodes[r % sizeof(io_opcodes)];
	sqe.nsid = put32(r >> 8 & 3);
	sqe.flags = r >> 12 & 7 ? 0 : (uint8_t)(r >> 16);
	sqe.prp1 = put64(random_address(state));
	sqe.prp2 = put64(random_address(state));
	if (r >> 24 & 1) {
		sqe.cdw10 = put32(get32(sqe.cdw10) & 0xff00ff);
		sqe.cdw11 = put32(0);
		sqe.cdw12 = put32(get32(sqe.cdw12) & 0x3ff);
	}
	if (admin && sqe.opcode == NVME_ADMIN_SET_FEATURES && (get32(sqe.cdw10) & 0xff) == NVME_FEATURE_KEEP_ALIVE)
		sqe.cdw11 = put32(0);
	return sqe;
}

static void feed(struct driver_queue *queue, uint64_t *state, unsigned count)
{
	struct driver_result r;

	for (unsigned i = 0; i < count; i++) {
		struct nvme_sqe sqe = random_entry(state, !queue->id);
		driver_submit(queue, &sqe);
	}
	driver_ring(queue);
	for (unsigned i = 0; i < count; i++)
		if (!CHECK(driver_wait(queue, &r)))
			return;
}

static void test_entries_of_any_content(void)
{
	uint64_t state = 4711;

	begin(2);
	for (uint64_t i = 0; i < 8192; i++)
		((uint64_t *)guest_at(&d.guest, GUEST_RAM + (4 << 20)))[i % 8192] = next(&state);
	for (unsigned i = 0; i < rounds(300); i++) {
		feed(&q, &state, 1 + next(&state) % 40);
		feed(&d.admin, &state, 1 + next(&state) % 4);
		if (i % 50 == 49) {
			check_alive();
			if (atomic_load(&tap_errors))
				break;
		}
	}
	driver_close(&d);
}

/* ------------------------------------------------------------------ registers */

static void *write_registers(void *argument)
{
	uint64_t state = (uint64_t)(uintptr_t)argument;

	while (!atomic_load(&stop)) {
		static const uint16_t offsets[] = {0x0c, 0x10, 0x14, 0x14, 0x14, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30};
		uint64_t r = next(&state), offset = offsets[r % 11];
		if (r >> 16 & 1)
			offset = NVME_REG_DOORBELLS + (r >> 20 & 0x1ff);
		nvme_bar_write(d.c, offset, r >> 17 & 1 ? 4 : 8, r >> 18 & 1 ? r >> 32 : r >> 32 & 0x460001);
		if (r >> 19 & 3)
			nvme_bar_read(d.c, r >> 40, 1 + (r >> 50 & 7));
		wait_yield();
	}
	return NULL;
}

static void test_registers_from_several_threads(void)
{
	pthread_t threads[3];

	begin(2);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < 3; i++)
		threads_start(&threads[i], 1, write_registers, (void *)(uintptr_t)(12345 + i));
	for (unsigned i = 0; i < 20; i++) {
		wait_sleep(10000000);
		nvme_reset(d.c);
	}
	atomic_store(&stop, true);
	threads_join(threads, 3);
	check_alive();
	driver_close(&d);
}

/* ------------------------------------------------------------------ memory that changes */

/* As another processor of the guest does it. */
RACES static void *change_memory(void *argument)
{
	uint64_t state = 99;
	volatile uint64_t *words = argument;

	while (!atomic_load(&stop))
		for (unsigned i = 0; i < 100; i++) {
			uint64_t r = next(&state);
			words[r % 1024] = r & 1 ? GUEST_RAM + (8 << 20) + (r >> 20 & 0xfff000) : r & 2 ? r : (r >> 20 & 0x2000000000000fff) | 16;
		}
	return NULL;
}

static void test_lists_that_change(void)
{
	uint64_t state = 7, lists;
	pthread_t thread;

	begin(1);
	lists = guest_alloc(&d.guest, 8192, 4096);
	atomic_store(&stop, false);
	threads_start(&thread, 1, change_memory, guest_at(&d.guest, lists));
	for (unsigned i = 0; i < rounds(2000); i++) {
		uint64_t r = next(&state);
		struct nvme_sqe sqe = driver_rw(r & 1 ? NVME_IO_READ : NVME_IO_WRITE, 1, r >> 10 & 1023, 1 + (r >> 20 & 0x3ff),
						GUEST_RAM + (8 << 20), lists + (r >> 32 & 0xff8));
		struct nvme_sgl sgl = {.address = put64(lists + (r >> 32 & 0xff0)), .length = put32(16 * (1 + (r >> 44 & 63))),
				       .type = r & 4 ? NVME_SGL_SEGMENT << 4 : NVME_SGL_LAST_SEGMENT << 4};
		if (r & 2) {
			sqe.flags = 1 << 6;
			memcpy(&sqe.prp1, &sgl, sizeof(sgl));
		}
		driver_run(&q, &sqe, NULL);
		if (atomic_load(&tap_errors))
			break;
	}
	atomic_store(&stop, true);
	threads_join(&thread, 1);
	driver_close(&d);
}

/* ------------------------------------------------------------------ memory that is gone */

/* Pages of a file that was cut off raise SIGBUS. */
static void test_lists_that_are_gone(void)
{
	int fd = open(tmpdir(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct nvme_sqe sqe;
	char *gone, *old;

	if (fd < 0 || ftruncate(fd, 1 << 20))
		SKIP("no unnamed files here");
	gone = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(gone != MAP_FAILED);
	begin(1);
	old = d.guest.regions[1].memory;
	d.guest.regions[1].memory = gone;
	CHECK_EQ(ftruncate(fd, 0), 0);
	sqe = driver_rw(NVME_IO_READ, 1, 0, 100, GUEST_RAM + (8 << 20), GUEST_SPLIT);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_DATA_TRANSFER_ERROR);
	sqe = driver_admin_command(NVME_ADMIN_IDENTIFY, 0, GUEST_SPLIT, 1, 0);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), NVME_DATA_TRANSFER_ERROR);
	sqe = driver_admin_command(NVME_IO_DATASET, 1, GUEST_SPLIT, 0, 4);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_DATA_TRANSFER_ERROR);
	sqe = driver_admin_command(NVME_ADMIN_CREATE_SQ, 0, GUEST_SPLIT, 2 | 7 << 16, 1 | 1 << 16);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	driver_write32(&d, NVME_REG_DOORBELLS + 16, 1);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS));
	check_alive();
	d.guest.regions[1].memory = old;
	driver_close(&d);
	munmap(gone, 1 << 20);
	close(fd);
}

int main(void)
{
	TAP_RUN(test_entries_of_any_content);
	TAP_RUN(test_registers_from_several_threads);
	TAP_RUN(test_lists_that_change);
	TAP_RUN(test_lists_that_are_gone);
	return TAP_DONE();
}
