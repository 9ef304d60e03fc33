/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making a VHDX file smaller
 *
 * Two passes over an open file that nobody else uses. In the first, blocks of zeroes become "zero" in the table. The second begins anew, so
 * that what the first freed is a gap; it takes blocks from the end of the file, the last one first, and moves each into the
 * first gap before it: copied, flushed, and only then the entry goes through the log. Space that a block has left is behind
 * everything that is moved later, so it is not used again, and the file is cut when the table with all moves is durable.
 */
#include "formats/vhdx-writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

#define COPY_BYTES (1u << 20)

/* Something in the file that the table points at. */
struct thing {
	uint64_t offset;
	uint64_t index; /* of its entry */
	uint64_t length;
};

struct compacting {
	struct vhdx *x;
	struct vhdx_compact_result *out;
	const struct io *io;
	struct watch *watch;
	bool stopped; /* by the watch: what was done stays, and is made durable */
	struct thing *list;
	size_t count, room;
	uint8_t *buffer;
};

/* ------------------------------------------------------------------ what there is */

static bool points(uint64_t entry)
{
	return VHDX_STATE(entry) == VHDX_FULL || VHDX_STATE(entry) == VHDX_PARTIAL;
}

static bool is_bitmap(const struct vhdx *x, uint64_t index)
{
	uint64_t ratio = UINT64_C(1) << x->ratio_shift;

	return index % (ratio + 1) == ratio;
}

static int add_thing(struct compacting *k, uint64_t index, uint64_t entry)
{
	struct thing *grown;

	if (k->count == k->room) {
		grown = reallocarray(k->list, k->room ? 2 * k->room : 256, sizeof(*grown));
		if (!grown)
			return io_fail(k->io, -ENOMEM, "'%s': no memory", k->x->file->name);
		k->list = grown;
		k->room = k->room ? 2 * k->room : 256;
	}
	k->list[k->count++] = (struct thing){VHDX_OFFSET(entry), index, is_bitmap(k->x, index) ? VHDX_MIB : k->x->meta.block_size};
	return 0;
}

static int collect(struct compacting *k)
{
	uint64_t entries = vhdx_bat_entries(&k->x->meta, atomic_load(&k->x->size)), entry;
	int status = 0;

	for (uint64_t i = 0; i < entries && !status; i++) {
		if (is_bitmap(k->x, i) && !k->x->meta.has_parent)
			continue;
		status = vhdx_load_index(k->x, i, &entry, k->io);
		if (!status && points(entry))
			status = add_thing(k, i, entry);
	}
	return status;
}

static int from_the_end(const void *a, const void *b)
{
	const struct thing *x = a, *y = b;

	return x->offset > y->offset ? -1 : x->offset < y->offset;
}

/* ------------------------------------------------------------------ zeroes */

static int holds_zeroes(struct compacting *k, const struct thing *t, bool *zero)
{
	int status = 0;

	*zero = true;
	for (uint64_t at = 0; at < t->length && *zero && !status; at += COPY_BYTES) {
		status = container_read(k->x->file, k->buffer, COPY_BYTES, t->offset + at, k->io);
		*zero = !status && memory_is_zero(k->buffer, COPY_BYTES);
	}
	return status;
}

static uint64_t sum_of_lengths(const struct compacting *k)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < k->count; i++)
		sum += k->list[i].length;
	return sum;
}

static bool go_on(struct compacting *k)
{
	k->stopped = watch_stopped(k->watch);
	return !k->stopped;
}

/* A partial block of zeroes hides the parent only where its bits are: it stays. */
static int free_if_zero(struct compacting *k, const struct thing *t)
{
	uint64_t entry, number;
	bool zero;
	int status;

	if (is_bitmap(k->x, t->index))
		return 0;
	status = vhdx_load_index(k->x, t->index, &entry, k->io);
	if (status || VHDX_STATE(entry) != VHDX_FULL || t->offset + t->length > container_size(k->x->file))
		return status;
	status = holds_zeroes(k, t, &zero);
	if (status || !zero)
		return status;
	k->out->zeroed++;
	return vhdx_publish(k->x, t->index, VHDX_ZERO, false, &number, k->io);
}

static int free_zeroes(struct compacting *k)
{
	int status = 0;

	watch_phase(k->watch, "look for zeroes", sum_of_lengths(k));
	for (size_t i = 0; i < k->count && !status && go_on(k); i++) {
		status = free_if_zero(k, &k->list[i]);
		watch_add(k->watch, k->list[i].length);
	}
	return status ? status : vhdx_commit_flush(k->x, k->io);
}

