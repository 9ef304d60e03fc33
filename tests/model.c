/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define GUARD 0xee
#define MAX_GAP 64u

static void *must(void *memory)
{
	if (!memory) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return memory;
}

/* ------------------------------------------------------------------ random numbers */

uint64_t random_seed(void)
{
	static uint64_t seed;
	const char *given = getenv("SEED");

	if (seed)
		return seed;
	if (given)
		seed = strtoull(given, NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = 1;
	seed |= 1;
	printf("# SEED=0x%" PRIx64 "\n", seed);
	return seed;
}

/* splitmix64: any state is a good one. */
uint64_t random_next(struct random *r)
{
	uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

struct random random_stream(uint64_t stream)
{
	struct random r = {random_seed() ^ stream * UINT64_C(0xd1342543de82ef95)};

	r.state = random_next(&r);
	return r;
}

uint64_t random_below(struct random *r, uint64_t limit)
{
	return random_next(r) % limit;
}

bool random_once_in(struct random *r, unsigned n)
{
	return random_below(r, n) == 0;
}

void random_fill(struct random *r, void *memory, size_t size)
{
	char *p = memory;

	for (size_t at = 0; at < size; at += 8) {
		uint64_t word = random_next(r) | UINT64_C(0x0100000000000001);
		memcpy(p + at, &word, size - at < 8 ? size - at : 8);
	}
}

/* ------------------------------------------------------------------ scattered memory */

enum style {
	STYLE_ONE,    /* a single piece */
	STYLE_PAGES,  /* pieces of 4 KiB at odd addresses */
	STYLE_RANDOM, /* pieces of any length, empty ones among them */
	STYLE_BYTES,  /* single bytes first, then as above */
	STYLES
};

static size_t piece_length(struct random *r, enum style style, size_t done, size_t left)
{
	size_t n = left;

	if (style == STYLE_PAGES)
		n = 4096;
	else if (style == STYLE_BYTES && done < 300)
		n = random_below(r, 3);
	else if (style != STYLE_ONE)
		n = random_once_in(r, 8) ? 0 : random_below(r, left > 65536 ? 65536 : 2500) + 1;
	return n < left ? n : left;
}

static size_t cut(struct scatter *s, struct random *r, enum style style, size_t total, size_t max)
{
	size_t done = 0, at = 0, n = 0;

	while (done < total || (n < max && random_once_in(r, 4))) {
		size_t length = n + 1 < max ? piece_length(r, style, done, total - done) : total - done;
		at += style == STYLE_ONE ? 0 : random_below(r, MAX_GAP);
		if (s)
			s->iov[n] = (struct iovec){s->memory + at, length};
		at += length;
		done += length;
		n++;
	}
	if (s)
		s->count = n;
	return at + MAX_GAP;
}

void scatter_make(struct scatter *s, struct random *r, size_t size)
{
	enum style style = random_below(r, STYLES);
	size_t lead = style == STYLE_ONE ? 0 : random_below(r, 100);
	size_t total = lead + size + random_below(r, 2) * random_below(r, 100);
	size_t max = total / 512 + 500;
	struct random again = *r;

	*s = (struct scatter){.lead = lead};
	s->memory_size = cut(NULL, r, style, total, max);
	s->memory = must(malloc(s->memory_size));
	s->iov = must(calloc(max + 1, sizeof(*s->iov)));
	memset(s->memory, GUARD, s->memory_size);
	cut(s, &again, style, total, max);
	s->vec = (struct vec){.iov = s->iov, .count = s->count, .skip = lead, .size = size};
}

void scatter_free(struct scatter *s)
{
	free(s->memory);
	free(s->iov);
}

/* Calls visit() with each part of the window in order. */
static void scatter_walk(const struct scatter *s, void (*visit)(char *part, size_t n, void *argument),
			 void *argument)
{
	size_t skip = s->lead, left = s->vec.size;

	for (size_t i = 0; i < s->count && left; i++) {
		size_t length = s->iov[i].iov_len, n;
		if (skip >= length) {
			skip -= length;
			continue;
		}
		n = length - skip < left ? length - skip : left;
		visit((char *)s->iov[i].iov_base + skip, n, argument);
		skip = 0;
		left -= n;
	}
}

static void copy_out(char *part, size_t n, void *argument)
{
	char **out = argument;

	memcpy(*out, part, n);
	*out += n;
}

static void copy_in(char *part, size_t n, void *argument)
{
	const char **in = argument;

	memcpy(part, *in, n);
	*in += n;
}

void scatter_get(const struct scatter *s, void *out)
{
	scatter_walk(s, copy_out, &out);
}

void scatter_put(const struct scatter *s, const void *in)
{
	scatter_walk(s, copy_in, &in);
}

/* The guards are all that is left when the window is blanked; its content is put back. */
bool scatter_guarded(const struct scatter *s)
{
	char *content = must(malloc(s->vec.size + 1)), *blank = must(malloc(s->vec.size + 1));
	bool good = true;

	scatter_get(s, content);
	memset(blank, GUARD, s->vec.size);
	scatter_put(s, blank);
	for (size_t i = 0; i < s->memory_size && good; i++)
		good = (unsigned char)s->memory[i] == GUARD;
	scatter_put(s, content);
	free(content);
	free(blank);
	return good;
}

/* ------------------------------------------------------------------ the flat model */

void model_make(struct model *m, uint64_t size, uint32_t block)
{
	*m = (struct model){.size = size, .block = block, .bytes = must(calloc(1, size))};
}

void model_free(struct model *m)
{
	free(m->bytes);
	m->bytes = NULL;
}

bool model_learn(struct model *m, struct disk *d)
{
	return disk_read(d, &VEC_FLAT(m->bytes, m->size), 0, &io_plain) == 0;
}

static void say_difference(const struct model *m, struct disk *d, const unsigned char *found, uint64_t offset,
			   uint64_t at)
{
	printf("# %s: byte %" PRIu64 " (block %" PRIu64 ", byte %" PRIu64 " of %u) reads 0x%02x, should be 0x%02x\n",
	       disk_kind_name(d), offset + at, (offset + at) / m->block, (offset + at) % m->block, m->block,
	       found[at], m->bytes[offset + at]);
}

bool model_agrees(const struct model *m, struct disk *d, uint64_t offset, uint64_t length)
{
	unsigned char *found = must(malloc(length + 1));
	int status = disk_read(d, &VEC_FLAT(found, length), offset, &io_plain);
	uint64_t at = 0;

	if (status)
		printf("# %s: read of %" PRIu64 " bytes at %" PRIu64 ": %s\n", disk_kind_name(d), length, offset,
		       strerror(-status));
	while (!status && memcmp(found, m->bytes + offset, length) && found[at] == m->bytes[offset + at])
		at++;
	if (!status && memcmp(found, m->bytes + offset, length)) {
		say_difference(m, d, found, offset, at);
		status = -EIO;
	}
	free(found);
	return status == 0;
}

static bool block_may_be(const struct model *m, const struct disk_info *info, const unsigned char *found,
			 uint64_t offset, bool whole)
{
	if (info->discard == DISK_DISCARD_UNSPECIFIED)
		return true;
	if (info->discard == DISK_DISCARD_ZEROES && memory_is_zero(found, m->block))
		return true;
	return !whole && memcmp(found, m->bytes + offset, m->block) == 0;
}

bool model_discarded(struct model *m, struct disk *d, uint64_t offset, uint64_t length)
{
	const struct disk_info *info = disk_info(d);
	uint64_t granule = info->discard_granularity, align = info->discard_alignment;
	unsigned char *found = must(malloc(length + 1));
	bool good = disk_read(d, &VEC_FLAT(found, length), offset, &io_plain) == 0;

	for (uint64_t at = 0; at < length && good; at += m->block) {
		uint64_t inside = (offset + at + granule - align) % granule; /* of its granule */
		bool whole = info->discard == DISK_DISCARD_ZEROES && at >= inside &&
			     length - at >= granule - inside;
		good = block_may_be(m, info, found + at, offset + at, whole);
		if (!good)
			printf("# %s: block at %" PRIu64 " is wrong after a discard of %" PRIu64
			       " bytes at %" PRIu64 "\n",
			       disk_kind_name(d), offset + at, length, offset);
	}
	if (good)
		memcpy(m->bytes + offset, found, length);
	free(found);
	return good;
}

void model_range(const struct model *m, struct random *r, uint64_t most, uint64_t *offset, uint64_t *length)
{
	uint64_t blocks = m->size / m->block, limit = 1;

	switch (random_below(r, 8)) {
	case 0:
		limit = most / m->block;
		break;
	case 1:
	case 2:
		limit = 65536 / m->block;
		break;
	case 3:
	case 4:
	case 5:
		limit = 16384 / m->block;
		break;
	}
	limit = limit ? limit : 1;
	*offset = random_below(r, blocks);
	*length = random_below(r, limit) + 1;
	if (*length > blocks - *offset)
		*length = blocks - *offset;
	if (random_once_in(r, 20)) /* up to the very end */
		*offset = blocks - *length;
	*offset *= m->block;
	*length *= m->block;
}
