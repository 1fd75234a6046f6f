/*-------------------------------------------------------------------------
 *
 * json_member.c
 *	  Members of the JSON objects that are written to the store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/json.h"

#include "base/json_member.h"

void
json_member_append(StringInfo buf, const char *name, const char *value)
{
	escape_json(buf, name);
	appendStringInfoString(buf, ": ");
	if (value != NULL)
		escape_json(buf, value);
	else
		appendStringInfoString(buf, "null");
}
