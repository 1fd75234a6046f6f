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

#include "catalog.h"
#include "connector.h"
#include "secret.h"

static const char *const addressing_names[] = {"auto", "path", "virtual"};

bool
connector_parse_addressing(const char *value, S3Addressing *addressing)
{
	for (size_t i = 0; i < lengthof(addressing_names); i++)
	{
		if (strcmp(value, addressing_names[i]) == 0)
		{
			*addressing = (S3Addressing) i;
			return true;
		}
	}
	return false;
}

char *
connector_uri(const Connector *connector, const char *key)
{
	return psprintf("s3://%s/%s", connector->s3.bucket, key);
}

/* ---------------------------------------------------------------- access */

static bool
is_granted(int64 connector_id, Oid user)
{
	uint64 rows = catalog_execute(
		"SELECT grantee FROM s3export.connector_grant WHERE connector_id = $1", "i", connector_id);

	for (uint64 i = 0; i < rows; i++)
	{
		if (has_privs_of_role(user, (Oid) catalog_int64(i, "grantee", NULL)))
			return true;
	}
	return false;
}

/* Within a scope; replaces SPI's results. */
static bool
may_use(int64 connector_id, Oid owner, Oid user)
{
	return has_privs_of_role(user, owner) || is_granted(connector_id, user);
}

/* Within a scope. */
static void
require_access(const Connector *connector, ConnectorAccess access, Oid user)
{
	if (has_privs_of_role(user, connector->owner))
		return;
	if (access == CONNECTOR_OWNER)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of connector \"%s\"", connector->name)));
	if (!is_granted(connector->connector_id, user))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for connector \"%s\"", connector->name),
						errhint("Its owner can allow it with s3export.grant_usage().")));
}

void
connector_require_create_privilege(void)
{
	CatalogScope scope;
	bool         allowed;

	catalog_enter(&scope);
	(void) catalog_execute("SELECT has_function_privilege($1, 's3export.create_connector'::regproc,"
						   " 'EXECUTE') AS allowed",
						   "o", scope.userid);
	allowed = catalog_int64(0, "allowed", NULL) != 0;
	catalog_leave(&scope);
	if (!allowed)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to test credentials without a connector"),
						errdetail("It takes the EXECUTE privilege on function "
								  "s3export.create_connector.")));
}

/* --------------------------------------------------------------- reading */

/*
 * Within a scope.  The ID is made once, of what only this database knows and
 * the role's OID: not a random number, since a role whose first transaction
 * fails has to find the ID that the failure told it.
 */
static char *
external_id_of(Oid role, bool save)
{
	char *external_id;

	if (catalog_execute("SELECT external_id FROM s3export.external_id WHERE role = $1", "o", role))
		return catalog_text(0, "external_id");

	if (catalog_execute("SELECT 's3export-' || left(encode(sha256(convert_to(installation_id || ' '"
						" || $1::text, 'UTF8')), 'hex'), 32) AS external_id"
						" FROM s3export.installation",
						"o", role) != 1)
		elog(ERROR, "table \"installation\" of extension \"s3export\" has lost its row");
	external_id = catalog_text(0, "external_id");
	if (save)
		(void) catalog_execute("INSERT INTO s3export.external_id (role, external_id)"
							   " VALUES ($1, $2) ON CONFLICT (role) DO NOTHING",
							   "ot", role, external_id);
	return external_id;
}

char *
connector_external_id(Oid role)
{
	CatalogScope scope;
	char        *external_id;

	catalog_enter(&scope);
	external_id = external_id_of(role, !XactReadOnly);
	catalog_leave(&scope);
	return external_id;
}

