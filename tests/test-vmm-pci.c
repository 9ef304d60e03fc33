/* SPDX-License-Identifier: BSD-3-Clause */
/* Configuration space as a driver finds it, and interrupts on their way to a client. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>

#include "tests/tap.h"
#include "vmm/interrupts.h"
#include "vmm/pci.h"

enum { VECTORS = 300 };

static const struct pci_options nvme_like = {
	.vendor = 0x1414,
	.device = 0xb111,
	.class_code = 0x010802,
	.bars = {[0] = {PCI_BAR_MEMORY64, 0x4000}, [4] = {PCI_BAR_MEMORY, 0x4000}},
	.vectors = VECTORS,
	.msix_bar = 4,
	.express = true,
};

static const struct pci_options ide_like = {
	.vendor = 0x8086,
	.device = 0x7010,
	.class_code = 0x01018f,
	.pin = 1,
	.bars = {{PCI_BAR_IO, 8}, {PCI_BAR_IO, 4}, {PCI_BAR_IO, 8}, {PCI_BAR_IO, 4}, {PCI_BAR_IO, 16}},
};

static struct pci p;

static uint32_t get(unsigned offset, size_t length)
{
	uint32_t value = 0;

	pci_read(&p, offset, &value, length);
	return value;
}

static unsigned put(unsigned offset, uint32_t value, size_t length)
{
	return pci_write(&p, offset, &value, length);
}

/* Where the capability is; 0: not in the list. */
static unsigned find_capability(unsigned id)
{
	unsigned at = get(PCI_CAPABILITIES, 1);

	for (unsigned i = 0; at && i < 48; i++, at = get(at + 1, 1))
		if (get(at, 1) == id)
			return at;
	return 0;
}

static void test_ids_and_class(void)
{
	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	CHECK_EQ(p.size, 4096);
	CHECK_EQ(get(PCI_VENDOR, 4), 0xb1111414);
	CHECK_EQ(get(PCI_CLASS, 3), 0x010802);
	CHECK_EQ(get(PCI_INTERRUPT_PIN, 1), 0);
	CHECK_EQ(get(0x100, 4), 0);
	put(PCI_VENDOR, 0, 4);
	CHECK_EQ(get(PCI_VENDOR, 4), 0xb1111414);
	pci_end(&p);
}

static void test_bars_tell_their_size(void)
{
	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	put(PCI_BAR, UINT32_MAX, 4);
	put(PCI_BAR + 4, UINT32_MAX, 4);
	CHECK_EQ(get(PCI_BAR, 4), 0xffffc004);
	CHECK_EQ(get(PCI_BAR + 4, 4), UINT32_MAX);
	put(PCI_BAR + 8, UINT32_MAX, 4);
	CHECK_EQ(get(PCI_BAR + 8, 4), 0);
	put(PCI_BAR + 16, 0xfebf1234, 4);
	CHECK_EQ(get(PCI_BAR + 16, 4), 0xfebf0000);
	pci_end(&p);
	REQUIRE(pci_begin(&p, &ide_like) == 0);
	CHECK_EQ(p.size, 256);
	put(PCI_BAR + 4, UINT32_MAX, 4);
	CHECK_EQ(get(PCI_BAR + 4, 4), 0xfffffffd);
	CHECK_EQ(get(PCI_INTERRUPT_PIN, 1), 1);
	CHECK_EQ(get(PCI_STATUS, 2), 0);
	pci_end(&p);
}

