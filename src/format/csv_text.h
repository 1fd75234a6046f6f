/*-------------------------------------------------------------------------
 *
 * csv_text.h
 *	  Bytes of one CSV value: copied, checked for quoting, quoted.
 *
 * Nothing here allocates, raises errors, or reads a byte outside "src" and
 * "len"; the caller has made room at "dst".
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TEXT_H
#define CSV_TEXT_H

/*
 * Asks for memory a page of a table ahead of what is read.  Long values come
 * from memory that no cache has seen yet, and what the processor asks for by
 * itself ends with each of its own pages.  In a table that was read in order
 * before, a page ahead is the same place of the next page; asking for what is
 * something else does no harm.
 */
#ifdef __GNUC__
#define csv_prefetch_at(address) __builtin_prefetch(address)
#else
#define csv_prefetch_at(address) ((void) (address))
#endif
#define csv_prefetch(address) csv_prefetch_at((const char *) (address) + BLCKSZ)

/* What a value is compared with. */
typedef struct CsvMarks
{
	char delimiter;
	char quote;
	char escape;
	int  mblen_encoding; /* whose trailing bytes may look like ASCII; or -1 */
} CsvMarks;

/*
 * Copies "len" bytes as they are.  False if the value must not stay so: it
 * has a delimiter, a quote or a line end in it or, with "ascii_only", a byte
 * beyond ASCII; what was written is then of no use.  Does not know
 * "mblen_encoding": ask csv_needs_quotes where it is set.
 */
extern bool
csv_copy_plain(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only);

/* Does the value need quotes?  In any encoding. */
extern bool csv_needs_quotes(const char *src, size_t len, const CsvMarks *marks);

/*
 * memcpy for what is on a table's page.  "ahead" is how far away in memory the
 * page is that is likely to be the next to be read.
 */
extern void csv_copy_page(char *dst, const char *src, size_t len, ptrdiff_t ahead);

/* Bytes that csv_copy_quoted will write; at most 2 * len + 2. */
extern size_t csv_quoted_size(const char *src, size_t len, const CsvMarks *marks);

/* Writes the value between quotes, escapes inside; returns the end. */
extern char *csv_copy_quoted(char *dst, const char *src, size_t len, const CsvMarks *marks);

/* ---- csv_text_x86.c: where the processor has AVX2 ---- */

#if defined(__x86_64__) && defined(__SSE2__) && defined(__GNUC__)
#define CSV_TEXT_X86

/* To be asked before each call. */
#define csv_has_avx2() (__builtin_cpu_supports("avx2") != 0)

/* csv_copy_plain for values of at least 32 bytes. */
extern bool
csv_copy_plain_avx2(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only);
#endif

#endif /* CSV_TEXT_H */
