/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhdx-locator.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"
#include "formats/utf16.h"

enum key { LINKAGE, LINKAGE2, RELATIVE, VOLUME, ABSOLUTE, KEYS };

static const char *const keys[KEYS] = {"parent_linkage", "parent_linkage2", "relative_path", "volume_path", "absolute_win32_path"};
static const enum parent_form forms[KEYS] = {
	[RELATIVE] = PARENT_RELATIVE, [VOLUME] = PARENT_VOLUME, [ABSOLUTE] = PARENT_WINDOWS};

/* ------------------------------------------------------------------ reading */

/* The values that are known, as they lie in the item. */
struct values {
	const uint8_t *text[KEYS];
	uint16_t length[KEYS];
};

static int known_key(const uint8_t *text, uint16_t length)
{
	char *name;
	int found = -1;

	if (utf16_to_utf8(text, length, UTF16_LE, &name))
		return -1;
	for (int k = 0; k < KEYS && found < 0; k++)
		if (!strcmp(name, keys[k]))
			found = k;
	free(name);
	return found;
}

static bool is_inside(uint32_t offset, uint32_t length, uint32_t size)
{
	return length && offset >= sizeof(struct vhdx_raw_locator) && offset <= size && length <= size - offset;
}

static int take_pair(const uint8_t *item, uint32_t size, const struct vhdx_raw_pair *raw, unsigned number, struct values *v,
		     struct error *err)
{
	uint32_t key = le32_get(raw->key_offset), value = le32_get(raw->value_offset);
	uint16_t key_length = le16_get(raw->key_length), value_length = le16_get(raw->value_length);
	int k;

	if (!is_inside(key, key_length, size) || !is_inside(value, value_length, size))
		return error_set(err, -EINVAL, "parent locator: entry %u does not lie inside of the item's %" PRIu32 " bytes", number,
				 size);
	k = known_key(item + key, key_length);
	if (k < 0)
		return 0;
	if (v->text[k])
		return error_set(err, -EINVAL, "parent locator: '%s' is there twice", keys[k]);
	v->text[k] = item + value;
	v->length[k] = value_length;
	return 0;
}

static int take_pairs(const uint8_t *item, uint32_t size, struct values *v, struct error *err)
{
	static const struct guid known = VHDX_LOCATOR_TYPE;
	const struct vhdx_raw_locator *head = (const void *)item;
	const struct vhdx_raw_pair *raw = (const void *)(item + sizeof(*head));
	char type[GUID_TEXT_MAX];
	unsigned count;
	int status = 0;

	if (size < sizeof(*head))
		return error_set(err, -EINVAL, "parent locator: %" PRIu32 " bytes are too few", size);
	count = le16_get(head->count);
	if (!guid_equal(&head->type, &known))
		return error_set(err, -EOPNOTSUPP, "parent locator: it is of the type %s, which is not that of a VHDX parent",
				 guid_text(&head->type, type));
	if (!count || count > VHDX_MAX_PAIRS || sizeof(*head) + count * sizeof(*raw) > size)
		return error_set(err, -EINVAL, "parent locator: %u entries are not 1 to %u that fit in %" PRIu32 " bytes", count,
				 VHDX_MAX_PAIRS, size);
	for (unsigned i = 0; i < count && !status; i++)
		status = take_pair(item, size, &raw[i], i, v, err);
	return status;
}

static int take_linkage(struct vhdx_locator *l, unsigned which, const struct values *v, struct error *err)
{
	enum key k = which ? LINKAGE2 : LINKAGE;
	char *text = NULL;

	if (!v->text[k])
		return 0;
	l->has_linkage[which] = !utf16_to_utf8(v->text[k], v->length[k], UTF16_LE, &text) &&
				guid_parse(text, strlen(text), &l->linkage[which]);
	free(text);
	if (!l->has_linkage[which])
		return error_set(err, -EINVAL, "parent locator: '%s' is no GUID", keys[k]);
	return 0;
}

static int take_values(struct vhdx_locator *l, const struct values *v, struct error *err)
{
	int status = 0;

	for (unsigned which = 0; which < 2 && !status; which++)
		status = take_linkage(l, which, v, err);
	if (!status && !l->has_linkage[0])
		status = error_set(err, -EINVAL, "parent locator: there is no '%s'", keys[LINKAGE]);
	if (!status && !v->text[RELATIVE] && !v->text[VOLUME] && !v->text[ABSOLUTE])
		status = error_set(err, -EINVAL, "parent locator: there is no path of the parent");
	for (enum key k = RELATIVE; k < KEYS && !status; k++)
		if (v->text[k] && parent_names_add_utf16(&l->names, forms[k], v->text[k], v->length[k], UTF16_LE))
			status = error_set(err, -ENOMEM, "no memory");
	return status;
}

int vhdx_locator_load(struct container *c, const struct vhdx_metadata *m, struct vhdx_locator *out, struct error *err)
{
	uint8_t *item = malloc(m->locator_length);
	struct values values = {0};
	int status;

	*out = (struct vhdx_locator){0};
	status = item ? container_load(c, item, m->locator_length, m->locator_offset, err) : error_set(err, -ENOMEM, "no memory");
	if (!status)
		status = take_pairs(item, m->locator_length, &values, err);
	if (!status)
		status = take_values(out, &values, err);
	free(item);
	if (status)
		vhdx_locator_free(out);
	return status;
}

