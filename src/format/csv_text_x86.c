/*-------------------------------------------------------------------------
 *
 * csv_text_x86.c
 *	  csv_copy_plain where the processor has AVX2, or AVX-512.
 *
 * AVX2 is for long values.  Twice the width is nearly twice the speed for what is
 * in a cache already, as are values that were put together from their chunks, and
 * a sixth more for what comes from memory.
 *
 * AVX-512 is for short ones too: its masks take a value of any length up to 64
 * bytes at once, with no branch for the length, which is hard to predict.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "format/csv_text.h"

#ifdef CSV_TEXT_X86

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define CHUNK ((size_t) sizeof(__m256i))

/* What asks for quotes, in every byte of a chunk. */
typedef struct Avx2Marks
{
	__m256i delimiter;
	__m256i quote;
	__m256i newline;
	__m256i carriage;
	__m256i high; /* the bits that a byte must not have */
} Avx2Marks;

AVX2 static inline __m256i
copy_chunk(char *dst, const char *src, const Avx2Marks *m)
{
	__m256i chunk = _mm256_loadu_si256((const __m256i *) src);
	__m256i given =
		_mm256_or_si256(_mm256_cmpeq_epi8(chunk, m->delimiter), _mm256_cmpeq_epi8(chunk, m->quote));
	__m256i ends = _mm256_or_si256(_mm256_cmpeq_epi8(chunk, m->newline),
								   _mm256_cmpeq_epi8(chunk, m->carriage));

	_mm256_storeu_si256((__m256i *) dst, chunk);
	return _mm256_or_si256(_mm256_or_si256(given, ends), _mm256_and_si256(chunk, m->high));
}

AVX2 bool
csv_copy_plain_avx2(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only)
{
	const Avx2Marks m = {.delimiter = _mm256_set1_epi8(marks->delimiter),
						 .quote = _mm256_set1_epi8(marks->quote),
						 .newline = _mm256_set1_epi8('\n'),
						 .carriage = _mm256_set1_epi8('\r'),
						 .high = _mm256_set1_epi8(ascii_only ? (char) 0x80 : 0)};
	__m256i         hit;
	size_t          i = 0;

	for (; i + 2 * CHUNK <= len; i += 2 * CHUNK)
	{
		csv_prefetch(src + i);
		hit = _mm256_or_si256(copy_chunk(dst + i, src + i, &m),
							  copy_chunk(dst + i + CHUNK, src + i + CHUNK, &m));
		if (_mm256_movemask_epi8(hit) != 0)
			return false;
	}

	/* The last chunk overlaps. */
	hit = copy_chunk(dst + len - CHUNK, src + len - CHUNK, &m);
	if (i + CHUNK < len)
		hit = _mm256_or_si256(hit, copy_chunk(dst + i, src + i, &m));
	return _mm256_movemask_epi8(hit) == 0;
}

#define AVX512 __attribute__((target("avx512bw")))
#define WIDE ((size_t) sizeof(__m512i))

typedef struct WideMarks
{
	__m512i delimiter;
	__m512i quote;
	__m512i newline;
	__m512i carriage;
	__m512i high;
} WideMarks;

AVX512 static inline __mmask64
wide_marks(__m512i chunk, __mmask64 bytes, const WideMarks *m)
{
	return _mm512_mask_cmpeq_epi8_mask(bytes, chunk, m->delimiter) |
		   _mm512_mask_cmpeq_epi8_mask(bytes, chunk, m->quote) |
		   _mm512_mask_cmpeq_epi8_mask(bytes, chunk, m->newline) |
		   _mm512_mask_cmpeq_epi8_mask(bytes, chunk, m->carriage) |
		   _mm512_mask_test_epi8_mask(bytes, chunk, m->high);
}

AVX512 static inline __mmask64
copy_wide(char *dst, const char *src, const WideMarks *m)
{
	__m512i chunk = _mm512_loadu_si512(src);

	_mm512_storeu_si512(dst, chunk);
	return wide_marks(chunk, ~UINT64CONST(0), m);
}

/* The first "len" bytes of a chunk, from 1 to all. */
static inline __mmask64
first_bytes(size_t len)
{
	return ~UINT64CONST(0) >> (WIDE - len);
}

/* From 1 to WIDE bytes. */
AVX512 static inline __mmask64
copy_part(char *dst, const char *src, size_t len, const WideMarks *m)
{
	__mmask64 bytes = first_bytes(len);
	__m512i   chunk = _mm512_maskz_loadu_epi8(bytes, src);

	_mm512_mask_storeu_epi8(dst, bytes, chunk);
	return wide_marks(chunk, bytes, m);
}

AVX512 bool
csv_copy_plain_avx512(char *dst, const char *src, size_t len, const CsvMarks *marks,
					  bool ascii_only)
{
	const WideMarks m = {.delimiter = _mm512_set1_epi8(marks->delimiter),
						 .quote = _mm512_set1_epi8(marks->quote),
						 .newline = _mm512_set1_epi8('\n'),
						 .carriage = _mm512_set1_epi8('\r'),
						 .high = _mm512_set1_epi8(ascii_only ? (char) 0x80 : 0)};
	size_t          i = 0;

	if (len == 0)
		return true;
	for (; i + 2 * WIDE <= len; i += 2 * WIDE)
	{
		csv_prefetch(src + i);
		csv_prefetch(src + i + WIDE);
		if ((copy_wide(dst + i, src + i, &m) | copy_wide(dst + i + WIDE, src + i + WIDE, &m)) != 0)
			return false;
	}
	if (i + WIDE < len)
	{
		csv_prefetch(src + i);
		if (copy_wide(dst + i, src + i, &m) != 0)
			return false;
		i += WIDE;
	}
	return i == len || copy_part(dst + i, src + i, len - i, &m) == 0;
}

AVX512 bool
csv_copy_json_avx512(char *dst, const char *src, size_t len)
{
	__mmask64 bytes = len > 0 ? first_bytes(len) : 0;
	__m512i   chunk = _mm512_maskz_loadu_epi8(bytes, src);

	_mm512_mask_storeu_epi8(dst, bytes, chunk);
	return (_mm512_mask_cmplt_epu8_mask(bytes, chunk, _mm512_set1_epi8(' ')) |
			_mm512_mask_cmpeq_epi8_mask(bytes, chunk, _mm512_set1_epi8('"')) |
			_mm512_mask_cmpeq_epi8_mask(bytes, chunk, _mm512_set1_epi8('\\'))) == 0;
}

#endif /* CSV_TEXT_X86 */