/* Within a scope: credentials become those that assume "role_arn". */
static void
load_role(Connector *connector, char *role_arn, bool save)
{
	CredentialConfig *credentials = &connector->credentials;

	memset(credentials, 0, sizeof(*credentials));
	credentials->role_arn = role_arn;
	credentials->external_id = external_id_of(connector->credential_owner, save);
	if (catalog_execute("SELECT b.credential_id, k.access_key_id, s.sealed"
						" FROM s3export.base_identity b"
						" LEFT JOIN s3export.credential k USING (credential_id)"
						" LEFT JOIN s3export.secret s USING (credential_id)",
						"") == 0)
		return;
	credentials->credential_id = catalog_int64(0, "credential_id", NULL);
	credentials->access_key_id = catalog_text(0, "access_key_id");
	credentials->sealed = catalog_bytea(0, "sealed");
}

/* Within a scope. */
static bool
load_row(Connector *connector, const char *name)
{
	bool  orphan;
	char *role_arn;
	char *sts_endpoint_url;

	if (catalog_execute("SELECT c.connector_id, c.name, c.owner, c.kind, c.credential_id, c.bucket,"
						" c.folder_path, c.region, c.endpoint_url, c.sts_endpoint_url,"
						" c.addressing, c.server_side_encryption, k.owner AS credential_owner,"
						" k.access_key_id, k.role_arn, s.sealed"
						" FROM s3export.connector c"
						" LEFT JOIN s3export.credential k USING (credential_id)"
						" LEFT JOIN s3export.secret s USING (credential_id)"
						" WHERE c.name = $1",
						"t", name) == 0)
		return false;

	connector->connector_id = catalog_int64(0, "connector_id", NULL);
	connector->name = catalog_text(0, "name");
	connector->owner = (Oid) catalog_int64(0, "owner", NULL);
	connector->kind = catalog_text(0, "kind");
	connector->folder_path = catalog_text(0, "folder_path");
	connector->credential_id = catalog_int64(0, "credential_id", NULL);
	connector->credential_owner = (Oid) catalog_int64(0, "credential_owner", &orphan);
	if (orphan)
		connector->credential_owner = connector->owner;
	connector->s3.endpoint_url = catalog_text(0, "endpoint_url");
	connector->s3.bucket = catalog_text(0, "bucket");
	connector->s3.region = catalog_text(0, "region");
	connector->s3.server_side_encryption = catalog_text(0, "server_side_encryption");
	if (!connector_parse_addressing(catalog_text(0, "addressing"), &connector->s3.addressing))
		elog(ERROR, "connector \"%s\" has an unexpected addressing", name);

	sts_endpoint_url = catalog_text(0, "sts_endpoint_url");
	role_arn = catalog_text(0, "role_arn");
	if (role_arn == NULL)
	{
		connector->credentials.credential_id = connector->credential_id;
		connector->credentials.access_key_id = catalog_text(0, "access_key_id");
		connector->credentials.sealed = catalog_bytea(0, "sealed");
	}
	else
		load_role(connector, role_arn, false);
	connector->credentials.sts_endpoint_url = sts_endpoint_url;
	return true;
}

static Connector *
load(const char *name, ConnectorAccess access, bool lock, bool missing_ok)
{
	Connector   *connector = palloc0(sizeof(Connector));
	CatalogScope scope;
	bool         found;

	catalog_enter(&scope);
	/* A statement of its own, so that the next one sees what the lock waited for. */
	if (lock)
		(void) catalog_execute("SELECT FROM s3export.connector WHERE name = $1 FOR UPDATE", "t",
							   name);
	found = load_row(connector, name);
	if (found)
		require_access(connector, access, scope.userid);
	catalog_leave(&scope);

	if (found)
		return connector;
	if (!missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("connector \"%s\" does not exist", name),
				 errhint("View s3export.connectors lists those that you may use.")));
	return NULL;
}

Connector *
connector_load(const char *name, ConnectorAccess access)
{
	return load(name, access, false, false);
}

Connector *
connector_lock(const char *name, bool missing_ok)
{
	return load(name, CONNECTOR_OWNER, true, missing_ok);
}

