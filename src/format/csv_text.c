/*-------------------------------------------------------------------------
 *
 * csv_text.c
 *	  Bytes of one CSV value: copied, checked for quoting, quoted.
 *
 * Most values need no quotes, so a value is copied while it is checked, and
 * written again with quotes in the few cases where the check fails.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "mb/pg_wchar.h"

#include "format/csv_chunk.h"
#include "format/csv_text.h"

/* Values that are worth a call of another function. */
#define LONG_VALUE 128

/* What asks for quotes, in every byte of a chunk. */
typedef struct Marks
{
	Chunk delimiter;
	Chunk quote;
	Chunk newline;
	Chunk carriage;
	Chunk high; /* the bits that a byte must not have */
} Marks;

static inline Chunk
chunk_marks(Chunk chunk, const Marks *m)
{
	Chunk given = chunk_or(chunk_equal(chunk, m->delimiter), chunk_equal(chunk, m->quote));
	Chunk ends = chunk_or(chunk_equal(chunk, m->newline), chunk_equal(chunk, m->carriage));

	return chunk_or(chunk_or(given, ends), chunk_and(chunk, m->high));
}

static inline Chunk
copy_chunk(char *dst, const char *src, const Marks *m)
{
	Chunk chunk = chunk_load(src);

	chunk_store(dst, chunk);
	return chunk_marks(chunk, m);
}

/*
 * Copies and looks at once: a value that turns out to need quotes was copied in vain, and most
 * do not.
 */
static pg_noinline bool
copy_plain(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only)
{
	const Marks m = {.delimiter = chunk_of(marks->delimiter),
					 .quote = chunk_of(marks->quote),
					 .newline = chunk_of('\n'),
					 .carriage = chunk_of('\r'),
					 .high = chunk_of(ascii_only ? 0x80 : 0)};
	Chunk       hit;
	size_t      i = 0;

	if (len < CHUNK)
	{
		chunk_copy_short(dst, src, len);
		return len == 0 || !chunk_any(chunk_marks(chunk_short(src, len), &m));
	}

	/* One branch for four chunks: most values have nothing to find. */
	for (; i + 4 * CHUNK <= len; i += 4 * CHUNK)
	{
		csv_prefetch(src + i);
		hit = chunk_or(chunk_or(copy_chunk(dst + i, src + i, &m),
								copy_chunk(dst + i + CHUNK, src + i + CHUNK, &m)),
					   chunk_or(copy_chunk(dst + i + 2 * CHUNK, src + i + 2 * CHUNK, &m),
								copy_chunk(dst + i + 3 * CHUNK, src + i + 3 * CHUNK, &m)));
		if (chunk_any(hit))
			return false;
	}

	/* The last chunk overlaps, so that no byte is left to do alone. */
	hit = copy_chunk(dst + len - CHUNK, src + len - CHUNK, &m);
	for (; i + CHUNK < len; i += CHUNK)
		hit = chunk_or(hit, copy_chunk(dst + i, src + i, &m));
	return !chunk_any(hit);
}

bool
csv_copy_plain(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only)
{
#ifdef CSV_TEXT_X86
	if (len >= LONG_VALUE && csv_has_avx2())
		return csv_copy_plain_avx2(dst, src, len, marks, ascii_only);
#endif
	return copy_plain(dst, src, len, marks, ascii_only);
}

void
csv_copy_page(char *dst, const char *src, size_t len, ptrdiff_t ahead)
{
	size_t i = 0;

	if (len < CHUNK)
	{
		chunk_copy_short(dst, src, len);
		return;
	}
	for (; i + 4 * CHUNK <= len; i += 4 * CHUNK)
	{
		csv_prefetch_at(src + i + ahead);
		chunk_store(dst + i, chunk_load(src + i));
		chunk_store(dst + i + CHUNK, chunk_load(src + i + CHUNK));
		chunk_store(dst + i + 2 * CHUNK, chunk_load(src + i + 2 * CHUNK));
		chunk_store(dst + i + 3 * CHUNK, chunk_load(src + i + 3 * CHUNK));
	}
	for (; i + CHUNK < len; i += CHUNK)
		chunk_store(dst + i, chunk_load(src + i));
	chunk_store(dst + len - CHUNK, chunk_load(src + len - CHUNK));
}

/*
 * Steps over one character.  Only where trailing bytes may look like ASCII do
 * characters have to be told apart; elsewhere bytes will do.
 */
