/*-------------------------------------------------------------------------
 *
 * output.c
 *	  From an executor's rows to the pipe: CSV, compressed where asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "output.h"

struct Output
{
	Pipe         *pipe;
	Compressor   *compressor; /* NULL: none */
	DestReceiver *receiver;
	bool          lost;
	uint64        rows;
};

static void
send(Output *output, PipeBlockKind kind, const char *data, size_t len, uint64 rows)
{
	if (output->compressor != NULL)
		compress_block(output->compressor, data, len, &data, &len);
	if (pipe_send(output->pipe, kind, data, len, rows))
		output->rows += rows;
	else
		output->lost = true;
}

static void
send_header(void *arg, const char *data, size_t len)
{
	send((Output *) arg, PIPE_HEADER, data, len, 0);
}

static void
send_block(void *arg, const char *data, size_t len, uint64 rows)
{
	send((Output *) arg, PIPE_ROWS, data, len, rows);
}

Output *
output_open(const OutputFormat *format, Pipe *pipe)
{
	Output *output = palloc0(sizeof(Output));
	CsvSink sink = {.header = send_header, .block = send_block, .arg = output};
	bool    compressed = format->compression.method != COMPRESS_NONE;

	output->pipe = pipe;
	if (compressed)
		output->compressor = compress_open(&format->compression);
	output->receiver = csv_receiver_create(&format->csv, &sink,
										   compressed ? COMPRESS_BLOCK_SIZE : PIPE_BLOCK_SIZE);
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
	output->receiver->rDestroy(output->receiver);
	send(output, PIPE_END, "", 0, 0);
}
