/*-------------------------------------------------------------------------
 *
 * csv_partition.c
 *	  A block for each of the partitions that rows come for.
 *
 * The block in use is the receiver's own, for it is looked at for each value of
 * each row; it changes places with another when a row is of another partition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "format/csv_partition.h"

typedef struct OpenBlock
{
	char    *value; /* NULL: null */
	uint64   used;  /* when; a later time is a higher number */
	CsvBlock block; /* while it is not the one in use */
} OpenBlock;

struct CsvPartitions
{
	CsvBlock  *block;
	int        in_use; /* of "open"; -1: none yet */
	int        count;
	uint64     clock;
	uint32     hashes[CSV_OPEN_BLOCKS]; /* of the values: looked through first */
	OpenBlock *open;
};

CsvPartitions *
csv_partitions_create(CsvBlock *block)
{
	CsvPartitions *partitions = MemoryContextAllocZero(block->context, sizeof(CsvPartitions));

	partitions->block = block;
	partitions->in_use = -1;
	partitions->open = MemoryContextAllocZero(block->context, CSV_OPEN_BLOCKS * sizeof(OpenBlock));
	return partitions;
}

static uint32
hash_value(const char *value)
{
	return value != NULL ? hash_bytes((const unsigned char *) value, (int) strlen(value)) : 0;
}

static bool
has_value(const CsvPartitions *partitions, int number, const char *value, uint32 hash)
{
	const char *its;

	if (partitions->hashes[number] != hash)
		return false;
	its = partitions->open[number].value;
	return its != NULL && value != NULL ? strcmp(its, value) == 0 : its == value;
}

/* Its place; one past the last when it is not open. */
static int
find_open(const CsvPartitions *partitions, const char *value, uint32 hash)
{
	int i = 0;

	while (i < partitions->count && !has_value(partitions, i, value, hash))
		i++;
	return i;
}

static int
least_recently_used(const CsvPartitions *partitions)
{
	int oldest = 0;

	for (int i = 1; i < partitions->count; i++)
	{
		if (partitions->open[i].used < partitions->open[oldest].used)
			oldest = i;
	}
	return oldest;
}

/*
 * Large rows of all partitions together must not take as much memory as they like.
 * Where the rows since take_block_of() have filled a block, rows seem to be sorted: what is
 * left of them is sent too, while the partition's file is sure to be open.
 */
static void
put_back(CsvPartitions *partitions)
{
	if (partitions->in_use < 0)
		return;
	csv_block_trim(partitions->block);
	if (partitions->block->sent)
		csv_block_finish(partitions->block);
	partitions->open[partitions->in_use].block = *partitions->block;
}

static void
take_block_of(CsvPartitions *partitions, int number)
{
	*partitions->block = partitions->open[number].block;
	partitions->block->sent = false;
	partitions->in_use = number;
}

/* A new block, or that of a partition which has to make room; the first is there. */
static void
open_block(CsvPartitions *partitions, const char *value, uint32 hash)
{
	CsvBlock *block = partitions->block;
	char     *copy = value != NULL ? MemoryContextStrdup(block->context, value) : NULL;

	if (partitions->count == CSV_OPEN_BLOCKS)
	{
		int   number = least_recently_used(partitions);
		char *old = partitions->open[number].value;

		take_block_of(partitions, number);
		csv_block_start_over(block, copy);
		if (old != NULL)
			pfree(old);
	}
	else
	{
		partitions->in_use = partitions->count++;
		if (partitions->in_use > 0)
			csv_block_init(block, &block->sink, block->size, block->period, block->reserve,
						   block->context);
		block->partition = copy;
	}
	partitions->open[partitions->in_use].value = copy;
	partitions->hashes[partitions->in_use] = hash;
}

void
csv_partitions_select(CsvPartitions *partitions, const char *value)
{
	uint32 hash = hash_value(value);
	int    number;

	if (partitions->in_use < 0 || !has_value(partitions, partitions->in_use, value, hash))
	{
		put_back(partitions);
		number = find_open(partitions, value, hash);
		if (number < partitions->count)
			take_block_of(partitions, number);
		else
			open_block(partitions, value, hash);
	}
	partitions->open[partitions->in_use].used = ++partitions->clock;
}

void
csv_partitions_finish(CsvPartitions *partitions)
{
	put_back(partitions);
	for (int i = 0; i < partitions->count; i++)
	{
		take_block_of(partitions, i);
		csv_block_finish(partitions->block);
		put_back(partitions);
	}
}
