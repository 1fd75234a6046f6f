/*-------------------------------------------------------------------------
 *
 * connector.h
 *	  Connectors, their credentials and grants.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONNECTOR_H
#define CONNECTOR_H

#include "s3/s3.h"
#include "tables/row_mac.h"

/* The rows that a connector was made of. */
enum
{
	CONNECTOR_PROOF,
	CONNECTOR_GRANT_PROOF, /* that lets the user use it */
	CONNECTOR_CREDENTIALS, /* from here on: what credentials are made of */
	CONNECTOR_CREDENTIAL_PROOF = CONNECTOR_CREDENTIALS,
	CONNECTOR_EXTERNAL_ID_PROOF,
	CONNECTOR_IDENTITY_PROOF,
	CONNECTOR_IDENTITY_CREDENTIAL_PROOF,
	CONNECTOR_PROOFS
};

typedef enum ConnectorKind
{
	CONNECTOR_DATA_EXPORT,
	CONNECTOR_CURRENTS
} ConnectorKind;

/*
 * A connector authenticates with keys of its own, or with a role that the base
 * identity assumes (credentials.role_arn is set): then credentials holds the
 * keys of the base identity and the external ID of credential_owner.  Instead
 * of either keys there may be ambient ones.
 */
typedef struct Connector
{
	int64            connector_id; /* 0: not saved */
	char            *name;         /* NULL: not to be saved */
	Oid              owner;
	ConnectorKind    kind;
	char            *folder_path;        /* normalised; "": the bucket's root */
	int64            credential_id;      /* its own, 0: not saved */
	Oid              credential_owner;   /* differs from owner where credentials are shared */
	bool             shares_credentials; /* those of another connector, not to be written */
	bool             lent;               /* a superuser has let it share them */
	bool             share_ended;        /* its owner has no right to them any more */
	bool             may_overwrite;      /* the user may, what others have exported */
	bool             reserved;           /* its place, as it was, or is to be, validated there */
	int64            keys_version;       /* of credentials.sealed, grows when they are replaced */
	char            *tags;               /* of objects, a JSON object; NULL: none */
	S3Config         s3;
	CredentialConfig credentials;
	RowProof         proofs[CONNECTOR_PROOFS];
} Connector;

typedef enum ConnectorAccess
{
	CONNECTOR_USAGE, /* the owner, its members, grantees, superusers */
	CONNECTOR_OWNER  /* the owner, its members, superusers */
} ConnectorAccess;

/* "data_export" or "currents", as SQL has it. */
extern const char *connector_kind_name(ConnectorKind kind);

/* The kind of that name; false: there is none. */
extern bool connector_parse_kind(const char *name, ConnectorKind *kind);

/*
 * Raises ERRCODE_UNDEFINED_OBJECT when there is none, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE when the current user may not.
 */
extern Connector *connector_load(const char *name, ConnectorAccess access);

/* connector_load for a connector whose id is known, and which may have another name by now. */
extern Connector *connector_load_by_id(int64 connector_id, ConnectorAccess access);

/*
 * For the uploader, which asks on nobody's behalf, in a transaction of its own;
 * NULL when there is none.
 */
extern Connector *connector_find(int64 connector_id);

/*
 * connector_load with CONNECTOR_OWNER, for a change: locks the connector until
 * the transaction ends.  NULL when there is none and "missing_ok".
 */
extern Connector *connector_lock(const char *name, bool missing_ok);

/*
 * Raises an error when credentials of another role are shared with the connector whose owner
 * is no member of that role any more, and no superuser has lent them.
 */
extern void connector_require_share(const Connector *connector);

/*
 * Does what connector_require_share does, and raises an error when the connector's secret, or its base identity, is missing, or the
 * owner whose external ID it needs.
 */
extern void connector_require_credentials(const Connector *connector);

/*
 * Raises an error when one of its rows was not written by the extension's functions.
 * Uploaders ask before anything is sent; sessions, which have no business with the key
 * file, only where they are "writing".
 */
extern void connector_require_proof(const Connector *connector, bool writing);

/* A row that connector_adopt has accepted. */
typedef struct AdoptedRow
{
	char *table;
	char *row; /* of which connector, credential or role */
} AdoptedRow;

/* Has all rows written again; returns a list of AdoptedRow. */
extern List *connector_adopt(void);

/*
 * How a connector travels to the uploader: sealed secrets, no plain ones.  What
 * arrives has proved its rows, and has the STS endpoint and region filled in that S3's imply.
 */
