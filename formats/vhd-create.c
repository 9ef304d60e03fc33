/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New images
 *
 *     0        copy of the footer            fixed: data, and the footer behind it
 *     512      header
 *     1536     BAT
 *              locators, each on sectors of its own
 *              footer
 *
 * Blocks come behind, with their data on 4 KiB (formats/vhd-commit.c). The footers come last, when what they speak of is durable: a file whose
 * making was cut short is no image.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/utf16.h"
#include "formats/vhd-image.h"

#define MEBIBYTE (1u << 20)
#define HEADER_AT VHD_SECTOR
#define BAT_AT (HEADER_AT + sizeof(struct vhd_header))
#define PIECE 65536u

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* ------------------------------------------------------------------ checks */

static int check_size(const struct vhd_create_options *o, struct error *err)
{
	if (o->size < VHD_SECTOR || o->size % VHD_SECTOR || o->size > VHD_MAX_SECTORS * VHD_SECTOR)
		return error_set(err, -EINVAL, "size %" PRIu64 " is not whole sectors of %u bytes, up to %" PRIu64 " bytes (2040 GiB)", o->size,
				 VHD_SECTOR, (uint64_t)(VHD_MAX_SECTORS * VHD_SECTOR));
	if (o->exact || !(o->size % MEBIBYTE))
		return 0;
	error_set(err, -EINVAL, "size %" PRIu64 " is not whole MiB, as Azure and others ask for", o->size);
	error_hint(err, "%" PRIu64 "M is, or add exact", round_up(o->size, MEBIBYTE) / MEBIBYTE);
	return -EINVAL;
}

int vhd_create_check(const struct vhd_create_options *o, struct error *err)
{
	uint32_t block = o->block_size;

	if (block && (block < VHD_MIN_BLOCK || block > VHD_MAX_BLOCK || (block & (block - 1))))
		return error_set(err, -EINVAL, "block size %" PRIu32 " is not a power of two from %u to %u bytes", block, VHD_MIN_BLOCK,
				 VHD_MAX_BLOCK);
	return o->type == VHD_DIFFERENCING && !o->size ? 0 : check_size(o, err);
}

/* ------------------------------------------------------------------ fixed */

static int create_fixed(struct container *c, const struct vhd_create_options *o, const struct vhd_footer *f, struct error *err)
{
	struct failure why = {0};
	int status = container_set_size(c, o->size + VHD_SECTOR, err);

	if (!status && o->full && c->ops->zero(c, 0, o->size, false, &(struct io){.failure = &why}))
		status = error_set(err, -ENOSPC, "%s", why.text);
	return status ? status : container_store(c, f, sizeof(*f), o->size, err);
}

/* ------------------------------------------------------------------ locators */

struct creation {
	struct container *c; /* NULL: nothing is written, for who asks how long it would be */
	const struct vhd_create_options *o;
	struct vhd_footer footer;
	struct vhd_header header;
	unsigned nr_locators;
	uint64_t end; /* bytes written up to now */
	struct error *err;
};

static int add_locator(struct creation *n, const char code[4], const void *text, size_t bytes)
{
	struct vhd_locator *l = &n->header.locators[n->nr_locators++];

	memcpy(l->code, code, 4);
	l->space = htobe32((uint32_t)round_up(bytes, VHD_SECTOR)); /* in bytes, as Windows and Xen write it */
	l->length = htobe32((uint32_t)bytes);
	l->offset = htobe64(n->end);
	n->end += round_up(bytes, VHD_SECTOR);
	return n->c ? container_store(n->c, text, bytes, be64toh(l->offset), n->err) : 0;
}

static int add_utf16_locator(struct creation *n, const char code[4], const char *text)
{
	size_t bytes;
	void *utf16;
	int status = utf16_from_utf8(text, UTF16_LE, &utf16, &bytes);

	if (status == -EILSEQ)
		return 0; /* a name that is not UTF-8 can stand in the URL only */
	if (status)
		return error_set(n->err, status, "no memory");
	status = add_locator(n, code, utf16, bytes);
	free(utf16);
	return status;
}

