/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/holders.h"

#define CLAIMED_BYTES (1 << 30)

/* A file that is claimed in this process. */
struct entry {
	struct entry *next;
	dev_t device;
	ino_t inode;
	bool writer;
	unsigned holders;
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the table; nothing waits under it */
static struct entry *table;

static struct entry **find_entry(dev_t device, ino_t inode)
{
	struct entry **e = &table;

	while (*e && ((*e)->device != device || (*e)->inode != inode))
		e = &(*e)->next;
	return e;
}

/* -EBUSY, -ENOMEM. */
static int enter(struct file_claim *c)
{
	struct entry **e, *fresh = calloc(1, sizeof(*fresh));
	int status = 0;

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&table_lock);
	e = find_entry(c->device, c->inode);
	if (!*e) {
		*fresh = (struct entry){
			.device = c->device, .inode = c->inode, .writer = c->writer, .holders = 1};
		*e = fresh;
		fresh = NULL;
	} else if (c->writer || (*e)->writer) {
		status = -EBUSY;
	} else {
		(*e)->holders++;
	}
	pthread_mutex_unlock(&table_lock);
	free(fresh);
	return status;
}

static void leave(struct file_claim *c)
{
	struct entry **e, *gone = NULL;

	pthread_mutex_lock(&table_lock);
	e = find_entry(c->device, c->inode);
	if (*e && !--(*e)->holders) {
		gone = *e;
		*e = gone->next;
	}
	pthread_mutex_unlock(&table_lock);
	free(gone);
}

/* Another process holds a lock that does not go with ours. */
static int refuse(const struct file_claim *c, const struct stat *st, const char *path, struct error *err)
{
	char text[160];

	error_set(err, -EBUSY, "'%s' is %s", path,
		  c->writer ? "in use by another disk" : "locked by another writer");
	if (file_holders(st, text, sizeof(text)))
		error_hint(err, "open in process %s", text);
	return -EBUSY;
}

static int lock(const struct file_claim *c, const struct stat *st, const char *path, struct error *err)
{
	struct flock l = {
		.l_type = c->writer ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_len = CLAIMED_BYTES};

	if (!fcntl(c->fd, F_OFD_SETLK, &l) || (errno != EAGAIN && errno != EACCES))
		return 0;
	return refuse(c, st, path, err);
}

/* The file behind the path may be another one by now than the one that was entered. */
static int open_entered(struct file_claim *c, const char *path, struct error *err)
{
	struct stat st;

	c->fd = open(path, (c->writer ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (c->fd < 0)
		return error_set_errno(err, -errno, "cannot open '%s'", path);
	if (fstat(c->fd, &st))
		return error_set_errno(err, -errno, "'%s'", path);
	if (st.st_dev != c->device || st.st_ino != c->inode)
		return error_set(err, -EBUSY, "'%s' was replaced while it was being opened", path);
	return lock(c, &st, path, err);
}

int file_claim_take(struct file_claim *c, const char *path, bool writer, struct error *err)
{
	struct stat st;
	int status;

	*c = (struct file_claim)FILE_CLAIM_NONE;
	if (stat(path, &st))
		return error_set_errno(err, -errno, "cannot open '%s'", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "'%s' is not a regular file", path);
	c->writer = writer;
	c->device = st.st_dev;
	c->inode = st.st_ino;
	status = enter(c);
	if (status == -EBUSY)
		return error_set(err, status, "'%s' is in use by another disk of this process", path);
	if (status)
		return error_set(err, status, "no memory");
	status = open_entered(c, path, err);
	if (status) {
		if (c->fd >= 0)
			close(c->fd);
		c->fd = -1;
		leave(c);
	}
	return status;
}

void file_claim_drop(struct file_claim *c)
{
	if (c->fd < 0)
		return;
	close(c->fd);
	c->fd = -1;
	leave(c);
}
