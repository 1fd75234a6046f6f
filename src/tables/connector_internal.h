/*-------------------------------------------------------------------------
 *
 * connector_internal.h
 *	  What the files of the connector module share.
 *
 * All of these run within a catalog scope.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONNECTOR_INTERNAL_H
#define CONNECTOR_INTERNAL_H

#include "tables/connector.h"

/* credentials become those that assume "role_arn"; "save": the external ID, too. */
extern void connector_load_role(Connector *connector, char *role_arn, bool save);

/* "new": they have no row yet. */
extern void connector_save_credentials(const Connector *connector, bool is_new);

/* Do other connectors, or the base identity, use its credentials? */
extern bool connector_credentials_shared(const Connector *connector);

/* Before a connector is saved that has a row: connector_require_unique that stays true till then. */
extern void connector_claim_place(const Connector *connector, Oid user);

/* Removes credentials that neither a connector nor the base identity uses. */
extern void connector_drop_unused_credentials(int64 credential_id);

#endif /* CONNECTOR_INTERNAL_H */
