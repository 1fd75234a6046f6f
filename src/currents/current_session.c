/*-------------------------------------------------------------------------
 *
 * current_session.c
 *	  What users do to currents, in their own transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_publication.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/object_path.h"
#include "currents/current_internal.h"
#include "tables/advisory_lock.h"

/* What is so when a connector says nothing about it. */
#define DEFAULT_EVENTS_PER_FILE 15000
#define DEFAULT_DROP_AFTER (INT64CONST(48) * 60 * 60 * 1000)

/* The last transaction that changed a row which workers write, too. */
static TransactionId changed_by = InvalidTransactionId;

static void
note_change(void)
{
	changed_by = GetTopTransactionId();
}

bool
current_is_locked_here(void)
{
	return TransactionIdIsValid(changed_by) && changed_by == GetTopTransactionIdIfAny();
}

/* ---- settings ---- */

#define INTERVAL_OF_MS(ms) "CASE WHEN " ms " >= 0 THEN make_interval(secs => " ms " / 1000.0) END"

/* Of a publication that is there: may the connector's owner send it, and can it be sent? */
static void
require_named_publication(Connector *connector, const char *name)
{
	Current current = {.connector = connector, .publication = unconstify(char *, name)};

	(void) get_publication_oid(name, false);
	current_require_changes(&current);
}

void
current_insert(Connector *connector, const CurrentSettings *settings)
{
	const char  *publication = settings->publication;
	CatalogScope scope;

	note_change();
	if (publication != NULL)
		require_named_publication(connector, publication);
	else
		publication = current_make_publication(connector, settings);
	catalog_enter(&scope);
	(void) catalog_execute(
		"INSERT INTO s3export.current (connector_id, publication, owns_publication, compression,"
		" max_events_per_file, drop_after, feed, origin, header, null_string, force_quote,"
		" heartbeat) VALUES ($1, $2, $3, $4, $5, " INTERVAL_OF_MS(
			"$6") ","
				  " coalesce($7, format('s3export.%s.%s', $13, $1)), coalesce($8, 'any'), $9,"
				  " coalesce($10, ''), $11, " INTERVAL_OF_MS("$12") ")",
		param_int8(connector->connector_id), param_text(publication),
		param_bool(settings->publication == NULL),
		param_text(settings->compression ? settings->compression : compress_name(COMPRESS_NONE)),
		param_int4(settings->events_per_file != 0 ? settings->events_per_file
												  : DEFAULT_EVENTS_PER_FILE),
		param_int8(settings->set_drop_after ? settings->drop_after : DEFAULT_DROP_AFTER),
		param_text(settings->feed), param_text(settings->origin),
		param_bool(!settings->set_header || settings->header), param_text(settings->null_print),
		param_bool(settings->force_quote),
		param_int8(settings->set_heartbeat ? settings->heartbeat : -1),
		param_text(object_path_encode(get_database_name(MyDatabaseId))));
	catalog_leave(&scope);
}

/*
 * Within a scope: reads the row after whoever is changing it has ended.  It may have
 * lost its slot without having noticed yet.
 */
static Current *
lock_row(Connector *connector, MemoryContext context)
{
	Current *current = MemoryContextAllocZero(context, sizeof(Current));

	note_change();
	(void) catalog_execute("SELECT FROM s3export.current WHERE connector_id = $1 FOR UPDATE",
						   param_int8(connector->connector_id));
	(void) catalog_execute("SELECT FROM s3export.current_state WHERE connector_id = $1 FOR UPDATE",
						   param_int8(connector->connector_id));
	current->connector = connector;
	if (!current_read(current, context))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("connector \"%s\" does not exist", connector->name)));
	if ((current->state == CURRENT_RUNNING || current->state == CURRENT_SUSPENDED ||
		 current->state == CURRENT_PAUSED) &&
		current_find_slot(connector->connector_id) != CURRENT_SLOT_USABLE)
		current->state = CURRENT_LOST;
	return current;
}

static Current *
lock_current(Connector *connector)
{
	MemoryContext context = CurrentMemoryContext;
	CatalogScope  scope;
	Current      *current;

	catalog_enter(&scope);
	current = lock_row(connector, context);
	catalog_leave(&scope);
	return current;
}

