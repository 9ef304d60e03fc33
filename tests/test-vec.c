/* SPDX-License-Identifier: BSD-3-Clause */
/* Scatter lists: every tool of core/vec.h against plain byte loops, over memory cut at awkward places. */
#include "core/vec.h"

#include <stdint.h>

#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"

static void test_flat(void)
{
	char memory[100] = "hello";
	const struct vec *v = &VEC_FLAT(memory, 100);
	char out[5];

	CHECK_EQ(v->size, 100);
	vec_gather(v, 0, out, 5);
	CHECK_MEM(out, "hello", 5);
	vec_scatter(v, 95, "world", 5);
	CHECK_MEM(memory + 95, "world", 5);
	CHECK(vec_flat(v, 95, 5) == memory + 95);
	CHECK(vec_flat(v, 0, 100) == memory);
}

static void test_whole(void)
{
	char a[10], b[20];
	const struct iovec iov[4] = {{a, 10}, {NULL, 0}, {b, 20}, {NULL, 0}};
	struct vec v = vec_whole(iov, 4);

	CHECK_EQ(v.size, 30);
	CHECK_EQ(v.skip, 0);
	v = vec_whole(iov, 0);
	CHECK_EQ(v.size, 0);
	v = vec_whole(NULL, 0);
	CHECK_EQ(v.size, 0);
}

/* Nothing is touched, not even an empty or missing array. */
static void test_nothing(void)
{
	const struct iovec empty[2] = {{NULL, 0}, {NULL, 0}};
	struct vec none = {0}, hollow = vec_whole(empty, 2), missing = vec_whole(empty, 1), s;
	struct iovec out[2];
	size_t bytes = 7;

	vec_gather(&none, 0, NULL, 0);
	vec_scatter(&none, 0, NULL, 0);
	vec_zero(&none, 0, 0);
	CHECK(vec_is_zero(&none, 0, 0));
	vec_gather(&missing, 0, NULL, 0);
	vec_scatter(&missing, 0, NULL, 0);
	vec_zero(&missing, 0, 0);
	CHECK(vec_is_zero(&missing, 0, 0));
	CHECK(vec_is_aligned(&none, 512, 512));
	CHECK_EQ(vec_to_iovec(&hollow, out, 2, &bytes), 0);
	CHECK_EQ(bytes, 0);
	s = vec_slice(&hollow, 0, 0);
	CHECK_EQ(s.size, 0);
	CHECK(vec_flat(&hollow, 0, 0) == NULL);
	CHECK(memory_is_zero(NULL, 0));
}

static void test_slice_of_slice(void)
{
	char memory[64], out[64];
	const struct iovec iov[5] = {{memory, 1}, {memory + 1, 0}, {memory + 1, 30}, {memory + 31, 3}, {memory + 34, 30}};
	struct vec whole = vec_whole(iov, 5);

	for (int i = 0; i < 64; i++)
		memory[i] = (char)i;
	for (size_t from = 0; from <= 64; from++) {
		struct vec tail = vec_slice(&whole, from, 64 - from);
		CHECK_EQ(tail.size, 64 - from);
		for (size_t n = 0; n <= tail.size; n++) {
			struct vec part = vec_slice(&tail, tail.size - n, n);
			vec_gather(&part, 0, out, n);
			if (!CHECK_MEM(out, memory + 64 - n, n))
				return;
		}
	}
}

/* A random part of a random scatter list against its flat copy. */
struct part {
	struct scatter s;
	unsigned char *flat;
	size_t from, size;
};

static void part_make(struct part *p, struct random *r)
{
	size_t size = random_below(r, 6000) + 1;

	scatter_make(&p->s, r, size);
	p->flat = malloc(size);
	if (!p->flat)
		abort();
	random_fill(r, p->flat, size);
	if (random_once_in(r, 3))
		memset(p->flat, 0, size);
	scatter_put(&p->s, p->flat);
	p->from = random_below(r, size + 1);
	p->size = random_below(r, size - p->from + 1);
}

static void part_end(struct part *p)
{
	unsigned char *now = malloc(p->s.vec.size);

	if (!now)
		abort();
	scatter_get(&p->s, now);
	CHECK_MEM(now, p->flat, p->s.vec.size);
	CHECK(scatter_guarded(&p->s));
	scatter_free(&p->s);
	free(p->flat);
	free(now);
}

