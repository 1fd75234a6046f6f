# Whose objects stand in for whose, who sees whose jobs, and whose rows are
# exported: look-alikes of all that PostgreSQL has first on the search_path,
# default privileges, row security, and other users' exports.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = currents_node('main', q(s3export.retry_timeout = '0'), q(s3export.part_size = '5MB'));
my %keys = scripted_user($s3);
my $role = scripted_role($s3, 'exporter');
my $url = sql_literal($s3->url);

sub sql
{
	my ($statement, $user) = @_;

	return $node->safe_psql('postgres', $statement, extra_params => [ '-U', $user // getpwuid($>) ]);
}

sub sqlstate
{
	my ($statement, $user) = @_;

	return sql_error($node, $statement, defined $user ? (user => $user) : ())->{sqlstate} // 'none';
}

# ---- look-alikes on the search_path
# All functions, operators and types of pg_catalog that can be made again, and
# relations with the names of the extension's and the server's.  Each tells when it is
# called.
$node->safe_psql('postgres', 'CREATE DATABASE trapped');
$node->safe_psql('trapped', <<'SQL');
CREATE EXTENSION s3export;
CREATE SCHEMA evil;
CREATE TABLE public.rows (a int, b int);
INSERT INTO public.rows VALUES (1, 1), (2, 2);
CREATE TABLE public.more (a int, b text);
CREATE TABLE public.joins (a int, b text);
CREATE FUNCTION evil.spring(what text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'trapped: %', what;
	RETURN true;
END $$;
DO $do$
DECLARE
	r record;
	made int := 0;
BEGIN
	FOR r IN
		SELECT p.oid, proname, oidvectortypes(proargtypes) AS args, format_type(prorettype, NULL) AS result, proretset
		  FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT EXISTS (
			SELECT FROM pg_type t WHERE typtype = 'p' AND (t.oid = prorettype AND typname <> 'void' OR t.oid = ANY (proargtypes)))
	LOOP
		EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L', r.proname, r.args,
			CASE WHEN r.proretset THEN 'SETOF' ELSE '' END, r.result,
			format('BEGIN PERFORM evil.spring(%L); %s; END', r.proname,
				CASE WHEN r.proretset OR r.result = 'void' THEN 'RETURN' ELSE 'RETURN NULL' END));
		made := made + 1;
	END LOOP;
	FOR r IN
		SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, p.proname
		  FROM pg_operator o JOIN pg_proc p ON p.oid = oprcode
		 WHERE oprnamespace = 'pg_catalog'::regnamespace AND to_regprocedure(format('evil.%I(%s)', p.proname, oidvectortypes(p.proargtypes))) IS NOT NULL
	LOOP
		EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.%I, %s RIGHTARG = %s)', r.oprname, r.proname,
			CASE WHEN r.l = 0 THEN '' ELSE format('LEFTARG = %s,', r.l) END, r.r);
		made := made + 1;
	END LOOP;
	FOR r IN
		SELECT typname, oid::regtype AS type FROM pg_type
		 WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typelem = 0 AND typname !~ '^_'
	LOOP
		EXECUTE format('CREATE DOMAIN evil.%I AS %s CHECK (evil.spring(%L))', r.typname, r.type, 'type ' || r.typname);
		made := made + 1;
	END LOOP;
	FOR r IN
		SELECT DISTINCT relname FROM pg_class WHERE relnamespace IN ('pg_catalog'::regnamespace, 's3export'::regnamespace) AND relkind IN ('r', 'v', 'S')
	LOOP
		EXECUTE format('CREATE VIEW evil.%I AS SELECT evil.spring(%L)', r.relname, 'relation ' || r.relname);
		made := made + 1;
	END LOOP;
	RAISE NOTICE 'made %', made;
END $do$;
SQL
# Also for the workers of the extension, which connect to the database too.
$node->safe_psql('postgres', 'ALTER DATABASE trapped SET search_path = evil, s3export, public, pg_catalog');
cmp_ok($node->safe_psql('trapped', q(SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'evil'::pg_catalog.regnamespace)),
	'>', 2000, 'there are look-alikes');
