/*-------------------------------------------------------------------------
 *
 * csv_partition.h
 *	  A block for each of the partitions that rows come for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_PARTITION_H
#define CSV_PARTITION_H

#include "format/csv_block.h"

/*
 * As many blocks are filled at the same time; the one used longest ago is sent for
 * another.  Memory that no row has come to is not taken.
 */
#define CSV_OPEN_BLOCKS 1024

typedef struct CsvPartitions CsvPartitions;

/*
 * "block", which has been initialized and is empty, is the one that rows are
 * written to: the others are copies of its like, all palloc'd in its context.
 */
extern CsvPartitions *csv_partitions_create(CsvBlock *block);

/* Puts the partition's block into "block"; NULL is a value too. */
extern void csv_partitions_select(CsvPartitions *partitions, const char *value);

/* Sends all that there is. */
extern void csv_partitions_finish(CsvPartitions *partitions);

#endif /* CSV_PARTITION_H */
