/*-------------------------------------------------------------------------
 *
 * fuzz_compress.c
 *	  Compression (compress.c): blocks one after the other are one stream, which
 *	  others decompress to what went in.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <lz4frame.h>
#include <zlib.h>
#include <zstd.h>

#include "lib/stringinfo.h"

#include "compress.h"

#define BLOCKS 3

/* gzip with zlib, another library than it was compressed with */
static size_t
expand_gzip(const char *data, size_t len, char *out, size_t room)
{
	z_stream stream = {.next_in = (Bytef *) data,
					   .avail_in = (uInt) len,
					   .next_out = (Bytef *) out,
					   .avail_out = (uInt) room};
	int      result;

	FUZZ_CHECK(inflateInit2(&stream, 15 + 16) == Z_OK);
	do
	{
		result = inflate(&stream, Z_FINISH);
		FUZZ_CHECK(result == Z_STREAM_END);
		/* the next member */
		FUZZ_CHECK(inflateReset(&stream) == Z_OK);
	} while (stream.avail_in > 0);
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

	FUZZ_CHECK(!LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)));
	while (len > 0)
	{
		size_t taken = len;
		size_t made = room - used;

		FUZZ_CHECK(!LZ4F_isError(LZ4F_decompress(context, out + used, &made, data, &taken, NULL)));
		FUZZ_CHECK(taken > 0);
		data += taken;
		len -= taken;
		used += made;
	}
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

void
fuzz_one(FuzzInput *input)
{
	static const CompressOptions choices[] = {
		{COMPRESS_GZIP, 0}, {COMPRESS_GZIP, 1},  {COMPRESS_GZIP, 2},
		{COMPRESS_GZIP, 3}, {COMPRESS_ZSTD, -7}, {COMPRESS_ZSTD, 1},
		{COMPRESS_ZSTD, 3}, {COMPRESS_LZ4, 0},   {COMPRESS_LZ4, 3},
	};
	const CompressOptions *options = &choices[fuzz_byte(input) % lengthof(choices)];
	Compressor            *compressor = compress_open(options);
	StringInfoData         plain;
	StringInfoData         stream;
	char                  *back;

	initStringInfo(&plain);
	initStringInfo(&stream);
	for (int i = 0; i < BLOCKS; i++)
	{
		int         start = plain.len;
		const char *out;
		size_t      out_len;
		char       *block;

		make_block(input, &plain);
		block = palloc(plain.len - start);
		memcpy(block, plain.data + start, plain.len - start);
		compress_block(compressor, block, plain.len - start, &out, &out_len);
		appendBinaryStringInfo(&stream, out, (int) out_len);
		pfree(block);
	}
	back = palloc(plain.len);
	FUZZ_CHECK(expand(options->method, &stream, back, plain.len) == (size_t) plain.len);
	FUZZ_CHECK(memcmp(back, plain.data, plain.len) == 0);
}
