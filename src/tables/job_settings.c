/*-------------------------------------------------------------------------
 *
 * job_settings.c
 *	  Settings that a queued job takes over from its session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/guc.h"
#include "tables/job.h"
#include "tables/job_settings.h"

#define OWN_PREFIX "s3export."

static const char *const always[] = {
	/* what the query means */
	"search_path",
	"row_security",
	"standard_conforming_strings",
	"backslash_quote",
	"array_nulls",
	"transform_null_equals",
	"xmloption",
	"default_text_search_config",
	"timezone_abbreviations",
	/* how values are written */
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"extra_float_digits",
	"bytea_output",
	"xmlbinary",
	"quote_all_identifiers",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"s3export.max_parallel_workers",
	"s3export.fast_output",
	NULL,
};

static List *
add_setting(List *settings, const char *name, const char *value)
{
	JobPair *pair = palloc(sizeof(JobPair));

	pair->name = pstrdup(name);
	pair->value = pstrdup(value);
	return lappend(settings, pair);
}

static List *
add_all(List *settings, const char *const *names)
{
	for (int i = 0; names[i] != NULL; i++)
	{
		const char *value = GetConfigOption(names[i], true, false);

		if (value != NULL)
			settings = add_setting(settings, names[i], value);
	}
	return settings;
}

/* As SET does it for the current user; PGC_S_SESSION makes every mistake an error. */
static void
set_option(const char *name, const char *value, GucContext context, bool change)
{
	(void) set_config_option_ext(name, value, context, PGC_S_SESSION, GetUserId(), GUC_ACTION_SET,
								 change, ERROR, false);
}

static const char *
named_value(const char *name)
{
	const char *value = GetConfigOption(name, true, true);

	if (value == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("unrecognized configuration parameter \"%s\" in argument \"settings\"", name),
			 errhint("A parameter of your own has to be set in this session first.")));

	/* The role, the session's user, and what ends with the transaction. */
	if ((GetConfigOptionFlags(name, false) & GUC_NO_RESET_ALL) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cannot take over configuration parameter \"%s\"", name),
						errdetail("It belongs to this session or this transaction alone.")));
	set_option(name, value, PGC_USERSET, false);
	return value;
}

List *
job_settings_collect(List *named)
{
	List     *settings = add_all(NIL, always);
	ListCell *cell;

	settings = add_all(settings, guc_session_settings);
	foreach (cell, named)
		settings = add_setting(settings, lfirst(cell), named_value(lfirst(cell)));
	return settings;
}

void
job_settings_apply(List *settings)
{
	ListCell *cell;

	foreach (cell, settings)
	{
		const JobPair *setting = lfirst(cell);

		/* What is ours was set by whoever might. */
		if (pg_strncasecmp(setting->name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0)
			set_option(setting->name, setting->value, PGC_SUSET, true);
		else
			set_option(setting->name, setting->value, PGC_USERSET, true);
	}
}
