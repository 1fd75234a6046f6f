/*-------------------------------------------------------------------------
 *
 * csv_block.h
 *	  The buffer in which rows become blocks for a sink.
 *
 * A writer holds "dst", where the next byte goes, and asks for room before it
 * writes.  Beyond what it asked for there are always "reserve" bytes more, so
 * that all of a row's parts of known size need to be asked for only once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_BLOCK_H
#define CSV_BLOCK_H

/*
 * Where the bytes go.  "header" is called once, before any block, if there is
 * a header line; "block" is called with whole rows, usually of about the size
 * asked for, more only for a single row that is larger.  "partition" is the
 * text of the value in partition_column, in the server's encoding, NULL for a
 * null and where there is no such column.  The bytes are the receiver's again on
 * return.  Both may raise errors; what they allocate in
 * the current memory context is gone after the row.
 */
typedef struct CsvSink
{
	void (*header)(void *arg, const char *data, size_t len);
	void (*block)(void *arg, const char *partition, const char *data, size_t len, uint64 rows);
	void *arg;
} CsvSink;

typedef struct CsvBlock
{
	char         *data;
	char         *row;       /* where the row begun last begins */
	char         *limit;     /* end of the buffer, less the reserve */
	uint64        rows;      /* whole rows before "row" */
	uint64        rows_left; /* until a block has to end, those in it included */
	uint64        period;    /* and then again */
	size_t        size;      /* of a block, as asked for */
	size_t        reserve;
	size_t        allocated;
	const char   *partition; /* for the sink */
	bool          sent;      /* some, since this was set to false */
	CsvSink       sink;
	MemoryContext context;
} CsvBlock;

/* A block ends at the latest where "period" rows are full, or twice as many, ... */
extern void csv_block_init(CsvBlock *block, const CsvSink *sink, size_t size, uint64 period,
						   size_t reserve, MemoryContext context);

/* Sends what there is; rows of another partition follow. */
extern void csv_block_start_over(CsvBlock *block, const char *partition);

/* Sends what is in a buffer that grew for a large row, and gives it back. */
extern void csv_block_trim(CsvBlock *block);

/* Makes room by sending what is whole and by growing; the row may move. */
extern char *csv_block_make_room(CsvBlock *block, char *dst, size_t len);

/* A row is complete, or the header line is, or there will be no more rows. */
extern void csv_block_send_full(CsvBlock *block, char *dst);
extern void csv_block_end_header(CsvBlock *block, char *dst);
extern void csv_block_finish(CsvBlock *block);

/* Room for "len" bytes and the reserve; returns "dst" where it is now. */
static inline char *
csv_block_room(CsvBlock *block, char *dst, size_t len)
{
	/* within the reserve, "dst" is past the limit */
	if (unlikely((ptrdiff_t) len > block->limit - dst))
		return csv_block_make_room(block, dst, len);
	return dst;
}

static inline void
csv_block_end_row(CsvBlock *block, char *dst)
{
	if (unlikely((size_t) (dst - block->data) >= block->size ||
				 block->rows + 1 >= block->rows_left))
	{
		csv_block_send_full(block, dst);
		return;
	}
	block->row = dst;
	block->rows++;
}

#endif /* CSV_BLOCK_H */
