/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/container.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int container_close(struct container *c, bool remove, struct error *err)
{
	return c ? c->ops->close(c, remove, err) : 0;
}

/* Turns the reason that a request has recorded into an error. */
static int failed(const struct failure *failure, const struct container *c, int status, struct error *err)
{
	if (!status)
		return 0;
	if (failure->text[0])
		return error_set(err, status, "%s", failure->text);
	return error_set_errno(err, status, "'%s'", c->name);
}

int container_load(struct container *c, void *data, size_t size, uint64_t offset, struct error *err)
{
	struct failure failure = {0};
	uint64_t end = container_size(c);

	if (offset > end || size > end - offset)
		return error_set(err, -EIO, "%zu bytes at %" PRIu64 " lie behind the end of '%s', which has %" PRIu64 " bytes", size,
				 offset, c->name, end);
	return failed(&failure, c, container_read(c, data, size, offset, &(struct io){.failure = &failure}), err);
}

int container_store(struct container *c, const void *data, size_t size, uint64_t offset, struct error *err)
{
	struct failure failure = {0};

	return failed(&failure, c, container_write(c, data, size, offset, &(struct io){.failure = &failure}), err);
}

int container_sync(struct container *c, struct error *err)
{
	struct failure failure = {0};

	return failed(&failure, c, c->ops->flush(c, &(struct io){.failure = &failure}), err);
}

int container_set_size(struct container *c, uint64_t size, struct error *err)
{
	struct failure failure = {0};

	return failed(&failure, c, c->ops->resize(c, size, &(struct io){.failure = &failure}), err);
}
