/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file of persistent reservations. Magic and checksum are made right, so that what follows is looked at. What is taken
 * encodes to the same bytes again, and whatever is done to such a state, it is one that a file can hold.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "decorators/reservations-file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

static void check_state(const struct reservations *r)
{
	CLEANUP_RESERVATIONS struct reservations again = {0};
	size_t size, holders = 0;
	uint8_t *bytes;

	must(!reservations_encode(r, &bytes, &size));
	must(!reservations_decode(bytes, size, &again, NULL));
	free(bytes);
	must(again.type == r->type && again.count == r->count);
	for (size_t i = 0; i < r->count; i++)
		holders += reservations_holds(&again, &r->list[i].who);
	must(!r->type ? !holders : reservation_type_of_all(r->type) ? holders == r->count : holders == 1);
}

/* Two bytes an action: what, and of whom with which keys. */
static void act(struct reservations *r, uint8_t what, uint8_t which)
{
	CLEANUP_NEWS struct reservation_news news = {0};
	struct reservation_entry some = r->count ? r->list[which % r->count] : (struct reservation_entry){.key = 0};
	struct reservation_entry other = r->count ? r->list[(which / 16u) % r->count] : some;
	const struct reservation_request request = {
		.action = what % 9,
		.type = what / 16,
		.key = some.key,
		.new_key = which & 1 ? other.key : which & 2,
		.persist = -1,
		.nvme = which & 4,
		.unregister = which & 8,
		.also = &other.who,
		.nr_also = which >> 7,
	};
	const struct io io = {.who = &some.who};

	reservations_apply(r, &request, true, &news, &io);
	must(news.count <= r->room + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	uint8_t *bytes = malloc(size + !size), *again;
	uint64_t sum;
	size_t length;

	memcpy(bytes, data, size);
	if (size >= 16) {
		sum = XXH3_64bits(bytes + 16, size - 16);
		for (unsigned i = 0; i < 8; i++)
			bytes[8 + i] = (uint8_t)(sum >> 8 * i);
		memcpy(bytes, "PLTRESV1", 8);
	}
	if (!reservations_decode(bytes, size, &r, NULL)) {
		must(!reservations_encode(&r, &again, &length) && length == size && !memcmp(again, bytes, size));
		free(again);
		r.persists = true;
		for (size_t i = 32; i + 1 < size; i += 2) {
			act(&r, bytes[i], bytes[i + 1]);
			check_state(&r);
		}
	}
	free(bytes);
	return 0;
}