void vhdx_locator_free(struct vhdx_locator *l)
{
	parent_names_free(&l->names);
}

/* ------------------------------------------------------------------ writing */

struct writing {
	uint8_t *item;
	struct vhdx_raw_pair *pair;
	uint32_t used;
};

static int add_text(struct writing *w, const char *text, uint8_t *offset, uint8_t *length)
{
	void *utf16;
	size_t bytes;
	int status = utf16_from_utf8(text, UTF16_LE, &utf16, &bytes);

	if (status)
		return status;
	if (bytes > UINT16_MAX) {
		free(utf16);
		return -ENAMETOOLONG;
	}
	memcpy(w->item + w->used, utf16, bytes);
	le32_put(offset, w->used);
	le16_put(length, (uint16_t)bytes);
	w->used += (uint32_t)bytes;
	free(utf16);
	return 0;
}

static int add_pair(struct writing *w, enum key k, const char *value, struct error *err)
{
	struct vhdx_raw_locator *head = (void *)w->item;
	int status;

	if (!value)
		return 0;
	status = add_text(w, keys[k], w->pair->key_offset, w->pair->key_length);
	if (!status)
		status = add_text(w, value, w->pair->value_offset, w->pair->value_length);
	if (status)
		return error_set_errno(err, status, "'%s' as the path of the parent", value);
	w->pair++;
	le16_put(head->count, (uint16_t)(le16_get(head->count) + 1));
	return 0;
}

int vhdx_locator_encode(const struct guid *linkage, const struct guid *linkage2, const char *relative, const char *absolute,
			void **out, uint32_t *length, struct error *err)
{
	static const struct guid type = VHDX_LOCATOR_TYPE;
	struct writing w = {.item = calloc(1, VHDX_MAX_ITEM_BYTES)};
	char text[GUID_TEXT_MAX];
	int status;

	if (!w.item)
		return error_set(err, -ENOMEM, "no memory");
	((struct vhdx_raw_locator *)(void *)w.item)->type = type;
	w.pair = (void *)(w.item + sizeof(struct vhdx_raw_locator));
	w.used = sizeof(struct vhdx_raw_locator) + 4 * sizeof(struct vhdx_raw_pair);
	status = add_pair(&w, LINKAGE, guid_text(linkage, text), err);
	if (!status)
		status = add_pair(&w, LINKAGE2, linkage2 ? guid_text(linkage2, text) : NULL, err);
	if (!status)
		status = add_pair(&w, RELATIVE, relative, err);
	if (!status)
		status = add_pair(&w, ABSOLUTE, absolute, err);
	if (status) {
		free(w.item);
		return status;
	}
	*out = w.item;
	*length = w.used;
	return 0;
}

/* ------------------------------------------------------------------ paths */

static void slashes_to_backslashes(char *text)
{
	for (; *text; text++)
		if (*text == '/')
			*text = '\\';
}

/* Folders that `a` and `b`, absolute, begin with in common: how many bytes of either. */
static size_t common_folders(const char *a, const char *b)
{
	size_t common = 0;

	for (size_t i = 0; a[i] && a[i] == b[i]; i++)
		if (a[i] == '/')
			common = i + 1;
	return common;
}

/* The way from the folder of `from` to `to`, both absolute, as Windows writes it: ".\\name", "..\\name". NULL: no memory. */
static char *relative_path(const char *from, const char *to)
{
	size_t common = common_folders(from, to), ups = 0;
	char *out, *end;

	for (const char *p = from + common; *p; p++)
		ups += *p == '/';
	out = malloc(strlen(to) + 3 * ups + 3);
	if (!out)
		return NULL;
	end = ups ? out : stpcpy(out, "./");
	while (ups--)
		end = stpcpy(end, "../");
	strcpy(end, to + common);
	slashes_to_backslashes(out);
	return out;
}

/* The absolute path that a new file will have: of its folder by the system, since it is not there itself. NULL with errno. */
static char *absolute_of_new(const char *path)
{
	const char *name = strrchr(path, '/');
	char *folder = name ? strndup(path, (size_t)(name - path) + 1) : strdup("."), *real, *out = NULL;

	name = name ? name + 1 : path;
	real = folder ? realpath(folder, NULL) : NULL;
	if (real && asprintf(&out, "%s/%s", strcmp(real, "/") ? real : "", name) < 0)
		out = NULL;
	free(real);
	free(folder);
	return out;
}

int vhdx_locator_paths(const char *path, const char *parent, char **relative, char **absolute, struct error *err)
{
	char *here = absolute_of_new(path);
	int status = 0;

	*absolute = here ? realpath(parent, NULL) : NULL;
	*relative = *absolute ? relative_path(here, *absolute) : NULL;
	if (*relative)
		slashes_to_backslashes(*absolute);
	else
		status = error_set_errno(err, errno ? -errno : -ENOMEM, "cannot find '%s'", here ? parent : path);
	free(here);
	return status;
}
