/*-------------------------------------------------------------------------
 *
 * csv_jsonb.c
 *	  jsonb as a CSV value, quotes and all, in one pass over its stored form.
 *
 * Nearly all of these values need quotes, and JSON itself is full of the
 * character that quotes them.  So each is written with its quotes doubled at
 * once, and in the rare case where no quote was needed the first one is taken
 * back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "format/csv_chunk.h"
#include "format/csv_jsonb.h"
#include "format/csv_numeric.h"

/* what JSON has outside of strings */
#define STRUCTURE "{}[]:, 0123456789-+.eEtrufalsn"

/* Values nested deeper than this go through the output function. */
#define MAX_DEPTH 64

/* Bytes of a string that are written between two questions for room. */
#define PIECE 512

/* the longest that a byte becomes: \u001f */
#define ESCAPED 6

typedef struct Writer
{
	CsvBlock *block;
	bool      separator_needs_quotes; /* it has the delimiter in it */
	bool      needs_quotes;
} Writer;

static char *put_container(Writer *w, char *dst, const JsonbContainer *container, int depth);

bool
csv_jsonb_suits(const CsvMarks *marks, const char *null_print)
{
	if (marks->quote != '"' || marks->escape != '"')
		return false;
	/* a comma is seen when it is written, and a character of strings comes with quotes */
	if (marks->delimiter != ',' && strchr(STRUCTURE, marks->delimiter) != NULL)
		return false;
	return null_print[0] == '\0' || null_print[strspn(null_print, STRUCTURE)] != '\0';
}

/* One character that JSON does not take as it is, quotes doubled. */
static char *
put_escaped(char *dst, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	*dst++ = '\\';
	switch (c)
	{
		case '"':
			*dst++ = '"';
			*dst++ = '"';
			return dst;
		case '\\':
			*dst++ = '\\';
			return dst;
		case '\b':
			*dst++ = 'b';
			return dst;
		case '\f':
			*dst++ = 'f';
			return dst;
		case '\n':
			*dst++ = 'n';
			return dst;
		case '\r':
			*dst++ = 'r';
			return dst;
		case '\t':
			*dst++ = 't';
			return dst;
		default:
			memcpy(dst, "u00", 3);
			dst[3] = hex[c >> 4];
			dst[4] = hex[c & 0xF];
			return dst + 5;
	}
}

static inline Chunk
chunk_to_escape(Chunk chunk)
{
	return chunk_or(chunk_control(chunk), chunk_or(chunk_equal(chunk, chunk_of('"')),
												   chunk_equal(chunk, chunk_of('\\'))));
}

/* For each byte of a piece there is room for ESCAPED bytes. */
static inline char *
put_piece(char *dst, const char *src, size_t len)
{
	while (len >= CHUNK)
	{
		Chunk chunk = chunk_load(src);
		Chunk hit = chunk_to_escape(chunk);
		int   n = CHUNK;

		chunk_store(dst, chunk);
		dst += CHUNK;
		if (chunk_any(hit))
		{
			n = chunk_first(hit);
			dst = put_escaped(dst - CHUNK + n, (unsigned char) src[n]);
			n++;
		}
		src += n;
		len -= n;
	}
	if (len == 0)
		return dst;
	if (!chunk_any(chunk_to_escape(chunk_short(src, len))))
	{
		chunk_copy_short(dst, src, len);
		return dst + len;
	}
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) src[i];

		if (c < ' ' || c == '"' || c == '\\')
			dst = put_escaped(dst, c);
		else
			*dst++ = c;
	}
	return dst;
}

/* Quotes of JSON are doubled, as the whole value is quoted in CSV. */
static char *
put_string(Writer *w, char *dst, const char *src, size_t len)
{
	size_t n = Min(len, PIECE);

	w->needs_quotes = true;
	/* one question for room is enough for most strings, marks and all */
	dst = csv_block_room(w->block, dst, n * ESCAPED + CHUNK + 4);
	*dst++ = '"';
	*dst++ = '"';
	dst = put_piece(dst, src, n);
	while ((len -= n) > 0)
	{
		src += n;
		n = Min(len, PIECE);
		dst = csv_block_room(w->block, dst, n * ESCAPED + CHUNK + 2);
		dst = put_piece(dst, src, n);
	}
	*dst++ = '"';
	*dst++ = '"';
	return dst;
}

