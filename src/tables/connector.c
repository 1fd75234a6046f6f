/*-------------------------------------------------------------------------
 *
 * connector.c
 *	  Connectors, their credentials and grants.
 *
 * A connector is changed under a lock on its row, taken before the credentials
 * are tested: two changes at a time could otherwise each be right and together
 * be wrong.  Exports read without that lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/secret.h"
#include "tables/advisory_lock.h"
#include "tables/catalog.h"
#include "tables/connector_internal.h"

static const char *const kind_names[] = {"data_export", "currents"};
static const char *const addressing_names[] = {"auto", "path", "virtual"};
static const char *const payload_signing_names[] = {"auto", "signed", "unsigned"};

/* -1: it is none of them. */
static int
find_name(const char *const *names, int n, const char *value)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(value, names[i]) == 0)
			return i;
	}
	return -1;
}

bool
connector_parse_kind(const char *value, ConnectorKind *kind)
{
	int found = find_name(kind_names, lengthof(kind_names), value);

	if (found >= 0)
		*kind = (ConnectorKind) found;
	return found >= 0;
}

const char *
connector_kind_name(ConnectorKind kind)
{
	return kind_names[kind];
}

bool
connector_parse_addressing(const char *value, S3Addressing *addressing)
{
	int found = find_name(addressing_names, lengthof(addressing_names), value);

	if (found >= 0)
		*addressing = (S3Addressing) found;
	return found >= 0;
}

bool
connector_parse_payload_signing(const char *value, S3PayloadSigning *signing)
{
	int found = find_name(payload_signing_names, lengthof(payload_signing_names), value);

	if (found >= 0)
		*signing = (S3PayloadSigning) found;
	return found >= 0;
}

char *
connector_uri(const Connector *connector, const char *key)
{
	return psprintf("s3://%s/%s", connector->s3.bucket, key);
}

/* ---------------------------------------------------------------- access */

/* Which grant it is, of several the one that allows most, goes to *proof. */
static bool
is_granted(int64 connector_id, Oid user, RowProof *proof, bool *overwrite)
{
	uint64 rows = catalog_execute("SELECT grantee, overwrite, g AS row"
								  " FROM s3export.connector_grant g WHERE connector_id = $1"
								  " ORDER BY overwrite DESC",
								  param_int8(connector_id));

	for (uint64 i = 0; i < rows; i++)
	{
		if (!has_privs_of_role(user, (Oid) catalog_int64(i, "grantee", NULL)))
			continue;
		row_proof_read(proof, "connector_grant", i, "row");
		*overwrite = catalog_int64(i, "overwrite", NULL) != 0;
		return true;
	}
	return false;
}

/* Within a scope; replaces SPI's results. */
static bool
may_use(int64 connector_id, Oid owner, Oid user)
{
	RowProof unused;
	bool     overwrite;

	return has_privs_of_role(user, owner) || is_granted(connector_id, user, &unused, &overwrite);
}

/* Within a scope. */
static void
require_access(Connector *connector, ConnectorAccess access, Oid user)
{
	connector->may_overwrite = has_privs_of_role(user, connector->owner);
	if (connector->may_overwrite)
		return;
	if (access == CONNECTOR_OWNER)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of connector \"%s\"", connector->name)));
	if (!is_granted(connector->connector_id, user, &connector->proofs[CONNECTOR_GRANT_PROOF],
					&connector->may_overwrite))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for connector \"%s\"", connector->name),
						errhint("Its owner can allow it with s3export.grant_usage().")));
}

bool
connector_may_create(void)
{
	CatalogScope scope;
	bool         allowed;

	catalog_enter(&scope);
	(void) catalog_execute("SELECT has_function_privilege($1, 's3export.create_connector'::regproc,"
						   " 'EXECUTE') AS allowed",
						   param_oid(scope.userid));
	allowed = catalog_int64(0, "allowed", NULL) != 0;
	catalog_leave(&scope);
	return allowed;
}

/* --------------------------------------------------------------- reading */