void
connector_require_credentials(const Connector *connector)
{
	const CredentialConfig *credentials = &connector->credentials;

	if (credentials->sealed != NULL)
		return;
	if (credentials->role_arn == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("credentials of connector \"%s\" are missing", connector->name),
						errdetail("Secrets are not dumped: a restored database has none."),
						errhint("Use s3export.set_credentials() to give the connector its "
								"credentials again.")));
	if (credentials->access_key_id == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("there is no base identity to assume role \"%s\" with",
							   credentials->role_arn),
						errhint("A superuser can set one with s3export.set_identity().")));
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("credentials of the base identity are missing"),
					errdetail("Secrets are not dumped: a restored database has none."),
					errhint("A superuser can set them again with s3export.set_identity().")));
}

/* --------------------------------------------------------------- writing */

int64
connector_new_credential_id(void)
{
	CatalogScope scope;
	int64        credential_id;

	catalog_enter(&scope);
	(void) catalog_execute("SELECT nextval('s3export.credential_credential_id_seq') AS id", "");
	credential_id = catalog_int64(0, "id", NULL);
	catalog_leave(&scope);
	return credential_id;
}

void
connector_use_keys(Connector *connector, const char *access_key_id, const char *secret,
				   const char *token)
{
	CredentialConfig *credentials = &connector->credentials;
	char             *sts_endpoint_url = credentials->sts_endpoint_url;

	memset(credentials, 0, sizeof(*credentials));
	credentials->credential_id = connector->credential_id;
	credentials->access_key_id = pstrdup(access_key_id);
	credentials->sealed = secret_seal(secret, token, connector->credential_id);
	credentials->sts_endpoint_url = sts_endpoint_url;
}

void
connector_use_role(Connector *connector, const char *role_arn)
{
	char        *arn = pstrdup(role_arn);
	char        *sts_endpoint_url = connector->credentials.sts_endpoint_url;
	CatalogScope scope;

	catalog_enter(&scope);
	load_role(connector, arn, !XactReadOnly);
	catalog_leave(&scope);
	connector->credentials.sts_endpoint_url = sts_endpoint_url;
}

static void
report_duplicate(const Connector *connector, const char *other, bool same_name, bool visible)
{
	if (same_name)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("connector \"%s\" already exists", connector->name)));
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("another connector already writes to \"%s\"",
					connector_uri(connector, connector->folder_path)),
			 visible ? errdetail("Connector \"%s\" has the same endpoint, bucket and folder path.",
								 other)
					 : 0,
			 errhint("Give each connector a folder_path of its own.")));
}

/* Within a scope. */
static void
require_unique(const Connector *connector, Oid user)
{
	char *other;
	bool  same_name;
	bool  visible;
	int64 other_id;

	if (catalog_execute("SELECT connector_id, name, owner, name = $2 AS same_name"
						" FROM s3export.connector"
						" WHERE connector_id <> $1 AND (name = $2 OR bucket = $3"
						" AND folder_path = $4 AND endpoint_url IS NOT DISTINCT FROM $5)"
						" ORDER BY name <> $2",
						"itttt", connector->connector_id, connector->name, connector->s3.bucket,
						connector->folder_path, connector->s3.endpoint_url) == 0)
		return;
	other_id = catalog_int64(0, "connector_id", NULL);
	other = catalog_text(0, "name");
	same_name = catalog_int64(0, "same_name", NULL) != 0;
	visible = may_use(other_id, (Oid) catalog_int64(0, "owner", NULL), user);
	report_duplicate(connector, other, same_name, visible);
}

void
connector_require_unique(const Connector *connector)
{
	CatalogScope scope;

	catalog_enter(&scope);
	require_unique(connector, scope.userid);
	catalog_leave(&scope);
}

