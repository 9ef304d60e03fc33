/* SPDX-License-Identifier: BSD-3-Clause */
/* A medium in memory, to which states are brought: core/unflushed.h. */
#include "core/unflushed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_inside(const struct unflushed_image *image, uint64_t offset, uint64_t length)
{
	return offset <= image->size && length <= image->size - offset;
}

static int image_write(void *to, uint64_t offset, const void *data, size_t length)
{
	struct unflushed_image *image = to;

	if (!is_inside(image, offset, length))
		return -ERANGE;
	memcpy(image->bytes + offset, data, length);
	return 0;
}

static int image_zero(void *to, uint64_t offset, uint64_t length, unsigned tag)
{
	struct unflushed_image *image = to;

	(void)tag;
	if (!is_inside(image, offset, length))
		return -ERANGE;
	memset(image->bytes + offset, 0, (size_t)length);
	return 0;
}

static int image_resize(void *to, uint64_t size)
{
	struct unflushed_image *image = to;
	unsigned char *bytes = size < SIZE_MAX ? realloc(image->bytes, (size_t)size + !size) : NULL;

	if (!bytes)
		return -ENOMEM;
	if (size > image->size)
		memset(bytes + image->size, 0, (size_t)(size - image->size));
	*image = (struct unflushed_image){.bytes = bytes, .size = size};
	return 0;
}

struct unflushed_sink unflushed_image_sink(struct unflushed_image *image)
{
	return (struct unflushed_sink){.write = image_write, .zero = image_zero, .resize = image_resize, .to = image};
}