/* Within a scope. */
static bool
load_row(Connector *connector, const char *name, int64 connector_id)
{
	bool  orphan;
	char *role_arn;
	char *sts_endpoint_url;

	if (catalog_execute(
			"SELECT c.connector_id, c.name, c.owner, c.kind, c.credential_id, c.bucket,"
			" c.folder_path, c.region, c.endpoint_url, c.sts_endpoint_url,"
			" c.addressing, c.expected_bucket_owner, c.server_side_encryption,"
			" c.kms_key_id, c.bucket_key::text, c.storage_class, c.tags, c.acl,"
			" c.content_type, c.payload_signing, k.owner AS credential_owner, k.access_key_id,"
			" k.role_arn, k.ambient, k.version, s.sealed, c.credentials_lent,"
			" c.reserved, c AS connector_row, k AS credential_row"
			" FROM s3export.connector c"
			" LEFT JOIN s3export.credential k USING (credential_id)"
			" LEFT JOIN s3export.secret s USING (credential_id)"
			" WHERE c.name = $1 OR c.connector_id = $2",
			param_text(name), param_int8(connector_id)) == 0)
		return false;

	row_proof_read(&connector->proofs[CONNECTOR_PROOF], "connector", 0, "connector_row");
	row_proof_read(&connector->proofs[CONNECTOR_CREDENTIAL_PROOF], "credential", 0,
				   "credential_row");
	connector->connector_id = catalog_int64(0, "connector_id", NULL);
	connector->name = catalog_text(0, "name");
	connector->owner = (Oid) catalog_int64(0, "owner", NULL);
	if (!connector_parse_kind(catalog_text(0, "kind"), &connector->kind))
		elog(ERROR, "connector \"%s\" is of an unknown kind", connector->name);
	connector->folder_path = catalog_text(0, "folder_path");
	connector->credential_id = catalog_int64(0, "credential_id", NULL);
	connector->credential_owner = (Oid) catalog_int64(0, "credential_owner", &orphan);
	if (orphan)
		connector->credential_owner = connector->owner;
	connector->lent = catalog_int64(0, "credentials_lent", NULL) != 0;
	connector->reserved = catalog_int64(0, "reserved", NULL) != 0;
	connector->share_ended =
		!connector->lent && !has_privs_of_role(connector->owner, connector->credential_owner);
	connector->s3.endpoint_url = catalog_text(0, "endpoint_url");
	connector->s3.bucket = catalog_text(0, "bucket");
	connector->s3.region = catalog_text(0, "region");
	connector->s3.expected_bucket_owner = catalog_text(0, "expected_bucket_owner");
	connector->s3.server_side_encryption = catalog_text(0, "server_side_encryption");
	connector->s3.kms_key_id = catalog_text(0, "kms_key_id");
	connector->s3.bucket_key = catalog_text(0, "bucket_key");
	connector->s3.storage_class = catalog_text(0, "storage_class");
	connector->s3.acl = catalog_text(0, "acl");
	connector->s3.content_type = catalog_text(0, "content_type");
	connector->tags = catalog_text(0, "tags");
	if (!connector_parse_addressing(catalog_text(0, "addressing"), &connector->s3.addressing))
		elog(ERROR, "connector \"%s\" has an unexpected addressing", connector->name);
	if (!connector_parse_payload_signing(catalog_text(0, "payload_signing"),
										 &connector->s3.payload_signing))
		elog(ERROR, "connector \"%s\" has an unexpected payload_signing", connector->name);

	sts_endpoint_url = catalog_text(0, "sts_endpoint_url");
	role_arn = catalog_text(0, "role_arn");
	if (role_arn == NULL)
	{
		connector->credentials.credential_id = connector->credential_id;
		connector->credentials.access_key_id = catalog_text(0, "access_key_id");
		connector->credentials.sealed = catalog_bytea(0, "sealed");
		connector->credentials.ambient = catalog_int64(0, "ambient", NULL) != 0;
		connector->keys_version = catalog_int64(0, "version", NULL);
	}
	else
		connector_load_role(connector, role_arn, false);
	connector->credentials.sts_endpoint_url = sts_endpoint_url;
	return true;
}

