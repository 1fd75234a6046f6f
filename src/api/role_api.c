/*-------------------------------------------------------------------------
 *
 * role_api.c
 *	  The type of the columns that name roles, s3export.role.
 *
 * It is an OID, like regrole, and differs where a dump is made and loaded.  A role
 * that does not exist any more is written as "-": its OID may be another role's in
 * another cluster.  A role that does not exist where the dump is loaded is a warning
 * and becomes no role, OID 0: as an error it would keep all other rows from being
 * loaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "base/compat.h"

SQL_FUNCTION(s3export_role_in);
SQL_FUNCTION(s3export_role_out);
SQL_FUNCTION(s3export_skip_unknown_role);

#define NO_ROLE "-"

/* What only names in quotes consist of. */
#define NAMELESS NO_ROLE "0123456789"

static void
warn_unknown(const char *name)
{
	ereport(WARNING,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role \"%s\" does not exist", name),
			 errhint("Create it and load the dump again, or give its connectors another owner with "
					 "s3export.alter_connector(owner => ...).  What it was granted, and its "
					 "external ID, are left out.")));
}

/* "-", or a number, which another cluster has given to another role. */
static void
warn_nameless(const char *value)
{
	ereport(WARNING,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("\"%s\" does not name a role", value),
			 errdetail("It stands for a role that was dropped before the dump was made."),
			 errhint("Give its connectors another owner with s3export.alter_connector(owner => "
					 "...).")));
}

/* The role of that name, or 0 after a warning. */
static Oid
find_role(const char *name)
{
	List *parts;
	Oid   role;

	if (!SplitIdentifierString(pstrdup(name), '.', &parts) || list_length(parts) != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name syntax")));
	role = get_role_oid(linitial(parts), true);
	if (!OidIsValid(role))
		warn_unknown(linitial(parts));
	return role;
}

/* A name as quote_identifier writes it. */
Datum
s3export_role_in(PG_FUNCTION_ARGS)
{
	char *name = PG_GETARG_CSTRING(0);

	if (*name == '\0' || name[strspn(name, NAMELESS)] != '\0')
		PG_RETURN_OID(find_role(name));
	warn_nameless(name);
	PG_RETURN_OID(InvalidOid);
}

Datum
s3export_role_out(PG_FUNCTION_ARGS)
{
	char *name = GetUserNameFromId(PG_GETARG_OID(0), true);

	PG_RETURN_CSTRING(pstrdup(name ? quote_identifier(name) : NO_ROLE));
}

/* A row that is of use to no role but an unknown one is not inserted. */
Datum
s3export_skip_unknown_role(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" can only be called as a trigger", "skip_unknown_role")));
	PG_RETURN_POINTER(NULL);
}