like(($node->psql('trapped', 'SELECT now()'))[2], qr/trapped: now/, 'which are called');
like(($node->psql('trapped', 'SELECT 1 = 1'))[2], qr/trapped: int4eq/, 'as operators too');
like(($node->psql('trapped', q(SELECT '{}'::jsonb)))[2], qr/trapped: type jsonb/, 'and as types');

my %arguments = (%keys, bucket => 'exports', region => 'us-east-1', endpoint_url => $s3->url);
my $make = connector_sql('victim', %arguments, folder_path => 'victim');
my %calls = (
	create_connector => [ 'SELECT ' . connector_sql('second', %arguments, folder_path => 'second', tags => '{"a": "b"}'),
		'SELECT ' . connector_sql('third', bucket => 'exports', region => 'us-east-1', endpoint_url => $s3->url, sts_endpoint_url => $s3->url, folder_path => 'third', role_arn => $role),
		'SELECT ' . connector_sql('flow', %arguments, folder_path => 'flow', kind => 'currents', tables => '{public.rows}', operations => '{insert,truncate}', drop_after => '1 day') ],
	set_identity => "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}')",
	identity => "SELECT s3export.identity(sts_endpoint_url => $url)",
	trust_policy => "SELECT s3export.trust_policy(sts_endpoint_url => $url)",
	iam_policy => q(SELECT s3export.iam_policy('exports', tags => '{"a": "b"}', folder_path => 'x')),
	test_credentials => [ q(SELECT s3export.test_credentials('victim')), q(SELECT s3export.test_credentials('third')) ],
	alter_connector => [ q(SELECT s3export.alter_connector('victim', folder_path => 'moved', tags => '{"c": "d"}')), q(SELECT s3export.alter_connector('victim', owner => 'mallory', validate => false)),
		q(SELECT s3export.alter_connector('flow', tables => '{public.rows,public.more}', max_events_per_file => 2)) ],
	set_credentials => "SELECT s3export.set_credentials('victim', '$keys{access_key_id}', '$keys{secret_access_key}')",
	grant_usage => q(SELECT s3export.grant_usage('victim', 'mallory')),
	revoke_usage => q(SELECT s3export.revoke_usage('victim', 'mallory')),
	copy_to => [ q(SELECT s3export.copy_to('victim', 'rows', 'table.csv')), q(SELECT s3export.copy_to('victim', 'SELECT a FROM rows', 'query.csv', force_quote => ARRAY['a'], tags => '{"e": "f"}')),
		q(SELECT s3export.copy_to('third', 'VALUES (1)', 'role.csv')), q(SELECT s3export.copy_to('second', 'VALUES (1)')),
		q(SELECT s3export.copy_to('second', 'rows', 'parts/{connector}.csv', header => true, partition_by => 'a', manifest => true)),
		q(SELECT s3export.copy_to('second', 'SELECT a FROM rows', 'queued.csv', wait => false, settings => ARRAY['search_path'])) ],
	header_mode => q(SELECT s3export.header_mode(true)),
	wait => q(SELECT s3export.wait(pg_catalog.max(job_id)) FROM s3export.jobs),
	cancel => q(SELECT s3export.cancel(pg_catalog.max(job_id)) FROM s3export.jobs),
	job_progress => q(SELECT s3export.job_progress(1, 1)),
	recover => q(SELECT s3export.recover()),
	launch => [ q(SELECT s3export.launch('flow', copy_existing => true)), q(INSERT INTO public.rows VALUES (3, 3)) ],
	deliver => [ q(SELECT s3export.deliver('flow')), q(SELECT s3export.deliver()) ],
	pause => q(SELECT s3export.pause('flow')),
	resume => q(SELECT s3export.resume('flow')),
	add_table => q(SELECT s3export.add_table('flow', 'public.joins')), stop => q(SELECT s3export.stop('flow')),
	refuse_drop_extension => q(DO $$ BEGIN DROP EXTENSION s3export; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$),
	ambient_credentials_allowed => q(SELECT s3export.ambient_credentials_allowed()),
	version => q(SELECT s3export.version()),
	drop_connector => [ q(SELECT s3export.drop_connector('victim')), q(SELECT s3export.drop_connector('third')), q(SELECT s3export.drop_connector('flow')) ],
	role_in => q(SELECT s3export.role_in('mallory')), role_out => q(SELECT s3export.role_out('mallory')),
	role_recv => q(SELECT s3export.role_recv(NULL)), role_send => q(SELECT s3export.role_send('mallory')),
	skip_unknown_role => q(INSERT INTO s3export.connector_grant VALUES (1, '-')),
	authenticate_row => q(UPDATE s3export.connector SET folder_path = folder_path), adopt => q(SELECT s3export.adopt()),
	refuse_direct_writes => q(DELETE FROM s3export.connector_grant));
