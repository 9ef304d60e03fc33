/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/run-list.h"

static bool goes_on(const struct run_list *l, enum presence presence, uint64_t at)
{
	return l->length && l->presence == presence && (presence != LAYER_DATA || l->at + l->length == at);
}

void run_list_add(struct run_list *l, enum presence presence, uint64_t length, uint64_t at)
{
	if (!goes_on(l, presence, at)) {
		run_list_end(l);
		l->presence = presence;
		l->at = at;
	}
	l->length += length;
}

void run_list_end(struct run_list *l)
{
	static const char *const kinds[] = {[LAYER_ABSENT] = "absent", [LAYER_ZERO] = "zero", [LAYER_DATA] = "data"};
	json_t *row;

	if (!l->length)
		return;
	row = json_pack("{s:I, s:I, s:s}", "offset", (json_int_t)l->offset, "length", (json_int_t)l->length, "kind", kinds[l->presence]);
	if (row && l->presence == LAYER_DATA)
		json_object_set_new(row, "at", json_integer((json_int_t)l->at));
	json_array_append_new(l->rows, row);
	l->offset += l->length;
	l->length = 0;
}
