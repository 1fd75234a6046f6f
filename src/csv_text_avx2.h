/*-------------------------------------------------------------------------
 *
 * csv_text_avx2.h
 *	  csv_copy_plain of long values, where the processor has AVX2.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TEXT_AVX2_H
#define CSV_TEXT_AVX2_H

#include "csv_text.h"

#if defined(__x86_64__) && defined(__SSE2__) && defined(__GNUC__)
#define CSV_TEXT_AVX2

/* to be asked before each call */
#define csv_has_avx2() (__builtin_cpu_supports("avx2") != 0)

/* As csv_copy_plain, of 32 bytes at least. */
extern bool
csv_copy_plain_avx2(char *dst, const char *src, size_t len, const CsvMarks *marks, bool ascii_only);
#endif

#endif /* CSV_TEXT_AVX2_H */
