/*-------------------------------------------------------------------------
 *
 * compress_file.c
 *	  A compressed file, put together of pieces.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/pg_crc.h"

#include "base/crc32c.h"
#include "format/compress_internal.h"

/* ---- integers as all three formats have them: the least byte first ---- */

static void
append_le(StringInfo buf, uint64 value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		appendStringInfoChar(buf, (char) (value >> (8 * i)));
}

/* ---- gzip, RFC 1952 and 1951 ---- */

#define GZIP_STORED_MAX 65535

static void
gzip_begin(StringInfo buf)
{
	/* deflate; no flags, no time; an unknown system */
	static const char start[] = "\x1f\x8b\x08\0\0\0\0\0\0\xff";

	appendBinaryStringInfo(buf, start, sizeof(start) - 1);
}

static void
gzip_store(CompressFile *file, const char *data, size_t len, StringInfo buf)
{
	FIN_TRADITIONAL_CRC32(file->crc); /* is its own inverse */
	COMP_TRADITIONAL_CRC32(file->crc, data, len);
	FIN_TRADITIONAL_CRC32(file->crc);
	while (len > 0)
	{
		size_t n = Min(len, GZIP_STORED_MAX);

		appendStringInfoChar(buf, 0);
		append_le(buf, n, 2);
		append_le(buf, ~n, 2);
		appendBinaryStringInfo(buf, data, (int) n);
		data += n;
		len -= n;
	}
}

/* A last block, which is empty: no block that a piece has says that it is the last. */
static void
gzip_end(const CompressFile *file, StringInfo buf)
{
	append_le(buf, 0x0003, 2);
	append_le(buf, file->crc, 4);
	append_le(buf, file->len, 4);
}

/* ---- lz4, https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md ---- */

#define LZ4_STORED 0x80000000
#define LZ4_STORED_MAX (1024 * 1024)

static void
lz4_begin(StringInfo buf)
{
	/* independent blocks of at most 1 MiB; no checksum but that of these two bytes */
	static const char start[] = "\x04\x22\x4d\x18\x60\x60\x51";

	appendBinaryStringInfo(buf, start, sizeof(start) - 1);
}

static void
lz4_store(const char *data, size_t len, StringInfo buf)
{
	while (len > 0)
	{
		size_t n = Min(len, LZ4_STORED_MAX);

		append_le(buf, n | LZ4_STORED, 4);
		appendBinaryStringInfo(buf, data, (int) n);
		data += n;
		len -= n;
	}
}

/* ---- zstd, RFC 8878 ---- */

#define ZSTD_MAGIC 0xFD2FB528
#define ZSTD_WINDOW_DESCRIPTOR ((COMPRESS_ZSTD_WINDOW_LOG - 10) << 3)
#define ZSTD_LENGTH_OF_8 0xC0
#define ZSTD_STORED_MAX (128 * 1024)
#define ZSTD_LAST_BLOCK 1

static void
zstd_begin(CompressFile *file, StringInfo buf)
{
	append_le(buf, ZSTD_MAGIC, 4);
	appendStringInfoChar(buf, 0);
	appendStringInfoChar(buf, ZSTD_WINDOW_DESCRIPTOR);
	file->frames++;
	file->used = false;
}

static void
zstd_store(const char *data, size_t len, StringInfo buf)
{
	while (len > 0)
	{
		size_t n = Min(len, ZSTD_STORED_MAX);

		append_le(buf, n << 3, 3);
		appendBinaryStringInfo(buf, data, (int) n);
		data += n;
		len -= n;
	}
}

static void
zstd_end(StringInfo buf)
{
	append_le(buf, ZSTD_LAST_BLOCK, 3);
}

/* ---- all ---- */

void
compress_file_begin(CompressFile *file, CompressMethod method, StringInfo buf)
{
	*file = (CompressFile){.method = method};
	if (method == COMPRESS_GZIP)
		gzip_begin(buf);
	else if (method == COMPRESS_LZ4)
		lz4_begin(buf);
	else if (method == COMPRESS_ZSTD)
		zstd_begin(file, buf);
}

void
compress_file_store(CompressFile *file, const char *data, size_t len, StringInfo buf)
{
	if (file->method == COMPRESS_GZIP)
		gzip_store(file, data, len, buf);
	else if (file->method == COMPRESS_LZ4)
		lz4_store(data, len, buf);
	else if (file->method == COMPRESS_ZSTD)
		zstd_store(data, len, buf);
	else
		appendBinaryStringInfo(buf, data, (int) len);
	file->len += len;
}

static PieceHead
take_head(const char **data, size_t *len)
{
	PieceHead head;

	if (*len < sizeof(head))
		elog(ERROR, "a compressed piece has no head");
	memcpy(&head, *data, sizeof(head));
	*data += sizeof(head);
	*len -= sizeof(head);
	return head;
}

void
compress_file_put(CompressFile *file, const char **data, size_t *len, StringInfo buf)
{
	PieceHead head;

	if (file->method == COMPRESS_NONE)
		return;
	head = take_head(data, len);
	if (file->method == COMPRESS_GZIP)
		file->crc = crc32_join(file->crc, head.crc, head.len);
	else if (file->method == COMPRESS_ZSTD && !head.independent && !file->used)
		elog(ERROR, "a compressed piece follows none");
	else if (file->method == COMPRESS_ZSTD && head.independent && file->used)
	{
		zstd_end(buf);
		zstd_begin(file, buf);
	}
	file->used = true;
	file->len += head.len;
}

void
compress_file_end(CompressFile *file, StringInfo buf)
{
	if (file->method == COMPRESS_GZIP)
		gzip_end(file, buf);
	else if (file->method == COMPRESS_LZ4)
		append_le(buf, 0, 4);
	else if (file->method == COMPRESS_ZSTD)
		zstd_end(buf);
}

void
compress_file_set_length(const CompressFile *file, StringInfo buf)
{
	uint64 len = file->len;
	char  *field;

	if (file->method != COMPRESS_ZSTD || file->frames != 1)
		return;
	enlargeStringInfo(buf, sizeof(len));
	field = buf->data + COMPRESS_ZSTD_HEADER;
	memmove(field + sizeof(len), field, buf->len - COMPRESS_ZSTD_HEADER);
	for (size_t i = 0; i < sizeof(len); i++)
		field[i] = (char) (len >> (8 * i));
	buf->len += sizeof(len);
	buf->data[4] = (char) ZSTD_LENGTH_OF_8;
}
