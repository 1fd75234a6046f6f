/*-------------------------------------------------------------------------
 *
 * current_events.c
 *	  Events of currents: a table of the last ones, and notifications.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"

#include "currents/current_internal.h"

#define CHANNEL "s3export"

/* Of each connector, and of each of two kinds of events. */
#define EVENTS_KEPT 100

/* Of a text in an event; bytes */
#define MAX_TEXT 1000

static void
append_name(StringInfo detail, const char *name)
{
	appendStringInfoString(detail, detail->len > 0 ? ", " : "");
	escape_json(detail, name);
	appendStringInfoString(detail, ": ");
}

void
current_say_text(StringInfo detail, const char *name, const char *value)
{
	if (value == NULL)
		return;
	append_name(detail, name);
	escape_json(detail,
				pnstrdup(value, pg_mbcliplen(value, (int) strnlen(value, MAX_TEXT + 1), MAX_TEXT)));
}

void
current_say_number(StringInfo detail, const char *name, int64 value)
{
	if (value == 0)
		return;
	append_name(detail, name);
	appendStringInfo(detail, INT64_FORMAT, value);
}

/* In UTC. */
void
current_say_time(StringInfo detail, const char *name, TimestampTz value)
{
	static const int utc = 0;
	char             text[MAXDATELEN + 1];

	if (value == 0)
		return;
	current_say_text(detail, name,
					 JsonEncodeDateTime(text, TimestampTzGetDatum(value), TIMESTAMPTZOID, &utc));
}

void
current_say_lsn(StringInfo detail, const char *name, XLogRecPtr value)
{
	if (value != InvalidXLogRecPtr)
		current_say_text(detail, name, psprintf("%X/%X", LSN_FORMAT_ARGS(value)));
}

/* Every role can listen: what an error says is for those who may see the view. */
static void
notify_listeners(const Connector *connector, const char *event, CurrentState state)
{
	StringInfoData payload;

	initStringInfo(&payload);
	current_say_number(&payload, "connector_id", connector->connector_id);
	current_say_text(&payload, "event", event);
	current_say_text(&payload, "state", current_state_name(state));
	Async_Notify(CHANNEL, psprintf("{%s}", payload.data));
}

/* An event that says the same as the last one of its connector is counted there. */
static bool
repeat_last(const Connector *connector, const char *event, const char *detail, TimestampTz at)
{
	return catalog_execute("UPDATE s3export.current_event SET repeats = repeats + 1, last_at = $4"
						   " WHERE connector_id = $1 AND event_id = (SELECT max(event_id)"
						   " FROM s3export.current_event WHERE connector_id = $1)"
						   " AND event = $2 AND detail = $3::jsonb",
						   param_int8(connector->connector_id), param_text(event),
						   param_text(detail), param_timestamptz(at)) > 0;
}

/* Of what is lost for ever there are as many as of all else. */
static void
forget_old_events(const Connector *connector)
{
	(void) catalog_execute(
		"DELETE FROM s3export.current_event e USING (SELECT event_id, row_number() OVER"
		" (PARTITION BY event IN ('dropped', 'lost', 'withheld', 'gap', 'publication_replaced')"
		" ORDER BY event_id DESC) AS n"
		" FROM s3export.current_event WHERE connector_id = $1) o"
		" WHERE e.connector_id = $1 AND e.event_id = o.event_id AND o.n > $2",
		param_int8(connector->connector_id), param_int4((int32) EVENTS_KEPT));
}

void
current_record(const Connector *connector, const char *event, CurrentState state,
			   const StringInfoData *detail)
{
	TimestampTz    now = GetCurrentTimestamp();
	StringInfoData all;

	initStringInfo(&all);
	appendStringInfo(&all, "{\"state\": \"%s\"", current_state_name(state));
	if (detail != NULL && detail->len > 0)
		appendStringInfo(&all, ", %s", detail->data);
	appendStringInfoChar(&all, '}');
	if (!repeat_last(connector, event, all.data, now))
	{
		(void) catalog_execute(
			"INSERT INTO s3export.current_event (connector_id, at, last_at, event, detail)"
			" VALUES ($1, $2, $2, $3, $4::jsonb)",
			param_int8(connector->connector_id), param_timestamptz(now), param_text(event),
			param_text(all.data));
		forget_old_events(connector);
	}
	notify_listeners(connector, event, state);
}
