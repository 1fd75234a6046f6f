/*-------------------------------------------------------------------------
 *
 * utf8.c
 *	  Text of the database as S3 wants it.
 *
 * A conversion looks its function up in a catalog, and so needs a transaction,
 * which the uploader has only now and then.  What is ASCII needs neither.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/string.h"
#include "mb/pg_wchar.h"
#include "utils/resowner.h"

#include "tables/utf8.h"

char *
utf8_from_database(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int           len = (int) strlen(text);
	char         *converted;

	if (GetDatabaseEncoding() == PG_UTF8 || pg_is_ascii(text))
		return unconstify(char *, text);
	if (IsTransactionState())
		return pg_server_to_any(text, len, PG_UTF8);
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	converted = pg_server_to_any(text, len, PG_UTF8);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return converted;
}