/* "file:///path" (RFC 8089); what is not a letter, digit or one of a few signs becomes %XX. */
static int add_url_locator(struct creation *n, const char *path)
{
	char *url = malloc(8 + 3 * strlen(path)), *end;
	int status;

	if (!url)
		return error_set(n->err, -ENOMEM, "no memory");
	end = stpcpy(url, "file://");
	for (; *path; path++) {
		unsigned char byte = (unsigned char)*path;
		bool plain = (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
		if (plain || (byte >= '0' && byte <= '9') || strchr("/-._~", byte))
			*end++ = *path;
		else
			end += sprintf(end, "%%%02X", byte);
	}
	status = add_locator(n, "MacX", url, (size_t)(end - url));
	free(url);
	return status;
}

/* The way from the folder `from` to the file `to`, both absolute and without links, in Windows' manner; NULL: no memory. */
static char *relative_path(const char *from, const char *to)
{
	size_t common = 0, ups = 0;
	char *path, *end;

	for (size_t i = 0; from[i] == to[i] && from[i]; i++)
		if (from[i] == '/')
			common = i + 1;
	if (!strncmp(from, to, strlen(from)) && to[strlen(from)] == '/')
		common = strlen(from) + 1;
	for (const char *p = from + (common > strlen(from) ? strlen(from) : common); *p; p += strcspn(p, "/")) {
		p += *p == '/';
		ups += *p != 0;
	}
	path = malloc(3 * ups + strlen(to + common) + 3);
	if (!path)
		return NULL;
	end = path;
	for (size_t i = 0; i < ups; i++)
		end = stpcpy(end, "..\\");
	if (!ups)
		end = stpcpy(end, ".\\");
	strcpy(end, to + common);
	for (end = path; *end; end++)
		*end = *end == '/' ? '\\' : *end;
	return path;
}

static char *folder_of(const char *path)
{
	char *copy = strdup(path), *folder = copy ? realpath(dirname(copy), NULL) : NULL;

	free(copy);
	return folder;
}

/* The header's name is the last component, as far as there is room for it. */
static int set_parent_name(struct creation *n, const char *path)
{
	const char *name = strrchr(path, '/');
	size_t bytes, most = sizeof(n->header.parent_name) - 2;
	void *utf16;
	int status = utf16_from_utf8(name ? name + 1 : path, UTF16_BE, &utf16, &bytes);

	if (status)
		return status == -EILSEQ ? 0 : error_set(n->err, status, "no memory");
	memcpy(n->header.parent_name, utf16, bytes < most ? bytes : most);
	free(utf16);
	return 0;
}

/* As Xen's tools do: the relative name for Windows, and the absolute one both as text and as a URL. */
static int write_locators(struct creation *n)
{
	char *parent = realpath(n->o->parent, NULL), *folder = folder_of(n->o->child), *relative = NULL;
	int status;

	if (!parent || !folder) {
		status = error_set_errno(n->err, -errno, "'%s'", parent ? n->o->child : n->o->parent);
	} else {
		relative = relative_path(folder, parent);
		status = relative ? set_parent_name(n, parent) : error_set(n->err, -ENOMEM, "no memory");
		if (!status && !strchr(parent, '\\')) /* in which it would be a slash */
			status = add_utf16_locator(n, "W2ru", relative);
		if (!status)
			status = add_url_locator(n, parent);
		if (!status && !strchr(parent, '\\'))
			status = add_utf16_locator(n, "W2ku", parent);
	}
	free(relative);
	free(folder);
	free(parent);
	return status;
}

/* ------------------------------------------------------------------ dynamic and differencing */

static int write_bat(struct creation *n, uint64_t bytes)
{
	unsigned char *absent = malloc(PIECE);
	int status = absent ? 0 : error_set(n->err, -ENOMEM, "no memory");

	if (absent)
		memset(absent, 0xff, PIECE);
	for (uint64_t done = 0; done < bytes && !status; done += PIECE)
		status = container_store(n->c, absent, bytes - done < PIECE ? (size_t)(bytes - done) : PIECE, BAT_AT + done, n->err);
	free(absent);
	return status;
}

static void fill_in_header(struct creation *n)
{
	uint32_t block = n->o->block_size ? n->o->block_size : VHD_DEFAULT_BLOCK;
	struct vhd_header *h = &n->header;

	memcpy(h->cookie, "cxsparse", 8);
	h->next = htobe64(VHD_NO_OFFSET);
	h->bat_offset = htobe64(BAT_AT);
	h->version = htobe32(VHD_VERSION_1_0);
	h->max_entries = htobe32(vhd_blocks_of(be64toh(n->footer.current_size), block));
	h->block_size = htobe32(block);
}

static int create_blocks(struct creation *n)
{
	uint64_t bat;
	int status;

	fill_in_header(n);
	bat = vhd_bat_bytes(be32toh(n->header.max_entries));
	n->end = BAT_AT + bat;
	status = write_bat(n, bat);
	if (!status && n->o->parent)
		status = write_locators(n);
	vhd_header_seal(&n->header);
	if (!status)
		status = container_store(n->c, &n->header, sizeof(n->header), HEADER_AT, n->err);
	if (!status)
		status = container_sync(n->c, n->err);
	if (!status)
		status = container_store(n->c, &n->footer, sizeof(n->footer), n->end, n->err);
	return status ? status : container_store(n->c, &n->footer, sizeof(n->footer), 0, n->err);
}

/* The parent's size, and its id for the header: null for a raw one. */
static int ask_image(struct creation *n, struct container *c, uint64_t *size)
{
	static const struct vhd_options strict;
	const struct vhd_options *read = n->o->read ? n->o->read : &strict;
	const struct vhd_open_options how = {.lax = read->lax, .size_rule = read->size_rule};
	struct vhd *v;
	int status = n->o->raw_parent ? vhd_image_raw(c, &v, n->err) : vhd_image_open(c, &how, &v, n->err);

	if (status)
		return status;
	*size = atomic_load(&v->size);
	memcpy(n->header.parent_id, v->footer.id, sizeof(n->header.parent_id));
	return vhd_image_close(v, true, NULL);
}

static int ask_parent(struct creation *n, uint64_t *size)
{
	struct container *c;
	int status = container_open(n->o->parent, CONTAINER_READ_ONLY | CONTAINER_SHARED, &c, n->err);

	if (!status) {
		status = ask_image(n, c, size);
		container_close(c, false, NULL);
	}
	if (status)
		error_prefix(n->err, "parent");
	return status;
}

int vhd_ask_parent(const char *parent, bool raw, const struct vhd_options *read, uint8_t id[16], uint64_t *size, struct error *err)
{
	const struct vhd_create_options o = {.parent = parent, .raw_parent = raw, .read = read};
	struct creation n = {.o = &o, .err = err};
	int status = ask_parent(&n, size);

	memcpy(id, n.header.parent_id, sizeof(n.header.parent_id));
	return status;
}

int vhd_name_parent(struct container *c, const char *child, const char *parent, struct vhd_header *h, uint64_t *end, struct error *err)
{
	const struct vhd_create_options o = {.parent = parent, .child = child};
	struct creation n = {.c = c, .o = &o, .header = *h, .end = *end, .err = err};
	int status;

	memset(n.header.parent_name, 0, sizeof(n.header.parent_name));
	memset(n.header.locators, 0, sizeof(n.header.locators));
	status = write_locators(&n);
	*h = n.header;
	*end = n.end;
	return status;
}

int vhd_create(struct container *c, const struct vhd_create_options *o, struct error *err)
{
	struct creation n = {.c = c, .o = o, .err = err};
	uint64_t size = o->size, parents = 0;
	int status = vhd_create_check(o, err);

	if (!status && o->type == VHD_DIFFERENCING && o->parent)
		status = ask_parent(&n, &parents);
	if (status)
		return status;
	if (vhd_footer_init(&n.footer, o->type, size ? size : parents))
		return error_set(err, -EIO, "no random id");
	if (n.footer.current_size == 0)
		return error_set(err, -EINVAL, "the size is missing");
	vhd_footer_seal(&n.footer);
	status = o->type == VHD_FIXED ? create_fixed(c, o, &n.footer, err) : create_blocks(&n);
	return status ? status : container_sync(c, err);
}