my @order = (qw(create_connector set_identity identity trust_policy iam_policy test_credentials alter_connector set_credentials grant_usage revoke_usage copy_to
	  header_mode wait cancel job_progress recover launch deliver pause resume add_table refuse_drop_extension stop ambient_credentials_allowed version
	  role_in role_out role_send skip_unknown_role authenticate_row adopt refuse_direct_writes drop_connector));

# A new function has to be put into the list above, if SQL can call it.
is_deeply([ sort @order ], [ split /\n/, sql(q(SELECT DISTINCT proname COLLATE "C" FROM pg_proc WHERE pronamespace = 's3export'::regnamespace AND 'internal'::regtype <> ALL (proargtypes) ORDER BY 1)) ], 'all functions are listed');
$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
foreach my $schemas ('evil, s3export, public, pg_catalog', 'pg_temp, evil, s3export, public, pg_catalog')
{
	my $before = join '', "SET search_path = $schemas; SET client_min_messages = warning;\n",
	  map { "CREATE TEMP TABLE $_ AS SELECT evil.spring('pg_temp.$_') WHERE false;\n" } qw(connector credential secret connector_grant base_identity external_id installation job job_file jobs connectors current current_table current_batch current_gap current_event currents);

	$node->safe_psql('trapped', $calls{set_identity});
	$node->safe_psql('trapped', "SELECT $make");
	foreach my $function (@order)
	{
		foreach my $call (ref $calls{$function} ? @{ $calls{$function} } : $calls{$function})
		{
			my ($status, undef, $err) = $node->psql('trapped', "$before$call;");

			is(join("\n", $status, $err =~ /trapped: .*/g), '0', "$schemas: $function calls nothing of another's") or diag "$call: $err";
		}
	}
	foreach my $view ('connectors', 'connector_grants', 'shared_credentials', 'jobs', 'job_files', 'progress', 'currents', 'current_events')
	{
		my ($status, undef, $err) = $node->psql('trapped', "$before TABLE s3export.$view");

		is(join("\n", $status, $err =~ /trapped: .*/g), '0', "$schemas: nor does the view $view");
	}
	is(join(' ', sort map { m{^flow/s3export\.trapped\.\d+/_table=([^/]+)/} } $s3->keys_of('exports')), 'public.joins public.more public.rows public.rows',
		"$schemas: rows that were copied, and a change, have been sent, and that two tables are empty");
	$node->safe_psql('trapped', q(SELECT s3export.drop_connector('second')));
	$s3->call('delete_object', bucket => 'exports', key => $_) foreach $s3->keys_of('exports');
}
unlike(slurp_file($node->logfile) =~ s/^.*trapped: (?:now|int4eq|type jsonb)$//mgr =~ s/^.*DEBUG.*$//mgr, qr/WARNING:  trapped/, 'nor do their workers');
# CREATE and DROP EXTENSION under such a path.
{
	my ($status, undef, $err) = $node->psql('trapped', 'DROP EXTENSION s3export; CREATE EXTENSION s3export');

	is("$status$err", '0', 'CREATE EXTENSION calls nothing of another\'s');
}
# Who owns the database may make the schema first: it is not taken over.
$node->safe_psql('postgres', 'CREATE DATABASE squatted OWNER mallory');
$node->safe_psql('squatted', 'SET ROLE mallory; CREATE SCHEMA s3export; CREATE TABLE s3export.connector (name text)');
error_like($node, 'CREATE EXTENSION s3export', { sqlstate => '42P06' }, 'a schema of that name is not taken over', dbname => 'squatted');

# ---- default privileges
# Who, but the owner, may do what with the schema and with all that is in it.
my $privileges = q(SELECT kind, object, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, is_grantable
	FROM (SELECT 'schema', nspname::text, coalesce(nspacl, acldefault('n', nspowner)), nspowner FROM pg_namespace WHERE nspname = 's3export'
		UNION ALL SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname::text,
			coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)), relowner
			FROM pg_class WHERE relnamespace = 's3export'::regnamespace AND relkind IN ('r', 'v', 'S')
		UNION ALL SELECT 'function', oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), proowner FROM pg_proc WHERE pronamespace = 's3export'::regnamespace
		UNION ALL SELECT 'type', typname::text, coalesce(typacl, acldefault('T', typowner)), typowner FROM pg_type WHERE typnamespace = 's3export'::regnamespace AND typcategory <> 'A' AND typtype <> 'c'
		) o (kind, object, acl, owner), aclexplode(acl) WHERE grantee <> owner ORDER BY 1, object COLLATE "C", 3, 4);
