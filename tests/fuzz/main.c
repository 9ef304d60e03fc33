/* SPDX-License-Identifier: BSD-3-Clause */
/* Stands in for libFuzzer where there is none: runs the target once over each file given. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_INPUT_BYTES = 64 << 20 };

static void run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(MAX_INPUT_BYTES), *exact = NULL;
	size_t size;

	if (!file || !data) {
		perror(path);
		exit(2);
	}
	size = fread(data, 1, MAX_INPUT_BYTES, file);
	fclose(file);
	/* A buffer of just this size, so that a sanitizer sees a read past its end. */
	exact = malloc(size ? size : 1);
	if (!exact) {
		perror(path);
		exit(2);
	}
	memcpy(exact, data, size);
	free(data);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (argv[i][0] != '-') /* libFuzzer's options */
			run_file(argv[i]);
	return 0;
}