/* Access is checked within the scope, for the role that has entered it. */
static Connector *
load_connector(const char *name, ConnectorAccess access, bool lock, bool missing_ok)
{
	Connector   *connector = palloc0(sizeof(Connector));
	CatalogScope scope;
	bool         found;

	catalog_enter(&scope);
	/* A statement of its own, so that the next one sees what the lock waited for. */
	if (lock)
		(void) catalog_execute("SELECT FROM s3export.connector WHERE name = $1 FOR UPDATE",
							   param_text(name));
	found = load_row(connector, name, 0);
	if (found)
		require_access(connector, access, scope.userid);
	catalog_leave(&scope);

	if (found)
	{
		/* Outside the scope, whose memory is gone. */
		(void) connector_set_tags(connector, connector->tags);
		return connector;
	}
	if (!missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("connector \"%s\" does not exist", name),
				 errhint("View s3export.connectors lists those that you may use.")));
	return NULL;
}

Connector *
connector_load_by_id(int64 connector_id, ConnectorAccess access)
{
	Connector   *connector = palloc0(sizeof(Connector));
	CatalogScope scope;

	catalog_enter(&scope);
	if (!load_row(connector, NULL, connector_id))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("the connector of the export has been dropped")));
	require_access(connector, access, scope.userid);
	catalog_leave(&scope);

	(void) connector_set_tags(connector, connector->tags);
	return connector;
}

Connector *
connector_load(const char *name, ConnectorAccess access)
{
	return load_connector(name, access, false, false);
}

Connector *
connector_lock(const char *name, bool missing_ok)
{
	return load_connector(name, CONNECTOR_OWNER, true, missing_ok);
}

Connector *
connector_find(int64 connector_id)
{
	Connector    *connector = palloc0(sizeof(Connector));
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CatalogScope  scope;
	bool          found;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(context);
	catalog_enter(&scope);
	found = load_row(connector, NULL, connector_id);
	catalog_leave(&scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (!found)
		return NULL;
	connector_imply_sts(connector);
	return connector;
}

void
connector_require_proof(const Connector *connector, bool writing)
{
	const bytea *stored = writing ? connector_stored_secret() : NULL;

	if (stored != NULL)
		secret_require_key(stored);
	for (int i = 0; i < CONNECTOR_PROOFS; i++)
		row_require_proof(&connector->proofs[i], writing);
}

/* --------------------------------------------------------------- writing */

/* What connectors of kind "currents" share with no other are folders, with all in them. */
#define IS_INSIDE(inner, outer) "(" outer " = '' OR starts_with(" inner ", " outer " || '/'))"

/* The other connector is named only to those who may see it. */
static void
report_duplicate(const Connector *connector, const char *other, const char *folder, bool visible,
				 bool lost)
{
	bool  same = strcmp(folder, connector->folder_path) == 0;
	bool  inside = strlen(folder) > strlen(connector->folder_path);
	char *uri = connector_uri(connector, connector->folder_path);

	ereport(
		ERROR,
		(errcode(ERRCODE_DUPLICATE_OBJECT),
		 same     ? errmsg("another connector already writes to \"%s\"", uri)
		 : inside ? errmsg("another connector already writes to a folder inside \"%s\"", uri)
				  : errmsg("another connector already writes to a folder around \"%s\"", uri),
		 !visible ? 0
		 : same
			 ? errdetail("Connector \"%s\" has the same endpoint, bucket and folder path.", other)
			 : errdetail("Connector \"%s\" has the same endpoint and bucket, and folder path "
						 "\"%s\".  What a connector of kind \"currents\" writes must not be "
						 "among what another one does.",
						 other, folder),
		 lost ? errhint(
					"Connector \"%s\" was saved without being validated, which reserves no place.  "
					"Give it another folder_path with s3export.alter_connector().",
					connector->name)
			  : errhint("Give each connector a folder_path of its own.")));
}

/*
 * Within a scope.  What the place of a connector must not be shared with: those that have
 * reserved theirs and, for one that is saved without a reservation, all others.
 */
static void
require_free_place(const Connector *connector, Oid user, bool reserved_alone)
{
	char *other;
	char *folder;
	int64 other_id;
	Oid   owner;

	if (catalog_execute_latest(
			"SELECT connector_id, name, owner, folder_path FROM s3export.connector"
			" WHERE connector_id <> $1 AND bucket = $2 AND endpoint_url IS NOT DISTINCT FROM $4"
			" AND (reserved OR NOT $6) AND (folder_path = $3"
			" OR 'currents' IN (kind, $5) AND (" IS_INSIDE("folder_path", "$3") " OR " IS_INSIDE(
				"$3", "folder_path") "))"
									 " ORDER BY folder_path <> $3, name",
			param_int8(connector->connector_id), param_text(connector->s3.bucket),
			param_text(connector->folder_path), param_text(connector->s3.endpoint_url),
			param_text(connector_kind_name(connector->kind)), param_bool(reserved_alone)) == 0)
		return;
	other_id = catalog_int64(0, "connector_id", NULL);
	other = catalog_text(0, "name");
	folder = catalog_text(0, "folder_path");
	owner = (Oid) catalog_int64(0, "owner", NULL);
	report_duplicate(connector, other, folder, may_use(other_id, owner, user),
					 reserved_alone && !connector->reserved);
}

/* Within a scope.  Sees what was committed before lock_places(). */
static void
require_unique(const Connector *connector, Oid user)
{
	if (catalog_execute_latest(
			"SELECT FROM s3export.connector WHERE connector_id <> $1 AND name = $2",
			param_int8(connector->connector_id), param_text(connector->name)) > 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("connector \"%s\" already exists", connector->name)));
	require_free_place(connector, user, connector->reserved);
}

