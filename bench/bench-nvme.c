/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-nvme: what the NVMe controller adds to a disk
 *
 * 4 KiB random reads of a disk in memory, all on one thread: a driver as a fiber that fills a ring, rings, and collects; beside it
 * the same reads by disk_read() alone. The disk is small enough for caches, so that memory does not hide what is measured.
 * With each figure it says how well work is batched, and how often the thread slept, which is not to be while there is work.
 *
 *     bench-nvme [--quick]
 */
#include <pthread.h>
#include <sys/resource.h>

#include "bench/measure.h"
#include "core/loop.h"
#include "core/open.h"
#include "nvme/nvme.h"
#include "tests/nvme-driver.h"

enum { BLOCK = 4096, DISK_MIB = 8 };

static unsigned total = 2000000;
static struct driver d;
static struct driver_queue q;
static struct disk *disk;
static uint64_t buffers;
static uint64_t state = 1;
static char *flat;
static struct wait_signal measured; /* raised once */

static uint64_t random_block(void)
{
	return bench_random(&state) % (DISK_MIB * 256u);
}

static void fill_disk(void)
{
	char *payload = bench_payload(1 << 20);
	struct vec v = VEC_FLAT(payload, 1 << 20);

	for (unsigned i = 0; i < DISK_MIB; i++)
		if (disk_write(disk, &v, (uint64_t)i << 20, &io_plain))
			bench_die("cannot write");
	free(payload);
}

static double bench_disk(void)
{
	uint64_t start = wait_now();

	for (unsigned i = 0; i < total; i++) {
		struct vec v = VEC_FLAT(flat + i % 128 * BLOCK, BLOCK);
		if (disk_read(disk, &v, random_block() * BLOCK, &io_plain))
			bench_die("cannot read");
	}
	return (double)(wait_now() - start) / total;
}

static void submit(unsigned slot)
{
	struct nvme_sqe sqe = driver_rw(NVME_IO_READ, 1, random_block() * 8, 8, buffers + slot % 128 * BLOCK, 0);

	driver_submit(&q, &sqe);
}

/* Keeps `depth` commands in flight; what is collected in one look is replaced, and rung for, in one. */
static double bench_queue(unsigned depth)
{
	uint64_t start = wait_now();
	unsigned submitted, done = 0;
	struct driver_result r;

	for (submitted = 0; submitted < depth; submitted++)
		submit(submitted);
	driver_ring(&q);
	while (done < total) {
		unsigned before = done;
		while (driver_poll(&q, &r)) {
			if (r.status)
				bench_die("status 0x%x", r.status);
			done++;
			if (submitted < total)
				submit(submitted++);
		}
		if (done != before) {
			driver_ack(&q);
			driver_ring(&q);
		}
		wait_yield();
	}
	return (double)(wait_now() - start) / total;
}

static void report(const char *what, double ns)
{
	printf("%-40s %8.1f ns %12.0f a second\n", what, ns, 1e9 / ns);
}

static long switches(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nvcsw;
}

static void bench_main(void *argument)
{
	static const unsigned depths[] = {1, 8, 32, 128, 256};
	struct nvme_counters before, after;
	char name[64];

	(void)argument;
	if (!driver_enable(&d, 32, 12) || driver_create_pair(&d, &q, 1, 512))
		bench_die("cannot set up the controller");
	report("disk_read() alone", bench_disk());
	for (unsigned i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		long waits = switches();
		nvme_counters(d.c, &before);
		snprintf(name, sizeof(name), "through the controller, depth %u", depths[i]);
		report(name, bench_queue(depths[i]));
		nvme_counters(d.c, &after);
		printf("    %.1f commands a pass, %.1f an interrupt, %ld sleeps\n",
		       (double)(after.commands - before.commands) / (double)(after.passes - before.passes),
		       (double)(after.commands - before.commands) / (double)(after.interrupts - before.interrupts),
		       switches() - waits);
	}
	wait_signal_raise(&measured);
}

/* Not from a fiber of the loop that the controller's fibers need. */
static void *close_main(void *argument)
{
	uint32_t seen = wait_signal_count(&measured);

	if (!seen)
		wait_signal_wait(&measured, 0, WAIT_FOREVER);
	driver_close(&d);
	loop_stop(argument);
	return NULL;
}

int main(int argc, char **argv)
{
	CLEANUP_ERROR struct error err = {0};
	struct loop *loop;
	pthread_t closer;

	if (argc > 1 && !strcmp(argv[1], "--quick"))
		total = 50000;
	if (loop_create(NULL, &loop, &err) || disk_open("mem:8M", 0, &disk, &err))
		bench_die("%s", error_text(&err));
	fill_disk();
	flat = bench_payload(128 * BLOCK);
	driver_open_on(&d, NULL, loop);
	driver_add_disk(&d, disk, NULL);
	buffers = guest_alloc(&d.guest, 128 * BLOCK, BLOCK);
	if (loop_spawn(loop, bench_main, NULL))
		bench_die("no memory");
	if (pthread_create(&closer, NULL, close_main, loop))
		bench_die("no thread");
	loop_run(loop);
	pthread_join(closer, NULL);
	loop_destroy(loop);
	free(flat);
	return 0;
}
