/*-------------------------------------------------------------------------
 *
 * publication.h
 *	  What a publication says of a table, as the catalogs of the moment have it.
 *
 * While changes are decoded, the catalogs of the moment are those at the change's
 * place in the WAL.  So a publication that is altered takes effect there, as it
 * does for a subscriber: see pgoutput.c, get_rel_sync_entry().
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_PUBLICATION_H
#define S3EXPORT_PUBLICATION_H

#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "utils/relcache.h"

#include "currents/decoder.h"

/* Sets of operations: bits of DecodeOperation. */
#define OPERATION_BIT(operation) (1 << (operation))
#define OPERATION_BITS 4

/* How a publication publishes a table, or the partition of a table. */
typedef struct PublishedTable
{
	int        operations; /* OPERATION_BITs; 0: it does not, and the rest is not set */
	Oid        relid;      /* the table whose changes these are: the table itself or an ancestor */
	Bitmapset *columns;    /* attribute numbers in that table; NULL: all of its columns */
	bool       generated;  /* stored generated columns are among all columns */
	Node      *filter;     /* condition on rows of that table; NULL: none */
	bool       withheld;   /* the owners are not such that the changes may be sent */
} PublishedTable;

/*
 * OID of the publication: "oid" as long as there is such a publication, since it stays
 * when the name changes; then "next", which is known to have taken its place; else the OID of
 * the publication called "name".  InvalidOid: there is none.
 */
extern Oid publication_resolve(Oid oid, Oid next, const char *name);

/* The role that owns publication "oid", which exists. */
extern Oid publication_owner(Oid oid);

/*
 * Fills in how publication "oid", which exists, publishes "relation" to role "sender", which
 * must have the rights of the publication's owner, who must own the table.  InvalidOid: to a
 * role whose rights have been checked.  Allocates in the current memory context.
 */
extern void publication_describe(Oid oid, Oid sender, Relation relation, PublishedTable *published);

/*
 * The table whose changes those of relation "relid" are, as publication "oid", which exists, has
 * it: the relation itself, or an ancestor.  InvalidOid: they are not published, or there is no
 * such relation.
 */
extern Oid publication_find_table(Oid oid, Oid relid);

/*
 * Is "relid" no member of publication "oid", which exists, whatever is done to the relation,
 * but for making it a partition of one?
 */
extern bool publication_is_outsider(Oid oid, Oid relid);

/* Changes whenever the process hears that publications may have other members. */
extern uint64 publication_members(void);

/*
 * Changes whenever the process hears of a change in the catalogs that
 * publication_describe, or the names and columns of tables, may depend on.
 */
extern uint64 publication_generation(void);

#endif /* S3EXPORT_PUBLICATION_H */