/* Within a scope. */
static void
save_secret(int64 credential_id, bytea *sealed)
{
	if (sealed == NULL)
		(void) catalog_execute("DELETE FROM s3export.secret WHERE credential_id = $1", "i",
							   credential_id);
	else
		(void) catalog_execute(
			"INSERT INTO s3export.secret (credential_id, sealed) VALUES ($1, $2)"
			" ON CONFLICT (credential_id) DO UPDATE SET sealed = EXCLUDED.sealed",
			"iy", credential_id, sealed);
}

/*
 * Within a scope.  New credentials never replace others, not even where somebody
 * has set the sequence back.
 */
static void
save_credential(int64 credential_id, Oid owner, const char *access_key_id, const char *role_arn,
				bool new)
{
	(void) catalog_execute(new ? "INSERT INTO s3export.credential"
								 " (credential_id, owner, access_key_id, role_arn)"
								 " VALUES ($1, $2, $3, $4)"
							   : "INSERT INTO s3export.credential"
								 " (credential_id, owner, access_key_id, role_arn)"
								 " VALUES ($1, $2, $3, $4) ON CONFLICT (credential_id) DO UPDATE"
								 " SET owner = EXCLUDED.owner,"
								 " access_key_id = EXCLUDED.access_key_id,"
								 " role_arn = EXCLUDED.role_arn",
						   "iott", credential_id, owner, access_key_id, role_arn);
}

/* Within a scope. */
static void
save_credentials(const Connector *connector, bool new)
{
	const CredentialConfig *credentials = &connector->credentials;
	bool                    role = credentials->role_arn != NULL;

	save_credential(connector->credential_id, connector->credential_owner,
					role ? NULL : credentials->access_key_id, credentials->role_arn, new);
	save_secret(connector->credential_id, role ? NULL : credentials->sealed);
}

/*
 * ON CONFLICT rather than a unique violation, whose message would name an index.
 * Waits for a transaction that is creating the same connector.
 */
void
connector_insert(Connector *connector, ConnectorValidation validation)
{
	CatalogScope scope;

	catalog_enter(&scope);
	while (catalog_execute(
			   "INSERT INTO s3export.connector (name, owner, kind, credential_id,"
			   " endpoint_url, bucket, folder_path, region, sts_endpoint_url,"
			   " addressing, server_side_encryption, validated_at)"
			   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
			   " CASE WHEN $12 THEN now() END)"
			   " ON CONFLICT DO NOTHING RETURNING connector_id",
			   "totitttttttb", connector->name, connector->owner, connector->kind,
			   connector->credential_id, connector->s3.endpoint_url, connector->s3.bucket,
			   connector->folder_path, connector->s3.region,
			   connector->credentials.sts_endpoint_url, addressing_names[connector->s3.addressing],
			   connector->s3.server_side_encryption, validation == CONNECTOR_VALIDATED) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		require_unique(connector, scope.userid);
	}
	connector->connector_id = catalog_int64(0, "connector_id", NULL);
	save_credentials(connector, true);
	catalog_leave(&scope);
}

void
connector_update(const Connector *connector, ConnectorValidation validation)
{
	CatalogScope scope;

	catalog_enter(&scope);
	require_unique(connector, scope.userid);
	(void) catalog_execute("UPDATE s3export.connector SET name = $2, owner = $3, endpoint_url = $4,"
						   " bucket = $5, folder_path = $6, region = $7, sts_endpoint_url = $8,"
						   " addressing = $9, server_side_encryption = $10,"
						   " validated_at = CASE $11 WHEN $12 THEN validated_at WHEN $13 THEN now()"
						   " END WHERE connector_id = $1",
						   "itottttttt"
						   "nnn",
						   connector->connector_id, connector->name, connector->owner,
						   connector->s3.endpoint_url, connector->s3.bucket, connector->folder_path,
						   connector->s3.region, connector->credentials.sts_endpoint_url,
						   addressing_names[connector->s3.addressing],
						   connector->s3.server_side_encryption, (int32) validation,
						   (int32) CONNECTOR_VALIDATION_KEPT, (int32) CONNECTOR_VALIDATED);
	(void) catalog_execute("UPDATE s3export.credential SET owner = $2 WHERE credential_id = $1"
						   " AND owner <> $2",
						   "io", connector->credential_id, connector->credential_owner);
	catalog_leave(&scope);
}

