/*-------------------------------------------------------------------------
 *
 * csv_chunk.h
 *	  Several bytes at a time: SSE2 where there is one, else a 64-bit word.
 *
 * A mask tells which bytes of a chunk passed a test.  Masks may be or-ed;
 * only chunk_any, chunk_first and chunk_bits look into them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_CHUNK_H
#define CSV_CHUNK_H

#include "port/pg_bitutils.h"

#ifdef __SSE2__

#include <emmintrin.h>

typedef __m128i Chunk;

#define CHUNK 16

static inline Chunk
chunk_load(const char *src)
{
	return _mm_loadu_si128((const __m128i *) src);
}

static inline Chunk
chunk_of_words(uint64 a, uint64 b)
{
	return _mm_set_epi64x((int64) b, (int64) a);
}

static inline void
chunk_store(char *dst, Chunk chunk)
{
	_mm_storeu_si128((__m128i *) dst, chunk);
}

static inline Chunk
chunk_of(char c)
{
	return _mm_set1_epi8(c);
}

static inline Chunk
chunk_or(Chunk a, Chunk b)
{
	return _mm_or_si128(a, b);
}

static inline Chunk
chunk_and(Chunk a, Chunk b)
{
	return _mm_and_si128(a, b);
}

/* Bytes that are the same in both. */
static inline Chunk
chunk_equal(Chunk a, Chunk b)
{
	return _mm_cmpeq_epi8(a, b);
}

/* Control characters: bytes below a blank. */
static inline Chunk
chunk_control(Chunk chunk)
{
	return _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1F)), chunk);
}

static inline bool
chunk_any(Chunk mask)
{
	return _mm_movemask_epi8(mask) != 0;
}

/* The index of the first byte that passed; there must be one. */
static inline int
chunk_first(Chunk mask)
{
	return pg_rightmost_one_pos32(_mm_movemask_epi8(mask));
}

/* One bit for each byte, that of the first byte lowest. */
static inline uint32
chunk_bits(Chunk mask)
{
	return (uint32) _mm_movemask_epi8(mask);
}

#else

#include "port/pg_bswap.h"

/*
 * The first byte in memory is the least significant one.  A mask's highest bit
 * of a byte counts.  chunk_control may err in bytes that come after one that
 * passes, never before it.
 */
typedef uint64 Chunk;

#define CHUNK 8
#define CHUNK_ONES (~UINT64CONST(0) / 255)
#define CHUNK_HIGHS (CHUNK_ONES << 7)

static inline Chunk
chunk_load(const char *src)
{
	uint64 word;

	memcpy(&word, src, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline Chunk
chunk_of_words(uint64 a, uint64 b PG_USED_FOR_ASSERTS_ONLY)
{
	Assert(a == b); /* as there is one word only */
	return a;
}

static inline void
chunk_store(char *dst, Chunk chunk)
{
#ifdef WORDS_BIGENDIAN
	chunk = pg_bswap64(chunk);
#endif
	memcpy(dst, &chunk, sizeof(chunk));
}

static inline Chunk
chunk_of(char c)
{
	return CHUNK_ONES * (unsigned char) c;
}

static inline Chunk
chunk_or(Chunk a, Chunk b)
{
	return a | b;
}

static inline Chunk
chunk_and(Chunk a, Chunk b)
{
	return a & b;
}

static inline Chunk
chunk_equal(Chunk a, Chunk b)
{
	Chunk differ = a ^ b;

	return ~(((differ & ~CHUNK_HIGHS) + ~CHUNK_HIGHS) | differ);
}

static inline Chunk
chunk_control(Chunk chunk)
{
	return (chunk - CHUNK_ONES * 0x20) & ~chunk;
}

static inline bool
chunk_any(Chunk mask)
{
	return (mask & CHUNK_HIGHS) != 0;
}

static inline int
chunk_first(Chunk mask)
{
	return pg_rightmost_one_pos64(mask & CHUNK_HIGHS) / 8;
}

/* The factor moves the bit of each byte to its place in the highest byte. */
static inline uint32
chunk_bits(Chunk mask)
{
	return (uint32) (((mask & CHUNK_HIGHS) >> 7) * UINT64CONST(0x0102040810204080) >> 56);
}

#endif

/*
 * The bytes of a value that is shorter than a chunk but not empty, in some
 * order and some of them more than once: enough to look for a byte in them.
 */
static inline Chunk
chunk_short(const char *src, size_t len)
{
	uint64 first;
	uint64 last;

	if (len >= 8)
	{
		memcpy(&first, src, 8);
		memcpy(&last, src + len - 8, 8);
		return chunk_of_words(first, last);
	}
	if (len >= 4)
	{
		uint32 a;
		uint32 b;

		memcpy(&a, src, 4);
		memcpy(&b, src + len - 4, 4);
		first = ((uint64) a << 32) | b;
	}
	else
	{
		first = (unsigned char) src[0] * UINT64CONST(0x01010101) |
				(uint64) (unsigned char) src[len / 2] << 32 |
				(uint64) (unsigned char) src[len - 1] << 40 |
				(uint64) (unsigned char) src[0] << 48 | (uint64) (unsigned char) src[0] << 56;
	}
	return chunk_of_words(first, first);
}

/* Copies less than a chunk, with no loop and no byte too many. */
static inline void
chunk_copy_short(char *dst, const char *src, size_t len)
{
	if (len >= 8)
	{
		uint64 first;
		uint64 last;

		memcpy(&first, src, 8);
		memcpy(&last, src + len - 8, 8);
		memcpy(dst, &first, 8);
		memcpy(dst + len - 8, &last, 8);
	}
	else if (len >= 4)
	{
		uint32 first;
		uint32 last;

		memcpy(&first, src, 4);
		memcpy(&last, src + len - 4, 4);
		memcpy(dst, &first, 4);
		memcpy(dst + len - 4, &last, 4);
	}
	else if (len > 0)
	{
		dst[0] = src[0];
		dst[len / 2] = src[len / 2];
		dst[len - 1] = src[len - 1];
	}
}

#endif /* CSV_CHUNK_H */
