/*-------------------------------------------------------------------------
 *
 * connector_credentials.c
 *	  The credentials of connectors: keys, roles, the base identity, external IDs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "base/secret.h"
#include "tables/catalog.h"
#include "tables/connector_internal.h"

/* --------------------------------------------------------------- reading */

/*
 * Within a scope.  The ID is made once, of what only this database knows and
 * the role's OID: not a random number, since a role whose first transaction
 * fails has to find the ID that the failure told it.
 */
static char *
external_id_of(Oid role, bool save, RowProof *proof)
{
	char *external_id;

	memset(proof, 0, sizeof(*proof));
	if (catalog_execute("SELECT external_id, e AS row FROM s3export.external_id e WHERE role = $1",
						param_oid(role)))
	{
		row_proof_read(proof, "external_id", 0, "row");
		return catalog_text(0, "external_id");
	}

	if (catalog_execute("SELECT 's3export-' || left(encode(sha256(convert_to(installation_id || ' '"
						" || $1::text, 'UTF8')), 'hex'), 32) AS external_id"
						" FROM s3export.installation",
						param_oid(role)) != 1)
		elog(ERROR, "table \"installation\" of extension \"s3export\" has lost its row");
	external_id = catalog_text(0, "external_id");
	if (save)
		(void) catalog_execute("INSERT INTO s3export.external_id (role, external_id)"
							   " VALUES ($1, $2) ON CONFLICT (role) DO NOTHING",
							   param_oid(role), param_text(external_id));
	return external_id;
}

char *
connector_external_id(Oid role)
{
	CatalogScope scope;
	RowProof     unused;
	char        *external_id;

	catalog_enter(&scope);
	external_id = external_id_of(role, !XactReadOnly, &unused);
	catalog_leave(&scope);
	return external_id;
}

/* Within a scope: credentials become those of the base identity, stored or ambient. */
static void
load_base_identity(Connector *connector)
{
	CredentialConfig *credentials = &connector->credentials;

	if (catalog_execute("SELECT b.credential_id, k.access_key_id, k.version, s.sealed,"
						" b AS identity_row, k AS credential_row"
						" FROM s3export.base_identity b"
						" LEFT JOIN s3export.credential k USING (credential_id)"
						" LEFT JOIN s3export.secret s USING (credential_id)") == 0)
	{
		credentials->ambient = guc_allow_ambient_credentials;
		return;
	}
	row_proof_read(&connector->proofs[CONNECTOR_IDENTITY_PROOF], "base_identity", 0,
				   "identity_row");
	row_proof_read(&connector->proofs[CONNECTOR_IDENTITY_CREDENTIAL_PROOF], "credential", 0,
				   "credential_row");
	credentials->credential_id = catalog_int64(0, "credential_id", NULL);
	credentials->access_key_id = catalog_text(0, "access_key_id");
	credentials->sealed = catalog_bytea(0, "sealed");
	connector->keys_version = catalog_int64(0, "version", NULL);
}

void
connector_load_role(Connector *connector, char *role_arn, bool save)
{
	CredentialConfig *credentials = &connector->credentials;

	memset(credentials, 0, sizeof(*credentials));
	credentials->role_arn = role_arn;
	credentials->external_id = external_id_of(connector->credential_owner, save,
											  &connector->proofs[CONNECTOR_EXTERNAL_ID_PROOF]);
	load_base_identity(connector);
}

Connector *
connector_base_identity(void)
{
	Connector   *connector = palloc0(sizeof(Connector));
	CatalogScope scope;

	catalog_enter(&scope);
	load_base_identity(connector);
	catalog_leave(&scope);
	return connector->credentials.access_key_id != NULL || connector->credentials.ambient
			   ? connector
			   : NULL;
}

/* The owner may have been lost with a dump, and the external ID with the owner. */
static void
require_external_id(const Connector *connector)
{
	if (connector->credentials.role_arn != NULL && !OidIsValid(connector->credential_owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no external ID to assume role \"%s\" with",
						connector->credentials.role_arn),
				 errdetail("It is that of the owner, a role that does not exist here."),
				 errhint("A superuser can give the connector an owner with "
						 "s3export.alter_connector(owner => ...).  The trust policy of the AWS "
						 "role has to name the owner's external ID, as s3export.trust_policy() "
						 "writes it.")));
}

void
connector_require_share(const Connector *connector)
{
	if (connector->share_ended)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the credentials of connector \"%s\"", connector->name),
			 errdetail("They belong to a role that the connector's owner is not a member of."),
			 errhint("Give the connector its own with s3export.set_credentials(..., unshare => "
					 "true).  A superuser can lend it others with credentials_from.")));
}