static void check_moves(struct part *p, struct random *r)
{
	unsigned char copy[6000];

	vec_gather(&p->s.vec, p->from, copy, p->size);
	CHECK_MEM(copy, p->flat + p->from, p->size);
	random_fill(r, copy, p->size);
	vec_scatter(&p->s.vec, p->from, copy, p->size);
	memcpy(p->flat + p->from, copy, p->size);
	if (random_once_in(r, 2))
		return;
	vec_zero(&p->s.vec, p->from, p->size);
	memset(p->flat + p->from, 0, p->size);
	CHECK(vec_is_zero(&p->s.vec, p->from, p->size));
}

static void check_is_zero(struct part *p, struct random *r)
{
	struct vec one = vec_slice(&p->s.vec, p->from, p->size);
	bool zero = true;

	for (size_t i = 0; i < p->size; i++)
		zero = zero && !p->flat[p->from + i];
	CHECK_EQ(vec_is_zero(&p->s.vec, p->from, p->size), zero);
	CHECK_EQ(vec_is_zero(&one, 0, p->size), zero);
	if (!p->size)
		return;
	vec_zero(&one, 0, p->size);
	memset(p->flat + p->from, 0, p->size);
	CHECK(vec_is_zero(&one, 0, p->size));
	one = vec_slice(&one, random_below(r, p->size), 1);
	vec_scatter(&one, 0, "x", 1);
	CHECK(!vec_is_zero(&p->s.vec, p->from, p->size));
	scatter_get(&p->s, p->flat);
}

/* The pieces handed to a system call are the window, and no piece is empty. */
static void check_iovec(struct part *p, struct random *r)
{
	struct vec part = vec_slice(&p->s.vec, p->from, p->size);
	size_t max = random_below(r, 40), bytes = 0, sum = 0;
	struct iovec out[40];
	size_t n = vec_to_iovec(&part, out, max, &bytes);

	CHECK(n <= max);
	CHECK(bytes <= p->size && (n == max || bytes == p->size));
	for (size_t i = 0; i < n; i++) {
		CHECK(out[i].iov_len > 0);
		CHECK(!memcmp(out[i].iov_base, p->flat + p->from + sum, out[i].iov_len));
		sum += out[i].iov_len;
	}
	CHECK_EQ(sum, bytes);
}

static void check_flat(struct part *p)
{
	void *flat = vec_flat(&p->s.vec, p->from, p->size);

	if (flat)
		CHECK_MEM(flat, p->flat + p->from, p->size);
	if (p->size == 1)
		CHECK(flat != NULL);
}

static void test_against_flat(void)
{
	struct random r = random_stream(1);

	for (unsigned i = 0; i < 4000 / contract_slowness() && !tap_errors; i++) {
		struct part p;
		part_make(&p, &r);
		check_moves(&p, &r);
		check_is_zero(&p, &r);
		check_iovec(&p, &r);
		check_flat(&p);
		part_end(&p);
	}
}

static void test_aligned(void)
{
	static _Alignas(4096) char memory[16384];
	struct iovec iov[3] = {{memory, 4096}, {memory + 1, 0}, {memory + 8192, 1024}};
	struct vec v = vec_whole(iov, 3);

	CHECK(vec_is_aligned(&v, 512, 512)); /* an empty piece is no piece */
	CHECK(vec_is_aligned(&v, 4096, 1024));
	CHECK(!vec_is_aligned(&v, 512, 2048));
	CHECK(!vec_is_aligned(&v, 16384, 512) || (uintptr_t)memory % 16384 == 0);
	v.skip = 512;
	v.size -= 512;
	CHECK(vec_is_aligned(&v, 512, 512));
	CHECK(!vec_is_aligned(&v, 1024, 512));
	v.size -= 1;
	CHECK(!vec_is_aligned(&v, 512, 512));
	CHECK(vec_is_aligned(&v, 1, 1));
}

/* Each length, each alignment, each place of the only byte that is not zero. */
static void test_memory_is_zero(void)
{
	for (size_t size = 1; size < 80; size++) {
		unsigned char *exact = calloc(1, size); /* a checker sees a read past it */
		REQUIRE(exact != NULL);
		CHECK(memory_is_zero(exact, size));
		for (size_t from = 0; from < size; from++) {
			exact[from] = 0x80;
			CHECK(!memory_is_zero(exact, size));
			CHECK(memory_is_zero(exact, from));
			CHECK(memory_is_zero(exact + from + 1, size - from - 1));
			exact[from] = 0;
		}
		free(exact);
	}
}

int main(void)
{
	TAP_RUN(test_flat);
	TAP_RUN(test_whole);
	TAP_RUN(test_nothing);
	TAP_RUN(test_slice_of_slice);
	TAP_RUN(test_against_flat);
	TAP_RUN(test_aligned);
	TAP_RUN(test_memory_is_zero);
	return TAP_DONE();
}
