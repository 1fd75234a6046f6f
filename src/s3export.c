/*-------------------------------------------------------------------------
 *
 * s3export.c
 *	  The module, and its version.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/guc.h"
#include "export/parallel.h"
#include "format/compress.h"
#include "http/http.h"

PG_MODULE_MAGIC;

SQL_FUNCTION(s3export_version);

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (IsBinaryUpgrade)
		return;
	guc_define();
	parallel_init();
}

Datum
s3export_version(PG_FUNCTION_ARGS)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "s3export %s, PostgreSQL %s, %s", S3EXPORT_VERSION, PACKAGE_VERSION,
					 http_version());
	compress_describe(&text);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}
