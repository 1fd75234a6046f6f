/*-------------------------------------------------------------------------
 *
 * connector_wire.c
 *	  How a connector travels to the uploader.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/message.h"
#include "tables/connector.h"

#define MEMBER(member) MESSAGE_MEMBER(Connector, member)

static const MessageMember members[] = {
	MEMBER(connector_id),
	MEMBER(name),
	MEMBER(owner),
	MEMBER(kind),
	MEMBER(folder_path),
	MEMBER(credential_id),
	MEMBER(credential_owner),
	MEMBER(keys_version),
	MEMBER(s3.endpoint_url),
	MEMBER(s3.bucket),
	MEMBER(s3.region),
	MEMBER(s3.addressing),
	MEMBER(s3.payload_signing),
	MEMBER(s3.expected_bucket_owner),
	MEMBER(s3.server_side_encryption),
	MEMBER(s3.kms_key_id),
	MEMBER(s3.bucket_key),
	MEMBER(s3.storage_class),
	MEMBER(s3.tags),
	MEMBER(s3.acl),
	MEMBER(s3.content_type),
	MEMBER(credentials.credential_id),
	MEMBER(credentials.access_key_id),
	MEMBER(credentials.sealed),
	MEMBER(credentials.ambient),
	MEMBER(credentials.role_arn),
	MEMBER(credentials.external_id),
	MEMBER(credentials.sts_endpoint_url),
};

void
connector_serialize(StringInfo buf, const Connector *connector)
{
	message_put_struct(buf, connector, members);
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
	Connector *connector = palloc0(sizeof(Connector));

	message_get_struct(buf, connector, members);
	for (int i = 0; i < CONNECTOR_PROOFS; i++)
		row_proof_deserialize(buf, &connector->proofs[i]);
	connector_require_proof(connector, false);
	connector_imply_sts(connector);
	return connector;
}
