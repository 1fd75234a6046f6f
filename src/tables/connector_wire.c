/*-------------------------------------------------------------------------
 *
 * connector_wire.c
 *	  How a connector travels to the uploader.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"

#include "base/compat.h"
#include "tables/connector.h"

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
	pq_sendint64(buf, connector->keys_version);

	put_string(buf, s3->endpoint_url);
	put_string(buf, s3->bucket);
	put_string(buf, s3->region);
	pq_sendint32(buf, (uint32) s3->addressing);
	pq_sendint32(buf, (uint32) s3->payload_signing);
	put_string(buf, s3->expected_bucket_owner);
	put_string(buf, s3->server_side_encryption);
	put_string(buf, s3->kms_key_id);
	put_string(buf, s3->bucket_key);
	put_string(buf, s3->storage_class);
	put_string(buf, s3->tags);
	put_string(buf, s3->acl);
	put_string(buf, s3->content_type);

	pq_sendint64(buf, credentials->credential_id);
	put_string(buf, credentials->access_key_id);
	put_bytea(buf, credentials->sealed);
	pq_sendbyte(buf, credentials->ambient);
	put_string(buf, credentials->role_arn);
	put_string(buf, credentials->external_id);
	put_string(buf, credentials->sts_endpoint_url);
	for (int i = 0; i < CONNECTOR_PROOFS; i++)
		row_proof_serialize(buf, &connector->proofs[i]);
}

/* A store that is not AWS's answers for STS at the same address. */
void
connector_imply_sts(Connector *connector)
{
	CredentialConfig *credentials = &connector->credentials;

	if (credentials->sts_endpoint_url == NULL)
		credentials->sts_endpoint_url = connector->s3.endpoint_url;
	credentials->region = connector->s3.region;
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
	connector->keys_version = pq_getmsgint64(buf);

	s3->endpoint_url = get_string(buf);
	s3->bucket = get_string(buf);
	s3->region = get_string(buf);
	s3->addressing = (S3Addressing) pq_getmsgint(buf, 4);
	s3->payload_signing = (S3PayloadSigning) pq_getmsgint(buf, 4);
	s3->expected_bucket_owner = get_string(buf);
	s3->server_side_encryption = get_string(buf);
	s3->kms_key_id = get_string(buf);
	s3->bucket_key = get_string(buf);
	s3->storage_class = get_string(buf);
	s3->tags = get_string(buf);
	s3->acl = get_string(buf);
	s3->content_type = get_string(buf);

	credentials->credential_id = pq_getmsgint64(buf);
	credentials->access_key_id = get_string(buf);
	credentials->sealed = get_bytea(buf);
	credentials->ambient = pq_getmsgbyte(buf) != 0;
	credentials->role_arn = get_string(buf);
	credentials->external_id = get_string(buf);
	credentials->sts_endpoint_url = get_string(buf);
	for (int i = 0; i < CONNECTOR_PROOFS; i++)
		row_proof_deserialize(buf, &connector->proofs[i]);
	connector_require_proof(connector, false);
	connector_imply_sts(connector);
	return connector;
}
