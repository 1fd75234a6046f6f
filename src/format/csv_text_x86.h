/*-------------------------------------------------------------------------
 *
 * csv_text_x86.h
 *	  csv_copy_plain where the processor has AVX2, or AVX-512.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TEXT_X86_H
#define CSV_TEXT_X86_H

#include "format/csv_text.h"

#if defined(__x86_64__) && defined(__SSE2__) && defined(__GNUC__)
#define CSV_TEXT_X86

/* to be asked before each call */
#define csv_has_avx2() (__builtin_cpu_supports("avx2") != 0)
#define csv_has_avx512() (__builtin_cpu_supports("avx512bw") != 0)

/* As csv_copy_plain, of 32 bytes at least. */
extern bool
csv_copy_plain_avx2(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only);

/* As csv_copy_plain. */
extern bool csv_copy_plain_avx512(char *dst, const char *src, size_t len, const CsvMarks *marks,
								  bool ascii_only);

#define CSV_JSON_SHORT 64

/*
 * Copies up to CSV_JSON_SHORT bytes of a JSON string as they are.  False if JSON would not
 * take one of them so; what was written is then of no use.
 */
extern bool csv_copy_json_avx512(char *dst, const char *src, size_t len);
#endif

#endif /* CSV_TEXT_X86_H */
