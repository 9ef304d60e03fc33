/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The folder of a cache
 *
 *   <root>/.lock              OFD lock: held by who removes or renames folders
 *   <root>/NAME.platter/      a cache: header, index, data, recency
 *   <root>/.platter-new-R/    one that is being made
 *   <root>/.platter-old-R/    one that is out of use: its disk has another content now, or it was damaged
 *
 * Making      all files in a new folder, which is then renamed to its name. rename(2) refuses when there is a folder with
 *             something in it: then somebody else was first, and his is used.
 * Using       a shared OFD lock on the header, taken before the folder has its name. It goes with the last
 *             descriptor, also that of a killed process.
 * Removing    under the root's lock, and only with an exclusive lock on the header, which nobody gets while it is used. The
 *             header goes last, and is made first. Without one a folder is removed at once: who makes it has nothing
 *             else in it yet, and begins again; who should use it has the files open.
 * Replacing   under the root's lock the folder that was judged, and no other that has come by its name meanwhile, is renamed
 *             to an old one. Whoever uses it goes on, by his descriptors; who removes is the last user, or whoever comes by.
 *
 * Full        when there is no room for the new folder, caches that nobody uses are removed, the oldest first, until there is.
 *
 * Only files with the four names, in folders called as above, are ever removed: a root that was given by mistake loses nothing.
 */
#include "layers/autocache-store.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/wait.h"
#include "layers/autocache-sum.h"

#define MAGIC "Platter cache\r\n"
#define FORMAT 1u
#define HAS_ID 1u

/* The header as it stands in the file; numbers are little-endian. */
struct header {
	char magic[16];
	uint32_t version;
	uint32_t unit; /* bytes */
	uint64_t size; /* bytes, of the disk */
	uint32_t block_size;
	uint32_t flags;
	uint8_t id[16];
	uint64_t nonce;
	uint64_t key_hash[2];
	char identity_name[IDENTITY_TEXT_MAX];
	char identity_version[IDENTITY_TEXT_MAX];
	uint8_t reserved[4096 - 80 - 2 * IDENTITY_TEXT_MAX - 8];
	uint64_t sum; /* XXH3 of all before it */
};
_Static_assert(sizeof(struct header) == 4096, "header of a cache");
_Static_assert(offsetof(struct header, identity_name) == 80, "header of a cache");
_Static_assert(sizeof(MAGIC) == 16, "header of a cache");

static const char *const file_names[] = {"data", "index", "recency", "header"}; /* removed in this order */
#define NR_FILES (sizeof(file_names) / sizeof(*file_names))

#define RETRY_NS UINT64_C(5000000)
#define PATIENCE_NS UINT64_C(20000000000)
#define OPEN_ATTEMPTS 4000u

/* ------------------------------------------------------------------ header */

static void make_header(const struct store_facts *f, uint64_t nonce, struct header *h)
{
	XXH128_hash_t key = {0};

	if (f->key)
		key = XXH3_128bits(f->key, strlen(f->key));
	*h = (struct header){
		.magic = MAGIC,
		.version = htole32(FORMAT),
		.unit = htole32(UNIT),
		.size = htole64(f->size),
		.block_size = htole32(f->block_size),
		.flags = htole32(f->has_id ? HAS_ID : 0),
		.nonce = htole64(nonce),
		.key_hash = {htole64(key.high64), htole64(key.low64)},
	};
	if (f->has_id)
		memcpy(h->id, f->id, sizeof(h->id));
	snprintf(h->identity_name, sizeof(h->identity_name), "%s", f->identity.name);
	snprintf(h->identity_version, sizeof(h->identity_version), "%s", f->identity.version);
	h->sum = htole64(XXH3_64bits(h, offsetof(struct header, sum)));
}

/* Is it the header of a cache for these facts? A damaged one is that of no facts. */
static bool header_fits(const struct header *h, const struct store_facts *f)
{
	struct header wanted;

	make_header(f, le64toh(h->nonce), &wanted);
	return !memcmp(h, &wanted, sizeof(*h));
}

/* ------------------------------------------------------------------ locks */