my $by_script = sql($privileges);
is(join("\n", grep { !/^(?:function|type)\|/ } split /\n/, $by_script), join("\n", 'schema|s3export|PUBLIC|USAGE|f',
		map { "table|$_|PUBLIC|SELECT|f" } qw(connector_grants connectors current_events currents job_files jobs progress shared_credentials)), 'the schema may be used, and the views be read, by everybody');
is(join(' ', grep { !/^(?:function|type)\|.*\|PUBLIC\|(?:EXECUTE|USAGE)\|f$/ } grep { /^(?:function|type)/ } split /\n/, $by_script), '', 'functions and types are for everybody, and nobody besides');
is(scalar(grep { /^function\|s3export\.(?:create_connector|set_identity|refuse_direct_writes|skip_unknown_role)\(/ } split /\n/, $by_script), 0, 'but for those that the script keeps');
$node->safe_psql('postgres', 'CREATE DATABASE generous; CREATE DATABASE hardened; CREATE ROLE "Odd ""role"');
$node->safe_psql('generous', join(';', (map { ("ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO mallory, \"Odd \"\"role\" WITH GRANT OPTION", "ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO PUBLIC") }
		qw(SCHEMAS TABLES SEQUENCES FUNCTIONS TYPES)), 'CREATE EXTENSION s3export'));
is($node->safe_psql('generous', $privileges), $by_script, 'default privileges give nothing, on schemas, tables, sequences, functions and types');
# Whoever could make a function here would be called in place of ours.
error_like($node, q(CREATE FUNCTION s3export.cancel(job_id integer) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'trapped as %', current_user; RETURN true; END$$),
	{ sqlstate => '42501', message => 'permission denied for schema s3export' }, 'nor a place for a function that is nearer than ours', dbname => 'generous', user => 'mallory');
is(($node->psql('generous', 'SELECT s3export.cancel(9)'))[2] =~ /trapped/, '', 'which is the one that is called');
$node->safe_psql('hardened', join(';', (map { "ALTER DEFAULT PRIVILEGES REVOKE ALL ON $_ FROM PUBLIC" } qw(FUNCTIONS TYPES)), 'CREATE EXTENSION s3export'));
is($node->safe_psql('hardened', $privileges), join("\n", grep { !/^(?:function|type)\|/ || /^function\|s3export\.(?:ambient_credentials_allowed|job_progress)\(/ } split /\n/, $by_script),
	'default privileges that keep functions from everybody are heeded, but for those that the views call');
is($node->safe_psql('hardened', join(';', 'SET ROLE mallory', map { "SELECT count(*) FROM s3export.$_" } qw(connector_grants connectors current_events currents job_files jobs progress shared_credentials))), join("\n", (0) x 8), 'which can be read');

# ---- rows: those that the caller may see
sql(<<'SQL');
CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE nobody LOGIN;
CREATE ROLE assistant LOGIN IN ROLE alice; CREATE ROLE reader LOGIN IN ROLE pg_read_all_data; CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE bypasser LOGIN BYPASSRLS;
GRANT CREATE ON SCHEMA public TO alice, bob;
SQL
create_connector($node, 'lake', %arguments, folder_path => 'lake');
sql("SELECT s3export.grant_usage('lake', '$_')") foreach qw(alice bob reader bypasser);
sql(<<'SQL', 'bob');
CREATE TABLE filtered (id int, owner text, private text);
INSERT INTO filtered SELECT i, CASE WHEN i % 10 = 0 THEN 'alice' ELSE 'bob' END, 'private' FROM generate_series(1, 20000) i;
ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON filtered USING (owner = current_user);
GRANT SELECT ON filtered TO alice, bypasser;
CREATE TABLE partly (a int, b int);
INSERT INTO partly VALUES (1, 2);
GRANT SELECT (a) ON partly TO alice;
CREATE VIEW as_bob AS SELECT * FROM partly;
CREATE VIEW as_caller WITH (security_invoker) AS SELECT * FROM partly;
CREATE VIEW filtered_as_bob AS SELECT * FROM filtered;
CREATE VIEW filtered_as_caller WITH (security_invoker) AS SELECT * FROM filtered;
GRANT SELECT ON as_bob, as_caller, filtered_as_bob, filtered_as_caller TO alice;
CREATE FUNCTION for_bob(path text) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
	$$ SELECT rows FROM s3export.copy_to('lake', 'public.filtered', path) $$;
CREATE TABLE bobs_only (a int);
SQL
my $file = 0;
my $parallel = 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SET s3export.max_parallel_workers = 2;';

sub export_sql
{
	my ($source) = @_;

	return 'SELECT rows FROM s3export.copy_to(\'lake\', ' . sql_literal($source) . ", 'row" . ++$file . ".csv')";
}
foreach my $settings ('', $parallel)
{
	my $how = $settings ? ', in parallel' : '';

	is(sql($settings . export_sql('filtered'), 'alice'), 2000, "row security$how: rows of the caller");
	unlike($s3->object('exports', "lake/row$file.csv"), qr/,bob,/, "row security$how: and no other");
	is(sql($settings . export_sql('SELECT * FROM filtered'), 'alice'), 2000, "row security$how: in a query");
	is(sql($settings . export_sql('filtered_as_caller'), 'alice'), 2000, "row security$how: in a view with security_invoker");
	is(sql($settings . export_sql('filtered_as_bob'), 'alice'), 20000, "row security$how: a view has the rights of its owner");
	is(sql($settings . export_sql('filtered'), 'bob'), 20000, "row security$how: not for the table's owner");
	is(sql($settings . export_sql('filtered'), 'bypasser'), 20000, "row security$how: nor with BYPASSRLS");
	is(sql($settings . export_sql('filtered')), 20000, "row security$how: nor for superusers");
	is(sql($settings . 'SET ROLE alice; ' . export_sql('filtered')), 2000, "row security$how: for superusers as another role");
	is(sqlstate($settings . 'SET row_security = off; ' . export_sql('filtered'), 'alice'), '42501', "row security$how: off is an error");
}
sql('ALTER TABLE filtered FORCE ROW LEVEL SECURITY', 'bob');
is(sql(export_sql('filtered'), 'bob'), 18000, 'row security: forced for the owner');
is(sql("SELECT for_bob('definer.csv')", 'alice'), 18000, 'a function with rights of its own exports its owner\'s rows');
is(sql("SELECT owner FROM s3export.jobs WHERE path = 'definer.csv'"), 'bob', 'and the job is its owner\'s');

is(sqlstate(export_sql($_), 'alice'), '42501', "column privileges: $_") foreach 'partly', 'SELECT b FROM partly', 'SELECT * FROM partly', 'SELECT partly FROM partly', 'SELECT count(b) FROM partly', 'as_caller', 'bobs_only';
is(sql(export_sql('SELECT a FROM partly'), 'alice'), 1, 'column privileges: what is granted');
is(sql(export_sql('as_bob'), 'alice'), 1, 'a view has the rights of its owner');
is(sqlstate(export_sql($_), 'alice'), '42501', "$_ is not for everybody")
  foreach 's3export.secret', 's3export.job', 'pg_authid', 'SELECT rolpassword FROM pg_authid', q(SELECT pg_read_file('/etc/passwd')), q(SELECT set_config('role', 'postgres', false)), q(SELECT lo_import('/etc/passwd'));
is(sql(export_sql('s3export.secret'), 'reader'), 0, 'pg_read_all_data exports no secret');
is(sqlstate(export_sql($_)), '22023', "$_ is no query") foreach 'DELETE FROM partly', q(COPY partly TO PROGRAM 'true'), 'SELECT 1; DROP TABLE partly', 'VACUUM (ANALYZE) partly';

# A role that is changed while the export runs changes neither whose job it is nor what it may.
sql('GRANT bob TO assistant');
is(sql(q(SELECT job_id FROM s3export.copy_to('lake', 'SELECT set_config(''role'', ''bob'', false)', 'switched.csv')), 'assistant') =~ /^\d+$/, 1, 'a query that changes the role');
is(sql(q(SELECT owner FROM s3export.jobs WHERE path = 'switched.csv')), 'assistant', 'does not change whose job it is');
sql('REVOKE bob FROM assistant');

# ---- jobs: those of one's own
sub jobs_seen
{
	my ($user) = @_;

	return sql('SELECT string_agg(DISTINCT owner::text, \',\' ORDER BY owner::text) FROM s3export.jobs', $user) . '/'
	  . sql('SELECT count(*) = (SELECT count(*) FROM s3export.jobs WHERE state = \'succeeded\') FROM s3export.job_files', $user);
}
sql(q(SELECT job_id FROM s3export.copy_to('lake', 'VALUES (1)', 'alices.csv')), 'alice');
is(jobs_seen('alice'), 'alice/t', 'one\'s own jobs are seen');
is(jobs_seen('bob'), 'bob/t', 'and those of nobody else');
is(jobs_seen('assistant'), 'alice,assistant/t', 'members see those of their roles');
is(jobs_seen($_), '/t', "$_ sees none") foreach 'nobody', 'monitor';
is(jobs_seen('reader'), 'reader/t', 'reader sees its own');
is(sql('SELECT count(*) FROM s3export.connectors', $_), 0, "$_ sees no connector") foreach 'nobody', 'monitor', 'mallory';
{
	my ($status, $out, $err) = $node->psql('postgres', q(CREATE FUNCTION pg_temp.leak(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS 'BEGIN RAISE WARNING ''saw %'', $1; RETURN true; END';
		SELECT count(*) FROM s3export.jobs WHERE pg_temp.leak(source); SELECT count(*) FROM s3export.job_files WHERE pg_temp.leak(uri); SELECT count(*) FROM s3export.progress WHERE pg_temp.leak(uri)),
		extra_params => [ '-U', 'nobody' ]);

	is("$out$err", "0\n0\n0", 'a function of the reader\'s sees no other rows');
}

# What a failed export left is its owner's to clean up.
my $wide = q(SELECT repeat(md5(i::text), 32) FROM generate_series(1, 6000) i);
{
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'UploadPart' });
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'AbortMultipartUpload' });
	is(sqlstate("SELECT s3export.copy_to('lake', " . sql_literal($wide) . ", 'left.csv')", 'alice'), '28000', 'an export that fails and leaves an upload');
	is(scalar($s3->uploads('exports')), 1, 'which is there');
	my $since = $s3->log;
	is(sql('SELECT count(*) FROM s3export.recover()', $_), 0, "$_ does not recover another's job") foreach 'bob', 'nobody', 'reader', 'monitor';
	is(scalar($s3->log(since => $since)), 0, 'nothing is sent for them');
	is(sql('SELECT action FROM s3export.recover()', 'assistant'), 'aborted', 'a member of its owner does');
	is(scalar($s3->uploads('exports')), 0, 'and it is gone');
	$s3->call('clear_faults');
}

