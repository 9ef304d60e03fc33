/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-neighbours URI ROUNDS : eight connections, each writing bytes of its own that lie among those of the
 * others, in the same blocks and at the same time; then every byte is compared. A server that rewrites whole
 * blocks without locking them loses some.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#define WRITERS 8
#define PIECE 37u /* bytes; does not divide a block, so that pieces lie across block ends too */
#define AREA (PIECE * WRITERS * 32)

static const char *uri;
static unsigned rounds;

static struct nbd_handle *open_connection(void)
{
	struct nbd_handle *nbd = nbd_create();

	if (nbd && nbd_connect_uri(nbd, uri) == 0)
		return nbd;
	fprintf(stderr, "nbd-neighbours: %s\n", nbd_get_error());
	exit(1);
}

static unsigned char value(unsigned writer, unsigned round, size_t piece)
{
	return (unsigned char)(1 + writer * 31 + round * 7 + piece);
}

static void *writer_main(void *argument)
{
	const unsigned me = (unsigned)(size_t)argument;
	struct nbd_handle *nbd = open_connection();
	unsigned char data[PIECE];

	for (unsigned round = 0; round < rounds; round++) {
		for (size_t piece = me; piece < AREA / PIECE; piece += WRITERS) {
			memset(data, value(me, round, piece), PIECE);
			if (nbd_pwrite(nbd, data, PIECE, piece * PIECE, 0)) {
				fprintf(stderr, "nbd-neighbours: %s\n", nbd_get_error());
				exit(1);
			}
		}
	}
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	return NULL;
}

static int compare(void)
{
	static unsigned char data[AREA];
	struct nbd_handle *nbd = open_connection();

	if (nbd_pread(nbd, data, AREA, 0, 0)) {
		fprintf(stderr, "nbd-neighbours: %s\n", nbd_get_error());
		return 1;
	}
	nbd_close(nbd);
	for (size_t i = 0; i < AREA; i++) {
		size_t piece = i / PIECE;
		unsigned char wanted = value(piece % WRITERS, rounds - 1, piece);
		if (data[i] != wanted) {
			fprintf(stderr, "byte %zu is 0x%02x, its writer wrote 0x%02x last\n", i, data[i],
				wanted);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[WRITERS];

	if (argc != 3)
		return 2;
	uri = argv[1];
	rounds = (unsigned)atoi(argv[2]);
	for (size_t i = 0; i < WRITERS; i++)
		if (pthread_create(&threads[i], NULL, writer_main, (void *)i))
			return 2;
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	return compare();
}
