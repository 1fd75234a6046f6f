/*-------------------------------------------------------------------------
 *
 * output.c
 *	  From an executor's rows to the pipe: CSV, compressed where asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "output.h"
#include "path.h"

/* For each of the partitions that are open, of which there may be many. */
#define PARTITION_BLOCK_SIZE (64 * 1024)

struct Output
{
	Pipe         *pipe;
	const char   *partition_by;
	Compressor   *compressor; /* NULL: none */
	DestReceiver *receiver;
	bool          lost;
	uint64        rows;
};

static void
send(Output *output, PipeBlock *block)
{
	if (output->compressor != NULL)
		compress_block(output->compressor, block->data, block->len, &block->data, &block->len);
	if (pipe_send(output->pipe, block))
		output->rows += block->rows;
	else
		output->lost = true;
}

static void
send_header(void *arg, const char *data, size_t len)
{
	PipeBlock block = {.kind = PIPE_HEADER, .data = data, .len = len};

	send((Output *) arg, &block);
}

static void
send_block(void *arg, const char *partition, const char *data, size_t len, uint64 rows)
{
	Output   *output = arg;
	PipeBlock block = {.kind = PIPE_ROWS, .data = data, .len = len, .rows = rows};

	if (output->partition_by != NULL)
		block.folder = path_hive_folder(output->partition_by, partition);
	send(output, &block);
}

/*
 * A file ends at a block's end, with less in it than it may have: by at most a
 * quarter of that.
 */
static size_t
block_size(const OutputFormat *format)
{
	size_t size = PIPE_BLOCK_SIZE;

	if (format->partition_by != NULL)
		size = PARTITION_BLOCK_SIZE;
	else if (format->compression.method != COMPRESS_NONE)
		size = COMPRESS_BLOCK_SIZE;
	return format->max_file_size > 0 ? Min(size, format->max_file_size / 4) : size;
}

Output *
output_open(const OutputFormat *format, Pipe *pipe)
{
	Output *output = palloc0(sizeof(Output));
	CsvSink sink = {.header = send_header, .block = send_block, .arg = output};

	output->pipe = pipe;
	output->partition_by = format->partition_by;
	if (format->compression.method != COMPRESS_NONE)
		output->compressor = compress_open(&format->compression);
	output->receiver = csv_receiver_create(&format->csv, &sink, block_size(format));
	return output;
}

DestReceiver *
output_receiver(Output *output)
{
	return output->receiver;
}

bool
output_is_lost(const Output *output)
{
	return output->lost;
}

uint64
output_rows(const Output *output)
{
	return output->rows;
}

void
output_close(Output *output)
{
	PipeBlock block = {.kind = PIPE_END, .data = ""};

	output->receiver->rDestroy(output->receiver);
	send(output, &block);
}