# A running export.
{
	$s3->call('add_fault', do => 'hold', match => { operation => 'UploadPart' });
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-U', 'alice', '-d', $node->connstr('postgres'), '-c', "SELECT * FROM s3export.copy_to('lake', " . sql_literal($wide) . ", 'running.csv')" ],
		'<', \undef, '>', \my $out, '2>', \my $err);
	my $job = poll_until(sub { sql(q(SELECT job_id FROM s3export.progress WHERE uri LIKE '%/running.csv')) }, 'an export');
	my $pipe = sql("SELECT pipe FROM s3export.job WHERE job_id = $job");
	my $progress = "SELECT phase IS NOT NULL FROM s3export.job_progress($job, $pipe)";

	is(sql($progress, $_) . '/' . sql('SELECT count(*) FROM s3export.progress', $_), 't/1', "progress: seen by $_") foreach 'alice', 'assistant';
	is(sql($progress, $_) . '/' . sql('SELECT count(*) FROM s3export.progress', $_), 'f/0', "progress: not by $_") foreach 'bob', 'nobody', 'reader', 'monitor';
	is(sql("SELECT count(*) FROM generate_series(-5, 5) i, LATERAL s3export.job_progress($job, $pipe + i) p WHERE phase IS NOT NULL", 'bob'), 0, 'nor by guesses');
	is(sql('SELECT phase IS NULL FROM s3export.job_progress(' . join(', ', @$_) . ')', 'alice'), 't', "numbers that are none: @$_")
	  foreach [ 0, 0 ], [ -1, -1 ], [ $job, '9223372036854775807' ], [ '-9223372036854775808', $pipe ], [ $job, 4294967295 ], [ $job + 1, $pipe ];
	like(sqlstate("SELECT pg_cancel_backend(uploader_pid) FROM (SELECT $_ AS uploader_pid) x", 'bob'), qr/^42501$/, 'its processes are not another\'s to end')
	  foreach split /\|/, sql("SELECT leader_pid, uploader_pid FROM s3export.job WHERE job_id = $job");
	is(sql('SELECT count(*) FROM s3export.recover()', 'assistant'), 0, 'it is not recovered while it runs');
	is(sqlstate(q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'running.csv')), 'bob'), '55006', 'nor is its path taken');
	foreach my $user ('bob', 'nobody', 'reader', 'monitor')
	{
		isnt(sqlstate("SELECT s3export.cancel($job)", $user), 'none', "$user does not cancel it");
		isnt(sqlstate("SELECT s3export.wait($job, '0')", $user), 'none', 'nor wait for it');
	}
	is(sql("SELECT state FROM s3export.wait($job, '0')", 'assistant'), 'running', 'a member of its owner does');
	$s3->call('release');
	$run->finish;
	is($err, '', 'and it ends well');
}