static char *
put_number(Writer *w, char *dst, const char *src)
{
	Datum       number = PointerGetDatum(src);
	const char *text;
	char       *end;
	size_t      len;

	dst = csv_block_room(w->block, dst, CSV_NUMERIC_WIDTH);
	end = csv_put_numeric_within(dst, VARDATA_ANY(src), VARSIZE_ANY_EXHDR(src));
	if (end != NULL)
		return end;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, number));
	len = strlen(text);
	dst = csv_block_room(w->block, dst, len);
	memcpy(dst, text, len);
	return dst + len;
}

static inline char *
put_word(Writer *w, char *dst, const char *word, size_t len)
{
	dst = csv_block_room(w->block, dst, len);
	memcpy(dst, word, len);
	return dst + len;
}

/* An element, whose bytes are "offset" to "end" after "base". */
static char *
put_element(Writer *w, char *dst, JEntry entry, const char *base, uint32 offset, uint32 end,
			int depth)
{
	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			return put_string(w, dst, base + offset, end - offset);
		case JENTRY_ISNUMERIC:
			return put_number(w, dst, base + INTALIGN(offset));
		case JENTRY_ISBOOL_TRUE:
			return put_word(w, dst, "true", 4);
		case JENTRY_ISBOOL_FALSE:
			return put_word(w, dst, "false", 5);
		case JENTRY_ISNULL:
			return put_word(w, dst, "null", 4);
		default:
			return put_container(w, dst, (const JsonbContainer *) (base + INTALIGN(offset)),
								 depth + 1);
	}
}

static char *
put_separator(Writer *w, char *dst)
{
	w->needs_quotes |= w->separator_needs_quotes;
	return put_word(w, dst, ", ", 2);
}

/* NULL when the value is left to the server, as one that is nested too deep. */
static char *
put_array(Writer *w, char *dst, const JsonbContainer *container, int depth)
{
	uint32      count = JsonContainerSize(container);
	const char *base = (const char *) (container->children + count);
	uint32      offset = 0;

	for (uint32 i = 0; i < count; i++)
	{
		uint32 end = offset;

		JBE_ADVANCE_OFFSET(end, container->children[i]);
		if (i > 0)
			dst = put_separator(w, dst);
		dst = put_element(w, dst, container->children[i], base, offset, end, depth);
		if (dst == NULL)
			return NULL;
		offset = end;
	}
	return dst;
}

/* Keys come first, all of them; then the values. */
static char *
put_object(Writer *w, char *dst, const JsonbContainer *container, int depth)
{
	uint32        count = JsonContainerSize(container);
	const JEntry *keys = container->children;
	const JEntry *values = keys + count;
	const char   *base = (const char *) (values + count);
	uint32        key = 0;
	uint32        value = getJsonbOffset(container, count);

	for (uint32 i = 0; i < count; i++)
	{
		uint32 key_end = key;
		uint32 value_end = value;

		JBE_ADVANCE_OFFSET(key_end, keys[i]);
		JBE_ADVANCE_OFFSET(value_end, values[i]);
		if (i > 0)
			dst = put_separator(w, dst);
		dst = put_string(w, dst, base + key, key_end - key);
		dst = put_word(w, dst, ": ", 2);
		dst = put_element(w, dst, values[i], base, value, value_end, depth);
		if (dst == NULL)
			return NULL;
		key = key_end;
		value = value_end;
	}
	return dst;
}

static char *
put_container(Writer *w, char *dst, const JsonbContainer *container, int depth)
{
	if (depth > MAX_DEPTH)
		return NULL;
	if (JsonContainerIsObject(container))
	{
		dst = put_object(w, put_word(w, dst, "{", 1), container, depth);
		return dst ? put_word(w, dst, "}", 1) : NULL;
	}
	if (JsonContainerIsScalar(container))
		return put_array(w, dst, container, depth);
	dst = put_array(w, put_word(w, dst, "[", 1), container, depth);
	return dst ? put_word(w, dst, "]", 1) : NULL;
}

char *
csv_put_jsonb(CsvBlock *block, char *dst, Datum value, const CsvMarks *marks, bool force_quote)
{
	Writer      w = {.block = block,
					 .separator_needs_quotes = marks->delimiter == ',',
					 .needs_quotes = force_quote};
	size_t      start = dst - block->row;
	const char *begin;

	dst = put_word(&w, dst, "\"", 1);
	dst = put_container(&w, dst, &DatumGetJsonbP(value)->root, 0);
	if (dst == NULL)
		return NULL;
	if (w.needs_quotes)
		return put_word(&w, dst, "\"", 1);

	begin = block->row + start;
	memmove(block->row + start, begin + 1, dst - begin - 1);
	return dst - 1;
}
