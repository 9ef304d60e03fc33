/* SPDX-License-Identifier: BSD-3-Clause */
/* null: reads zeroes, forgets writes. For measuring what stands above it. */
#include "kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/node.h"

static int null_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)d;
	(void)offset;
	(void)io;
	vec_zero(v, 0, v->size);
	return 0;
}

static int null_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)d;
	(void)v;
	(void)offset;
	(void)io;
	return 0;
}

static int null_clear(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	(void)d;
	(void)offset;
	(void)length;
	(void)io;
	return 0;
}

static int null_extents(struct disk *d, struct extents *out, const struct io *io)
{
	(void)d;
	(void)io;
	extents_add(out, out->end - out->offset, EXTENT_ZERO | EXTENT_HOLE);
	return 0;
}

static int null_resize(struct disk *d, uint64_t size, const struct io *io)
{
	(void)io;
	disk_set_size(d, size);
	return 0;
}

static int null_identity(struct disk *d, struct identity *out)
{
	snprintf(out->name, sizeof(out->name), "null");
	snprintf(out->version, sizeof(out->version), "%" PRIu64, disk_size(d));
	return 0;
}

static const struct disk_ops null_ops = {
	.read = null_read,
	.write = null_write,
	.discard = null_clear,
	.write_zeroes = null_clear,
	.extents = null_extents,
	.resize = null_resize,
	.identity = null_identity,
};

static int null_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct disk *d = disk_new(sizeof(*d), "null", &null_ops, NULL, 0);
	uint32_t block = (uint32_t)spec_number(request->spec, "block");
	int status;

	if (!d)
		return error_set(err, -ENOMEM, "no memory");
	d->info = (struct disk_info){
		.block_size = block,
		.physical_block_size = block,
		.discard_granularity = block,
		.discard = DISK_DISCARD_ZEROES,
		.flags = DISK_FUA | DISK_FAST_ZERO | DISK_VOLATILE | DISK_RESIZABLE,
	};
	if (request->flags & OPEN_READ_ONLY)
		d->info.flags |= DISK_READ_ONLY;
	status = disk_publish(d, spec_number(request->spec, "size"), err);
	if (status)
		disk_drop_new(d);
	else
		*out = d;
	return status;
}

static const struct spec_field null_fields[] = {
	{.name = "size",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .required = true,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "size of the disk, whole blocks"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "512",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_BLOCK,
	 .help = "logical block size, a power of two"},
	{0},
};

const struct disk_kind null_kind = {
	.name = "null",
	.summary = "reads zeroes, forgets what is written",
	.children = KIND_LEAF,
	.fields = null_fields,
	.open = null_open,
};
