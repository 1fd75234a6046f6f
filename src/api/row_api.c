/*-------------------------------------------------------------------------
 *
 * row_api.c
 *	  The triggers of the extension's tables, and what accepts restored rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/rel.h"

#include "api/result_row.h"
#include "base/compat.h"
#include "tables/catalog.h"
#include "tables/connector.h"
#include "tables/row_mac.h"

SQL_FUNCTION(s3export_refuse_direct_writes);
SQL_FUNCTION(s3export_authenticate_row);
SQL_FUNCTION(s3export_adopt);

static TriggerData *
trigger_data(FunctionCallInfo fcinfo, const char *function)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" can only be called as a trigger", function)));
	return (TriggerData *) fcinfo->context;
}

static HeapTuple
written_row(const TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
													  : trigger->tg_trigtuple;
}

Datum
s3export_refuse_direct_writes(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo, "refuse_direct_writes");

	if (GetUserId() != trigger->tg_relation->rd_rel->relowner && !superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for table %s",
							   RelationGetRelationName(trigger->tg_relation)),
						errhint("Use the functions of extension \"s3export\".")));
	PG_RETURN_POINTER(TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ? written_row(trigger) : NULL);
}

/* ------------------------------------------------------------------ codes */

/* Rows that do not prove themselves are taken for right while it is set. */
static bool adopting = false;

static bool
is_same(const RowProof *one, const RowProof *other)
{
	return VARSIZE(one->content) == VARSIZE(other->content) &&
		   memcmp(one->content, other->content, VARSIZE(one->content)) == 0;
}

static HeapTuple
with_mac(HeapTuple row, TupleDesc desc, bytea *mac)
{
	int   number = SPI_fnumber(desc, "mac");
	Datum value = PointerGetDatum(mac);
	bool  null = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &number, &value, &null);
}

/*
 * Gives what our own functions write its code, and leaves all else without a right one:
 * rows of a dump, and what a superuser writes by hand.  A row that was not right does not
 * become so by being changed.
 */
Datum
s3export_authenticate_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo, "authenticate_row");
	TupleDesc    desc = RelationGetDescr(trigger->tg_relation);
	const char  *table = RelationGetRelationName(trigger->tg_relation);
	HeapTuple    row = written_row(trigger);
	RowProof     proof;

	if (!catalog_is_executing())
		PG_RETURN_POINTER(row);
	row_proof_of(&proof, table, row, desc);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		RowProof old;

		row_proof_of(&old, table, trigger->tg_trigtuple, desc);
		if (adopting && row_proof_check(&old, true) == MAC_RIGHT)
			PG_RETURN_POINTER(NULL);
		if (!adopting && is_same(&old, &proof))
			PG_RETURN_POINTER(row);
		if (!adopting)
			row_require_proof(&old, true);
	}
	PG_RETURN_POINTER(with_mac(row, desc, mac_make(proof.content, connector_stored_secret())));
}

/* Those that were not right, and are now. */
static void
return_adopted(FunctionCallInfo fcinfo)
{
	List     *adopted = connector_adopt();
	ListCell *cell;

	foreach (cell, adopted)
	{
		const AdoptedRow *of = lfirst(cell);
		ResultRow         row = {0};

		result_row_add_text(&row, of->table);
		result_row_add_text(&row, of->row);
		result_row_put(fcinfo, &row);
	}
}

Datum
s3export_adopt(PG_FUNCTION_ARGS)
{
	PreventCommandDuringRecovery("s3export.adopt()");
	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be superuser to adopt rows of s3export")));
	InitMaterializedSRF(fcinfo, 0);
	adopting = true;
	PG_TRY();
	{
		return_adopted(fcinfo);
	}
	PG_FINALLY();
	{
		adopting = false;
	}
	PG_END_TRY();
	return (Datum) 0;
}
