/*-------------------------------------------------------------------------
 *
 * args.c
 *	  The arguments of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "base/args.h"

/* ---------------------------------------------------------------- errors */

void
args_invalid_value(const char *argument, const char *value, const char *what_is_right)
{
	if (value != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
						errdetail("%s", what_is_right)));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"%s\"", argument),
					errdetail("%s", what_is_right)));
}

void
args_require(const char *argument, const char *value, const char *what_is_right)
{
	if (what_is_right != NULL)
		args_invalid_value(argument, value, what_is_right);
}

void
args_null_element(const char *argument)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("argument \"%s\" must not contain nulls", argument)));
}

void
args_null_value(const char *argument)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("argument \"%s\" must not be null", argument)));
}

void
args_require_not_null(FunctionCallInfo fcinfo, int n, const char *argument)
{
	if (PG_ARGISNULL(n))
		args_null_value(argument);
}

/* --------------------------------------------------------------- reading */

char *
args_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

char *
args_required_text(FunctionCallInfo fcinfo, int n, const char *argument)
{
	args_require_not_null(fcinfo, n, argument);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

bool
args_required_bool(FunctionCallInfo fcinfo, int n, const char *argument)
{
	args_require_not_null(fcinfo, n, argument);
	return PG_GETARG_BOOL(n);
}

Oid
args_required_role(FunctionCallInfo fcinfo, int n, const char *argument)
{
	Oid role;

	args_require_not_null(fcinfo, n, argument);
	role = PG_GETARG_OID(n);
	/* regrole takes any number, and "-" for none. */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("role with OID %u does not exist", role)));
	return role;
}

int
args_required_choice(FunctionCallInfo fcinfo, int n, const char *argument,
					 const char *const *choices, const char *what_is_right)
{
	char *value = args_required_text(fcinfo, n, argument);

	for (int i = 0; choices[i] != NULL; i++)
	{
		if (strcmp(value, choices[i]) == 0)
			return i;
	}
	args_invalid_value(argument, value, what_is_right);
}

List *
args_list(FunctionCallInfo fcinfo, int n, const char *argument)
{
	List  *list = NIL;
	Datum *values;
	bool  *nulls;
	int    count;

	if (PG_ARGISNULL(n))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			args_null_element(argument);
		list = lappend(list, TextDatumGetCString(values[i]));
	}
	return list;
}
