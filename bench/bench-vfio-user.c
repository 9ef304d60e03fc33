/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-vfio-user: how fast a client in another address space is served, with doorbells that are polled
 *
 * 4 KiB random reads of a disk in memory, by a client that maps the page of doorbells and looks for completions all the time, as
 * drivers in user space do: no message, no interrupt, no system call is part of a command. The client is a process of its own. One disk
 * was never written to; all of the other holds data, and what is read of that lies first within 8 MiB, which caches hold, so that one sees
 * what the way costs; then anywhere, and beside that stands what memcpy(3) alone takes for blocks out of as much memory. Last comes the
 * processor time that an idle server takes.
 *
 *     bench-vfio-user [--quick]
 */
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/loop.h"
#include "core/open.h"
#include "tests/vfio-client.h"
#include "vmm/nvme-device.h"
#include "vmm/vfio-user.h"

enum { FULL = 1, EMPTY = 2 }; /* namespaces */
enum { BLOCK = 4096, DISK_MIB = 1024, CACHED_MIB = 8, BUFFERS = 256 };

static unsigned total = 2000000;
static uint64_t state = 1;

/* ------------------------------------------------------------------ the client */

static uint64_t random_block(unsigned mib)
{
	return bench_random(&state) % (mib * UINT64_C(256));
}

static void submit(struct client_queue *q, char *buffers, uint32_t nsid, unsigned mib)
{
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(nsid), .cdw12 = put32(7)};

	sqe.prp1 = put64(client_address(q->c, buffers + q->tail % BUFFERS * BLOCK));
	sqe.cdw10 = put32((uint32_t)random_block(mib) * 8);
	client_submit(q, &sqe);
}

/* Keeps `depth` reads of the disk's first `mib` MiB in flight; what is collected in one look is replaced, and rung for, in one. ns each. */
static double measure(struct client_queue *q, char *buffers, uint32_t nsid, unsigned mib, unsigned depth)
{
	uint64_t start = wait_now();
	unsigned submitted = 0, done = 0;
	uint16_t cid, status;

	for (; submitted < depth; submitted++)
		submit(q, buffers, nsid, mib);
	client_ring(q);
	while (done < total) {
		unsigned before = done;
		while (client_poll(q, &cid, &status)) {
			if (status)
				bench_die("status 0x%x", status);
			done++;
			if (submitted < total) {
				submit(q, buffers, nsid, mib);
				submitted++;
			}
		}
		if (done != before) {
			client_ack(q);
			client_ring(q);
		}
	}
	return (double)(wait_now() - start) / total;
}

/* What blocks out of as much memory take with nothing around them; in large pages where the system has them, as the disk. */
static void measure_memcpy(char *buffers)
{
	size_t bytes = (size_t)DISK_MIB << 20;
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t start;

	if (memory == MAP_FAILED)
		bench_die("no memory");
	madvise(memory, bytes, MADV_HUGEPAGE);
	memset(memory, 1, bytes);
	start = wait_now();
	for (unsigned i = 0; i < total; i++) {
		memcpy(buffers + i % BUFFERS * BLOCK, memory + random_block(DISK_MIB) * BLOCK, BLOCK);
		__asm__ volatile("" : : : "memory");
	}
	printf("memcpy of blocks of %u MiB %8.1f ns\n", DISK_MIB, (double)(wait_now() - start) / total);
	munmap(memory, bytes);
}

static void measure_depths(struct client_queue *q, char *buffers, uint32_t nsid, unsigned mib)
{
	static const unsigned depths[] = {1, 8, 32, 128};

	for (unsigned i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		double ns = measure(q, buffers, nsid, mib, depths[i]);
		printf("%s, within %4u MiB, depth %-3u %8.1f ns %12.0f a second\n", nsid == EMPTY ? "empty" : "full ", mib, depths[i],
		       ns, 1e9 / ns);
	}
}

static void client_main(const char *path)
{
	struct client_queue admin, q;
	struct vfio_client c;
	char *buffers;

	if (!client_connect(&c, path) || client_greet(&c) || client_add_ram(&c, true) || !client_map_doorbells(&c) ||
	    !client_enable(&c, &admin) || !client_create_queue(&admin, &q, 1, 256, false))
		bench_die("cannot set up the controller");
	buffers = client_alloc(&c, BUFFERS * BLOCK);
	measure_depths(&q, buffers, EMPTY, DISK_MIB);
	measure_depths(&q, buffers, FULL, CACHED_MIB);
	measure_depths(&q, buffers, FULL, DISK_MIB);
	measure_memcpy(buffers);
	client_close(&c);
}

/* ------------------------------------------------------------------ the server */

struct server {
	struct loop *loop, *work;
	struct vfio_user *v;
	struct nvme_device *d;
};

static void fill(struct disk *disk)
{
	char *payload = bench_payload(1 << 20);
	struct vec v = VEC_FLAT(payload, 1 << 20);

	for (uint64_t i = 0; i < DISK_MIB; i++)
		if (disk_write(disk, &v, i << 20, &io_plain))
			bench_die("cannot write");
	free(payload);
}

static void start(struct server *s, const char *path)
{
	CLEANUP_ERROR struct error err = {0};
	static const struct nvme_options options;
	struct disk *disk, *empty;

	if (loop_start(NULL, &s->loop, &err) || loop_start(NULL, &s->work, &err) ||
	    vfio_user_create(path, s->loop, NULL, &s->v, &err) ||
	    nvme_device_create(&options, NVME_DOORBELLS_POLL, vfio_user_memory(s->v), &s->work, 1, &s->d, &err) ||
	    disk_open("mem:1G", 0, &disk, &err) || disk_open("mem:1G", 0, &empty, &err))
		bench_die("%s", error_text(&err));
	fill(disk);
	if (nvme_add_namespace(nvme_device_controller(s->d), FULL, disk, NULL, NULL, &err) ||
	    nvme_add_namespace(nvme_device_controller(s->d), EMPTY, empty, NULL, NULL, &err) ||
	    vfio_user_start(s->v, nvme_device_vmm(s->d), &err))
		bench_die("%s", error_text(&err));
}

static double processor_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	struct server s;
	char path[64];
	double before;
	pid_t client;
	int status, ends[2];

	if (argc > 1 && !strcmp(argv[1], "--quick"))
		total = 50000;
	snprintf(path, sizeof(path), "/tmp/bench-vfio-user.%d", (int)getpid());
	/* before there are threads; it waits until the server is there */
	if (pipe(ends))
		bench_die("no pipe");
	client = fork();
	if (client < 0)
		bench_die("no process");
	if (client == 0) {
		char byte;
		close(ends[1]);
		if (read(ends[0], &byte, 1) != 1)
			return 1;
		client_main(path);
		return 0;
	}
	close(ends[0]);
	start(&s, path);
	if (write(ends[1], "", 1) != 1 || waitpid(client, &status, 0) < 0 || status)
		bench_die("the client has failed");
	wait_sleep(100000000);
	before = processor_seconds();
	wait_sleep(1000000000);
	printf("idle server: %.2f%% of a processor\n", 100 * (processor_seconds() - before));
	vfio_user_stop(s.v);
	nvme_device_destroy(s.d, NULL);
	loop_finish(s.work);
	loop_finish(s.loop);
	vfio_user_destroy(s.v);
	return 0;
}
