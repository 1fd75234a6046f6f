/*-------------------------------------------------------------------------
 *
 * test_csv_narrow.c
 *	  The tests of test_csv_text.c as on a processor without AVX2.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "format/csv_text.h"
#undef CSV_TEXT_X86
#include "format/csv_text.c"
#include "test_csv_text.c"