/* Until the transaction ends, so that no delivery uses the slot when it goes, and no launch begins. */
static void
exclude_deliveries(const Connector *connector)
{
	if (!advisory_lock_current(connector->connector_id))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("connector \"%s\" is being delivered or launched", connector->name),
						errhint("Try again when that has ended, or cancel it.")));
}

/* What was decoded with one publication cannot be told from what is decoded with another. */
static void
replace_publication(const Current *current, const char *name)
{
	CatalogScope scope;

	if (strcmp(name, current->publication) == 0)
		return;
	if (current->state != CURRENT_CREATED && current->state != CURRENT_STOPPED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give connector \"%s\" another publication while it is launched",
						current->connector->name),
				 errhint("Change what the publication has with ALTER PUBLICATION, or stop the "
						 "connector with s3export.stop() first.")));
	exclude_deliveries(current->connector);
	require_named_publication(current->connector, name);
	if (current->owns_publication)
		ereport(NOTICE, (errmsg("publication \"%s\" of connector \"%s\" is dropped",
								current->publication, current->connector->name)));
	current_drop_publication(current);
	catalog_enter(&scope);
	(void) catalog_execute("UPDATE s3export.current SET publication = $2, owns_publication = false"
						   " WHERE connector_id = $1",
						   param_int8(current->connector->connector_id), param_text(name));
	catalog_leave(&scope);
}

/* Readers of the new place know nothing of the columns, and no batch is before theirs. */
void
current_move(Connector *connector)
{
	CatalogScope scope;
	bool         interrupted;

	note_change();
	exclude_deliveries(connector);
	catalog_enter(&scope);
	interrupted = catalog_execute("SELECT FROM s3export.current_batch WHERE connector_id = $1",
								  param_int8(connector->connector_id)) > 0;
	(void) catalog_execute("UPDATE s3export.current_table SET columns = NULL"
						   " WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	(void) catalog_execute("UPDATE s3export.current_state SET last_batch = NULL"
						   " WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	catalog_leave(&scope);
	if (interrupted)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot give connector \"%s\" another place while a batch is unfinished",
					connector->name),
			 errdetail("Some of its files may be in the place that the connector has."),
			 errhint("Run s3export.deliver() first.  Where that cannot succeed any more, stop the "
					 "connector with s3export.stop(), and launch it again afterwards.")));
}

static void
rename_feed(Connector *connector, const char *feed)
{
	CatalogScope scope;

	current_move(connector);
	catalog_enter(&scope);
	(void) catalog_execute("UPDATE s3export.current SET feed = $2 WHERE connector_id = $1",
						   param_int8(connector->connector_id), param_text(feed));
	catalog_leave(&scope);
}

void
current_update(Connector *connector, const CurrentSettings *settings, bool new_owner)
{
	const Current *current = lock_current(connector);
	CatalogScope   scope;

	if (new_owner)
		current_change_owner(current);
	if (settings->publication != NULL)
		replace_publication(current, settings->publication);
	else if (settings->set_tables || settings->operations != 0)
		current_alter_publication(current, settings);
	catalog_enter(&scope);
	(void) catalog_execute(
		"UPDATE s3export.current SET compression = coalesce($2, compression),"
		" max_events_per_file = coalesce(nullif($3, 0), max_events_per_file),"
		" drop_after = CASE WHEN $4 THEN " INTERVAL_OF_MS(
			"$5") " ELSE drop_after END,"
				  " origin = coalesce($6, origin), header = CASE WHEN $7 THEN $8 ELSE header END,"
				  " null_string = coalesce($9, null_string),"
				  " force_quote = CASE WHEN $10 THEN $11 ELSE force_quote END,"
				  " heartbeat = CASE WHEN $12 THEN " INTERVAL_OF_MS(
					  "$13") " ELSE heartbeat END"
							 " WHERE connector_id = $1",
		param_int8(connector->connector_id), param_text(settings->compression),
		param_int4(settings->events_per_file), param_bool(settings->set_drop_after),
		param_int8(settings->drop_after), param_text(settings->origin),
		param_bool(settings->set_header), param_bool(settings->header),
		param_text(settings->null_print), param_bool(settings->set_force_quote),
		param_bool(settings->force_quote), param_bool(settings->set_heartbeat),
		param_int8(settings->heartbeat));
	catalog_leave(&scope);
	if (settings->feed != NULL && strcmp(settings->feed, current->feed) != 0)
		rename_feed(connector, settings->feed);
}