# ---- a role without any right, and every function that it may call
{
	my %expected = (
		alter_connector => '42501', set_credentials => '42501', grant_usage => '42501', revoke_usage => '42501', drop_connector => '42501', test_credentials => '42501', copy_to => '42501',
		launch => '42501', pause => '42501', resume => '42501', deliver => '42501', add_table => '42501', stop => '42501', refuse_drop_extension => '42501',
		create_connector => '42501', set_identity => '42501', trust_policy => '42501', refuse_direct_writes => '42501',
		authenticate_row => '42501', adopt => '42501', skip_unknown_role => '42501', role_in => 'none', role_out => 'none', role_send => 'none',
		wait => '42704', cancel => '42704', header_mode => 'none', identity => 'none', iam_policy => 'none', job_progress => 'none', recover => 'none', ambient_credentials_allowed => 'none', version => 'none');
	my $since = $s3->log;
	my $job = sql('SELECT max(job_id) FROM s3export.job');

	create_connector($node, 'victim', %arguments, folder_path => 'victim', validate => \'false');
	sql('CREATE TABLE public.joins (a int)');
	create_connector($node, 'flow', %arguments, folder_path => 'flow', kind => 'currents', validate => \'false');
	foreach my $function (@order)
	{
		my ($call) = ref $calls{$function} ? @{ $calls{$function} } : $calls{$function};

		$call =~ s/mallory/nobody/;
		$call =~ s/pg_catalog.max\(job_id\)\) FROM s3export.jobs/$job)/;
		is(sqlstate($call, 'nobody'), $expected{$function} // 'not listed', "nobody: $function");
	}
	is(scalar($s3->log(since => $since)), 0, 'nobody makes no request');
	is(sql(q(SELECT owner, folder_path FROM s3export.connectors WHERE name = 'victim')), getpwuid($>) . '|victim', 'and changes nothing');
	is(sqlstate("SELECT s3export.create_connector('x', 'exports', validate => false)", 'monitor'), '42501', 'nor does a monitor');
}

