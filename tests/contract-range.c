/* SPDX-License-Identifier: BSD-3-Clause */
/* Part of the contract suite: what is outside, malformed or read-only is refused, says why, and changes nothing. */
#include "tests/contract-parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

static uint64_t hash_of(struct disk *d)
{
	struct model m;
	uint64_t hash = 0;

	model_make(&m, disk_size(d), disk_info(d)->block_size);
	CHECK(model_learn(&m, d));
	for (uint64_t at = 0; at < m.size; at += 8) {
		uint64_t word;
		memcpy(&word, m.bytes + at, 8);
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	model_free(&m);
	return hash;
}

/* For read and write the length is that of a window over `memory`, which is never touched in these tests. */
int call_op(struct disk *d, enum op op, uint64_t offset, uint64_t length, void *memory, const struct io *io)
{
	CLEANUP_EXTENTS struct extents e = {0};
	const struct iovec iov = {memory, length};
	const struct vec v = {.iov = &iov, .count = 1, .size = length};

	switch (op) {
	case OP_READ:
		return disk_read(d, &v, offset, io);
	case OP_WRITE:
		return disk_write(d, &v, offset, io);
	case OP_DISCARD:
		return disk_discard(d, offset, length, io);
	case OP_ZEROES:
		return disk_write_zeroes(d, offset, length, io);
	case OP_PREFETCH:
		return disk_prefetch(d, offset, length, io);
	default:
		extents_init(&e, offset, length, SIZE_MAX);
		return disk_extents(d, &e, io);
	}
}

/* The call gives `expected`; a refused one says why. */
static void expect(struct disk *d, enum op op, uint64_t offset, uint64_t length, int expected, void *memory)
{
	static const char *const names[OPS] = {"read", "extents", "prefetch", "write", "discard", "write_zeroes"};
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = call_op(d, op, offset, length, memory, &io);

	if (status != expected)
		tap_diag("%s: %s of %" PRIu64 " bytes at %" PRIu64 " of %" PRIu64 ": %d (%s)", disk_kind_name(d),
			 names[op], length, offset, disk_size(d), status, failure.text);
	CHECK_EQ(status, expected);
	CHECK_EQ(failure.status, expected);
	CHECK(!expected || failure.text[0]);
}

void expect_all(struct disk *d, uint64_t offset, uint64_t length, int expected, void *memory)
{
	for (enum op op = 0; op < OPS; op++) {
		bool refused = op >= OP_WRITE && !contract_is_writable(d);
		expect(d, op, offset, length, refused && !expected ? -EROFS : expected, memory);
	}
}

static void check_outside(struct disk *d, uint64_t b, void *memory)
{
	uint64_t size = disk_size(d), most = DISK_MAX_END & ~(b - 1);
	const uint64_t cases[][2] = {
		{UINT64_MAX - b + 1, b},         /* wraps to 0 */
		{UINT64_MAX - 2 * b + 1, b},
		{UINT64_MAX - 2 * b + 1, 2 * b}, /* wraps */
		{UINT64_MAX - 2 * b + 1, 4 * b}, /* wraps into the disk */
		{most, b},
		{most - b, 2 * b},
		{most - b, b == size ? 2 * b : b},
		{UINT64_C(1) << 63, b},
		{UINT64_C(1) << 62, b},
		{UINT64_C(1) << 40, b},
		{size, b},
		{size - b, 2 * b},
		{size + b, b},
		{size + b, 0},
		{UINT64_C(1) << 63, 0},
		{UINT64_MAX - b + 1, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (cases[i][0] > size || cases[i][1] > size - cases[i][0])
			expect_all(d, cases[i][0], cases[i][1], -ERANGE, memory);
}

/* Lengths that no memory could have, for what takes no memory. */
static void check_outside_long(struct disk *d, uint64_t b)
{
	static const enum op ops[] = {OP_EXTENTS, OP_PREFETCH, OP_DISCARD, OP_ZEROES};
	uint64_t size = disk_size(d), most = UINT64_MAX - b + 1;

	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		expect(d, ops[i], 0, size + b, -ERANGE, NULL);
		expect(d, ops[i], 0, most, -ERANGE, NULL);
		expect(d, ops[i], b, most, -ERANGE, NULL); /* wraps to 0 */
		expect(d, ops[i], size - b, most, -ERANGE, NULL);
		expect(d, ops[i], 0, UINT64_C(1) << 63, -ERANGE, NULL);
		expect(d, ops[i], b, (UINT64_C(1) << 63) - b, -ERANGE, NULL);
	}
}

static void check_malformed(struct disk *d, uint64_t b, void *memory)
{
	expect_all(d, 1, b, -EINVAL, memory);
	expect_all(d, 0, 1, -EINVAL, memory);
	expect_all(d, 0, b - 1, -EINVAL, memory);
	expect_all(d, 0, b + 1, -EINVAL, memory);
	expect_all(d, b / 2, b, -EINVAL, memory);
	expect_all(d, b / 2, b / 2, -EINVAL, memory);
	expect_all(d, disk_size(d) - 1, 1, -EINVAL, memory);
	expect_all(d, b - 1, 0, -EINVAL, memory);
}

static void check_inside(struct disk *d, uint64_t b, void *memory)
{
	expect_all(d, 0, 0, 0, memory);
	expect_all(d, disk_size(d), 0, 0, memory);
	for (enum op op = 0; op < OP_WRITE; op++) {
		expect(d, op, 0, b, 0, memory);
		expect(d, op, disk_size(d) - b, b, 0, memory);
	}
	expect(d, OP_EXTENTS, 0, disk_size(d), 0, NULL);
}

static void check_refused_changes(struct disk *d, uint64_t b, void *memory)
{
	struct io io = io_plain;

	for (unsigned flags = 0; flags <= (IO_FUA | IO_MAY_UNMAP); flags++) {
		io.flags = flags;
		CHECK_EQ(call_op(d, OP_WRITE, 0, b, memory, &io), -EROFS);
		CHECK_EQ(call_op(d, OP_DISCARD, 0, b, memory, &io), -EROFS);
		CHECK_EQ(call_op(d, OP_ZEROES, 0, b, memory, &io), -EROFS);
	}
	CHECK_EQ(disk_resize(d, b, &io_plain), -EROFS);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
}

void part_range(const struct contract *c, struct disk *d)
{
	uint64_t b = disk_info(d)->block_size, size = disk_size(d);
	bool all = !(c->without & CONTRACT_CONTENT);
	uint64_t before = all ? hash_of(d) : 0;
	struct random r = random_stream(1);
	void *memory = must_have(4 * b);

	random_fill(&r, memory, 4 * b);
	check_outside(d, b, memory);
	check_outside_long(d, b);
	check_malformed(d, b, memory);
	check_inside(d, b, memory);
	if (!contract_is_writable(d))
		check_refused_changes(d, b, memory);
	CHECK_EQ(disk_size(d), size);
	if (all)
		CHECK(hash_of(d) == before);
	free(memory);
}
