/*-------------------------------------------------------------------------
 *
 * test_csv_words.c
 *	  The tests of test_csv_text.c as on a machine without SSE2.
 *
 *-------------------------------------------------------------------------
 */
#undef __SSE2__
#include "format/csv_text.c"
#include "test_csv_text.c"
