/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fault scripts, for authors of drivers: what a controller does that is not well
 *
 *     script = rule { ( ";" | newline ) rule }
 *     rule   = { word }, separated by blanks; "#" begins a comment
 *
 *   word                        a command matches if
 *   admin, io                   it is on such a queue
 *   queue=N                     it is on this submission queue
 *   opcode=N  cid=N  nsid=N     these fields are that
 *   bytes=OFFSET:HEX[/MASK]     its entry has these bytes there, in those bits
 *   after=N                     N others matched before
 *   times=N                     fewer than N have been met by the rule; without it there is no end
 *
 *   word                        what happens to it
 *   delay=TIME                  it waits; ms, or with a unit: ns us ms s. It can be aborted meanwhile
 *   status=N                    it ends with this status (SCT << 8 | SC) without being carried out
 *   drop                        it is not carried out, and no completion comes
 *   corrupt=OFFSET:HEX          these bytes of its completion are that
 *   event=TYPE/INFO/LOG         an asynchronous event comes up; nothing has happened
 *   stuck                       CSTS shows from now on what it shows now, until another script is set, or nvme_reset()
 *
 * The first rule that a command matches is the one that counts. A rule that asks for nothing and has nothing but `event` and `stuck`
 * takes effect when the script is set. Numbers are decimal, or hexadecimal with 0x; bytes are always hexadecimal.
 *
 *     io opcode=2 after=10 times=1 status=0x281          the 11th read fails: unrecovered
 *     admin opcode=6 bytes=40:01 delay=2s                Identify Controller takes two seconds
 *     queue=3 cid=7 drop; event=2/0/4                    a command that is lost; a namespace event that is spurious
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define MOST_BYTES 16u
#define MOST_RULES 256u

enum word {
	MATCH_ADMIN = 1 << 0,
	MATCH_IO = 1 << 1,
	MATCH_QUEUE = 1 << 2,
	MATCH_OPCODE = 1 << 3,
	MATCH_CID = 1 << 4,
	MATCH_NSID = 1 << 5,
	MATCH_BYTES = 1 << 6,
	MATCH_COUNT = 1 << 7,
	MATCHES = (1 << 8) - 1,
	DO_DELAY = 1 << 8,
	DO_STATUS = 1 << 9,
	DO_DROP = 1 << 10,
	DO_CORRUPT = 1 << 11,
	DO_EVENT = 1 << 12,
	DO_STUCK = 1 << 13,
	ACTIONS = DO_DELAY | DO_STATUS | DO_DROP | DO_CORRUPT | DO_EVENT | DO_STUCK,
};

struct bytes {
	uint8_t offset, length;
	uint8_t value[MOST_BYTES], mask[MOST_BYTES];
};

struct rule {
	unsigned words; /* enum word */
	uint64_t queue, opcode, cid, nsid, after, times, delay_ns, status;
	uint64_t event; /* dword 0 of its completion */
	struct bytes entry, completion;
	_Atomic uint64_t met; /* so many matched */
};

struct nvme_script {
	unsigned count;
	struct rule rules[];
};

/* ------------------------------------------------------------------ values */

static bool read_number(const char *text, uint64_t max, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 0);
	return !*end && !errno && *value <= max;
}

static bool read_time(const char *text, uint64_t *ns)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = {{"", 1000000}, {"ms", 1000000}, {"ns", 1}, {"us", 1000}, {"s", 1000000000}};
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*ns = strtoull(text, &end, 10);
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(end, units[i].unit))
			return !errno && !__builtin_mul_overflow(*ns, units[i].ns, ns);
	return false;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Pairs of digits up to the end of the text or `stop`; where that is, or NULL. */
static const char *read_hex(const char *text, char stop, uint8_t *out, uint8_t *length)
{
	for (*length = 0; *text && *text != stop; text += 2) {
		int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0 || *length == MOST_BYTES)
			return NULL;
		out[(*length)++] = (uint8_t)(high << 4 | low);
	}
	return *length ? text : NULL;
}

/* OFFSET:HEX, and with `masked` [/MASK], within `size` bytes. */
static bool read_bytes(const char *text, unsigned size, bool masked, struct bytes *b)
{
	char *colon;
	unsigned long offset = strtoul(text, &colon, 10);
	uint8_t masks;

	if (!isdigit((unsigned char)*text) || *colon != ':' || offset >= size)
		return false;
	text = read_hex(colon + 1, masked ? '/' : 0, b->value, &b->length);
	if (!text || offset + b->length > size)
		return false;
	b->offset = (uint8_t)offset;
	memset(b->mask, 0xff, sizeof(b->mask));
	if (!*text)
		return true;
	text = read_hex(text + 1, 0, b->mask, &masks);
	return text && masks == b->length;
}

