/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many at once
 *
 * Every writer owns the blocks whose number is its own modulo the number of writers. A block's content is its number and
 * a generation, all over the block; even generations are zeroes. The writer announces a generation before it writes it
 * and confirms it afterwards, so whoever reads may find what was confirmed before the read began up to what was announced
 * when it ended, and nothing else: no older, no other block's, no mixture.
 */
#include "tests/contract-parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "core/wait.h"
#include "tests/tap.h"

#define WRITERS 6u
#define READERS 2u
#define MANY_BLOCKS 128u

struct many {
	const struct contract *c;
	struct disk *disk;
	uint32_t block;
	unsigned nr_blocks, stride; /* block i stands at i * stride blocks */
	_Atomic uint64_t announced[MANY_BLOCKS], confirmed[MANY_BLOCKS];
	_Atomic bool begun[MANY_BLOCKS]; /* before that it is whatever it was */
	_Atomic unsigned writing;
	struct wait_group ended;
	_Atomic unsigned next_index;
};

struct cell {
	uint64_t block, generation;
};

static uint64_t place_of(const struct many *m, unsigned index)
{
	return (uint64_t)index * m->stride * m->block;
}

static void stamp(const struct many *m, char *memory, unsigned index, uint64_t generation)
{
	struct cell cell = {index + 1, generation};

	for (uint32_t at = 0; at < m->block; at += sizeof(cell))
		memcpy(memory + at, &cell, sizeof(cell));
}

/* The one generation that the block holds: 0 for zeroes; UINT64_MAX for a mixture or another block. */
static uint64_t read_stamp(const struct many *m, const char *memory, unsigned index)
{
	struct cell first, cell;

	if (memory_is_zero(memory, m->block))
		return 0;
	memcpy(&first, memory, sizeof(first));
	for (uint32_t at = 0; at < m->block; at += sizeof(cell)) {
		memcpy(&cell, memory + at, sizeof(cell));
		if (cell.block != index + 1 || (cell.generation != first.generation && !m->c->may_tear))
			return UINT64_MAX;
	}
	return first.generation;
}

static bool stamp_fits(const struct many *m, uint64_t found, uint64_t confirmed, uint64_t announced)
{
	if (m->c->forgets)
		return !found;
	if (!found)
		return confirmed % 2 == 0 || announced > confirmed;
	if (m->c->may_tear && announced > confirmed)
		return true;
	return found % 2 && found >= confirmed && found <= announced;
}

static void read_block(struct many *m, unsigned index)
{
	char *memory = must_have(m->block);
	bool begun = atomic_load(&m->begun[index]);
	uint64_t confirmed = atomic_load(&m->confirmed[index]);
	int status = disk_read(m->disk, &VEC_FLAT(memory, m->block), place_of(m, index), &io_plain);
	uint64_t announced = atomic_load(&m->announced[index]);
	uint64_t found = read_stamp(m, memory, index);

	CHECK_EQ(status, 0);
	if (begun && !status && !stamp_fits(m, found, confirmed, announced)) {
		if (found == UINT64_MAX && m->c->may_tear && announced > confirmed)
			; /* zeroes on one side */
		else
			CHECK(!"a block holds what was never, or is no more, written there");
		if (atomic_load(&tap_errors))
			tap_diag("block %u holds generation %" PRIu64 ", not %" PRIu64 "..%" PRIu64, index, found,
				 confirmed, announced);
	}
	free(memory);
}

static int write_generation(struct many *m, unsigned index, uint64_t generation, struct random *r)
{
	struct io io = {.flags = random_once_in(r, 100) ? IO_FUA : 0};
	char *memory = must_have(m->block);
	const struct iovec iov[3] = {
		{memory, 100}, {memory + 100, m->block - 200}, {memory + m->block - 100, 100}};
	const struct vec v = {.iov = iov, .count = 3, .size = m->block};
	int status;

	stamp(m, memory, index, generation);
	status = disk_write(m->disk, &v, place_of(m, index), &io);
	free(memory);
	return status;
}

static int zero_block(struct many *m, unsigned index, struct random *r)
{
	struct io io = {.flags = random_once_in(r, 2) ? IO_MAY_UNMAP : 0};
	const struct disk_info *info = disk_info(m->disk);

	if (info->discard == DISK_DISCARD_ZEROES && info->discard_granularity == m->block && random_once_in(r, 2))
		return disk_discard(m->disk, place_of(m, index), m->block, &io_plain);
	return disk_write_zeroes(m->disk, place_of(m, index), m->block, &io);
}