void
connector_require_credentials(const Connector *connector)
{
	const CredentialConfig *credentials = &connector->credentials;

	connector_require_share(connector);
	require_external_id(connector);
	/* Where ambient ones are not allowed any more, the uploader says so. */
	if (credentials->sealed != NULL || credentials->ambient)
		return;
	if (credentials->role_arn == NULL && connector->name != NULL)
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
	(void) catalog_execute("SELECT nextval('s3export.credential_credential_id_seq') AS id");
	credential_id = catalog_int64(0, "id", NULL);
	catalog_leave(&scope);
	return credential_id;
}

const bytea *
connector_stored_secret(void)
{
	CatalogScope scope;
	bytea       *stored = NULL;

	if (secret_has_key())
		return NULL;
	catalog_enter(&scope);
	if (catalog_execute_latest("SELECT sealed FROM s3export.secret LIMIT 1") > 0)
		stored = catalog_bytea(0, "sealed");
	catalog_leave(&scope);
	return stored;
}

/* Those that it comes to have are no rows yet. */
static void
forget_credential_proofs(Connector *connector)
{
	memset(&connector->proofs[CONNECTOR_CREDENTIALS], 0,
		   sizeof(RowProof) * (CONNECTOR_PROOFS - CONNECTOR_CREDENTIALS));
}

void
connector_use_keys(Connector *connector, const char *access_key_id, const char *secret,
				   const char *token)
{
	CredentialConfig *credentials = &connector->credentials;
	char             *sts_endpoint_url = credentials->sts_endpoint_url;

	forget_credential_proofs(connector);
	memset(credentials, 0, sizeof(*credentials));
	credentials->credential_id = connector->credential_id;
	credentials->access_key_id = pstrdup(access_key_id);
	credentials->sealed =
		secret_seal(secret, token, connector->credential_id, connector_stored_secret());
	credentials->sts_endpoint_url = sts_endpoint_url;
}

void
connector_use_role(Connector *connector, const char *role_arn)
{
	char        *arn = pstrdup(role_arn);
	char        *sts_endpoint_url = connector->credentials.sts_endpoint_url;
	CatalogScope scope;

	forget_credential_proofs(connector);
	catalog_enter(&scope);
	connector_load_role(connector, arn, !XactReadOnly);
	catalog_leave(&scope);
	connector->credentials.sts_endpoint_url = sts_endpoint_url;
}

void
connector_use_ambient(Connector *connector)
{
	CredentialConfig *credentials = &connector->credentials;
	char             *sts_endpoint_url = credentials->sts_endpoint_url;

	forget_credential_proofs(connector);
	memset(credentials, 0, sizeof(*credentials));
	credentials->ambient = true;
	credentials->sts_endpoint_url = sts_endpoint_url;
}

void
connector_require_ambient_privilege(const Connector *connector)
{
	if (connector->credentials.ambient && connector->credentials.role_arn == NULL && !superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be superuser to create or alter a connector with ambient "
							   "credentials"),
						errhint("A superuser can grant the use of one with "
								"s3export.grant_usage().")));
}

/* Within a scope; locks the credentials until the transaction ends. */
static void
lock_shared_credentials(const Connector *other, Oid user)
{
	if (!has_privs_of_role(user, other->credential_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the credentials of connector \"%s\"", other->name)));
	/* Whoever removes or replaces them waits for us, and then sees that we use them. */
	if (catalog_execute("SELECT FROM s3export.connector JOIN s3export.credential k"
						" USING (credential_id)"
						" WHERE connector_id = $1 AND credential_id = $2 FOR SHARE OF k",
						param_int8(other->connector_id), param_int8(other->credential_id)) == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("could not share the credentials of connector \"%s\"", other->name),
						errdetail("They were changed at the same time.")));
}

/* Keys are of one store: a new connector that names none is of the same. */
static void
use_store_of(Connector *connector, const Connector *other)
{
	S3Config *s3 = &connector->s3;

	if (connector->connector_id != 0 || s3->endpoint_url != NULL || other->s3.endpoint_url == NULL)
		return;
	s3->endpoint_url = other->s3.endpoint_url;
	if (s3->region == NULL)
		s3->region = other->s3.region;
	if (s3->addressing == S3_ADDRESSING_AUTO)
		s3->addressing = other->s3.addressing;
	if (connector->credentials.sts_endpoint_url == NULL)
		connector->credentials.sts_endpoint_url = other->credentials.sts_endpoint_url;
}

