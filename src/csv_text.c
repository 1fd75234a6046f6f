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
#include "postgres.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"

#include "csv_text.h"

#define ONES (~UINT64CONST(0) / 255)
#define HIGHS (ONES << 7)

static inline uint64
load8(const char *src)
{
	uint64 word;

	memcpy(&word, src, sizeof(word));
	return word;
}

/* Not zero if any byte of the word is zero; which one is not to be read from it. */
static inline uint64
zero_byte(uint64 word)
{
	return (word - ONES) & ~word & HIGHS;
}

static inline uint64
byte_in_word(uint64 word, char c)
{
	return zero_byte(word ^ (ONES * (unsigned char) c));
}

/* Not zero if a byte of the word asks for quotes. */
static inline uint64
mark_in_word(uint64 word, const CsvMarks *marks)
{
	return byte_in_word(word, marks->delimiter) | byte_in_word(word, marks->quote) |
		   byte_in_word(word, '\n') | byte_in_word(word, '\r');
}

static inline bool
is_mark(char c, const CsvMarks *marks)
{
	return c == marks->delimiter || c == marks->quote || c == '\n' || c == '\r';
}

/*
 * Values shorter than a vector: two words that overlap cover them, so that
 * there is no loop over bytes.
 */
static inline bool
copy_short(char *dst, const char *src, size_t len, const CsvMarks *marks, uint64 high)
{
	uint64 first, last, hit;

	if (len >= 8)
	{
		first = load8(src);
		last = load8(src + len - 8);
		memcpy(dst, &first, 8);
		memcpy(dst + len - 8, &last, 8);
		hit = mark_in_word(first, marks) | mark_in_word(last, marks) | ((first | last) & high);
		return hit == 0;
	}
	if (len >= 4)
	{
		uint32 head, tail;

		memcpy(&head, src, 4);
		memcpy(&tail, src + len - 4, 4);
		memcpy(dst, &head, 4);
		memcpy(dst + len - 4, &tail, 4);
		first = ((uint64) head << 32) | tail;
		return (mark_in_word(first, marks) | (first & high)) == 0;
	}
	for (size_t i = 0; i < len; i++)
	{
		if (is_mark(src[i], marks) || (src[i] & high & 0x80) != 0)
			return false;
		dst[i] = src[i];
	}
	return true;
}

#ifdef __SSE2__

typedef struct Vectors
{
	__m128i delimiter;
	__m128i quote;
	__m128i newline;
	__m128i carriage;
	__m128i high;
} Vectors;

static inline __m128i
load16(const char *src)
{
	return _mm_loadu_si128((const __m128i *) src);
}

static inline void
store16(char *dst, __m128i chunk)
{
	_mm_storeu_si128((__m128i *) dst, chunk);
}

/* The top bit of every byte that asks for quotes, or is beyond ASCII where that counts. */
static inline __m128i
mark_in_vector(__m128i chunk, const Vectors *v)
{
	__m128i quotes =
		_mm_or_si128(_mm_cmpeq_epi8(chunk, v->delimiter), _mm_cmpeq_epi8(chunk, v->quote));
	__m128i ends =
		_mm_or_si128(_mm_cmpeq_epi8(chunk, v->newline), _mm_cmpeq_epi8(chunk, v->carriage));

	return _mm_or_si128(_mm_or_si128(quotes, ends), _mm_and_si128(chunk, v->high));
}

static inline __m128i
copy_vector(char *dst, const char *src, const Vectors *v)
{
	__m128i chunk = load16(src);

	store16(dst, chunk);
	return mark_in_vector(chunk, v);
}

static bool
copy_long(char *dst, const char *src, size_t len, const CsvMarks *marks, uint64 high)
{
	const Vectors v = {_mm_set1_epi8(marks->delimiter), _mm_set1_epi8(marks->quote),
					   _mm_set1_epi8('\n'), _mm_set1_epi8('\r'), _mm_set1_epi64x((int64) high)};
	__m128i       hit;
	size_t        i = 0;

	/* One branch for four vectors: most values have nothing to find. */
	for (; i + 64 <= len; i += 64)
	{
		hit = _mm_or_si128(_mm_or_si128(copy_vector(dst + i, src + i, &v),
										copy_vector(dst + i + 16, src + i + 16, &v)),
						   _mm_or_si128(copy_vector(dst + i + 32, src + i + 32, &v),
										copy_vector(dst + i + 48, src + i + 48, &v)));
		if (_mm_movemask_epi8(hit) != 0)
			return false;
	}
	hit = copy_vector(dst + len - 16, src + len - 16, &v);
	for (; i + 16 <= len; i += 16)
		hit = _mm_or_si128(hit, copy_vector(dst + i, src + i, &v));
	return _mm_movemask_epi8(hit) == 0;
}

