/* SPDX-License-Identifier: BSD-3-Clause */
/* platter hash SPEC */
#include "cli/verb.h"

#include <errno.h>
#include <stdio.h>

#include <openssl/evp.h>

#include "cli/disks.h"
#include "cli/in-order.h"
#include "cli/output.h"
#include "cli/sweep.h"

enum { OPTION_ALGORITHM, OPTION_JSON, OPTION_JOBS, OPTION_PROGRESS };

static const char *const algorithms[] = {"sha256", "sha512", "sha1", "md5", "blake2b512", NULL};

struct job {
	const struct verb_arguments *arguments;
	struct progress *progress;
	EVP_MD_CTX *digest;
	uint64_t size;
	char text[2 * EVP_MAX_MD_SIZE + 1];
};

static int add(void *argument, const void *data, size_t size, struct error *err)
{
	struct job *job = argument;

	return EVP_DigestUpdate(job->digest, data, size) == 1 ? 0 : error_set(err, -EIO, "libcrypto fails");
}

static int finish(struct job *job, struct error *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned length;

	if (EVP_DigestFinal_ex(job->digest, digest, &length) != 1)
		return error_set(err, -EIO, "libcrypto fails");
	for (unsigned i = 0; i < length; i++)
		snprintf(job->text + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int hash_disk(struct disk *d, void *argument, struct error *err)
{
	struct job *job = argument;
	struct in_order o = {
		.disk = d,
		.length = disk_size(d),
		.jobs = (unsigned)job->arguments->numbers[OPTION_JOBS],
		.progress = job->progress,
		.argument = job,
		.use = add,
	};
	const EVP_MD *algorithm = EVP_get_digestbyname(algorithms[job->arguments->numbers[OPTION_ALGORITHM]]);
	int status;

	if (!algorithm || EVP_DigestInit_ex(job->digest, algorithm, NULL) != 1)
		return error_set(err, -EOPNOTSUPP, "this libcrypto does not let the algorithm be used");
	job->size = disk_size(d);
	progress_phase(job->progress, "hash", job->size);
	status = in_order_run(&o, err);
	return status ? status : finish(job, err);
}

static int print_hash(const struct job *job)
{
	const char *spec = job->arguments->operands[0];

	if (job->arguments->options[OPTION_JSON])
		return print_json(json_pack("{s:s, s:s, s:s, s:I}", "spec", spec, "algorithm",
					    algorithms[job->arguments->numbers[OPTION_ALGORITHM]], "hash", job->text,
					    "size", (json_int_t)job->size));
	printf("%s  %s\n", job->text, spec);
	return STATUS_OK;
}

static int hash(const struct verb_arguments *a)
{
	struct job job = {.arguments = a, .digest = EVP_MD_CTX_new()};
	int status;

	if (!job.digest)
		return no_memory();
	status = work_on_disk(&(struct disk_work){
		.verb = &verb_hash,
		.arguments = a,
		.progress_row = OPTION_PROGRESS,
		.progress = &job.progress,
		.flags = OPEN_READ_ONLY,
		.run = hash_disk,
		.argument = &job,
	});
	EVP_MD_CTX_free(job.digest);
	return status ? status : print_hash(&job);
}

const struct verb verb_hash = {
	.name = "hash",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Print a checksum of what a disk holds",
	.details = "It is that of a raw file with the same content, in the form of sha256sum(1).\n",
	.options =
		(const struct verb_option[]){
			[OPTION_ALGORITHM] = {.name = "algorithm",
					      .letter = 'a',
					      .argument = "NAME",
					      .type = OPTION_WORD,
					      .words = algorithms,
					      .fallback = "sha256",
					      .help = "one of"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_JOBS] = JOBS_OPTION("read so many pieces at a time"),
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = hash,
};
