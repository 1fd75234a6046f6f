/*-------------------------------------------------------------------------
 *
 * fuzz_csv_words.c
 *	  fuzz_csv_text.c as on a machine without SSE2.
 *
 *-------------------------------------------------------------------------
 */
#define FUZZ_WORDS
#include "fuzz_csv_text.c"