void
current_delete(Connector *connector)
{
	int64          id = connector->connector_id;
	const Current *current = current_get(connector, true);
	CatalogScope   scope;

	note_change();
	exclude_deliveries(connector);
	if (current != NULL)
		current_drop_publication(current);
	catalog_enter(&scope);
	(void) catalog_execute("DELETE FROM s3export.current_event WHERE connector_id = $1",
						   param_int8(id));
	(void) catalog_execute("DELETE FROM s3export.current_batch WHERE connector_id = $1",
						   param_int8(id));
	(void) catalog_execute("DELETE FROM s3export.current_gap WHERE connector_id = $1",
						   param_int8(id));
	(void) catalog_execute("DELETE FROM s3export.current_table WHERE connector_id = $1",
						   param_int8(id));
	(void) catalog_execute("DELETE FROM s3export.current_state WHERE connector_id = $1",
						   param_int8(id));
	(void) catalog_execute("DELETE FROM s3export.current WHERE connector_id = $1", param_int8(id));
	catalog_leave(&scope);
	current_drop_slot_at_commit(id);
}

void
current_require_not_launched(const Current *current)
{
	if (current->state != CURRENT_RUNNING && current->state != CURRENT_PAUSED &&
		current->state != CURRENT_SUSPENDED)
		return;
	if (current_find_slot(current->connector->connector_id) == CURRENT_SLOT_USABLE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("connector \"%s\" is already launched", current->connector->name),
				 current->state == CURRENT_PAUSED ? errhint("Continue it with s3export.resume().")
												  : 0));
}

/* ---- states ---- */

COMPAT_NORETURN static void
refuse_state(const Current *current, const char *what)
{
	const char *hint = NULL;

	if ((current->state == CURRENT_CREATED || current->state == CURRENT_STOPPED) &&
		strcmp(what, "stop") != 0)
		hint = "Launch it with s3export.launch().";
	else if (current->state == CURRENT_LOST || current->state == CURRENT_LAUNCHING ||
			 current->state == CURRENT_ELSEWHERE)
		hint = CURRENT_LAUNCH_AGAIN;
	else if (current->state == CURRENT_ORPHANED)
		hint = "Give the connector an owner with s3export.alter_connector(owner => ...).";
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot %s connector \"%s\"", what, current->connector->name),
					current->state == CURRENT_CREATED
						? errdetail("It has not been launched.")
						: errdetail("It is %s.", current_state_name(current->state)),
					hint ? errhint("%s", hint) : 0));
}

void
current_pause(Connector *connector)
{
	const Current *current = lock_current(connector);
	CatalogScope   scope;

	if (current->state != CURRENT_RUNNING && current->state != CURRENT_SUSPENDED)
		refuse_state(current, "pause");
	catalog_enter(&scope);
	(void) catalog_execute(
		"UPDATE s3export.current_state SET state = 'paused'," CURRENT_FORGET_FAILURES
		"WHERE connector_id = $1",
		param_int8(connector->connector_id));
	current_record(connector, "paused", CURRENT_PAUSED, NULL);
	catalog_leave(&scope);
}

void
current_resume(Connector *connector)
{
	const Current *current = lock_current(connector);
	CatalogScope   scope;

	if (current->state != CURRENT_PAUSED && current->state != CURRENT_SUSPENDED)
		refuse_state(current, "resume");
	catalog_enter(&scope);
	if (current->state == CURRENT_SUSPENDED)
		(void) catalog_execute("UPDATE s3export.current_state SET next_try_at = NULL"
							   " WHERE connector_id = $1",
							   param_int8(connector->connector_id));
	else
	{
		(void) catalog_execute(
			"UPDATE s3export.current_state SET state = 'running'," CURRENT_FORGET_FAILURES
			"WHERE connector_id = $1",
			param_int8(connector->connector_id));
		current_record(connector, "resumed", CURRENT_RUNNING, NULL);
	}
	catalog_leave(&scope);
}

