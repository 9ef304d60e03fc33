/* SPDX-License-Identifier: BSD-3-Clause */
/* A differencing VHDX file with its parents. They are opened one after the other, from the child up, without recursion. */
#include "formats/vhdx-file.h"

#include <errno.h>
#include <stdlib.h>

#include "formats/vhdx-locator.h"

/* ------------------------------------------------------------------ is it the parent? */

struct acceptance {
	const struct vhdx *child;
	const struct vhdx_locator *locator;
	bool ignore_change;
	struct layer *parent;
};

static int compare_linkage(const struct acceptance *a, const struct layer *parent, struct error *err)
{
	struct guid has = vhdx_data_write_guid(parent);
	char wanted[GUID_TEXT_MAX], found[GUID_TEXT_MAX];

	if (a->ignore_change)
		return 0;
	for (unsigned i = 0; i < 2; i++)
		if (a->locator->has_linkage[i] && guid_equal(&a->locator->linkage[i], &has))
			return 0;
	return error_set(err, -ESTALE,
			 "it is not as it was when the child was made: its DataWriteGuid is %s, the child names %s "
			 "(;ignore-change takes it all the same)",
			 guid_text(&has, found), guid_text(&a->locator->linkage[0], wanted));
}

static int accept_parent(void *context, struct container *c, struct error *err)
{
	struct acceptance *a = context;
	int status = vhdx_layer_open(c, &a->parent, err);

	if (status)
		return status;
	status = compare_linkage(a, a->parent, err);
	if (!status && a->parent->info.block_size != a->child->meta.logical_sector)
		status = error_set(err, -EINVAL, "it has sectors of %u bytes, the child of %u", a->parent->info.block_size,
				   a->child->meta.logical_sector);
	if (status) {
		vhdx_layer_release(a->parent);
		a->parent = NULL;
	}
	return status;
}

/* ------------------------------------------------------------------ one after the other */

/* A link for each file of the chain, from the one that the user opened on. */
struct links {
	struct parent_chain *list[PARENT_MAX_DEPTH + 1];
	unsigned count;
};

static struct parent_chain *add_link(struct links *k, const struct container *c)
{
	struct parent_chain *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	*link = (struct parent_chain){c, k->count ? k->list[k->count - 1] : NULL};
	k->list[k->count++] = link;
	return link;
}

static void free_links(struct links *k)
{
	while (k->count)
		free(k->list[--k->count]);
	free(k);
}

static int find_parent(struct vhdx *child, const struct parent_policy *policy, const struct parent_chain *link, struct layer **out,
		       struct error *err)
{
	struct vhdx_locator locator;
	struct acceptance a = {.child = child, .locator = &locator, .ignore_change = policy->ignore_change};
	int status = vhdx_locator_load(child->file, &child->meta, &locator, err);

	if (status)
		return status;
	status = parent_find(&locator.names, policy, link, accept_parent, &a, err);
	vhdx_locator_free(&locator);
	*out = a.parent;
	return status;
}

static int add_place(struct vhdx_chain *chain, struct layer *l, struct error *err)
{
	struct layer_place *grown = reallocarray(chain->places, chain->count + 1, sizeof(*grown));

	if (!grown)
		return error_set(err, -ENOMEM, "no memory");
	chain->places = grown;
	grown[chain->count++] = (struct layer_place){.layer = l};
	return 0;
}

/* The parent of the last layer, as the next one. */
static int add_parent(struct vhdx_chain *chain, struct links *links, const struct parent_policy *policy, struct error *err)
{
	struct vhdx *child = vhdx_of(chain->places[chain->count - 1].layer);
	struct parent_chain *link;
	struct layer *parent = NULL;
	int status;

	if (links->count > PARENT_MAX_DEPTH)
		return error_set(err, -ELOOP, "the chain of parents is longer than %u files", PARENT_MAX_DEPTH);
	link = add_link(links, child->file);
	status = link ? find_parent(child, policy, link, &parent, err) : error_set(err, -ENOMEM, "no memory");
	if (status)
		return status;
	status = add_place(chain, parent, err);
	if (status)
		parent->ops->close(parent, true, NULL);
	return status;
}

static bool wants_parent(const struct vhdx_chain *chain)
{
	return vhdx_has_parent(chain->places[chain->count - 1].layer);
}

static int add_parents(struct vhdx_chain *chain, const struct parent_policy *policy, struct error *err)
{
	struct links *links = calloc(1, sizeof(*links));
	int status = links ? 0 : error_set(err, -ENOMEM, "no memory");

	while (!status && wants_parent(chain)) {
		status = add_parent(chain, links, policy, err);
		if (status && chain->count > 1) /* the first one is named by who opens it */
			error_prefix(err, "'%s'", vhdx_of(chain->places[chain->count - 1].layer)->file->name);
	}
	if (links)
		free_links(links);
	return status;
}

int vhdx_chain_open(struct container *c, const struct parent_policy *policy, struct vhdx_chain *out, struct error *err)
{
	struct layer *top;
	int status = vhdx_layer_open(c, &top, err);

	*out = (struct vhdx_chain){0};
	if (status)
		return status;
	status = add_place(out, top, err);
	if (!status)
		status = add_parents(out, policy, err);
	if (!status)
		return 0;
	vhdx_layer_release(top);
	for (unsigned i = 1; i < out->count; i++)
		out->places[i].layer->ops->close(out->places[i].layer, true, NULL);
	free(out->places);
	*out = (struct vhdx_chain){0};
	return status;
}

void vhdx_chain_abandon(struct vhdx_chain *chain)
{
	for (unsigned i = 0; i < chain->count; i++)
		chain->places[i].layer->ops->close(chain->places[i].layer, true, NULL);
	free(chain->places);
	*chain = (struct vhdx_chain){0};
}