void
connector_update_credentials(const Connector *connector, ConnectorValidation validation)
{
	CatalogScope scope;

	catalog_enter(&scope);
	save_credentials(connector, false);
	/* Others that share them have not been tested with the new ones. */
	(void) catalog_execute("UPDATE s3export.connector SET validated_at ="
						   " CASE WHEN connector_id = $2 AND $3 THEN now() END"
						   " WHERE credential_id = $1",
						   "iib", connector->credential_id, connector->connector_id,
						   validation == CONNECTOR_VALIDATED);
	catalog_leave(&scope);
}

/* Within a scope: do other connectors, or the base identity, use its credentials? */
static bool
credentials_shared(const Connector *connector)
{
	return catalog_execute("SELECT FROM s3export.connector"
						   " WHERE credential_id = $1 AND connector_id <> $2"
						   " UNION ALL SELECT FROM s3export.base_identity WHERE credential_id = $1",
						   "ii", connector->credential_id, connector->connector_id) > 0;
}

void
connector_set_owner(Connector *connector, Oid owner)
{
	CatalogScope scope;
	bool         shared;

	catalog_enter(&scope);
	shared = credentials_shared(connector);
	connector->owner = owner;
	if (!shared)
		connector->credential_owner = owner;
	catalog_leave(&scope);

	/* A role is assumed with the external ID of the owner. */
	if (!shared && connector->credentials.role_arn != NULL)
		connector_use_role(connector, connector->credentials.role_arn);
}

void
connector_delete(const Connector *connector)
{
	CatalogScope scope;

	catalog_enter(&scope);
	(void) catalog_execute("DELETE FROM s3export.connector_grant WHERE connector_id = $1", "i",
						   connector->connector_id);
	(void) catalog_execute("DELETE FROM s3export.connector WHERE connector_id = $1", "i",
						   connector->connector_id);
	if (!credentials_shared(connector))
	{
		save_secret(connector->credential_id, NULL);
		(void) catalog_execute("DELETE FROM s3export.credential WHERE credential_id = $1", "i",
							   connector->credential_id);
	}
	catalog_leave(&scope);
}

void
connector_grant(const Connector *connector, Oid grantee)
{
	CatalogScope scope;

	catalog_enter(&scope);
	(void) catalog_execute("INSERT INTO s3export.connector_grant (connector_id, grantee)"
						   " VALUES ($1, $2) ON CONFLICT DO NOTHING",
						   "io", connector->connector_id, grantee);
	catalog_leave(&scope);
}

void
connector_revoke(const Connector *connector, Oid grantee)
{
	CatalogScope scope;

	catalog_enter(&scope);
	(void) catalog_execute("DELETE FROM s3export.connector_grant"
						   " WHERE connector_id = $1 AND grantee = $2",
						   "io", connector->connector_id, grantee);
	catalog_leave(&scope);
}

void
connector_set_identity(const char *access_key_id, const char *secret, const char *token)
{
	CatalogScope scope;
	bool new;
	int64  credential_id;
	bytea *sealed;

	catalog_enter(&scope);
	(void) catalog_execute("LOCK TABLE s3export.base_identity IN SHARE ROW EXCLUSIVE MODE", "");
	new = catalog_execute("SELECT credential_id FROM s3export.base_identity", "") == 0;
	if (new)
		(void) catalog_execute("INSERT INTO s3export.base_identity (credential_id)"
							   " VALUES (nextval('s3export.credential_credential_id_seq'))"
							   " RETURNING credential_id",
							   "");
	credential_id = catalog_int64(0, "credential_id", NULL);
	catalog_leave(&scope);

	sealed = secret_seal(secret, token, credential_id);

	catalog_enter(&scope);
	save_credential(credential_id, scope.userid, access_key_id, NULL, new);
	save_secret(credential_id, sealed);
	catalog_leave(&scope);
}

