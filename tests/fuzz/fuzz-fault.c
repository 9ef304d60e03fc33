/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of fault, in the first line; what follows are requests. Rules that parse strike the same requests the
 * same way when they are parsed again, no more often than they say, and keep to their ranges; what does not parse is
 * refused in one line of text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decorators/fault-rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

static void check_error(int status, const struct error *err)
{
	const char *text = error_text(err);

	must(err->status == status && *text);
	for (; *text; text++)
		must(*text >= ' ' && *text <= '~');
}

static void check_strike(const struct fault_strike *s, enum fault_op op, uint64_t offset, uint64_t length)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	const struct fault_rule *r = s->rule;

	must(r->ops >> op & 1);
	must(s->nth >= r->after && s->nth < r->matched);
	must(!r->times || r->struck <= r->times);
	if (op != FAULT_FLUSH)
		must(s->where >= offset && s->where < offset + length && s->where >= r->at && s->where < r->end);
	if (r->status) {
		must(fault_strike_fail(s, op, 512, &io) == r->status);
		must(failure.status == r->status && *failure.text);
	}
}

/* Four bytes a request, on a disk of 2 GiB: what, where, and how long. */
static void check_rules(struct fault_rules *a, struct fault_rules *b, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i + 4 <= size; i += 4) {
		enum fault_op op = data[i] % FAULT_OPS;
		uint64_t offset = op == FAULT_FLUSH ? 0 : (uint64_t)(data[i + 1] << 8 | data[i + 2]) * 32768;
		uint64_t length = op == FAULT_FLUSH ? 0 : 512u << data[i + 3] % 12;
		struct fault_strike x, y;
		bool struck = fault_rules_ask(a, op, offset, length, 7, &x);
		must(fault_rules_ask(b, op, offset, length, 7, &y) == struck);
		if (struck) {
			must(x.number == y.number && x.nth == y.nth && x.where == y.where);
			must(fault_strike_draw(&x, 7, 3) == fault_strike_draw(&y, 7, 3));
			check_strike(&x, op, offset, length);
		} else if (op == FAULT_WRITE) {
			fault_rules_heal(a, offset, length);
			fault_rules_heal(b, offset, length);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP_ERROR struct error err = {0};
	const uint8_t *line_end = size ? memchr(data, '\n', size) : NULL;
	size_t line = line_end ? (size_t)(line_end - data) : size;
	char *text = strndup((const char *)data, line);
	struct fault_rules a, b;
	int status = fault_rules_parse(text, &a, &err);

	if (status) {
		check_error(status, &err);
		must(!a.list && !a.count);
	} else {
		must(!fault_rules_parse(text, &b, NULL) && a.count == b.count);
		if (line_end)
			check_rules(&a, &b, line_end + 1, size - line - 1);
		fault_rules_free(&b);
		fault_rules_free(&a);
	}
	free(text);
	return 0;
}
