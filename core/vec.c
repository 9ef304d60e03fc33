/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/vec.h"
#include "core/hot.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct vec vec_whole(const struct iovec *iov, size_t count)
{
	struct vec v = {.iov = iov, .count = count};

	for (size_t i = 0; i < count; i++)
		v.size += iov[i].iov_len;
	return v;
}

struct vec vec_slice(const struct vec *v, size_t from, size_t size)
{
	struct vec s = *v;

	assert(from <= v->size && size <= v->size - from);
	s.skip += from;
	s.size = size;
	while (s.count > 1 && s.skip >= s.iov->iov_len) {
		s.skip -= s.iov->iov_len;
		s.iov++;
		s.count--;
	}
	return s;
}

/* Steps through the pieces of bytes [from, from + left). */
struct walk {
	const struct iovec *iov;
	size_t skip;
	size_t left;
};

static struct walk walk_start(const struct vec *v, size_t from, size_t size)
{
	struct vec s = vec_slice(v, from, size);

	return (struct walk){.iov = s.iov, .skip = s.skip, .left = size};
}

/* The next piece; false at the end. Empty entries are passed over. */
static bool walk_next(struct walk *w, struct iovec *piece)
{
	size_t n;

	if (!w->left)
		return false;
	while (w->skip >= w->iov->iov_len) {
		w->skip -= w->iov->iov_len;
		w->iov++;
	}
	n = w->iov->iov_len - w->skip;
	if (n > w->left)
		n = w->left;
	*piece = (struct iovec){(char *)w->iov->iov_base + w->skip, n};
	w->left -= n;
	w->skip += n;
	return true;
}

/* Where byte `from` of a window over one buffer lies: most are. NULL for others, and where there is no memory. */
static inline char *only_piece(const struct vec *v, size_t from)
{
	return v->count == 1 && v->iov->iov_base ? (char *)v->iov->iov_base + v->skip + from : NULL;
}

HOT void vec_gather(const struct vec *v, size_t from, void *dst, size_t size)
{
	const char *only = only_piece(v, from);
	struct walk w;
	struct iovec piece;

	if (only) {
		memcpy(dst, only, size);
		return;
	}
	w = walk_start(v, from, size);
	for (char *p = dst; walk_next(&w, &piece); p += piece.iov_len)
		memcpy(p, piece.iov_base, piece.iov_len);
}

/*
 * Into memory that was written a moment ago and is near, from memory that is far. From a mebibyte on,
 * memcpy(3) takes half as long again for all at once as for steps. The other way round steps are a little
 * slower.
 */
#define STEP 32768u

HOT static void copy_near(char *dst, const char *src, size_t size)
{
	while (size > STEP) {
		memcpy(dst, src, STEP);
		dst += STEP;
		src += STEP;
		size -= STEP;
	}
	memcpy(dst, src, size);
}

HOT void vec_scatter(const struct vec *v, size_t from, const void *src, size_t size)
{
	char *only = only_piece(v, from);
	struct walk w;
	struct iovec piece;

	if (only) {
		copy_near(only, src, size);
		return;
	}
	w = walk_start(v, from, size);
	for (const char *p = src; walk_next(&w, &piece); p += piece.iov_len)
		copy_near(piece.iov_base, p, piece.iov_len);
}

void vec_zero(const struct vec *v, size_t from, size_t size)
{
	struct walk w = walk_start(v, from, size);
	struct iovec piece;

	while (walk_next(&w, &piece))
		memset(piece.iov_base, 0, piece.iov_len);
}

HOT bool vec_is_zero(const struct vec *v, size_t from, size_t size)
{
	const char *only = only_piece(v, from);
	struct walk w;
	struct iovec piece;

	if (only)
		return memory_is_zero(only, size);
	w = walk_start(v, from, size);
	while (walk_next(&w, &piece))
		if (!memory_is_zero(piece.iov_base, piece.iov_len))
			return false;
	return true;
}

bool vec_is_aligned(const struct vec *v, size_t memory, size_t length)
{
	struct walk w = walk_start(v, 0, v->size);
	struct iovec piece;

	while (walk_next(&w, &piece))
		if ((uintptr_t)piece.iov_base % memory || piece.iov_len % length)
			return false;
	return true;
}

size_t vec_to_iovec(const struct vec *v, struct iovec *out, size_t max, size_t *bytes)
{
	struct walk w = walk_start(v, 0, v->size);
	size_t n = 0;

	while (n < max && walk_next(&w, &out[n]))
		n++;
	*bytes = v->size - w.left;
	return n;
}

void *vec_flat(const struct vec *v, size_t from, size_t size)
{
	struct walk w = walk_start(v, from, size);
	struct iovec piece;

	if (!walk_next(&w, &piece) || piece.iov_len < size)
		return NULL;
	return piece.iov_base;
}

/*
 * The first 16 bytes settle nearly every block that is not zero; the rest compares the memory with itself 16 bytes on,
 * which is as fast as memcmp is.
 */
bool memory_is_zero(const void *p, size_t size)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < 16; i++) {
		if (i == size)
			return true;
		if (b[i])
			return false;
	}
	return memcmp(b, b + 16, size - 16) == 0;
}
