/*-------------------------------------------------------------------------
 *
 * fuzz_compress.c
 *	  Compression (compress.c, compress_file.c): pieces of several processes make
 *	  one file, which others decompress to what went in.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <lz4frame.h>
#include <zlib.h>
#include <zstd.h>

#include "lib/stringinfo.h"

#include "format/compress.h"

#define BLOCKS 3

/* The server's, of which no library of programs has a copy. */
extern uint32 pg_crc32_table[256];
uint32        pg_crc32_table[256];

static void __attribute__((constructor)) make_table(void)
{
	for (uint32 i = 0; i < 256; i++)
	{
		pg_crc32_table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			pg_crc32_table[i] = (pg_crc32_table[i] >> 1) ^ ((pg_crc32_table[i] & 1) * 0xEDB88320);
	}
}

/* One member, with zlib: another library than it was compressed with. */
static size_t
expand_gzip(const char *data, size_t len, char *out, size_t room)
{
	z_stream stream = {.next_in = (Bytef *) data,
					   .avail_in = (uInt) len,
					   .next_out = (Bytef *) out,
					   .avail_out = (uInt) room};

	FUZZ_CHECK(inflateInit2(&stream, 15 + 16) == Z_OK);
	FUZZ_CHECK(inflate(&stream, Z_FINISH) == Z_STREAM_END);
	FUZZ_CHECK(stream.avail_in == 0);
	FUZZ_CHECK(inflateEnd(&stream) == Z_OK);
	return room - stream.avail_out;
}

static size_t
expand_zstd(const char *data, size_t len, char *out, size_t room)
{
	size_t result = ZSTD_decompress(out, room, data, len);

	FUZZ_CHECK(!ZSTD_isError(result));
	return result;
}

static size_t
expand_lz4(const char *data, size_t len, char *out, size_t room)
{
	LZ4F_dctx *context;
	size_t     used = 0;
	size_t     hint = 1;

	FUZZ_CHECK(!LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)));
	while (len > 0)
	{
		size_t taken = len;
		size_t made = room - used;

		hint = LZ4F_decompress(context, out + used, &made, data, &taken, NULL);
		FUZZ_CHECK(!LZ4F_isError(hint));
		FUZZ_CHECK(taken > 0);
		data += taken;
		len -= taken;
		used += made;
		FUZZ_CHECK(hint > 0 || len == 0); /* one frame */
	}
	FUZZ_CHECK(hint == 0);
	LZ4F_freeDecompressionContext(context);
	return used;
}

static size_t
expand(CompressMethod method, const StringInfoData *stream, char *out, size_t room)
{
	switch (method)
	{
		case COMPRESS_GZIP:
			return expand_gzip(stream->data, stream->len, out, room);
		case COMPRESS_ZSTD:
			return expand_zstd(stream->data, stream->len, out, room);
		default:
			return expand_lz4(stream->data, stream->len, out, room);
	}
}

/* Now and then more than one member holds. */
static void
make_block(FuzzInput *input, StringInfo block)
{
	char  *text = fuzz_string(input);
	size_t times = fuzz_byte(input);

	if (times == 255)
		times = COMPRESS_BLOCK_SIZE / (strlen(text) + 1) + 1;
	for (size_t i = 0; i < times; i++)
		appendBinaryStringInfo(block, text, (int) strlen(text) + 1);
}

static Compressor *last; /* whose piece came last */

static void
put_piece(FuzzInput *input, Compressor *compressor, CompressFile *file, StringInfo plain,
		  StringInfo stream)
{
	int         start = plain->len;
	const char *piece;
	size_t      len;
	char       *block;

	make_block(input, plain);
	block = palloc(plain->len - start + 1);
	memcpy(block, plain->data + start, plain->len - start);
	if (compressor != last)
		compress_restart(compressor);
	last = compressor;
	compress_add(compressor, block, plain->len - start);
	compress_take(compressor, &piece, &len);
	compress_file_put(file, &piece, &len, stream);
	appendBinaryStringInfo(stream, piece, (int) len);
	pfree(block);
}

void
fuzz_one(FuzzInput *input)
{
	static const CompressOptions choices[] = {
		{COMPRESS_GZIP, 0}, {COMPRESS_GZIP, 1},  {COMPRESS_GZIP, 2},
		{COMPRESS_GZIP, 3}, {COMPRESS_ZSTD, -7}, {COMPRESS_ZSTD, 1},
		{COMPRESS_ZSTD, 3}, {COMPRESS_LZ4, 0},   {COMPRESS_LZ4, 3},
	};
	const CompressOptions *options = &choices[fuzz_byte(input) % lengthof(choices)];
	Compressor            *compressors[] = {compress_open(options), compress_open(options)};
	CompressFile           file;
	StringInfoData         plain;
	StringInfoData         stream;
	char                  *back;

	last = NULL;
	initStringInfo(&plain);
	initStringInfo(&stream);
	compress_file_begin(&file, options->method, &stream);
	make_block(input, &plain);
	compress_file_store(&file, plain.data, plain.len, &stream);
	for (int i = 0; i < BLOCKS; i++)
		put_piece(input, compressors[fuzz_byte(input) % 2], &file, &plain, &stream);
	compress_file_end(&file, &stream);
	if (fuzz_byte(input) % 2 == 0)
		compress_file_set_length(&file, &stream);
	FUZZ_CHECK(file.len == (uint64) plain.len);

	back = palloc(plain.len + 1);
	FUZZ_CHECK(expand(options->method, &stream, back, plain.len + 1) == (size_t) plain.len);
	FUZZ_CHECK(memcmp(back, plain.data, plain.len) == 0);
	compress_close(compressors[0]);
	compress_close(compressors[1]);
}