static int try_lock(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int store_lock_root(int root, uint64_t timeout_ns)
{
	int fd = openat(root, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), status;
	uint64_t begun = wait_now();

	if (fd < 0)
		return -errno;
	while ((status = try_lock(fd, F_WRLCK)) == -EAGAIN) {
		if (wait_now() - begun >= timeout_ns)
			break;
		wait_sleep(RETRY_NS);
	}
	if (!status)
		return fd;
	close(fd);
	return status == -EAGAIN ? -EBUSY : status;
}

/* ------------------------------------------------------------------ looking */

int store_list(int root, bool (*visit)(void *argument, const char *name), void *argument)
{
	int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int status = 0;

	if (!dir) {
		status = -errno;
		if (fd >= 0)
			close(fd);
		return status;
	}
	while ((entry = readdir(dir)) && visit(argument, entry->d_name))
		;
	closedir(dir);
	return 0;
}

static int open_folder(int root, const char *name)
{
	int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Does the name lead to the open folder? */
static bool leads_to(int root, const char *name, int folder)
{
	struct stat named, opened;

	return !fstatat(root, name, &named, AT_SYMLINK_NOFOLLOW) && !fstat(folder, &opened) &&
	       same_file(&named, &opened);
}

bool store_is(const struct store *s, const char *name)
{
	return leads_to(s->root, name, s->folder);
}

uint64_t store_usage(int root, const char *name, int64_t *used)
{
	char path[CACHE_NAME_MAX + 16];
	uint64_t bytes = 0;
	struct stat st;

	*used = 0;
	for (size_t i = 0; i < NR_FILES; i++) {
		snprintf(path, sizeof(path), "%s/%s", name, file_names[i]);
		if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		bytes += (uint64_t)st.st_blocks * 512;
		if (!strcmp(file_names[i], "header"))
			*used = st.st_mtim.tv_sec;
	}
	return bytes;
}

/* ------------------------------------------------------------------ removing */

static bool remove_files(int root, const char *name, int folder)
{
	for (size_t i = 0; i < NR_FILES; i++)
		unlinkat(folder, file_names[i], 0);
	return !unlinkat(root, name, AT_REMOVEDIR);
}

static bool remove_if_unused(int root, const char *name, int folder)
{
	int header = openat(folder, "header", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	bool gone = false;

	if (header < 0) /* whoever makes it has not come far, whoever removed it not to the end; or it was damaged */
		return errno == ENOENT && remove_files(root, name, folder);
	if (!try_lock(header, F_WRLCK))
		gone = remove_files(root, name, folder);
	close(header);
	return gone;
}

bool store_remove_unused(int root, const char *name)
{
	int folder = open_folder(root, name);
	bool gone;

	if (folder < 0)
		return folder == -ENOENT;
	gone = remove_if_unused(root, name, folder);
	close(folder);
	return gone;
}

static bool sweep_one(void *root, const char *name)
{
	if (cache_name_is_temporary(name))
		store_remove_unused(*(int *)root, name);
	return true;
}

void store_sweep(int root)
{
	store_list(root, sweep_one, &root);
}

/* ------------------------------------------------------------------ opening */

struct opening {
	struct store *s;
	const struct store_facts *facts;
	struct error *err;
	char temporary[sizeof(CACHE_NEW) + 16];
};

static int fail(struct opening *o, int status, const char *what)
{
	return error_set_errno(o->err, status, "%s the cache '%s'", what, o->s->name);
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_files(struct store *s)
{
	close_one(&s->header);
	close_one(&s->index);
	close_one(&s->data);
	close_one(&s->recency);
	close_one(&s->folder);
}

static void choose_temporary(struct opening *o, const char *prefix)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = wait_now();
	snprintf(o->temporary, sizeof(o->temporary), "%s%016" PRIx64, prefix, random);
}

/* Puts the open folder aside, if it still has its name. */
static int retire(struct opening *o)
{
	struct store *s = o->s;
	int lock = store_lock_root(s->root, PATIENCE_NS), status = 0;

	if (lock < 0)
		return fail(o, lock, "cannot lock the root to replace");
	choose_temporary(o, CACHE_OLD);
	if (leads_to(s->root, s->name, s->folder) && renameat(s->root, s->name, s->root, o->temporary))
		status = fail(o, -errno, "cannot put aside");
	close_files(s);
	store_sweep(s->root);
	close(lock);
	return status;
}

static int open_file(struct store *s, const char *name, int flags)
{
	int fd = openat(s->folder, name, O_CLOEXEC | O_NOFOLLOW | flags, 0600);

	return fd < 0 ? -errno : fd;
}

/* The header is there and can be locked. -ENOENT, -EAGAIN: not there, or about to be removed. */
static int hold_header(struct store *s)
{
	int status;

	s->header = open_file(s, "header", O_RDWR);
	if (s->header == -EROFS || s->header == -EACCES || s->header == -EPERM) {
		s->frozen = true;
		s->header = open_file(s, "header", O_RDONLY);
	}
	if (s->header < 0) {
		status = s->header;
		s->header = -1;
		return status;
	}
	/* a file system that cannot lock: then nobody removes it either */
	return try_lock(s->header, F_RDLCK) == -EAGAIN ? -EAGAIN : 0;
}

/* -EAGAIN: the folder was removed meanwhile (somebody has deleted its header). */
static int open_files(struct opening *o)
{
	struct store *s = o->s;
	int flags = s->frozen ? O_RDONLY : O_RDWR | O_CREAT;

	s->index = open_file(s, "index", flags);
	s->data = open_file(s, "data", flags);
	s->recency = open_file(s, "recency", flags);
	if (s->recency < 0)
		s->recency = -1; /* it is advice only */
	if (!s->frozen && (s->index == -ENOENT || s->data == -ENOENT)) {
		close_files(s);
		return -EAGAIN;
	}
	if (s->index < 0)
		return fail(o, s->index, "cannot open the index of");
	if (s->data < 0)
		return fail(o, s->data, "cannot open the data of");
	return 0;
}

enum judgement {
	JUDGED_GOOD,
	JUDGED_OTHER,   /* not a cache of this disk as it is now */
	JUDGED_PASSING, /* somebody removes it: look again */
};

static enum judgement judge(struct opening *o)
{
	struct store *s = o->s;
	struct header h;
	int status = hold_header(s);

	if (status == -EAGAIN)
		return JUDGED_PASSING;
	if (status || pread(s->header, &h, sizeof(h), 0) != sizeof(h) || !header_fits(&h, o->facts))
		return JUDGED_OTHER;
	if (!leads_to(s->root, s->name, s->folder))
		return JUDGED_PASSING;
	s->nonce = le64toh(h.nonce);
	return JUDGED_GOOD;
}

/* ------------------------------------------------------------------ making */

static int write_header(struct opening *o)
{
	struct header h;
	ssize_t n;

	if (getrandom(&o->s->nonce, sizeof(o->s->nonce), 0) != sizeof(o->s->nonce))
		o->s->nonce = wait_now();
	make_header(o->facts, o->s->nonce, &h);
	n = pwrite(o->s->header, &h, sizeof(h), 0);
	if (n == sizeof(h))
		return 0;
	return fail(o, n < 0 ? -errno : -ENOSPC, "cannot write the header of");
}

/* In the folder with the temporary name. -EAGAIN: somebody took it for a dead one. */
static int make_files(struct opening *o)
{
	struct store *s = o->s;
	int status;

	s->folder = open_folder(s->root, o->temporary);
	if (s->folder < 0)
		return s->folder == -ENOENT ? -EAGAIN : fail(o, s->folder, "cannot open the new folder of");
	s->header = open_file(s, "header", O_RDWR | O_CREAT | O_EXCL);
	if (s->header < 0)
		return s->header == -ENOENT ? -EAGAIN : fail(o, s->header, "cannot make the header of");
	if (try_lock(s->header, F_RDLCK) == -EAGAIN)
		return -EAGAIN;
	status = write_header(o);
	return status ? status : open_files(o);
}

/* What was begun is removed, unless somebody does that already. */
static void undo(struct opening *o)
{
	struct store *s = o->s;

	if (s->folder >= 0)
		remove_files(s->root, o->temporary, s->folder);
	close_files(s);
}

/* -EAGAIN: look again, somebody else was first. */
static int make(struct opening *o)
{
	struct store *s = o->s;
	int status;

	choose_temporary(o, CACHE_NEW);
	if (mkdirat(s->root, o->temporary, 0700))
		return fail(o, -errno, "cannot make");
	status = make_files(o);
	if (!status && renameat(s->root, o->temporary, s->root, s->name))
		status = errno == ENOTEMPTY || errno == EEXIST || errno == ENOENT ? -EAGAIN
									  : fail(o, -errno, "cannot name");
	if (status)
		undo(o);
	s->created = !status;
	return status;
}

/* One attempt: 0, a failure, or -EAGAIN when others have moved things under us. */
static int open_once(struct opening *o)
{
	struct store *s = o->s;
	enum judgement judgement;

	s->frozen = false;
	s->folder = open_folder(s->root, s->name);
	if (s->folder == -ENOENT)
		return make(o);
	if (s->folder < 0)
		return fail(o, s->folder, "cannot open the folder of");
	judgement = judge(o);
	if (judgement == JUDGED_GOOD)
		return open_files(o);
	if (judgement == JUDGED_OTHER) {
		int status = retire(o);
		return status ? status : -EAGAIN;
	}
	close_files(s);
	wait_sleep(RETRY_NS);
	return -EAGAIN;
}

/* The cache that is the next in age after (after_used, after_name). */
struct oldest {
	int root;
	int64_t after_used, used;
	char after_name[CACHE_NAME_MAX], name[CACHE_NAME_MAX];
};

static bool is_older(int64_t a_used, const char *a, int64_t b_used, const char *b)
{
	return a_used != b_used ? a_used < b_used : strcmp(a, b) < 0;
}

static bool find_oldest(void *argument, const char *name)
{
	struct oldest *o = argument;
	int64_t used;

	if (!cache_name_is(name))
		return true;
	store_usage(o->root, name, &used);
	if (is_older(o->after_used, o->after_name, used, name) &&
	    (!o->name[0] || is_older(used, name, o->used, o->name))) {
		strcpy(o->name, name);
		o->used = used;
	}
	return true;
}

/* Removes what is left over, and the oldest cache that nobody uses. True when there was one. */
static bool remove_oldest(int root)
{
	struct oldest o = {.root = root, .after_used = INT64_MIN};
	int lock = store_lock_root(root, PATIENCE_NS);
	bool gone = false;

	if (lock < 0)
		return false;
	store_sweep(root);
	for (;;) {
		o.name[0] = 0;
		store_list(root, find_oldest, &o);
		if (!o.name[0] || (gone = store_remove_unused(root, o.name)))
			break;
		strcpy(o.after_name, o.name);
		o.after_used = o.used;
	}
	close(lock);
	return gone;
}

static int open_patiently(struct opening *o)
{
	int status = -EAGAIN;

	for (unsigned i = 0; i < OPEN_ATTEMPTS && status == -EAGAIN; i++)
		status = open_once(o);
	return status;
}

int store_open(struct store *s, int root, const char *name, const struct store_facts *facts, struct error *err)
{
	struct opening o = {.s = s, .facts = facts, .err = err};
	int status;

	*s = (struct store){.root = root, .folder = -1, .header = -1, .index = -1, .data = -1, .recency = -1};
	snprintf(s->name, sizeof(s->name), "%s", name);
	do {
		error_clear(err); /* of the last attempt */
		status = open_patiently(&o);
	} while ((status == -ENOSPC || status == -EDQUOT) && remove_oldest(root));
	if (status == -EAGAIN)
		status = error_set(err, -EBUSY, "the cache '%s' is being removed all the time", s->name);
	if (status) {
		close_files(s);
		close_one(&s->root);
	} else if (!s->frozen) {
		futimens(s->header, NULL);
	}
	return status;
}

/* ------------------------------------------------------------------ closing */

static bool find_temporary(void *found, const char *name)
{
	*(bool *)found = cache_name_is_temporary(name);
	return !*(bool *)found;
}

/* If ours was put aside meanwhile, or somebody else's, this may have been the last user. */
static void sweep_after(struct store *s)
{
	bool found = false;
	int lock;

	store_list(s->root, find_temporary, &found);
	if (!found)
		return;
	lock = store_lock_root(s->root, 0);
	if (lock < 0)
		return;
	store_sweep(s->root);
	close(lock);
}

static void remove_created(struct store *s)
{
	int lock = store_lock_root(s->root, PATIENCE_NS);

	if (lock < 0)
		return;
	if (store_is(s, s->name) && !try_lock(s->header, F_WRLCK))
		remove_files(s->root, s->name, s->folder);
	close(lock);
}

void store_close(struct store *s, bool abandoned)
{
	if (abandoned && s->created)
		remove_created(s);
	else if (!s->frozen)
		futimens(s->header, NULL);
	close_files(s);
	if (!s->frozen)
		sweep_after(s);
	close_one(&s->root);
}