extern void       connector_serialize(StringInfo buf, const Connector *connector);
extern Connector *connector_deserialize(StringInfo buf);

/* Fills in the STS endpoint and region that S3's imply. */
extern void connector_imply_sts(Connector *connector);

/* "s3://bucket/key" */
extern char *connector_uri(const Connector *connector, const char *key);

/* "auto", "path", "virtual"; false: none of these. */
extern bool connector_parse_addressing(const char *value, S3Addressing *addressing);

/* "auto", "signed", "unsigned"; false: none of these. */
extern bool connector_parse_payload_signing(const char *value, S3PayloadSigning *signing);

/*
 * The external ID that AWS roles for the connectors of "role" have to demand.
 * It is saved unless the transaction is read-only, and stays the same.
 */
extern char *connector_external_id(Oid role);

/* May the current user create connectors? */
extern bool connector_may_create(void);

/* How one is made: a credential_id, then keys, a role or neither, then the insert. */
extern int64 connector_new_credential_id(void);
extern void  connector_use_keys(Connector *connector, const char *access_key_id, const char *secret,
								const char *token);
extern void  connector_use_role(Connector *connector, const char *role_arn);
extern void  connector_use_ambient(Connector *connector);

/*
 * With ambient credentials a connector may do what the whole server may: raises
 * ERRCODE_INSUFFICIENT_PRIVILEGE where it signs with them itself, unless the user
 * is a superuser.
 */
extern void connector_require_ambient_privilege(const Connector *connector);

/*
 * Gives the connector the credentials of another connector, which both then share.  The
 * user has to own that connector and its credentials.
 */
extern void connector_use_credentials_of(Connector *connector, const char *name);

/* How many connectors have its credentials, itself among them. */
extern int connector_count_sharing(const Connector *connector);

/* Before connector_use_keys or connector_use_role: what is shared stays as it is. */
extern void connector_leave_shared(Connector *connector);

/*
 * Sets what every object is tagged with: NULL or a JSON object of strings.
 * Returns NULL, or a phrase that says what is right.
 */
extern const char *connector_set_tags(Connector *connector, const char *json);

/*
 * Raises ERRCODE_DUPLICATE_OBJECT when another one has its name or its place, or,
 * with either of kind "currents", a folder inside or around its own.  One that has
 * reserved its place is not in the way of others that have not, and need not give way to them.
 */
extern void connector_require_unique(const Connector *connector);

/*
 * For whoever is about to write: raises ERRCODE_DUPLICATE_OBJECT when the connector has not
 * reserved its place, and another one has reserved it since.  So of two connectors
 * that must not write to the same place only one can.
 */
extern void connector_require_place(const Connector *connector);

typedef enum ConnectorValidation
{
	CONNECTOR_VALIDATION_KEPT, /* what S3 sees has not changed */
	CONNECTOR_NOT_VALIDATED,
	CONNECTOR_VALIDATED
} ConnectorValidation;

extern void connector_insert(Connector *connector, ConnectorValidation validation);
extern void connector_update(const Connector *connector, ConnectorValidation validation);
extern void
connector_update_credentials(const Connector *connector, ConnectorValidation validation);
extern void connector_delete(const Connector *connector);

/*
 * Gives the connector to "owner", and its credentials if no other one uses them, or if
 * their owner does not exist and a superuser asks; update saves it.
 */
extern void connector_set_owner(Connector *connector, Oid owner);

/* "overwrite": also what others have exported.  A grant that is there is replaced. */
extern void connector_grant(const Connector *connector, Oid grantee, bool overwrite);
extern void connector_revoke(const Connector *connector, Oid grantee);

/* A connector that has nothing but what assumes roles; NULL: there is nothing. */
extern Connector *connector_base_identity(void);

/*
 * In the uploader, in a transaction of its own, which is empty when nothing has
 * been heard: have the keys that the connector came with been replaced?  Then
 * the new ones are in connector->credentials, palloc'd.
 */
extern bool connector_refresh_keys(Connector *connector);

/*
 * A connector of the other kind in the same bucket that the user may know of;
 * NULL: there is none.
 */
extern char *connector_of_other_kind(const Connector *connector);

/* Sets or replaces the keys that assume roles. */
extern void
connector_set_identity(const char *access_key_id, const char *secret, const char *token);

/*
 * A secret that is stored, palloc'd, where the key file is missing that it needs; NULL: none.
 * What others have committed meanwhile counts as well.
 */
extern const bytea *connector_stored_secret(void);

#endif /* CONNECTOR_H */
