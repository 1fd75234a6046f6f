/*-------------------------------------------------------------------------
 *
 * test_csv_narrow.c
 *	  The tests of test_csv_text.c as on a processor without AVX2.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "csv_text_avx2.h"
#undef CSV_TEXT_AVX2
#include "csv_text.c"
#include "test_csv_text.c"
