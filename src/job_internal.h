/*-------------------------------------------------------------------------
 *
 * job_internal.h
 *	  What the files of the job module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JOB_INTERNAL_H
#define JOB_INTERNAL_H

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#include "catalog.h"
#include "job.h"

/* What a short transaction changes of its surroundings. */
typedef struct JobTransaction
{
	CatalogScope  scope;
	MemoryContext context;
	ResourceOwner owner;
} JobTransaction;

/*
 * A transaction and a catalog scope.  SPI leaves its own memory context current
 * after each statement: what is to stay is made in transaction->context.
 */
extern void job_begin_transaction(JobTransaction *transaction);
extern void job_commit_transaction(JobTransaction *transaction);

/*
 * Which server, of all that may have a copy of a row, this is: system_identifier,
 * data_directory, database and timeline; "iton".  A copy that was promoted has a
 * timeline of its own.
 */
#define JOB_THIS_SERVER \
	GetSystemIdentifier(), DataDir, MyDatabaseId, (int32) GetWALInsertionTimeLine()

#endif /* JOB_INTERNAL_H */
