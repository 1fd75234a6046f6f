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

#include "current_internal.h"

#define CHANNEL "s3export"

/* Of each connector. */
#define EVENTS_KEPT 100

/* Bytes, which JSON may make six times as many; a notification has less than 8000. */
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

static void
notify(const Connector *connector, const char *event, TimestampTz at, const char *detail)
{
	StringInfoData payload;

	initStringInfo(&payload);
	current_say_text(&payload, "connector", connector->name);
	current_say_number(&payload, "connector_id", connector->connector_id);
	current_say_text(&payload, "event", event);
	current_say_time(&payload, "at", at);
	Async_Notify(CHANNEL, psprintf("{%s, %s}", payload.data, detail));
}

void
current_record(const Connector *connector, const char *event, CurrentState state,
			   const StringInfoData *detail)
{
	TimestampTz    now = GetCurrentTimestamp();
	StringInfoData all;

	initStringInfo(&all);
	current_say_text(&all, "state", current_state_name(state));
	if (detail != NULL && detail->len > 0)
		appendStringInfo(&all, ", %s", detail->data);
	(void) catalog_execute("INSERT INTO s3export.current_event (connector_id, at, event, detail)"
						   " VALUES ($1, $2, $3, ('{' || $4 || '}')::jsonb)",
						   "iztt", connector->connector_id, now, event, all.data);
	(void) catalog_execute("DELETE FROM s3export.current_event WHERE connector_id = $1"
						   " AND event_id <= (SELECT event_id FROM s3export.current_event"
						   " WHERE connector_id = $1 ORDER BY event_id DESC OFFSET $2 LIMIT 1)",
						   "in", connector->connector_id, (int32) EVENTS_KEPT);
	notify(connector, event, now, all.data);
}
