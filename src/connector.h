/*-------------------------------------------------------------------------
 *
 * connector.h
 *	  Connectors, their credentials and grants.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONNECTOR_H
#define CONNECTOR_H

#include "s3.h"

typedef struct Connector
{
	int64		connector_id;	/* 0: not saved */
	char	   *name;
	Oid			owner;
	char	   *kind;			/* "data_export" or "currents" */
	char	   *folder_path;	/* normalised; "": the bucket's root */
	S3Config	s3;
	CredentialConfig credentials;
} Connector;

typedef enum ConnectorAccess
{
	CONNECTOR_USAGE,			/* the owner, its members, grantees, superusers */
	CONNECTOR_OWNER				/* the owner, its members, superusers */
} ConnectorAccess;

/*
 * Raises ERRCODE_UNDEFINED_OBJECT when there is none, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE when the current user may not.
 */
extern Connector *connector_load(const char *name, ConnectorAccess access);

/* Raises an error when the connector's secret, or its base identity, is missing. */
extern void connector_require_credentials(const Connector *connector);

/* How a connector travels to the uploader: sealed secrets, no plain ones. */
extern void connector_serialize(StringInfo buf, const Connector *connector);
extern Connector *connector_deserialize(StringInfo buf);

/* "s3://bucket/key" */
extern char *connector_uri(const Connector *connector, const char *key);

#endif /* CONNECTOR_H */
