/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-crypt: what encryption costs
 *
 * Requests go through crypt to a disk that is flat memory and does nothing but copy, on a plain thread. They are
 * compared with the cipher alone, as `openssl speed -evp aes-256-xts` drives it (one context, no new tweak), plus one
 * copy of the same bytes to the same memory. All cases have their turn in each repetition; a ratio is of two turns of
 * one repetition, reported are medians. "alone" is the disk without crypt, and "keyed anew" what a context costs that is
 * made for the request.
 */
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "bench/measure.h"
#include "core/node.h"
#include "core/open.h"

#define DISK_BYTES (1u << 20) /* stays in the cache */
#define MAX_REPETITIONS 401u
#define BYTES_A_TURN (1u << 20)

static const unsigned sizes[] = {512, 4096, 65536};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

enum what { CIPHER_AND_COPY, CRYPT, ALONE, KEYED_ANEW, CASES };

static unsigned repetitions = MAX_REPETITIONS;
static double samples[2][SIZES][CASES][MAX_REPETITIONS];
static char *buffer, *memory, *between;
static unsigned char key[64];
static char key_path[64];
static EVP_CIPHER *cipher;
static EVP_CIPHER_CTX *contexts[2];

/* ------------------------------------------------------------------ the disks */

static int flat_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)d;
	(void)io;
	vec_scatter(v, 0, memory + offset, v->size);
	return 0;
}

static int flat_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)d;
	(void)io;
	vec_gather(v, 0, memory + offset, v->size);
	return 0;
}

static const struct disk_ops flat_ops = {.read = flat_read, .write = flat_write};

static struct disk *make_flat(unsigned block)
{
	struct disk *d = disk_new(sizeof(*d), "flat", &flat_ops, NULL, 0);

	if (!d)
		bench_die("no memory");
	d->info = (struct disk_info){.block_size = block, .physical_block_size = block, .discard_granularity = block};
	if (disk_publish(d, DISK_BYTES, NULL))
		bench_die("no disk");
	return d;
}

static struct disk *make_crypt(struct disk *below)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *spec = NULL;
	struct open_request request = {.children = &below};
	struct disk *d;
	char text[160];

	snprintf(text, sizeof(text), "crypt:xts-aes-256:%s:null:1M", key_path);
	if (spec_parse(text, &spec, &err))
		bench_die("%s", error_text(&err));
	request.spec = spec;
	if (spec->kind->open(&request, &d, &err))
		bench_die("%s", error_text(&err));
	return d;
}

/* ------------------------------------------------------------------ one case */

static EVP_CIPHER_CTX *make_context(bool writing)
{
	static const unsigned char tweak[16];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

	if (!c || EVP_CipherInit_ex2(c, cipher, key, tweak, writing, NULL) != 1)
		bench_die("OpenSSL fails");
	return c;
}

static void cipher_and_copy(EVP_CIPHER_CTX *c, bool writing, unsigned size, uint64_t offset)
{
	int n;

	if (writing) {
		EVP_CipherUpdate(c, (unsigned char *)between, &n, (unsigned char *)buffer, (int)size);
		memcpy(memory + offset, between, size);
	} else {
		memcpy(between, memory + offset, size);
		EVP_CipherUpdate(c, (unsigned char *)buffer, &n, (unsigned char *)between, (int)size);
	}
}

static void keyed_anew(bool writing, unsigned size, uint64_t offset)
{
	EVP_CIPHER_CTX *c = make_context(writing);

	cipher_and_copy(c, writing, size, offset);
	EVP_CIPHER_CTX_free(c);
}

/* Of this thread: nothing here waits, and a machine that others use as well disturbs it less. */
static uint64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double time_case(enum what what, struct disk *d, bool writing, unsigned size)
{
	struct vec v = VEC_FLAT(buffer, size);
	uint64_t random = 1, begin = cpu_time();
	unsigned count = BYTES_A_TURN / size;
	int status = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t offset = bench_random(&random) % (DISK_BYTES / size) * size;
		if (what == CIPHER_AND_COPY)
			cipher_and_copy(contexts[writing], writing, size, offset);
		else if (what == KEYED_ANEW)
			keyed_anew(writing, size, offset);
		else
			status |= writing ? disk_write(d, &v, offset, &io_plain) : disk_read(d, &v, offset, &io_plain);
	}
	if (status)
		bench_die("a request failed");
	return (double)(cpu_time() - begin) / count;
}

/* ------------------------------------------------------------------ all of them */

/* Where a repetition begins moves, so that no case always follows the same one. */
static void measure(unsigned s)
{
	unsigned block = sizes[s] < 4096 ? sizes[s] : 4096;
	struct disk *alone = make_flat(block), *crypt = make_crypt(make_flat(block));

	for (unsigned r = 0; r < repetitions; r++)
		for (unsigned i = 0; i < 2 * CASES; i++) {
			unsigned c = (i + r) % (2 * CASES);
			enum what what = c / 2;
			samples[c % 2][s][what][r] = time_case(what, what == CRYPT ? crypt : alone, c % 2, sizes[s]);
		}
	disk_close(alone, NULL);
	disk_close(crypt, NULL);
}

static double median(const double *values)
{
	double copy[MAX_REPETITIONS];

	memcpy(copy, values, repetitions * sizeof(*copy));
	return bench_spread_of(copy, repetitions).median;
}

static void print(unsigned s, bool writing)
{
	double(*cases)[MAX_REPETITIONS] = samples[writing][s];
	double ratios[MAX_REPETITIONS];
	struct bench_spread ratio;

	for (unsigned r = 0; r < repetitions; r++)
		ratios[r] = cases[CRYPT][r] / cases[CIPHER_AND_COPY][r];
	ratio = bench_spread_of(ratios, repetitions);
	printf("%-5s  %5u  %9.1f  %9.1f  %6.2f (%.2f..%.2f)  %8.1f  %9.1f\n", writing ? "write" : "read", sizes[s],
	       median(cases[CIPHER_AND_COPY]), median(cases[CRYPT]), ratio.median, ratio.low, ratio.high, median(cases[ALONE]),
	       median(cases[KEYED_ANEW]));
}

static void prepare(void)
{
	int fd;

	buffer = bench_payload(65536);
	between = bench_payload(65536);
	memory = bench_payload(DISK_BYTES);
	memcpy(key, bench_payload(4096), sizeof(key));
	snprintf(key_path, sizeof(key_path), "/tmp/bench-crypt.XXXXXX");
	fd = mkstemp(key_path);
	if (fd < 0 || write(fd, key, sizeof(key)) != (ssize_t)sizeof(key))
		bench_die("cannot write %s", key_path);
	close(fd);
	cipher = EVP_CIPHER_fetch(NULL, "AES-256-XTS", NULL);
	contexts[0] = make_context(false);
	contexts[1] = make_context(true);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--quick"))
		repetitions = 21;
	prepare();
	for (unsigned s = 0; s < SIZES; s++)
		measure(s);
	unlink(key_path);
	printf("ns of processor time a request of XTS-AES-256, medians of %u repetitions; ratio with quartiles\n", repetitions);
	printf("       bytes  cipher+copy    crypt  ratio                 alone  keyed anew\n");
	for (unsigned s = 0; s < SIZES; s++)
		for (unsigned writing = 0; writing < 2; writing++)
			print(s, writing);
	return 0;
}
