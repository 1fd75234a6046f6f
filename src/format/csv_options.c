/*-------------------------------------------------------------------------
 *
 * csv_options.c
 *	  COPY's options of CSV, checked as COPY does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "commands/copy.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"

#include "format/csv_options.h"

static DefElem *
make_option(char *name, const char *value)
{
	return makeDefElem(name, (Node *) makeString(pstrdup(value)), -1);
}

static List *
force_quote_strings(List *names)
{
	List     *strings = NIL;
	ListCell *cell;

	foreach (cell, names)
		strings = lappend(strings, makeString((char *) lfirst(cell)));
	return strings;
}

CsvOptions *
csv_options(bool header, const char *delimiter, const char *quote, const char *escape,
			const char *null_print, List *force_quote, const char *encoding)
{
	CsvOptions       *result = palloc0(sizeof(CsvOptions));
	CopyFormatOptions copy = {0};
	List             *list = list_make1(make_option("format", "csv"));

	if (delimiter)
		list = lappend(list, make_option("delimiter", delimiter));
	if (quote)
		list = lappend(list, make_option("quote", quote));
	if (escape)
		list = lappend(list, make_option("escape", escape));
	if (null_print)
		list = lappend(list, make_option("null", null_print));
	if (encoding)
		list = lappend(list, make_option("encoding", encoding));
	if (list_length(force_quote) == 1 && strcmp(linitial(force_quote), "*") == 0)
		result->force_quote_all = true;
	else
		result->force_quote = force_quote;

	ProcessCopyOptions(NULL, &copy, false, list);

	result->header = header;
	result->delimiter = copy.delim[0];
	result->quote = copy.quote[0];
	result->escape = copy.escape[0];
	result->null_print = pstrdup(copy.null_print);
	result->encoding = copy.file_encoding >= 0 ? copy.file_encoding : PG_UTF8;
	return result;
}

List *
csv_forced_columns(const CsvOptions *options, TupleDesc desc)
{
	if (options->force_quote == NIL)
		return NIL;
	return CopyGetAttnums(desc, NULL, force_quote_strings(options->force_quote));
}