void
connector_use_credentials_of(Connector *connector, const char *name)
{
	char        *sts_endpoint_url = connector->credentials.sts_endpoint_url;
	Connector   *other = connector_load(name, CONNECTOR_OWNER);
	CatalogScope scope;

	if (other->connector_id == connector->connector_id)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("connector \"%s\" has these credentials already", name)));
	connector_require_proof(other, true);
	catalog_enter(&scope);
	lock_shared_credentials(other, scope.userid);
	catalog_leave(&scope);

	connector->credential_id = other->credential_id;
	connector->credential_owner = other->credential_owner;
	connector->shares_credentials = true;
	connector->lent = superuser();
	connector->share_ended = false;
	connector->keys_version = other->keys_version;
	connector->credentials = other->credentials;
	memcpy(&connector->proofs[CONNECTOR_CREDENTIALS], &other->proofs[CONNECTOR_CREDENTIALS],
		   sizeof(RowProof) * (CONNECTOR_PROOFS - CONNECTOR_CREDENTIALS));
	connector->credentials.sts_endpoint_url = sts_endpoint_url;
	use_store_of(connector, other);
}

int
connector_count_sharing(const Connector *connector)
{
	CatalogScope scope;
	int          count;

	catalog_enter(&scope);
	count = (int) catalog_execute("SELECT FROM s3export.connector WHERE credential_id = $1",
								  param_int8(connector->credential_id));
	catalog_leave(&scope);
	return count;
}

void
connector_leave_shared(Connector *connector)
{
	connector->credential_id = connector_new_credential_id();
	connector->credential_owner = connector->owner;
	connector->lent = connector->share_ended = false;
}

/* Within a scope. */
static void
save_secret(int64 credential_id, bytea *sealed)
{
	if (sealed == NULL)
		(void) catalog_execute("DELETE FROM s3export.secret WHERE credential_id = $1",
							   param_int8(credential_id));
	else
		(void) catalog_execute(
			"INSERT INTO s3export.secret (credential_id, sealed) VALUES ($1, $2)"
			" ON CONFLICT (credential_id) DO UPDATE SET sealed = EXCLUDED.sealed",
			param_int8(credential_id), param_bytea(sealed));
	/* Running exports that use it look again when they hear this. */
	CacheInvalidateRelcacheByRelid(catalog_table("secret"));
}

/*
 * Within a scope.  Without a key and a role they are the ambient ones.  New
 * credentials never replace others, not even where somebody has set the
 * sequence back.
 */
static void
save_credential(int64 credential_id, Oid owner, const char *access_key_id, const char *role_arn,
				bool is_new)
{
	(void) catalog_execute(is_new ? "INSERT INTO s3export.credential"
									" (credential_id, owner, access_key_id, role_arn, ambient)"
									" VALUES ($1, $2, $3, $4, $5)"
								  : "INSERT INTO s3export.credential"
									" (credential_id, owner, access_key_id, role_arn, ambient)"
									" VALUES ($1, $2, $3, $4, $5)"
									" ON CONFLICT (credential_id) DO UPDATE"
									" SET owner = EXCLUDED.owner,"
									" access_key_id = EXCLUDED.access_key_id,"
									" role_arn = EXCLUDED.role_arn,"
									" ambient = EXCLUDED.ambient,"
									" version = credential.version + 1",
						   param_int8(credential_id), param_oid(owner), param_text(access_key_id),
						   param_text(role_arn),
						   param_bool(access_key_id == NULL && role_arn == NULL));
}

void
connector_save_credentials(const Connector *connector, bool is_new)
{
	const CredentialConfig *credentials = &connector->credentials;
	bool                    role = credentials->role_arn != NULL;

	save_credential(connector->credential_id, connector->credential_owner,
					role ? NULL : credentials->access_key_id, credentials->role_arn, is_new);
	save_secret(connector->credential_id, role ? NULL : credentials->sealed);
}

bool
connector_credentials_shared(const Connector *connector)
{
	return catalog_execute("SELECT FROM s3export.connector"
						   " WHERE credential_id = $1 AND connector_id <> $2"
						   " UNION ALL SELECT FROM s3export.base_identity WHERE credential_id = $1",
						   param_int8(connector->credential_id),
						   param_int8(connector->connector_id)) > 0;
}

void
connector_drop_unused_credentials(int64 credential_id)
{
	/* A statement of its own: the next one sees who began to share them meanwhile. */
	(void) catalog_execute("SELECT FROM s3export.credential WHERE credential_id = $1 FOR UPDATE",
						   param_int8(credential_id));
	if (catalog_execute("DELETE FROM s3export.credential k WHERE credential_id = $1"
						" AND NOT EXISTS (SELECT FROM s3export.connector c"
						" WHERE c.credential_id = k.credential_id)"
						" AND NOT EXISTS (SELECT FROM s3export.base_identity b"
						" WHERE b.credential_id = k.credential_id)",
						param_int8(credential_id)) > 0)
		save_secret(credential_id, NULL);
}