/* ------------------------------------------------------------------ moving */

static int copy(struct compacting *k, const struct thing *t, uint64_t to)
{
	int status = 0;

	for (uint64_t at = 0; at < t->length && !status; at += COPY_BYTES) {
		status = container_read(k->x->file, k->buffer, COPY_BYTES, t->offset + at, k->io);
		if (!status)
			status = container_write(k->x->file, k->buffer, COPY_BYTES, to + at, k->io);
	}
	return status;
}

static int move(struct compacting *k, struct thing *t, uint64_t to)
{
	uint64_t entry, number;
	int status = copy(k, t, to);

	if (!status)
		status = vhdx_load_index(k->x, t->index, &entry, k->io);
	if (!status)
		status = vhdx_publish(k->x, t->index, to | VHDX_STATE(entry), true, &number, k->io);
	if (!status && atomic_load(&k->x->pages.nr_dirty) > VHDX_DIRTY_PAGES)
		status = vhdx_commit_flush(k->x, k->io);
	t->offset = to;
	k->out->moved++;
	return status;
}

/* Where the last thing ends, of those from `first` on, which are sorted, and of those before, which were moved. */
static uint64_t end_of(const struct compacting *k)
{
	uint64_t end = k->x->log_offset + k->x->log_length;

	for (unsigned i = 0; i < k->x->regions.count; i++)
		if (k->x->regions.all[i].offset + k->x->regions.all[i].length > end)
			end = k->x->regions.all[i].offset + k->x->regions.all[i].length;
	for (size_t i = 0; i < k->count; i++)
		if (k->list[i].offset + k->list[i].length > end)
			end = k->list[i].offset + k->list[i].length;
	return end;
}

static int move_all(struct compacting *k)
{
	uint64_t to;
	int status = 0;

	qsort(k->list, k->count, sizeof(*k->list), from_the_end);
	watch_phase(k->watch, "move blocks", sum_of_lengths(k));
	for (size_t i = 0; i < k->count && !status && go_on(k); i++) {
		if (vhdx_space_gap(k->x, k->list[i].length, k->list[i].offset, &to))
			status = move(k, &k->list[i], to);
		watch_add(k->watch, k->list[i].length);
	}
	if (!status)
		status = vhdx_commit_flush(k->x, k->io);
	if (!status)
		vhdx_space_lower(k->x, end_of(k));
	return status;
}

/* ------------------------------------------------------------------ passes */

typedef int pass(struct compacting *k);

static int run_pass(struct container *c, pass *what, struct vhdx_compact_result *out, struct error *err)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	struct compacting k = {.out = out, .io = &io, .watch = c->watch, .buffer = malloc(COPY_BYTES)};
	CLEANUP_ERROR struct error closing = {0};
	struct layer *l;
	int status = k.buffer ? vhdx_layer_open(c, &l, err) : error_set(err, -ENOMEM, "no memory"), now;

	if (status) {
		free(k.buffer);
		return status;
	}
	k.x = vhdx_of(l);
	vhdx_keep_data_id(l);
	status = vhdx_begin(k.x, &io);
	if (!status)
		status = collect(&k);
	if (!status)
		status = what(&k);
	if (status)
		error_set(err, status, "%s", why.text);
	free(k.list);
	free(k.buffer);
	now = vhdx_writer_close(k.x, status != 0, &closing);
	if (now && !status)
		error_move(err, &closing);
	vhdx_layer_release(l);
	if (!status && !now && k.stopped)
		return error_set(err, -EINTR, "'%s': stopped by a signal; what was done until then stays", c->name);
	return status ? status : now;
}

int vhdx_compact(struct container *c, bool find_zeroes, struct vhdx_compact_result *out, struct error *err)
{
	struct layer *l;
	bool fixed;
	int status;

	*out = (struct vhdx_compact_result){.before = container_size(c)};
	if (c->read_only)
		return error_set(err, -EROFS, "'%s' is open for reading only", c->name);
	status = vhdx_layer_open(c, &l, err);
	if (status)
		return status;
	fixed = vhdx_of(l)->meta.leave_allocated;
	vhdx_layer_release(l);
	if (find_zeroes && !fixed)
		status = run_pass(c, free_zeroes, out, err);
	if (!status)
		status = run_pass(c, move_all, out, err);
	out->after = container_size(c);
	return status;
}
