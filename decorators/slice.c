/* SPDX-License-Identifier: BSD-3-Clause */
/* slice: a byte window of a disk, given by offset and length. */
#include "kinds.h"

#include <errno.h>

#include "decorators/window.h"

static int slice_open(const struct open_request *request, struct disk **out, struct error *err)
{
	const struct spec *spec = request->spec;
	struct window *w = window_new(sizeof(*w), "slice", request->children[0], false, NULL);

	if (!w)
		return error_set(err, -ENOMEM, "no memory");
	return window_publish(w, spec_number(spec, "offset"),
			      spec_given(spec, "length") ? spec_number(spec, "length") : UINT64_MAX, out, err);
}

static const struct spec_field slice_fields[] = {
	{.name = "offset",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .required = true,
	 .unit = "bytes",
	 .max = DISK_MAX_END,
	 .help = "where the window begins, whole blocks"},
	{.name = "length",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .separator = ',',
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "how long it is, whole blocks; empty: to the end of the disk"},
	{0},
};

const struct disk_kind slice_kind = {
	.name = "slice",
	.summary = "a byte window of a disk",
	.children = KIND_WRAPS,
	.fields = slice_fields,
	.open = slice_open,
};
