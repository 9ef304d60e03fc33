/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-connections URI IN-A-ROW AT-ONCE : connects so often, one after the other, then holds so many
 * connections at the same time. Every one reads a block; every fourth of a row goes away without a farewell.
 */
#include <stdio.h>
#include <stdlib.h>

#include <libnbd.h>

static struct nbd_handle *connect_and_read(const char *uri)
{
	char block[512];
	struct nbd_handle *nbd = nbd_create();

	if (nbd && nbd_connect_uri(nbd, uri) == 0 && nbd_pread(nbd, block, sizeof(block), 0, 0) == 0)
		return nbd;
	fprintf(stderr, "nbd-connections: %s\n", nbd_get_error());
	exit(1);
}

static void leave(struct nbd_handle *nbd, int politely)
{
	if (politely)
		nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: nbd-connections URI IN-A-ROW AT-ONCE\n");
		return 2;
	}
	const long in_a_row = atol(argv[2]), at_once = atol(argv[3]);
	struct nbd_handle **held = calloc((size_t)at_once + 1, sizeof(*held));

	for (long i = 0; i < in_a_row; i++)
		leave(connect_and_read(argv[1]), i % 4 != 0);
	for (long i = 0; i < at_once; i++)
		held[i] = connect_and_read(argv[1]);
	for (long i = 0; i < at_once; i++)
		leave(held[i], 1);
	free(held);
	return 0;
}