void
connector_require_unique(const Connector *connector)
{
	CatalogScope scope;

	catalog_enter(&scope);
	require_unique(connector, scope.userid);
	catalog_leave(&scope);
}

void
connector_require_place(const Connector *connector)
{
	CatalogScope scope;

	if (connector->reserved)
		return;
	catalog_enter(&scope);
	require_free_place(connector, scope.userid, true);
	catalog_leave(&scope);
}

char *
connector_of_other_kind(const Connector *connector)
{
	CatalogScope scope;
	char        *name = NULL;

	catalog_enter(&scope);
	if (catalog_execute("SELECT name FROM s3export.connector c"
						" WHERE bucket = $1 AND endpoint_url IS NOT DISTINCT FROM $2"
						" AND kind <> $3 AND (pg_has_role($4, c.owner, 'USAGE')"
						" OR EXISTS (SELECT FROM s3export.connector_grant g"
						" WHERE g.connector_id = c.connector_id"
						" AND pg_has_role($4, g.grantee, 'USAGE'))) ORDER BY name LIMIT 1",
						param_text(connector->s3.bucket), param_text(connector->s3.endpoint_url),
						param_text(connector_kind_name(connector->kind)),
						param_oid(scope.userid)) > 0)
		name = catalog_text(0, "name");
	catalog_leave(&scope);
	return name;
}

/*
 * Within a scope: of two sessions that are about to save connectors whose places
 * might not go together, one waits until the other's transaction has ended.
 */
static void
lock_places(const Connector *connector)
{
	advisory_lock_bucket(connector->s3.endpoint_url, connector->s3.bucket,
						 connector->kind == CONNECTOR_CURRENTS);
}

/* Within a scope: is its place another one than that in its row, or newly reserved? */
static bool
has_moved(const Connector *connector)
{
	return catalog_execute("SELECT FROM s3export.connector WHERE connector_id = $1 AND bucket = $2"
						   " AND folder_path = $3 AND endpoint_url IS NOT DISTINCT FROM $4"
						   " AND reserved = $5",
						   param_int8(connector->connector_id), param_text(connector->s3.bucket),
						   param_text(connector->folder_path),
						   param_text(connector->s3.endpoint_url),
						   param_bool(connector->reserved)) == 0;
}

void
connector_claim_place(const Connector *connector, Oid user)
{
	if (has_moved(connector))
		lock_places(connector);
	require_unique(connector, user);
}

/*
 * ON CONFLICT rather than a unique violation, whose message would name an index.
 * Waits for a transaction that is creating the same connector.
 */