void
current_stop(Connector *connector)
{
	const Current *current = lock_current(connector);
	CatalogScope   scope;

	if (current->state == CURRENT_CREATED || current->state == CURRENT_STOPPED)
		refuse_state(current, "stop");
	exclude_deliveries(connector);
	catalog_enter(&scope);
	(void) catalog_execute("UPDATE s3export.current_state SET state = 'stopped', slot_name = NULL,"
						   " delivered_lsn = NULL, caught_up_at = NULL," CURRENT_FORGET_FAILURES
						   "WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	(void) catalog_execute("DELETE FROM s3export.current_batch WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	current_record(connector, "stopped", CURRENT_STOPPED, NULL);
	catalog_leave(&scope);
	current_drop_slot_at_commit(connector->connector_id);
}

/*
 * Only the connector that was tested is known to be right: others that share its
 * credentials may be of another bucket, or have other rights.
 */
void
current_wake(const Connector *connector, bool validated)
{
	CatalogScope scope;

	catalog_enter(&scope);
	if (validated &&
		catalog_execute(
			"UPDATE s3export.current_state SET state = 'running'," CURRENT_FORGET_FAILURES
			"WHERE connector_id = $1 AND state = 'suspended'",
			param_int8(connector->connector_id)) > 0)
	{
		note_change();
		current_record(connector, "recovered", CURRENT_RUNNING, NULL);
	}
	if (catalog_execute("UPDATE s3export.current_state u SET next_try_at = NULL"
						" FROM s3export.connector c WHERE c.connector_id = u.connector_id"
						" AND c.credential_id = $1 AND u.state = 'suspended'",
						param_int8(connector->credential_id)) > 0)
		note_change();
	catalog_leave(&scope);
}

void
current_wake_roles(void)
{
	CatalogScope scope;

	catalog_enter(&scope);
	if (catalog_execute(
			"UPDATE s3export.current_state u SET next_try_at = NULL"
			" FROM s3export.connector c JOIN s3export.credential k USING (credential_id)"
			" WHERE c.connector_id = u.connector_id AND k.role_arn IS NOT NULL"
			" AND u.state = 'suspended'") > 0)
		note_change();
	catalog_leave(&scope);
}

/* ---- what deliver() meets ---- */

/* A suspended current is due for its clock's sake, too. */
#define IS_DUE                                                                             \
	"(u.state IS NULL OR u.state NOT IN ('running', 'suspended') OR u.next_try_at IS NULL" \
	" OR u.next_try_at <= $2 OR u.suspended_at + s.drop_after <= $2"                       \
	" OR u.warned < 50 AND u.suspended_at + 0.5 * s.drop_after <= $2"                      \
	" OR u.warned < 90 AND u.suspended_at + 0.9 * s.drop_after <= $2)"

List *
current_list(void)
{
	MemoryContext context = CurrentMemoryContext;
	List         *list = NIL;
	CatalogScope  scope;
	uint64        rows;

	catalog_enter(&scope);
	rows = catalog_execute_latest(
		"SELECT c.connector_id, c.name, " IS_DUE " AS due, u.state, u.error_message"
		" FROM s3export.connector c JOIN s3export.current s USING (connector_id)"
		" LEFT JOIN s3export.current_state u USING (connector_id)"
		" WHERE pg_has_role($1, c.owner, 'USAGE')"
		" ORDER BY coalesce(u.failures, 0) > 0, c.name",
		param_oid(scope.userid), param_timestamptz(GetCurrentTimestamp()));
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		CurrentDue   *due = palloc(sizeof(CurrentDue));

		*due = (CurrentDue){.connector_id = catalog_int64(i, "connector_id", NULL),
							.name = catalog_text(i, "name"),
							.due = catalog_int64(i, "due", NULL) != 0,
							.state = catalog_text(i, "state"),
							.message = catalog_text(i, "error_message")};
		list = lappend(list, due);
		MemoryContextSwitchTo(old);
	}
	catalog_leave(&scope);
	return list;
}