static void test_commands(void)
{
	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	CHECK(!pci_is_master(&p));
	CHECK_EQ(put(PCI_COMMAND, 0xffff, 2), PCI_WISH_COMMAND);
	CHECK_EQ(get(PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x140);
	CHECK(pci_is_master(&p));
	CHECK_EQ(put(PCI_COMMAND + 1, 0, 1), PCI_WISH_COMMAND);
	CHECK(pci_is_master(&p));
	CHECK_EQ(put(PCI_COMMAND, PCI_COMMAND_MEMORY, 1), PCI_WISH_COMMAND);
	CHECK(!pci_is_master(&p));
	pci_end(&p);
	REQUIRE(pci_begin(&p, &ide_like) == 0);
	put(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_NO_INTX, 2);
	CHECK(pci_intx_is_off(&p));
	pci_reset(&p);
	CHECK(!pci_intx_is_off(&p));
	pci_end(&p);
}

static void test_the_status_register_shows_the_line(void)
{
	REQUIRE(pci_begin(&p, &ide_like) == 0);
	pci_set_line(&p, true);
	CHECK_EQ(get(PCI_COMMAND, 4), 0x80000);
	CHECK_EQ(get(PCI_STATUS, 1), 8);
	CHECK_EQ(get(PCI_STATUS + 1, 1), 0);
	CHECK_EQ(get(PCI_COMMAND, 2), 0);
	pci_set_line(&p, false);
	CHECK_EQ(get(PCI_STATUS, 2), 0);
	pci_set_line(&p, true);
	pci_reset(&p);
	CHECK_EQ(get(PCI_STATUS, 2), 0);
	pci_end(&p);
}

static void test_msix_capability(void)
{
	unsigned at;

	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	at = find_capability(0x11);
	REQUIRE(at);
	CHECK_EQ(get(at + 2, 2), VECTORS - 1);
	CHECK_EQ(get(at + 4, 4), 4);
	CHECK_EQ(get(at + 8, 4), 0x2004);
	put(at + 2, 0xffff, 2);
	CHECK_EQ(get(at + 2, 2), 0xc000 | (VECTORS - 1));
	pci_end(&p);
}

static void test_msix_table(void)
{
	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	CHECK_EQ(pci_table_read(&p, 12, 4), 1);
	CHECK(!pci_vector_is_masked(&p, 0)); /* nobody has used the table */
	pci_table_write(&p, 16, 8, UINT64_C(0x1122334455667788));
	CHECK_EQ(pci_table_read(&p, 20, 4), 0x11223344);
	CHECK_EQ(pci_table_read(&p, 18, 2), 0x5566);
	CHECK(pci_vector_is_masked(&p, 1));
	pci_table_write(&p, 28, 4, 0);
	CHECK(!pci_vector_is_masked(&p, 1));
	pci_table_write(&p, 29, 4, 1);
	pci_table_write(&p, 28, 2, 1);
	CHECK(!pci_vector_is_masked(&p, 1));
	pci_table_write(&p, VECTORS * 16, 8, 1); /* behind it */
	CHECK_EQ(pci_table_read(&p, VECTORS * 16, 8), 0);
	CHECK_EQ(pci_table_read(&p, VECTORS * 16 - 4, 8), 1);
	CHECK(!pci_vector_is_masked(&p, VECTORS));
	pci_reset(&p);
	CHECK_EQ(pci_table_read(&p, 16, 8), 0);
	pci_end(&p);
}

static void test_function_level_reset(void)
{
	unsigned at;

	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	at = find_capability(0x10);
	REQUIRE(at);
	CHECK(get(at + 4, 4) >> 28 & 1);
	CHECK_EQ(put(at + 8, 0x2810, 2), 0);
	CHECK_EQ(put(at + 8, 0xa810, 2), PCI_WISH_RESET);
	CHECK_EQ(get(at + 8, 2), 0x2810);
	CHECK_EQ(put(at + 9, 0x80, 1), PCI_WISH_RESET);
	CHECK_EQ(put(at + 4, UINT32_MAX, 4), 0);
	pci_end(&p);
}

static void test_power_states(void)
{
	unsigned at;

	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	at = find_capability(0x01);
	REQUIRE(at);
	CHECK_EQ(put(at + 4, 3, 2), PCI_WISH_POWER);
	CHECK(pci_is_asleep(&p));
	CHECK_EQ(put(at + 4, 1, 2), 0); /* there is no D1 */
	CHECK(pci_is_asleep(&p));
	CHECK_EQ(get(at + 4, 2), 0x000b);
	CHECK_EQ(put(at + 4, 0, 2), PCI_WISH_POWER);
	CHECK(!pci_is_asleep(&p));
	pci_end(&p);
}

static void test_contradictions_are_refused(void)
{
	struct pci_options o = nvme_like;

	o.bars[1].type = PCI_BAR_MEMORY;
	o.bars[1].size = 4096;
	CHECK_EQ(pci_begin(&p, &o), -EINVAL);
	o = nvme_like;
	o.bars[4].size = 0x2000;
	CHECK_EQ(pci_begin(&p, &o), -EINVAL);
	o = nvme_like;
	o.bars[0].size = 3 << 12;
	CHECK_EQ(pci_begin(&p, &o), -EINVAL);
	o = nvme_like;
	o.vectors = PCI_MAX_VECTORS + 1;
	CHECK_EQ(pci_begin(&p, &o), -EINVAL);
}

/* Any write leaves what may not be written, and a reset gives the rest back. */
static void test_any_writes(void)
{
	uint8_t fresh[4096], now[4096];
	uint32_t state = 1;

	REQUIRE(pci_begin(&p, &nvme_like) == 0);
	pci_read(&p, 0, fresh, sizeof(fresh));
	for (unsigned i = 0; i < 20000; i++) {
		unsigned length = 1u << i % 3;
		state = state * 1664525 + 1013904223;
		pci_write(&p, (state >> 8) % (4096 - length + 1), &state, length);
	}
	pci_read(&p, 0, now, sizeof(now));
	for (unsigned i = 0; i < 256; i++)
		CHECK_EQ((now[i] ^ fresh[i]) & ~p.writable[i], 0);
	CHECK_MEM(now + 256, fresh + 256, sizeof(now) - 256);
	pci_reset(&p);
	pci_read(&p, 0, now, sizeof(now));
	CHECK_MEM(now, fresh, sizeof(now));
	pci_end(&p);
}

/* ------------------------------------------------------------------ interrupts */

static struct interrupts *make_interrupts(void)
{
	struct interrupts *i;

	if (interrupts_create(4, &i)) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return i;
}

/* What was counted since the last look. */
static uint64_t count(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static int make_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void test_a_vector_is_told_of(void)
{
	struct interrupts *i = make_interrupts();
	int fd = make_eventfd();

	interrupts_set_vector(i, 1, dup(fd));
	interrupts_raise(i, 1);
	interrupts_raise(i, 0);
	interrupts_raise(i, 4);
	CHECK_EQ(count(fd), 1);
	CHECK_EQ(interrupts_pending(i, 0), 1);
	interrupts_destroy(i);
	close(fd);
}

static void test_what_is_pending_is_told_later(void)
{
	struct interrupts *i = make_interrupts();
	int fd = make_eventfd();

	interrupts_raise(i, 2);
	interrupts_raise(i, 2);
	interrupts_set_vector(i, 2, dup(fd));
	CHECK_EQ(count(fd), 1);
	interrupts_mask(i, 2, true);
	interrupts_raise(i, 2);
	CHECK_EQ(count(fd), 0);
	CHECK_EQ(interrupts_pending(i, 0), 4);
	interrupts_mask(i, 2, false);
	CHECK_EQ(count(fd), 1);
	interrupts_mask(i, 2, false);
	CHECK_EQ(count(fd), 0);
	interrupts_destroy(i);
	close(fd);
}

static void test_the_line_is_told_once_until_it_is_unmasked(void)
{
	struct interrupts *i = make_interrupts();
	int fd = make_eventfd();

	interrupts_set_intx(i, dup(fd));
	interrupts_set_line(i, true);
	interrupts_set_line(i, true);
	CHECK_EQ(count(fd), 1);
	interrupts_set_line(i, false);
	interrupts_set_line(i, true);
	CHECK_EQ(count(fd), 0);
	interrupts_mask_intx(i, false);
	CHECK_EQ(count(fd), 1);
	interrupts_set_line(i, false);
	interrupts_mask_intx(i, false);
	CHECK_EQ(count(fd), 0);
	interrupts_set_line(i, true);
	CHECK_EQ(count(fd), 1);
	interrupts_destroy(i);
	close(fd);
}

static void test_intx_that_is_off_is_not_told(void)
{
	struct interrupts *i = make_interrupts();
	int fd = make_eventfd();

	interrupts_set_intx(i, dup(fd));
	interrupts_allow_intx(i, false);
	interrupts_set_line(i, true);
	interrupts_mask_intx(i, false);
	CHECK_EQ(count(fd), 0);
	interrupts_allow_intx(i, true);
	CHECK_EQ(count(fd), 1);
	interrupts_allow_intx(i, true);
	CHECK_EQ(count(fd), 0);
	interrupts_allow_intx(i, false);
	interrupts_reset(i);
	interrupts_set_line(i, true);
	CHECK_EQ(count(fd), 1);
	interrupts_destroy(i);
	close(fd);
}

static void test_only_eventfds_can_be_used(void)
{
	int ends[2], fd = eventfd(0, 0), file = open("/dev/null", O_RDWR | O_CLOEXEC);

	REQUIRE(pipe(ends) == 0);
	CHECK(interrupts_can_use(fd));
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK(!interrupts_can_use(ends[1]));
	CHECK(!interrupts_can_use(file));
	CHECK(!interrupts_can_use(-1));
	close(ends[0]);
	close(ends[1]);
	close(fd);
	close(file);
}

struct raiser {
	struct interrupts *i;
	_Atomic bool begun, stop;
};

static void *raise_main(void *argument)
{
	struct raiser *r = argument;

	while (!atomic_load(&r->stop)) {
		interrupts_raise(r->i, 3);
		atomic_store(&r->begun, true);
	}
	return NULL;
}

/* None is lost while descriptors come and go: the last one is told of, or pending. */
static void test_raising_while_descriptors_change(void)
{
	struct raiser r = {.i = make_interrupts()};
	int fd = make_eventfd();
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, raise_main, &r) == 0);
	while (!atomic_load(&r.begun))
		sched_yield();
	for (unsigned i = 0; i < 2000; i++) {
		interrupts_set_vector(r.i, 3, i % 3 ? dup(fd) : -1);
		interrupts_mask(r.i, 3, i % 5 == 0);
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	interrupts_mask(r.i, 3, false);
	interrupts_set_vector(r.i, 3, dup(fd));
	CHECK(count(fd) > 0);
	CHECK_EQ(interrupts_pending(r.i, 0), 0);
	interrupts_raise(r.i, 3);
	CHECK_EQ(count(fd), 1);
	interrupts_destroy(r.i);
	close(fd);
}

int main(void)
{
	TAP_RUN(test_ids_and_class);
	TAP_RUN(test_bars_tell_their_size);
	TAP_RUN(test_commands);
	TAP_RUN(test_the_status_register_shows_the_line);
	TAP_RUN(test_msix_capability);
	TAP_RUN(test_msix_table);
	TAP_RUN(test_function_level_reset);
	TAP_RUN(test_power_states);
	TAP_RUN(test_contradictions_are_refused);
	TAP_RUN(test_any_writes);
	TAP_RUN(test_a_vector_is_told_of);
	TAP_RUN(test_what_is_pending_is_told_later);
	TAP_RUN(test_the_line_is_told_once_until_it_is_unmasked);
	TAP_RUN(test_intx_that_is_off_is_not_told);
	TAP_RUN(test_only_eventfds_can_be_used);
	TAP_RUN(test_raising_while_descriptors_change);
	return TAP_DONE();
}