void
connector_insert(Connector *connector, ConnectorValidation validation)
{
	const S3Config *s3 = &connector->s3;
	CatalogScope    scope;

	catalog_enter(&scope);
	lock_places(connector);
	require_unique(connector, scope.userid);
	while (catalog_execute(
			   "INSERT INTO s3export.connector (name, owner, kind, credential_id,"
			   " endpoint_url, bucket, folder_path, region, sts_endpoint_url,"
			   " addressing, expected_bucket_owner, server_side_encryption, kms_key_id,"
			   " bucket_key, storage_class, tags, acl, content_type, payload_signing, validated_at,"
			   " credentials_lent, reserved)"
			   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::boolean,"
			   " $15, $16::jsonb, $17, $18, $19, CASE WHEN $20 THEN now() END, $21, $22)"
			   " ON CONFLICT DO NOTHING RETURNING connector_id",
			   param_text(connector->name), param_oid(connector->owner),
			   param_text(connector_kind_name(connector->kind)),
			   param_int8(connector->credential_id), param_text(s3->endpoint_url),
			   param_text(s3->bucket), param_text(connector->folder_path), param_text(s3->region),
			   param_text(connector->credentials.sts_endpoint_url),
			   param_text(addressing_names[s3->addressing]), param_text(s3->expected_bucket_owner),
			   param_text(s3->server_side_encryption), param_text(s3->kms_key_id),
			   param_text(s3->bucket_key), param_text(s3->storage_class),
			   param_text(connector->tags), param_text(s3->acl), param_text(s3->content_type),
			   param_text(payload_signing_names[s3->payload_signing]),
			   param_bool(validation == CONNECTOR_VALIDATED), param_bool(connector->lent),
			   param_bool(connector->reserved)) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		require_unique(connector, scope.userid);
	}
	connector->connector_id = catalog_int64(0, "connector_id", NULL);
	if (!connector->shares_credentials)
		connector_save_credentials(connector, true);
	catalog_leave(&scope);
}

void
connector_update(const Connector *connector, ConnectorValidation validation)
{
	const S3Config *s3 = &connector->s3;
	CatalogScope    scope;

	catalog_enter(&scope);
	connector_claim_place(connector, scope.userid);
	(void) catalog_execute(
		"UPDATE s3export.connector SET name = $2, owner = $3, endpoint_url = $4,"
		" bucket = $5, folder_path = $6, region = $7, sts_endpoint_url = $8,"
		" addressing = $9, expected_bucket_owner = $10, server_side_encryption = $11,"
		" kms_key_id = $12, bucket_key = $13::boolean, storage_class = $14, tags = $15::jsonb,"
		" acl = $16, content_type = $17, payload_signing = $18, credentials_lent = $22,"
		" reserved = $23, validated_at = CASE $19"
		" WHEN $20 THEN validated_at WHEN $21 THEN now() END WHERE connector_id = $1",
		param_int8(connector->connector_id), param_text(connector->name),
		param_oid(connector->owner), param_text(s3->endpoint_url), param_text(s3->bucket),
		param_text(connector->folder_path), param_text(s3->region),
		param_text(connector->credentials.sts_endpoint_url),
		param_text(addressing_names[s3->addressing]), param_text(s3->expected_bucket_owner),
		param_text(s3->server_side_encryption), param_text(s3->kms_key_id),
		param_text(s3->bucket_key), param_text(s3->storage_class), param_text(connector->tags),
		param_text(s3->acl), param_text(s3->content_type),
		param_text(payload_signing_names[s3->payload_signing]), param_int4((int32) validation),
		param_int4((int32) CONNECTOR_VALIDATION_KEPT), param_int4((int32) CONNECTOR_VALIDATED),
		param_bool(connector->lent), param_bool(connector->reserved));
	(void) catalog_execute("UPDATE s3export.credential SET owner = $2 WHERE credential_id = $1"
						   " AND owner <> $2",
						   param_int8(connector->credential_id),
						   param_oid(connector->credential_owner));
	catalog_leave(&scope);
}

/*
 * Within a scope.  Credentials that others use, too, stay with their owner.  If that role
 * does not exist, a superuser gives them away with the first of their connectors; the
 * owner of a connector, who may only use them, does not.
 */
static bool
keeps_credentials(const Connector *connector, Oid user)
{
	bool orphaned = !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(connector->credential_owner));

	return connector_credentials_shared(connector) && !(orphaned && superuser_arg(user));
}

