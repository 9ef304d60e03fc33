/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A differencing image and its parents
 *
 * A loop, not a recursion: stacks of fibers are small, chains may be long. Each link has its layer, and through its image the
 * container, by which the search for the next parent finds cycles (formats/parent.h). All parents are opened read-only and shared.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/open.h"
#include "formats/vhd-image.h"

#define CLOCK_GRAIN 2 /* seconds: times of FAT file systems are even */

struct link {
	struct parent_chain chain;
	struct layer *layer;
	struct vhd *v; /* the layer's */
};

struct links {
	struct link *list[PARENT_MAX_DEPTH];
	unsigned count;
	const struct vhd_options *options;
	const struct parent_policy *policy;
};

static struct link *last_of(struct links *s)
{
	return s->list[s->count - 1];
}

/* The image becomes the last link's parent, or the first link. It stays the caller's when this fails. */
static int add_link(struct links *s, struct vhd *v, struct error *err)
{
	struct link *l = calloc(1, sizeof(*l));

	if (l)
		l->layer = vhd_layer_of(v);
	if (!l || !l->layer) {
		free(l);
		return error_set(err, -ENOMEM, "no memory");
	}
	if (s->count)
		last_of(s)->v->parent_size = atomic_load(&v->size);
	l->v = v;
	l->chain.container = v->c;
	l->chain.child = s->count ? &last_of(s)->chain : NULL;
	s->list[s->count++] = l;
	return 0;
}

static int open_image(struct links *s, struct container *c, struct vhd **v, struct error *err)
{
	const struct vhd_open_options how = {.lax = s->options->lax, .size_rule = s->options->size_rule};

	return vhd_image_open(c, &how, v, err);
}

/* ------------------------------------------------------------------ is it the parent */

static void print_id(const uint8_t id[16], char text[33])
{
	for (unsigned i = 0; i < 16; i++) {
		text[2 * i] = "0123456789abcdef"[id[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
	}
	text[32] = 0;
}

static int check_id(const struct links *s, const struct vhd *child, const struct vhd *parent, struct error *err)
{
	char wanted[33], found[33];

	if (s->policy->ignore_change || !memcmp(child->header.parent_id, parent->footer.id, 16))
		return 0;
	print_id(child->header.parent_id, wanted);
	print_id(parent->footer.id, found);
	error_set(err, -ESTALE, "its id is %s, the child was made over %s", found, wanted);
	error_hint(err, "ignore-change takes it all the same");
	return -ESTALE;
}

/*
 * The time of the parent's last change, as Virtual PC keeps it. Windows since 7 leaves it 0, and so do we; Xen sets it, but changes parents
 * under their children, by flags and coalescing, and does not look at it.
 */
static int check_time(const struct links *s, const struct vhd *child, const struct vhd *parent, struct error *err)
{
	uint32_t wanted = be32toh(child->header.parent_time), found;
	struct stat st;

	if (!wanted || s->policy->ignore_change || vhd_is_by_xen(&child->footer) || !parent->c->is_file || stat(parent->c->name, &st))
		return 0;
	found = vhd_time(st.st_mtime);
	if ((found > wanted ? found - wanted : wanted - found) <= CLOCK_GRAIN)
		return 0;
	error_set(err, -ESTALE, "it was changed %" PRIu32 " seconds %s it was when the child was made", found > wanted ? found - wanted : wanted - found,
		  found > wanted ? "after" : "before");
	error_hint(err, "where it was but copied, ignore-change takes it");
	return -ESTALE;
}

static int accept_vhd(void *context, struct container *c, struct error *err)
{
	struct links *s = context;
	struct vhd *child = last_of(s)->v, *parent;
	int status = open_image(s, c, &parent, err);

	if (status)
		return status;
	status = check_id(s, child, parent, err);
	if (!status)
		status = check_time(s, child, parent, err);
	if (!status)
		status = add_link(s, parent, err);
	if (status)
		vhd_image_close(parent, true, NULL);
	return status;
}

static int accept_raw(void *context, struct container *c, struct error *err)
{
	struct links *s = context;
	struct vhd *parent;
	int status = vhd_image_raw(c, &parent, err);

	if (status)
		return status;
	status = add_link(s, parent, err);
	if (status)
		vhd_image_close(parent, true, NULL);
	return status;
}

static bool is_null_id(const uint8_t id[16])
{
	return memory_is_zero(id, 16);
}

static int add_parent(struct links *s, struct error *err)
{
	struct link *child = last_of(s);
	struct parent_names names = {0};
	parent_accept *accept = is_null_id(child->v->header.parent_id) ? accept_raw : accept_vhd; /* null: raw, as Xen does it */
	int status = vhd_parent_names(child->v, &names);

	if (status)
		error_set(err, status, "no memory");
	else
		status = parent_find(&names, s->policy, &child->chain, accept, s, err);
	parent_names_free(&names);
	if (status)
		error_prefix(err, "'%s'", child->v->c->name);
	return status;
}

/* ------------------------------------------------------------------ the disk */

static void free_links(struct links *s, bool close, bool keep_first)
{
	for (unsigned i = s->count; i--;) {
		struct link *l = s->list[i];
		if (close && i)
			l->layer->ops->close(l->layer, true, NULL);
		else if (close && keep_first) { /* its container is the caller's again */
			vhd_image_close(l->v, true, NULL);
			free(l->layer);
		}
		free(l);
	}
}

static int make_disk(struct links *s, const char *kind, struct disk *below, unsigned open_flags, struct disk **out, struct error *err)
{
	struct layer_place *places;
	int status;

	if (below)
		return layered_create_over(kind, &(struct layer_place){.layer = s->list[0]->layer}, below, open_flags, out, err);
	places = calloc(s->count, sizeof(*places));
	if (!places)
		return error_set(err, -ENOMEM, "no memory");
	for (unsigned i = 0; i < s->count; i++)
		places[i].layer = s->list[i]->layer;
	status = layered_create(kind, places, s->count, NULL, 0, open_flags, out, err);
	free(places);
	return status;
}

/* What the user says is the parent. */
static int open_below(struct links *s, struct disk **below, struct error *err)
{
	int status = disk_open(s->policy->parent, OPEN_READ_ONLY, below, err);

	if (status)
		error_prefix(err, "parent");
	else
		s->list[0]->v->parent_size = disk_size(*below);
	return status;
}

static int open_chain(struct links *s, struct container *c, struct disk **below, struct error *err)
{
	struct vhd *v;
	int status = open_image(s, c, &v, err);

	if (status)
		return status;
	status = add_link(s, v, err);
	if (status) {
		vhd_image_close(v, true, NULL);
		return status;
	}
	if (s->policy->parent && v->type != VHD_DIFFERENCING)
		return error_set(err, -EINVAL, "parent= is given, but '%s' is no differencing image", c->name);
	if (s->policy->parent)
		return open_below(s, below, err);
	while (!status && last_of(s)->v->type == VHD_DIFFERENCING)
		status = add_parent(s, err);
	return status;
}

int vhd_disk_open(const char *kind, struct container *c, const struct vhd_options *o, const struct parent_policy *policy,
		  unsigned open_flags, struct disk **out, struct error *err)
{
	CLEANUP_ERROR struct error here = {0};
	struct links *s = calloc(1, sizeof(*s));
	struct disk *below = NULL;
	int status;

	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	s->options = o;
	s->policy = policy;
	status = open_chain(s, c, &below, &here);
	if (!status)
		status = make_disk(s, kind, below, open_flags, out, &here);
	free_links(s, status, true);
	free(s);
	if (status)
		disk_abandon(below);
	return status ? error_move(err, &here) : 0;
}