static inline size_t
char_length(const char *src, const CsvMarks *marks)
{
	if (marks->mblen_encoding >= 0 && IS_HIGHBIT_SET(*src))
		return pg_encoding_mblen(marks->mblen_encoding, src);
	return 1;
}

bool
csv_needs_quotes(const char *src, size_t len, const CsvMarks *marks)
{
	for (size_t i = 0; i < len; i += char_length(src + i, marks))
	{
		if (src[i] == marks->delimiter || src[i] == marks->quote || src[i] == '\n' ||
			src[i] == '\r')
			return true;
	}
	return false;
}

size_t
csv_quoted_size(const char *src, size_t len, const CsvMarks *marks)
{
	const Chunk quote = chunk_of(marks->quote);
	const Chunk escape = chunk_of(marks->escape);
	size_t      size = len + 2;
	size_t      i = 0;

	for (; marks->mblen_encoding < 0 && i + CHUNK <= len; i += CHUNK)
	{
		Chunk chunk = chunk_load(src + i);

		for (uint32 bits =
				 chunk_bits(chunk_or(chunk_equal(chunk, quote), chunk_equal(chunk, escape)));
			 bits != 0; bits &= bits - 1)
			size++;
	}
	for (; i < len; i += char_length(src + i, marks))
	{
		if (src[i] == marks->quote || src[i] == marks->escape)
			size++;
	}
	return size;
}

/* Character by character: the rest of a value, or an encoding that needs it. */
static char *
escape_slowly(char *dst, const char *src, size_t len, const CsvMarks *marks)
{
	size_t i = 0;

	while (i < len)
	{
		size_t n = Min(char_length(src + i, marks), len - i);

		if (src[i] == marks->quote || src[i] == marks->escape)
			*dst++ = marks->escape;
		memcpy(dst, src + i, n);
		dst += n;
		i += n;
	}
	return dst;
}

/* Bytes that are looked at together where long values are escaped. */
#define STRIDE (2 * CHUNK)

/* Copies a chunk; tells before which of its bytes there has to be an escape. */
static inline uint32
copy_and_find(char *dst, const char *src, Chunk quote, Chunk escape)
{
	Chunk chunk = chunk_load(src);

	chunk_store(dst, chunk);
	return chunk_bits(chunk_or(chunk_equal(chunk, quote), chunk_equal(chunk, escape)));
}

/*
 * Writes the first STRIDE bytes of at least twice as many.  An escape moves
 * what comes after it by one.  As much is copied each time, since a length
 * would have to be decided upon; what is copied too far is what comes there.
 */
static inline char *
escape_stride(char *dst, const char *src, char mark, Chunk quote, Chunk escape)
{
	uint32 bits = copy_and_find(dst, src, quote, escape) |
				  copy_and_find(dst + CHUNK, src + CHUNK, quote, escape) << CHUNK;

	for (; bits != 0; bits &= bits - 1)
	{
		int n = pg_rightmost_one_pos32(bits);

		dst[n] = mark;
		memcpy(dst + n + 1, src + n, STRIDE);
		dst++;
	}
	return dst + STRIDE;
}

char *
csv_copy_quoted(char *dst, const char *src, size_t len, const CsvMarks *marks)
{
	const Chunk quote = chunk_of(marks->quote);
	const Chunk escape = chunk_of(marks->escape);
	bool        bytes = marks->mblen_encoding < 0;

	*dst++ = marks->quote;
	for (; bytes && len >= 2 * STRIDE; src += STRIDE, len -= STRIDE)
	{
		csv_prefetch(src);
		dst = escape_stride(dst, src, marks->escape, quote, escape);
	}
	while (bytes && len >= CHUNK)
	{
		Chunk chunk = chunk_load(src);
		Chunk hit = chunk_or(chunk_equal(chunk, quote), chunk_equal(chunk, escape));
		int   n = CHUNK;

		/* what is stored beyond a hit is overwritten by the next round */
		chunk_store(dst, chunk);
		if (chunk_any(hit))
		{
			n = chunk_first(hit);
			dst[n] = marks->escape;
			dst[n + 1] = src[n];
			dst++;
			n++;
		}
		dst += n;
		src += n;
		len -= n;
	}
	dst = escape_slowly(dst, src, len, marks);
	*dst++ = marks->quote;
	return dst;
}
