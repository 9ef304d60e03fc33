/* SPDX-License-Identifier: BSD-3-Clause */
/* ro: opens what is below read-only and shows it so. */
#include "kinds.h"

#include <errno.h>

#include "core/node.h"

static const struct disk_ops readonly_ops = {0};

static int readonly_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct disk *d = disk_new(sizeof(*d), "ro", &readonly_ops, request->children, 1);
	int status;

	if (!d)
		return error_set(err, -ENOMEM, "no memory");
	disk_inherit(d);
	d->info.flags |= DISK_READ_ONLY;
	status = disk_publish(d, disk_size(request->children[0]), err);
	if (status)
		disk_drop_new(d);
	else
		*out = d;
	return status;
}

static unsigned read_only_below(const struct spec *spec, unsigned index, unsigned flags)
{
	(void)spec;
	(void)index;
	return flags | OPEN_READ_ONLY;
}

static const struct spec_field readonly_fields[] = {{0}};

const struct disk_kind readonly_kind = {
	.name = "ro",
	.summary = "read-only view of a disk",
	.children = KIND_WRAPS,
	.fields = readonly_fields,
	.child_flags = read_only_below,
	.open = readonly_open,
};
