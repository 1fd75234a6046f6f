/*-------------------------------------------------------------------------
 *
 * row_sender.c
 *	  From an executor's rows to the pipe: CSV, compressed where asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/object_path.h"
#include "export/row_sender.h"

/* For each of the partitions that are open, of which there may be many. */
#define PARTITION_BLOCK_SIZE (64 * 1024)

/*
 * Of CSV, in a frame that another process may not write into; a file of several
 * processes consists of such frames.
 */
#define FRAME_SIZE (64 * 1024 * 1024)

struct Output
{
	MemoryContext       context;
	const OutputFormat *format;
	Pipe               *pipe;
	Compressor         *compressor; /* NULL: none */
	bool                whole_frames;
	DestReceiver       *receiver;
	char               *folder; /* of the piece that is being made, or was made last; NULL: none */
	uint64              rows_in_piece;
	bool                lost;
	uint64              rows;
};

static void
send_to_pipe(Output *output, const PipeBlock *block)
{
	if (pipe_send(output->pipe, block))
		output->rows += block->rows;
	else
		output->lost = true;
}

/* The uploader puts it into each file as it is. */
static void
send_header(void *arg, const char *data, size_t len)
{
	PipeBlock block = {.kind = PIPE_HEADER, .data = data, .len = len};

	send_to_pipe((Output *) arg, &block);
}

static void
send_piece(Output *output)
{
	PipeBlock block = {.kind = PIPE_ROWS, .folder = output->folder, .rows = output->rows_in_piece};

	if (output->rows_in_piece == 0)
		return;
	compress_take(output->compressor, &block.data, &block.len);
	if (output->whole_frames)
		compress_restart(output->compressor);
	output->rows_in_piece = 0;
	send_to_pipe(output, &block);
}

/* May the block not be in one file with what the piece has? */
static bool
is_too_much(const Output *output, const PipeBlock *block)
{
	const Compressor *compressor = output->compressor;
	uint64            max_file_size = output->format->max_file_size;
	uint64            max_rows_per_file = output->format->csv.max_rows_per_file;

	if (max_rows_per_file > 0 && output->rows_in_piece + block->rows > max_rows_per_file)
		return true;
	return max_file_size > 0 &&
		   compress_size(compressor) + compress_bound(compressor, block->len) + COMPRESS_FILE_MAX >
			   max_file_size;
}

static bool
is_folder(const Output *output, const char *folder)
{
	return output->folder == NULL || folder == NULL ? output->folder == folder
													: strcmp(output->folder, folder) == 0;
}

static void
change_folder(Output *output, const char *folder)
{
	send_piece(output);
	if (output->folder != NULL)
		pfree(output->folder);
	output->folder = folder != NULL ? MemoryContextStrdup(output->context, folder) : NULL;
	compress_restart(output->compressor);
}

/* A frame stays in one file, so that it ends where a file may. */
static void
compress_rows(Output *output, const PipeBlock *block)
{
	if (!is_folder(output, block->folder))
		change_folder(output, block->folder);
	else if (is_too_much(output, block))
		send_piece(output);
	compress_add(output->compressor, block->data, block->len);
	output->rows_in_piece += block->rows;
	if (!output->whole_frames || output->folder != NULL ||
		compress_added(output->compressor) >= FRAME_SIZE)
		send_piece(output);
}

static void
send_block(void *arg, const char *partition, const char *data, size_t len, uint64 rows)
{
	Output     *output = arg;
	const char *partition_by = output->format->partition_by;
	PipeBlock   block = {.kind = PIPE_ROWS, .data = data, .len = len, .rows = rows};

	if (partition_by != NULL)
		block.folder = object_path_hive_folder(partition_by, partition);
	if (output->compressor != NULL)
		compress_rows(output, &block);
	else
		send_to_pipe(output, &block);
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

/*
 * Where pieces depend on those before, another process must not come between them,
 * nor the beginning of another file.
 */
static bool
wants_whole_frames(const OutputFormat *format)
{
	return compress_depends_on_before(format->compression.method) &&
		   (!format->alone || format->max_file_size > 0 || format->csv.max_rows_per_file > 0);
}

Output *
row_sender_open(const OutputFormat *format, Pipe *pipe)
{
	Output *output = palloc0(sizeof(Output));
	CsvSink sink = {.header = send_header, .block = send_block, .arg = output};

	output->context = CurrentMemoryContext;
	output->format = format;
	output->pipe = pipe;
	if (format->compression.method != COMPRESS_NONE)
	{
		output->compressor = compress_open(&format->compression);
		output->whole_frames = wants_whole_frames(format);
	}
	output->receiver = csv_receiver_create(&format->csv, &sink, block_size(format));
	return output;
}

DestReceiver *
row_sender_receiver(Output *output)
{
	return output->receiver;
}

bool
row_sender_is_lost(const Output *output)
{
	return output->lost;
}

uint64
row_sender_rows(const Output *output)
{
	return output->rows;
}

void
row_sender_close(Output *output)
{
	PipeBlock block = {.kind = PIPE_END, .data = ""};

	output->receiver->rDestroy(output->receiver);
	if (output->compressor != NULL)
		send_piece(output);
	send_to_pipe(output, &block);
}
