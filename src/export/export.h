/*-------------------------------------------------------------------------
 *
 * export.h
 *	  The leader of an export: it runs the query where it was asked for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EXPORT_H
#define EXPORT_H

#include "export/row_sender.h"
#include "uploader/uploader.h"

/*
 * Runs "source", a query or the name of a table, as the current user and in
 * the current snapshot, and has the result uploaded.  Refuses what is not one
 * SELECT, VALUES or TABLE before S3 hears of it.  "export" lacks only "stem" and
 * "description", and "format" the number of the column that it names.
 * Up to "workers" parallel workers take part where the query allows it.
 */
extern void export_run(const Connector *connector, OutputFormat *format, int workers,
					   ExportRequest *request, JobTotals *totals);

/*
 * Raises the error that export_run would raise before it starts, and one when a
 * session of its own could not run it.
 */
extern void export_check(OutputFormat *format, ExportRequest *request);

#endif /* EXPORT_H */