# ---- trojans on objects of the server's that a caller may make
sql(<<'SQL');
CREATE FUNCTION public.trojan() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'ddl'; END $$;
CREATE EVENT TRIGGER trojan ON ddl_command_start EXECUTE FUNCTION public.trojan();
CREATE EVENT TRIGGER trojan_end ON ddl_command_end EXECUTE FUNCTION public.trojan();
SQL
{
	my ($status, $out, $err) = $node->psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'events.csv')));

	is("$status$out$err", '01', 'an export is no DDL: no event trigger is called');
}
sql('DROP EVENT TRIGGER trojan; DROP EVENT TRIGGER trojan_end; DROP FUNCTION public.trojan()');
foreach my $trap (
	'CREATE TRIGGER t BEFORE INSERT ON s3export.job EXECUTE FUNCTION public.spring()', 'CREATE RULE r AS ON INSERT TO s3export.job DO ALSO SELECT 1',
	'CREATE POLICY p ON s3export.secret USING (true)', 'ALTER TABLE s3export.job ALTER COLUMN rows SET DEFAULT public.number()', 'ALTER TABLE s3export.job ADD CHECK (public.number() > 0)',
	'CREATE INDEX ON s3export.job ((public.number() + job_id))', 'CREATE STATISTICS public.s ON job_id, owner FROM s3export.job', 'CREATE TABLE public.child () INHERITS (s3export.job)',
	'CREATE TABLE public.referring (id bigint REFERENCES s3export.job)', 'ALTER TABLE s3export.job OWNER TO alice', 'DROP VIEW s3export.jobs', 'CREATE OR REPLACE VIEW s3export.jobs AS SELECT 1',
	'CREATE FUNCTION s3export.version(int) RETURNS int LANGUAGE sql AS \'SELECT 1\'', 'ALTER EXTENSION s3export ADD TABLE partly', 'DROP EXTENSION s3export', 'ALTER FUNCTION s3export.version() SECURITY DEFINER',
	q(SECURITY LABEL ON TABLE s3export.job IS 'x'), 'COMMENT ON TABLE s3export.job IS \'x\'', 'ALTER DEFAULT PRIVILEGES IN SCHEMA s3export GRANT ALL ON TABLES TO alice; CREATE TABLE s3export.t ()',
	q(CREATE FUNCTION public.mine() RETURNS text LANGUAGE c AS 's3export', 's3export_version'))
{
	sql('CREATE FUNCTION public.spring() RETURNS trigger LANGUAGE plpgsql AS \'BEGIN RETURN NULL; END\'; CREATE FUNCTION public.number() RETURNS bigint LANGUAGE sql IMMUTABLE AS \'SELECT 1::bigint\'', 'alice')
	  if sql(q(SELECT to_regproc('public.spring') IS NULL)) eq 't';
	like(sqlstate($trap, 'alice'), qr/^(42501|22023)$/, "alice cannot: $trap");
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
