/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layers:[TOP,...,BOTTOM]: any stack of layers
 *
 * Members are opened from the bottom up, since a layer takes from below what its spec leaves open. A member whose kind is a
 * layer by itself (mem, sql) becomes one; any other is a disk, which holds every block. Layers that are written to (the top,
 * and on down through those marked write_through) are opened as the whole is, the others read-only; but a read cache is
 * filled whatever the disk is opened for, which is what it is there for.
 */
#include "kinds.h"

#include <errno.h>
#include <stdlib.h>

#include "core/node.h"
#include "layers/layer.h"

enum { MARK_READ_CACHE, MARK_WRITE_THROUGH };

/* A stack in the making: places[made..count) are there, and so are the disks under some of them, in the order of the list. */
struct stack {
	const struct open_request *request;
	unsigned count;
	unsigned made;
	struct layer_place *places;
	struct disk **disks;
	unsigned nr_disks;
	struct layer_below below;
};

static bool has_mark(const struct spec *member, unsigned mark)
{
	return member->marks >> mark & 1;
}

static unsigned flags_of(const struct stack *s, unsigned index)
{
	struct spec *const *members = s->request->spec->children;

	if (has_mark(members[index], MARK_READ_CACHE))
		return s->request->flags & ~(unsigned)OPEN_READ_ONLY;
	while (index)
		if (!has_mark(members[--index], MARK_WRITE_THROUGH))
			return s->request->flags | OPEN_READ_ONLY;
	return s->request->flags;
}

/* A member that is a disk; it goes in front of those below it. */
static int open_disk_layer(struct stack *s, unsigned index, struct layer **out, struct error *err)
{
	struct disk *disk = NULL;
	int status = disk_open_child(s->request, index, flags_of(s, index), &disk, err);

	if (status)
		return status;
	*out = disk_layer_create(disk);
	if (!*out) {
		disk_abandon(disk);
		return error_set(err, -ENOMEM, "no memory");
	}
	for (unsigned i = s->nr_disks++; i; i--)
		s->disks[i] = s->disks[i - 1];
	s->disks[0] = disk;
	return 0;
}

static int open_member(struct stack *s, unsigned index, struct layer **out, struct error *err)
{
	const struct spec *member = s->request->spec->children[index];
	struct open_request request = {.spec = member, .flags = flags_of(s, index)};
	int status;

	if (!member->kind->open_layer)
		return open_disk_layer(s, index, out, err);
	status = member->kind->open_layer(&request, s->made < s->count ? &s->below : NULL, out, err);
	if (status)
		error_prefix(err, "%s", member->kind->name);
	return status;
}

static int add_layer(struct stack *s, struct error *err)
{
	unsigned index = s->made - 1;
	const struct spec *member = s->request->spec->children[index];
	struct layer *l = NULL;
	int status = open_member(s, index, &l, err);

	if (status) {
		error_prefix(err, "layer %u", index);
		return status;
	}
	s->places[index] = (struct layer_place){
		.layer = l,
		.read_cache = has_mark(member, MARK_READ_CACHE),
		.write_through = has_mark(member, MARK_WRITE_THROUGH),
	};
	s->below = (struct layer_below){.size = l->ops->size(l), .info = &l->info};
	s->made = index;
	return 0;
}

static void abandon_stack(struct stack *s)
{
	for (unsigned i = s->made; i < s->count; i++)
		s->places[i].layer->ops->close(s->places[i].layer, true, NULL);
	for (unsigned i = 0; i < s->nr_disks; i++)
		disk_abandon(s->disks[i]);
}

static int make_stack(struct stack *s, struct disk **out, struct error *err)
{
	int status = 0;

	while (!status && s->made)
		status = add_layer(s, err);
	if (!status)
		status = layered_create("layers", s->places, s->count, s->disks, s->nr_disks,
					s->request->flags, out, err);
	if (status)
		abandon_stack(s);
	return status;
}

static int layers_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct stack s = {.request = request, .count = request->spec->nr_children};
	int status;

	s.made = s.count;
	s.places = calloc(s.count, sizeof(*s.places));
	s.disks = calloc(s.count, sizeof(struct disk *));
	if (s.places && s.disks)
		status = make_stack(&s, out, err);
	else
		status = error_set(err, -ENOMEM, "no memory");
	free(s.places);
	free(s.disks);
	return status;
}

static const struct spec_field no_fields[] = {{0}};

static const struct spec_mark layer_marks[] = {
	[MARK_READ_CACHE] = {"read_cache", "keeps what was read below it"},
	[MARK_WRITE_THROUGH] = {"write_through", "hands writes on to the next layer"},
	{0},
};

const struct disk_kind layers_kind = {
	.name = "layers",
	.summary = "stack of layers, the top one first",
	.children = KIND_JOINS,
	.fields = no_fields,
	.marks = layer_marks,
	.opens_children = true,
	.open = layers_open,
};
