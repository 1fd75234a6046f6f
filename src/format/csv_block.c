/*-------------------------------------------------------------------------
 *
 * csv_block.c
 *	  The buffer in which rows become blocks for a sink.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "format/csv_block.h"

/* A shm_mq takes messages of MaxAllocSize, of which some bytes are the pipe's. */
#define MAX_BUFFER (MaxAllocSize - 63)

static void
set_buffer(CsvBlock *block, char *data, size_t allocated)
{
	block->data = block->row = data;
	block->allocated = allocated;
	block->limit = data + (allocated - block->reserve);
}

void
csv_block_init(CsvBlock *block, const CsvSink *sink, size_t size, uint64 period, size_t reserve,
			   MemoryContext context)
{
	block->sink = *sink;
	block->size = size;
	block->period = period;
	block->reserve = reserve;
	block->context = context;
	set_buffer(block, MemoryContextAllocHuge(context, size + reserve), size + reserve);
	block->partition = NULL;
	block->sent = false;
	block->rows = 0;
	block->rows_left = period;
}

/* Sends the whole rows; what there is of another row becomes the buffer's start. */
static char *
send_rows(CsvBlock *block, char *dst)
{
	size_t partial = dst - block->row;

	block->sink.block(block->sink.arg, block->partition, block->data, block->row - block->data,
					  block->rows);
	memmove(block->data, block->row, partial);
	block->row = block->data;
	block->rows_left -= block->rows;
	if (block->rows_left == 0)
		block->rows_left = block->period;
	block->rows = 0;
	block->sent = true;
	return block->data + partial;
}

char *
csv_block_make_room(CsvBlock *block, char *dst, size_t len)
{
	size_t longest = MAX_BUFFER - block->reserve;
	size_t partial;
	size_t allocated;

	if (block->rows > 0)
		dst = send_rows(block, dst);
	if ((ptrdiff_t) len <= block->limit - dst)
		return dst;

	partial = dst - block->data;
	if (partial + len > longest)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("a row is too large for CSV"),
				 errdetail("A row can have at most %zu bytes.", longest)));
	allocated = Max(Min(block->allocated * 2, longest), partial + len) + block->reserve;
	set_buffer(block, repalloc_huge(block->data, allocated), allocated);
	return block->data + partial;
}

/*
 * The row that fills the block is sent along with those before it only if the
 * block does not become larger than asked for.
 */
void
csv_block_send_full(CsvBlock *block, char *dst)
{
	if (block->rows > 0 && (size_t) (dst - block->data) > block->size)
		dst = send_rows(block, dst);

	block->row = dst;
	block->rows++;
	if ((size_t) (dst - block->data) < block->size && block->rows < block->rows_left)
		return;

	/* A buffer that grew is kept for as long as rows are that large. */
	if ((size_t) (dst - block->data) <= block->size + block->reserve)
		csv_block_trim(block);
	csv_block_finish(block);
}

void
csv_block_trim(CsvBlock *block)
{
	size_t normal = block->size + block->reserve;

	if (block->allocated <= normal)
		return;
	csv_block_finish(block);
	pfree(block->data);
	set_buffer(block, MemoryContextAllocHuge(block->context, normal), normal);
}

void
csv_block_end_header(CsvBlock *block, char *dst)
{
	block->sink.header(block->sink.arg, block->data, dst - block->data);
}

void
csv_block_finish(CsvBlock *block)
{
	if (block->rows > 0)
		(void) send_rows(block, block->row);
}

void
csv_block_start_over(CsvBlock *block, const char *partition)
{
	csv_block_finish(block);
	block->partition = partition;
	block->rows_left = block->period;
}