void
connector_set_owner(Connector *connector, Oid owner)
{
	CatalogScope scope;
	bool         kept;

	catalog_enter(&scope);
	kept = keeps_credentials(connector, scope.userid);
	connector->owner = owner;
	if (!kept)
		connector->credential_owner = owner;
	else
		connector->lent |= superuser_arg(scope.userid);
	connector->share_ended =
		!connector->lent && !has_privs_of_role(owner, connector->credential_owner);
	catalog_leave(&scope);

	connector_require_share(connector);

	/* A role is assumed with the external ID of the owner. */
	if (!kept && connector->credentials.role_arn != NULL)
		connector_use_role(connector, connector->credentials.role_arn);
}

void
connector_delete(const Connector *connector)
{
	CatalogScope scope;

	catalog_enter(&scope);
	(void) catalog_execute("DELETE FROM s3export.connector_grant WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	(void) catalog_execute("DELETE FROM s3export.connector WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	connector_drop_unused_credentials(connector->credential_id);
	catalog_leave(&scope);
}

/* Within a scope: DROP ROLE knows nothing of grants. */
static void
forget_dropped_grantees(const Connector *connector)
{
	(void) catalog_execute("DELETE FROM s3export.connector_grant WHERE connector_id = $1"
						   " AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = grantee)",
						   param_int8(connector->connector_id));
}

void
connector_grant(const Connector *connector, Oid grantee, bool overwrite)
{
	CatalogScope scope;

	catalog_enter(&scope);
	forget_dropped_grantees(connector);
	(void) catalog_execute("INSERT INTO s3export.connector_grant (connector_id, grantee, overwrite)"
						   " VALUES ($1, $2, $3) ON CONFLICT (connector_id, grantee)"
						   " DO UPDATE SET overwrite = EXCLUDED.overwrite",
						   param_int8(connector->connector_id), param_oid(grantee),
						   param_bool(overwrite));
	catalog_leave(&scope);
}

void
connector_revoke(const Connector *connector, Oid grantee)
{
	CatalogScope scope;

	catalog_enter(&scope);
	forget_dropped_grantees(connector);
	(void) catalog_execute("DELETE FROM s3export.connector_grant"
						   " WHERE connector_id = $1 AND grantee = $2",
						   param_int8(connector->connector_id), param_oid(grantee));
	catalog_leave(&scope);
}

/* The trigger of these tables makes the codes anew, and skips rows that are right. */
List *
connector_adopt(void)
{
	static const char *const statements[][2] = {
		{"connector", "UPDATE s3export.connector SET mac = NULL RETURNING name AS row"},
		{"credential", "UPDATE s3export.credential SET mac = NULL RETURNING credential_id AS row"},
		{"connector_grant", "UPDATE s3export.connector_grant g SET mac = NULL"
							" FROM s3export.connector c WHERE c.connector_id = g.connector_id"
							" RETURNING format('%s to %s', c.name, g.grantee) AS row"},
		{"base_identity",
		 "UPDATE s3export.base_identity SET mac = NULL RETURNING credential_id AS row"},
		{"external_id", "UPDATE s3export.external_id SET mac = NULL RETURNING role AS row"},
		{"current", "UPDATE s3export.current u SET mac = NULL FROM s3export.connector c"
					" WHERE c.connector_id = u.connector_id RETURNING c.name AS row"},
	};
	MemoryContext context = CurrentMemoryContext;
	List         *adopted = NIL;
	CatalogScope  scope;

	catalog_enter(&scope);
	for (size_t i = 0; i < lengthof(statements); i++)
	{
		uint64 rows = catalog_execute(statements[i][1]);

		for (uint64 n = 0; n < rows; n++)
		{
			AdoptedRow   *row = SPI_palloc(sizeof(AdoptedRow));
			MemoryContext old;

			row->table = unconstify(char *, statements[i][0]);
			row->row = catalog_text(n, "row");
			old = MemoryContextSwitchTo(context);
			adopted = lappend(adopted, row);
			MemoryContextSwitchTo(old);
		}
	}
	catalog_leave(&scope);
	return adopted;
}