#else

static bool
copy_long(char *dst, const char *src, size_t len, const CsvMarks *marks, uint64 high)
{
	size_t i = 0;

	for (; i + 8 <= len; i += 8)
	{
		uint64 word = load8(src + i);

		memcpy(dst + i, &word, 8);
		if ((mark_in_word(word, marks) | (word & high)) != 0)
			return false;
	}
	return copy_short(dst + len - 8, src + len - 8, 8, marks, high);
}

#endif

bool
csv_copy_plain(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only)
{
	uint64 high = ascii_only ? HIGHS : 0;

	if (len < 16)
		return copy_short(dst, src, len, marks, high);
	return copy_long(dst, src, len, marks, high);
}

/*
 * Steps over one character.  Only where trailing bytes may look like ASCII do
 * characters have to be told apart; elsewhere bytes will do.
 */
static inline size_t
step(const char *src, const CsvMarks *marks)
{
	if (marks->mblen_encoding >= 0 && IS_HIGHBIT_SET(*src))
		return pg_encoding_mblen(marks->mblen_encoding, src);
	return 1;
}

bool
csv_needs_quotes(const char *src, size_t len, const CsvMarks *marks)
{
	for (size_t i = 0; i < len; i += step(src + i, marks))
	{
		if (is_mark(src[i], marks))
			return true;
	}
	return false;
}

size_t
csv_quoted_size(const char *src, size_t len, const CsvMarks *marks)
{
	size_t size = len + 2;

	for (size_t i = 0; i < len; i += step(src + i, marks))
	{
		if (src[i] == marks->quote || src[i] == marks->escape)
			size++;
	}
	return size;
}

/* Characters, one by one: the rest of a value, or an encoding that needs it. */
static char *
escape_slowly(char *dst, const char *src, size_t len, const CsvMarks *marks)
{
	size_t i = 0;

	while (i < len)
	{
		size_t n = Min(step(src + i, marks), len - i);

		if (src[i] == marks->quote || src[i] == marks->escape)
			*dst++ = marks->escape;
		memcpy(dst, src + i, n);
		dst += n;
		i += n;
	}
	return dst;
}

#ifdef __SSE2__

char *
csv_copy_quoted(char *dst, const char *src, size_t len, const CsvMarks *marks)
{
	const __m128i quote = _mm_set1_epi8(marks->quote);
	const __m128i escape = _mm_set1_epi8(marks->escape);

	*dst++ = marks->quote;
	while (len >= 16 && marks->mblen_encoding < 0)
	{
		__m128i chunk = load16(src);
		uint32  hits = _mm_movemask_epi8(
			 _mm_or_si128(_mm_cmpeq_epi8(chunk, quote), _mm_cmpeq_epi8(chunk, escape)));
		int n = 16;

		store16(dst, chunk);
		if (hits != 0)
		{
			n = pg_rightmost_one_pos32(hits);
			dst[n] = marks->escape;
			dst[n + 1] = src[n];
			n++;
			dst++;
		}
		dst += n;
		src += n;
		len -= n;
	}
	dst = escape_slowly(dst, src, len, marks);
	*dst++ = marks->quote;
	return dst;
}

#else

char *
csv_copy_quoted(char *dst, const char *src, size_t len, const CsvMarks *marks)
{
	*dst++ = marks->quote;
	while (len >= 8 && marks->mblen_encoding < 0)
	{
		uint64 word = load8(src);

		if ((byte_in_word(word, marks->quote) | byte_in_word(word, marks->escape)) != 0)
			dst = escape_slowly(dst, src, 8, marks);
		else
		{
			memcpy(dst, &word, 8);
			dst += 8;
		}
		src += 8;
		len -= 8;
	}
	dst = escape_slowly(dst, src, len, marks);
	*dst++ = marks->quote;
	return dst;
}

#endif
