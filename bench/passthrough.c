/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * passthrough [-o OPTION[,OPTION...]] IMAGE MOUNTPOINT: one file shown as another, by libfuse and nothing else
 *
 * What a mounted file has to cost on this machine: the kernel's FUSE, libfuse's own loop of threads, each with a device of its
 * own (clone_fd), and one pread(2) or pwrite(2) a request. It does what libfuse's example passthrough_ll does on a
 * file, for a single file, without looking up names. MOUNTPOINT is a regular file.
 *
 *   direct_io, parallel_direct_writes   as in platter-mount(1)
 *   shared_fd                           all threads on one device
 */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTRIBUTES_SECONDS 86400.0
#define MAX_BYTES (1u << 20) /* of one request */

struct passthrough {
	int image;
	bool direct, parallel, shared_fd;
};

static struct passthrough *of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static void pass_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = MAX_BYTES;
	conn->max_readahead = MAX_BYTES;
}

static void pass_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (fstat(of(req)->image, &st)) {
		fuse_reply_err(req, errno);
		return;
	}
	st.st_ino = ino;
	fuse_reply_attr(req, &st, ATTRIBUTES_SECONDS);
}

/* In the protocol's own words: the flag for parallel writes has no name in every libfuse. */
static void pass_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};

	(void)ino;
	(void)fi;
	if (of(req)->direct)
		out.open_flags = FOPEN_DIRECT_IO;
	if (of(req)->parallel)
		out.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
	fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

/* The buffer of a thread; it lives as long as the process. */
static void *buffer(void)
{
	static __thread void *own;

	if (!own && posix_memalign(&own, 65536, MAX_BYTES))
		own = NULL;
	return own;
}

static void pass_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	void *data = buffer();
	ssize_t n;

	(void)ino;
	(void)fi;
	if (!data || size > MAX_BYTES) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = pread(of(req)->image, data, size, offset);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, data, (size_t)n);
}

static void pass_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	ssize_t n = pwrite(of(req)->image, data, size, offset);

	(void)ino;
	(void)fi;
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static const struct fuse_lowlevel_ops operations = {
	.init = pass_init,
	.getattr = pass_getattr,
	.open = pass_open,
	.read = pass_read,
	.write = pass_write,
};

static int loop(struct fuse_session *session, const struct passthrough *p)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int status;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, !p->shared_fd);
	status = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return status;
}

/* Until a signal ends it, or it is unmounted. */
static int serve(struct passthrough *p, const char *mountpoint)
{
	char name[] = "passthrough", o[] = "-o", list[] = "fsname=passthrough,default_permissions";
	char *words[] = {name, o, list};
	struct fuse_args arguments = FUSE_ARGS_INIT(sizeof(words) / sizeof(words[0]), words);
	struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof(operations), p);
	int status = -1;

	if (session && !fuse_session_mount(session, mountpoint)) {
		if (!fuse_set_signal_handlers(session)) {
			status = loop(session, p);
			fuse_remove_signal_handlers(session);
		}
		fuse_session_unmount(session);
	}
	if (session)
		fuse_session_destroy(session);
	fuse_opt_free_args(&arguments);
	return status < 0 ? 1 : 0; /* more than 0: a signal */
}

static int parse(struct passthrough *p, char *list)
{
	static char direct[] = "direct_io", parallel[] = "parallel_direct_writes", shared[] = "shared_fd";
	char *const names[] = {direct, parallel, shared, NULL};
	bool *const flags[] = {&p->direct, &p->parallel, &p->shared_fd};
	char *value;

	while (*list) {
		int found = getsubopt(&list, names, &value);

		if (found < 0)
			return -1;
		*flags[found] = true;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct passthrough p = {.image = -1};
	int option, status;

	while ((option = getopt(argc, argv, "o:")) >= 0)
		if (option != 'o' || parse(&p, optarg))
			return 2;
	if (argc - optind != 2) {
		fprintf(stderr, "usage: passthrough [-o OPTION[,OPTION...]] IMAGE MOUNTPOINT\n");
		return 2;
	}
	p.image = open(argv[optind], O_RDWR | O_CLOEXEC);
	if (p.image < 0) {
		fprintf(stderr, "passthrough: %s: %s\n", argv[optind], strerror(errno));
		return 1;
	}
	status = serve(&p, argv[optind + 1]);
	close(p.image);
	return status;
}