void
connector_update_credentials(const Connector *connector, ConnectorValidation validation)
{
	CatalogScope scope;
	int64        old_id;

	catalog_enter(&scope);
	connector_claim_place(connector, scope.userid);
	(void) catalog_execute("SELECT credential_id FROM s3export.connector WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	old_id = catalog_int64(0, "credential_id", NULL);
	if (!connector->shares_credentials)
		connector_save_credentials(connector, connector->credential_id != old_id);
	/* Others that share new ones have not been tested with them. */
	(void) catalog_execute(
		"UPDATE s3export.connector SET credential_id = $1, validated_at ="
		" CASE WHEN connector_id = $2 AND $3 THEN now() END,"
		" credentials_lent = CASE WHEN connector_id = $2 THEN $5"
		" ELSE credentials_lent END,"
		" reserved = CASE WHEN connector_id = $2 THEN $6 ELSE reserved END"
		" WHERE connector_id = $2 OR (credential_id = $1 AND NOT $4)",
		param_int8(connector->credential_id), param_int8(connector->connector_id),
		param_bool(validation == CONNECTOR_VALIDATED), param_bool(connector->shares_credentials),
		param_bool(connector->lent), param_bool(connector->reserved));
	if (connector->credential_id != old_id)
		connector_drop_unused_credentials(old_id);
	catalog_leave(&scope);
}

void
connector_set_identity(const char *access_key_id, const char *secret, const char *token)
{
	CatalogScope scope;
	bool         is_new;
	int64        credential_id;
	bytea       *sealed;

	catalog_enter(&scope);
	(void) catalog_execute("LOCK TABLE s3export.base_identity IN SHARE ROW EXCLUSIVE MODE");
	is_new = catalog_execute("SELECT credential_id FROM s3export.base_identity") == 0;
	if (is_new)
		(void) catalog_execute("INSERT INTO s3export.base_identity (credential_id)"
							   " VALUES (nextval('s3export.credential_credential_id_seq'))"
							   " RETURNING credential_id");
	credential_id = catalog_int64(0, "credential_id", NULL);
	catalog_leave(&scope);

	sealed = secret_seal(secret, token, credential_id, connector_stored_secret());

	catalog_enter(&scope);
	save_credential(credential_id, scope.userid, access_key_id, NULL, is_new);
	save_secret(credential_id, sealed);
	catalog_leave(&scope);
}

/* ------------------------------------------------------------- rotation */

/* Set before the first look: keys may have been replaced since the leader read them. */
static bool keys_changed = true;
static Oid  secret_table;

static void
hear_invalidation(Datum arg pg_attribute_unused(), Oid table)
{
	if (!OidIsValid(table) || table == secret_table)
		keys_changed = true;
}

/*
 * Within a scope.  What the leader has changed itself, and not committed, has a
 * later version than what is seen here.
 */
static bool
find_new_keys(Connector *connector)
{
	CredentialConfig *credentials = &connector->credentials;
	RowProof          proof;

	if (catalog_execute("SELECT k.access_key_id, k.version, s.sealed, k AS row"
						" FROM s3export.credential k JOIN s3export.secret s USING (credential_id)"
						" WHERE credential_id = $1 AND version > $2 AND access_key_id IS NOT NULL",
						param_int8(credentials->credential_id),
						param_int8(connector->keys_version)) == 0)
		return false;
	row_proof_read(&proof, "credential", 0, "row");
	row_require_proof(&proof, false);
	credentials->access_key_id = catalog_text(0, "access_key_id");
	credentials->sealed = catalog_bytea(0, "sealed");
	credentials->ambient = false;
	connector->keys_version = catalog_int64(0, "version", NULL);
	return true;
}

/* Every transaction begins by hearing what others have committed. */
bool
connector_refresh_keys(Connector *connector)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CatalogScope  scope;
	bool          found = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	if (!OidIsValid(secret_table))
	{
		secret_table = catalog_table("secret");
		CacheRegisterRelcacheCallback(hear_invalidation, (Datum) 0);
	}
	if (keys_changed)
	{
		keys_changed = false;
		PushActiveSnapshot(GetTransactionSnapshot());
		catalog_enter(&scope);
		found = find_new_keys(connector);
		catalog_leave(&scope);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return found;
}