static bool read_event(const char *text, uint64_t *dw0)
{
	int type, info, log, end = 0;

	if (sscanf(text, "%i/%i/%i%n", &type, &info, &log, &end) != 3 || text[end])
		return false;
	if (type < 0 || type > 7 || info < 0 || info > 255 || log < 0 || log > 255)
		return false;
	*dw0 = (uint64_t)type | (uint64_t)info << 8 | (uint64_t)log << 16;
	return true;
}

/* ------------------------------------------------------------------ words */

static const struct {
	const char *name;
	enum word word;
	size_t at;    /* offset of the number in the rule; 0: it has none */
	uint64_t max;
} words[] = {
	{"admin", MATCH_ADMIN, 0, 0},
	{"io", MATCH_IO, 0, 0},
	{"queue", MATCH_QUEUE, offsetof(struct rule, queue), NVME_MAX_QUEUES},
	{"opcode", MATCH_OPCODE, offsetof(struct rule, opcode), 255},
	{"cid", MATCH_CID, offsetof(struct rule, cid), 65535},
	{"nsid", MATCH_NSID, offsetof(struct rule, nsid), UINT32_MAX},
	{"after", MATCH_COUNT, offsetof(struct rule, after), UINT32_MAX},
	{"times", MATCH_COUNT, offsetof(struct rule, times), UINT32_MAX},
	{"status", DO_STATUS, offsetof(struct rule, status), 0x7ff},
	{"drop", DO_DROP, 0, 0},
	{"stuck", DO_STUCK, 0, 0},
};

static bool add_special(struct rule *r, const char *name, const char *value, bool *known)
{
	*known = true;
	if (!strcmp(name, "bytes")) {
		r->words |= MATCH_BYTES;
		return value && read_bytes(value, sizeof(struct nvme_sqe), true, &r->entry);
	}
	if (!strcmp(name, "corrupt")) {
		r->words |= DO_CORRUPT;
		return value && read_bytes(value, sizeof(struct nvme_cqe), false, &r->completion);
	}
	if (!strcmp(name, "delay")) {
		r->words |= DO_DELAY;
		return value && read_time(value, &r->delay_ns);
	}
	if (!strcmp(name, "event")) {
		r->words |= DO_EVENT;
		return value && read_event(value, &r->event);
	}
	*known = false;
	return false;
}

/* Adds one word to the rule. */
static int add_word(struct rule *r, char *word, unsigned number, struct error *err)
{
	char *value = strchr(word, '=');
	bool known, good;

	if (value)
		*value++ = 0;
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(word, words[i].name))
			continue;
		r->words |= words[i].word;
		good = words[i].at ? value && read_number(value, words[i].max, (uint64_t *)((char *)r + words[i].at)) : !value;
		return good ? 0 : error_set(err, -EINVAL, "nvme script: rule %u: bad value for '%s'", number, word);
	}
	good = add_special(r, word, value, &known);
	if (!known)
		return error_set(err, -EINVAL, "nvme script: rule %u: there is no word '%s'", number, word);
	return good ? 0 : error_set(err, -EINVAL, "nvme script: rule %u: bad value for '%s'", number, word);
}

static int read_rule(struct rule *r, char *text, unsigned number, struct error *err)
{
	char *rest = NULL;
	int status = 0;

	*r = (struct rule){.times = UINT64_MAX};
	for (char *word = strtok_r(text, " \t\r", &rest); word && !status; word = strtok_r(NULL, " \t\r", &rest))
		status = add_word(r, word, number, err);
	if (!status && r->words && !(r->words & ACTIONS))
		status = error_set(err, -EINVAL,
				   "nvme script: rule %u does nothing: it needs one of delay, status, drop, corrupt, event, stuck",
				   number);
	return status;
}

/* Cuts off what stands behind '#' in each line, and makes lines of what stands between ';'. */
static void normalise(char *text)
{
	bool comment = false;

	for (; *text; text++) {
		if (*text == '\n')
			comment = false;
		else if (*text == '#')
			comment = true;
		if (comment)
			*text = ' ';
		else if (*text == ';')
			*text = '\n';
	}
}

static int parse(const char *text, struct nvme_script **out, struct error *err)
{
	struct nvme_script *script = calloc(1, sizeof(*script) + MOST_RULES * sizeof(script->rules[0]));
	char *copy = strdup(text), *rest = NULL;
	int status = script && copy ? 0 : error_set(err, -ENOMEM, "nvme script: no memory");

	if (!status)
		normalise(copy);
	for (char *line = status ? NULL : strtok_r(copy, "\n", &rest); line && !status; line = strtok_r(NULL, "\n", &rest)) {
		if (script->count == MOST_RULES) {
			status = error_set(err, -E2BIG, "nvme script: more than %u rules", MOST_RULES);
			break;
		}
		status = read_rule(&script->rules[script->count], line, script->count + 1, err);
		script->count += script->rules[script->count].words != 0;
	}
	free(copy);
	if (status)
		free(script);
	else
		*out = script;
	return status;
}