static void change_block(struct many *m, unsigned index, struct random *r)
{
	uint64_t generation = atomic_load(&m->announced[index]);
	bool zero = random_once_in(r, 4);

	generation += zero == (generation % 2 == 0) ? 2 : 1; /* odd is data, even is zeroes */
	atomic_store(&m->announced[index], generation);
	CHECK_EQ(zero ? zero_block(m, index, r) : write_generation(m, index, generation, r), 0);
	atomic_store(&m->confirmed[index], generation);
	atomic_store(&m->begun[index], true);
}

static void be_writer(struct many *m, unsigned owner)
{
	struct random r = random_stream(100 + owner);
	unsigned mine = (m->nr_blocks - owner + WRITERS - 1) / WRITERS;

	for (unsigned i = 0; i < contract_rounds(300); i++) {
		unsigned index = owner + (unsigned)random_below(&r, mine) * WRITERS;
		change_block(m, index, &r);
		if (random_once_in(&r, 2))
			read_block(m, index);
		if (random_once_in(&r, 400))
			CHECK_EQ(disk_flush(m->disk, &io_plain), 0);
	}
	atomic_fetch_sub(&m->writing, 1);
}

/* At least once, however quick the writers are. */
static void be_reader(struct many *m, unsigned number)
{
	struct random r = random_stream(200 + number);

	do {
		for (unsigned i = 0; i < 50; i++)
			read_block(m, (unsigned)random_below(&r, m->nr_blocks));
		wait_yield();
	} while (atomic_load(&m->writing));
}

static void be_one_of_many(void *argument)
{
	struct many *m = argument;
	unsigned number = atomic_fetch_add(&m->next_index, 1);

	if (number < WRITERS)
		be_writer(m, number);
	else
		be_reader(m, number);
	wait_group_done(&m->ended);
}

static void *thread_of_many(void *argument)
{
	be_one_of_many(argument);
	return NULL;
}

/* Adjoining blocks, or blocks far apart. */
static struct many *many_begin(const struct contract *c, struct disk *d, bool apart)
{
	struct many *m = must_have(sizeof(*m));
	uint64_t blocks = disk_size(d) / disk_info(d)->block_size;

	m->c = c;
	m->disk = d;
	m->block = disk_info(d)->block_size;
	m->nr_blocks = blocks < MANY_BLOCKS ? (unsigned)blocks : MANY_BLOCKS;
	m->stride = apart && blocks >= 4 * MANY_BLOCKS ? (unsigned)(blocks / MANY_BLOCKS) : 1;
	atomic_store(&m->writing, contract_is_writable(d) ? WRITERS : 0);
	atomic_store(&m->next_index, contract_is_writable(d) ? 0 : WRITERS);
	wait_group_add(&m->ended, contract_is_writable(d) ? WRITERS + READERS : READERS);
	return m;
}

static void many_end(struct many *m)
{
	wait_group_wait(&m->ended);
	for (unsigned i = 0; i < m->nr_blocks; i++) {
		CHECK_EQ(atomic_load(&m->announced[i]), atomic_load(&m->confirmed[i]));
		read_block(m, i);
	}
	free(m);
}

void part_threads(const struct contract *c, struct disk *d)
{
	for (unsigned apart = 0; apart < 2; apart++) {
		struct many *m = many_begin(c, d, apart);
		unsigned count = contract_is_writable(d) ? WRITERS + READERS : READERS;
		pthread_t threads[WRITERS + READERS];
		for (unsigned i = 0; i < count; i++)
			if (pthread_create(&threads[i], NULL, thread_of_many, m))
				abort();
		for (unsigned i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
		many_end(m);
	}
}

void part_fibers(const struct contract *c, struct disk *d)
{
	struct loop *loops[2] = {NULL, NULL};
	unsigned count = contract_is_writable(d) ? WRITERS + READERS : READERS;

	for (unsigned i = 0; i < 2; i++)
		if (!CHECK_EQ(loop_start(NULL, &loops[i], NULL), 0))
			return;
	for (unsigned apart = 0; apart < 2; apart++) {
		struct many *m = many_begin(c, d, apart);
		for (unsigned i = 0; i < count; i++)
			if (loop_spawn(loops[i % 2], be_one_of_many, m))
				abort();
		many_end(m);
	}
	for (unsigned i = 0; i < 2; i++)
		loop_finish(loops[i]);
}