/* ----------------------------------------------------- to the uploader */

static void
put_string(StringInfo buf, const char *value)
{
	if (value == NULL)
		pq_sendint32(buf, (uint32) -1);
	else
	{
		pq_sendint32(buf, (uint32) strlen(value));
		pq_sendbytes(buf, value, (int) strlen(value));
	}
}

static char *
get_string(StringInfo buf)
{
	int32 length = (int32) pq_getmsgint(buf, 4);

	return length < 0 ? NULL : pnstrdup(pq_getmsgbytes(buf, length), length);
}

static void
put_bytea(StringInfo buf, const bytea *value)
{
	if (value == NULL)
		pq_sendint32(buf, (uint32) -1);
	else
	{
		pq_sendint32(buf, VARSIZE_ANY_EXHDR(value));
		pq_sendbytes(buf, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	}
}

static bytea *
get_bytea(StringInfo buf)
{
	int32  length = (int32) pq_getmsgint(buf, 4);
	bytea *value;

	if (length < 0)
		return NULL;
	value = palloc(VARHDRSZ + length);
	SET_VARSIZE(value, VARHDRSZ + length);
	pq_copymsgbytes(buf, VARDATA(value), length);
	return value;
}

void
connector_serialize(StringInfo buf, const Connector *connector)
{
	const CredentialConfig *credentials = &connector->credentials;
	const S3Config         *s3 = &connector->s3;

	pq_sendint64(buf, connector->connector_id);
	put_string(buf, connector->name);
	pq_sendint32(buf, connector->owner);
	put_string(buf, connector->kind);
	put_string(buf, connector->folder_path);
	pq_sendint64(buf, connector->credential_id);
	pq_sendint32(buf, connector->credential_owner);

	put_string(buf, s3->endpoint_url);
	put_string(buf, s3->bucket);
	put_string(buf, s3->region);
	pq_sendint32(buf, (uint32) s3->addressing);
	put_string(buf, s3->server_side_encryption);

	pq_sendint64(buf, credentials->credential_id);
	put_string(buf, credentials->access_key_id);
	put_bytea(buf, credentials->sealed);
	put_string(buf, credentials->role_arn);
	put_string(buf, credentials->external_id);
	put_string(buf, credentials->sts_endpoint_url);
}

Connector *
connector_deserialize(StringInfo buf)
{
	Connector        *connector = palloc0(sizeof(Connector));
	CredentialConfig *credentials = &connector->credentials;
	S3Config         *s3 = &connector->s3;

	connector->connector_id = pq_getmsgint64(buf);
	connector->name = get_string(buf);
	connector->owner = (Oid) pq_getmsgint(buf, 4);
	connector->kind = get_string(buf);
	connector->folder_path = get_string(buf);
	connector->credential_id = pq_getmsgint64(buf);
	connector->credential_owner = (Oid) pq_getmsgint(buf, 4);

	s3->endpoint_url = get_string(buf);
	s3->bucket = get_string(buf);
	s3->region = get_string(buf);
	s3->addressing = (S3Addressing) pq_getmsgint(buf, 4);
	s3->server_side_encryption = get_string(buf);

	credentials->credential_id = pq_getmsgint64(buf);
	credentials->access_key_id = get_string(buf);
	credentials->sealed = get_bytea(buf);
	credentials->role_arn = get_string(buf);
	credentials->external_id = get_string(buf);
	credentials->sts_endpoint_url = get_string(buf);

	/* A store that is not AWS's answers for STS at the same address. */
	if (credentials->sts_endpoint_url == NULL)
		credentials->sts_endpoint_url = s3->endpoint_url;
	credentials->region = s3->region;
	return connector;
}