/* ------------------------------------------------------------------ matching */

static bool has_bytes(const struct nvme_command *cmd, const struct bytes *b)
{
	const uint8_t *entry = (const uint8_t *)&cmd->sqe + b->offset;

	for (unsigned i = 0; i < b->length; i++)
		if ((entry[i] ^ b->value[i]) & b->mask[i])
			return false;
	return true;
}

static bool matches(struct rule *r, const struct nvme_command *cmd)
{
	uint64_t met;

	if (!(r->words & MATCHES) || (r->words & MATCH_ADMIN && cmd->sq->id) || (r->words & MATCH_IO && !cmd->sq->id) ||
	    (r->words & MATCH_QUEUE && cmd->sq->id != r->queue) ||
	    (r->words & MATCH_OPCODE && cmd->sqe.opcode != r->opcode) ||
	    (r->words & MATCH_CID && nvme_cid(cmd) != r->cid) || (r->words & MATCH_NSID && nvme_nsid(cmd) != r->nsid) ||
	    (r->words & MATCH_BYTES && !has_bytes(cmd, &r->entry)))
		return false;
	met = atomic_fetch_add_explicit(&r->met, 1, memory_order_relaxed);
	return met >= r->after && met - r->after < r->times;
}

/* ------------------------------------------------------------------ carrying out */

static void make_stuck(struct nvme *c, bool stuck)
{
	short_lock_exclusive(&c->lock);
	c->stuck = stuck;
	c->stuck_csts = c->regs.csts;
	short_unlock_exclusive(&c->lock);
}

static void do_controller(struct nvme *c, const struct rule *r)
{
	if (r->words & DO_STUCK)
		make_stuck(c, true);
	if (r->words & DO_EVENT) {
		short_lock_exclusive(&c->log_lock);
		c->script_event = (uint32_t)r->event;
		short_unlock_exclusive(&c->log_lock);
		nvme_event(c, NVME_EVENT_SCRIPT);
	}
}

/* Waits, unless the command is broken off. */
static void do_delay(struct nvme_command *cmd, uint64_t ns)
{
	uint64_t now = wait_now(), until = ns < UINT64_MAX - now ? now + ns : UINT64_MAX;

	cmd->breakable = true;
	while (now < until) {
		uint32_t seen = wait_signal_count(&cmd->breaking);
		if (nvme_broken(cmd))
			break;
		wait_signal_wait(&cmd->breaking, seen, until - now);
		now = wait_now();
	}
	cmd->breakable = false;
}

/* True: the command is done, with cmd->status. */
static bool carry_out(struct nvme_command *cmd, const struct rule *r)
{
	do_controller(cmd->c, r);
	if (r->words & DO_DELAY)
		do_delay(cmd, r->delay_ns);
	if (r->words & DO_CORRUPT) {
		cmd->corrupt_offset = r->completion.offset;
		cmd->corrupt_length = r->completion.length;
		memcpy(cmd->corrupt, r->completion.value, sizeof(cmd->corrupt));
	}
	if (nvme_broken(cmd)) {
		cmd->status = nvme_broken(cmd);
		return true;
	}
	if (r->words & DO_DROP)
		cmd->no_completion = true;
	else if (r->words & DO_STATUS)
		cmd->status = (uint16_t)r->status;
	return r->words & (DO_DROP | DO_STATUS);
}

bool nvme_script_before(struct nvme_command *cmd)
{
	struct nvme *c = cmd->c;
	_Atomic uint32_t *place = grace_enter(&c->script_users);
	struct nvme_script *script = atomic_load(&c->script);
	struct rule copy = {.words = 0};

	for (unsigned i = 0; script && i < script->count; i++)
		if (matches(&script->rules[i], cmd)) {
			memcpy(&copy, &script->rules[i], offsetof(struct rule, met));
			break;
		}
	grace_leave(&c->script_users, place); /* the script may be replaced while the command waits */
	return copy.words && carry_out(cmd, &copy);
}

/* ------------------------------------------------------------------ setting */

static void replace(struct nvme *c, struct nvme_script *script)
{
	struct nvme_script *old;

	wait_mutex_lock(&c->script_lock);
	make_stuck(c, false);
	old = atomic_exchange(&c->script, script);
	grace_wait(&c->script_users);
	free(old);
	for (unsigned i = 0; script && i < script->count; i++)
		if (!(script->rules[i].words & MATCHES))
			do_controller(c, &script->rules[i]);
	wait_mutex_unlock(&c->script_lock);
}

int nvme_set_script(struct nvme *c, const char *text, struct error *err)
{
	struct nvme_script *script = NULL;
	int status = text && *text ? parse(text, &script, err) : 0;

	if (!status)
		replace(c, script);
	return status;
}

void nvme_script_end(struct nvme *c)
{
	free(atomic_exchange(&c->script, NULL));
}
