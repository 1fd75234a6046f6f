# Exports in the background: when they start, as whom and with which settings,
# in what order, what they wait for, and how wait() and cancel() see them.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;
use Time::HiRes qw(time sleep);

s3_or_skip();
my $node = s3export_node('main', 'max_worker_processes = 8', 'max_prepared_transactions = 2', 'restart_after_crash = on', 's3export.max_running_jobs = 2');
my $folder = unique_folder();

create_connector($node, 'lake', folder_path => $folder);

sub sql { return $node->safe_psql('postgres', @_); }

# Queues an export in a transaction of its own; returns the job's id.
sub queue
{
	my ($source, $path, %more) = @_;
	my $before = delete $more{before} // '';
	my $arguments = join '', map { ", $_ => " . sql_literal($more{$_}) } sort keys %more;

	return (split /\n/, sql("$before; SELECT job_id FROM s3export.copy_to('lake', " . sql_literal($source) . ', ' . sql_literal($path) . ", wait => false$arguments)"))[-1];
}

sub job
{
	my ($job, $columns) = @_;

	return sql("SELECT $columns FROM s3export.jobs WHERE job_id = $job");
}

sub state { return job($_[0], 'state'); }

sub wait_for_state
{
	my ($job, $state) = @_;

	poll_until(sub { state($job) eq $state }, "job $job to be $state");
	return;
}

# wait() of the job, which returns its state, or the error that it raises.
sub finish
{
	my ($job, @more) = @_;

	return sql("SELECT state FROM s3export.wait($job)");
}

# Jobs with this source run until the session that locks the key ends.
sub held { return "SELECT $_[0] AS key FROM pg_advisory_lock_shared($_[0])"; }

sub hold
{
	my ($key) = @_;
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET application_name = 'hold$key'", '-c', "SELECT pg_advisory_lock($key)", '-c', 'SELECT pg_sleep(600)' ],
		'>', \my $out, '2>', \my $err);

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hold$key' AND query ~ 'pg_sleep'") }, "the lock $key");
	return $session;
}

sub release
{
	my ($key, $session) = @_;

	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hold$key'");
	$session->finish;
	return;
}

# A statement in another session, to be finished later.
sub start_sql
{
	my ($statement) = @_;
	my %session = (out => '', err => '');

	$session{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $statement ],
		'>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub set_running
{
	my ($jobs) = @_;

	$node->append_conf('postgresql.conf', "s3export.max_running_jobs = $jobs");
	$node->reload;
	poll_until(sub { sql('SHOW s3export.max_running_jobs') eq $jobs }, 'the setting');
	return;
}

sub no_processes
{
	my ($what) = @_;

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%'") == 0 }, "the end of all workers");
	pass("$what: no worker stays");
	return;
}

# ---- it runs, when the transaction commits
{
	my $row = sql(q(SELECT job_id > 0, uri, rows, files, bytes FROM s3export.copy_to('lake', 'VALUES (1), (2)', 'first.csv', wait => false)));
	my $job = sql('SELECT max(job_id) FROM s3export.jobs');

	is($row, 't||||', 'copy_to returns a job and nothing else');
	is(sql("SELECT * FROM s3export.wait($job)"), "$job|succeeded|s3://$S3{BUCKET}/$folder/first.csv|2|1|12", 'wait returns what copy_to would have');
	is(s3_get("$folder/first.csv"), "column1\n1\n2\n", 'the object is there');
	is(job($job, 'owner::text = current_user, queued_at <= started_at, started_at <= finished_at, waiting_for'), 't|t|t|', 'the row has its times');
	is(sql("SELECT state FROM s3export.wait($job)"), 'succeeded', 'wait may be asked again');
	no_processes('a job');
}

# ---- and never otherwise
{
	my $before = sql('SELECT count(*) FROM s3export.jobs');
	my $session = sql(q(BEGIN; SELECT s3export.copy_to('lake', 'VALUES (1)', 'rolled-back.csv', wait => false); SELECT state FROM s3export.jobs ORDER BY job_id DESC LIMIT 1; ROLLBACK;));

	like($session, qr/^queued$/m, 'a transaction sees the job that it has queued');
	is(sql('SELECT count(*) FROM s3export.jobs'), $before, 'a transaction that rolls back leaves no job');
	sql(q(BEGIN; SAVEPOINT a; SELECT s3export.copy_to('lake', 'VALUES (1)', 'savepoint.csv', wait => false); ROLLBACK TO a; COMMIT));
	is(sql('SELECT count(*) FROM s3export.jobs'), $before, 'nor does a savepoint that is rolled back to');
	sql(q(BEGIN; SAVEPOINT a; SELECT s3export.copy_to('lake', 'VALUES (1)', 'released-1.csv', wait => false); SAVEPOINT b;
		SELECT s3export.copy_to('lake', 'VALUES (2)', 'released-2.csv', wait => false); RELEASE b; RELEASE a;
		SAVEPOINT c; SELECT s3export.copy_to('lake', 'VALUES (3)', 'released-3.csv', wait => false); ROLLBACK TO c; COMMIT));
	is(finish(sql('SELECT min(job_id) FROM s3export.jobs WHERE path LIKE $$released%$$')), 'succeeded', 'one in a savepoint that is released starts at the commit');
	is(finish(sql('SELECT max(job_id) FROM s3export.jobs WHERE path LIKE $$released%$$')), 'succeeded', 'as does one in a savepoint within it');
	is_deeply([ s3_list($folder) ], [ map { "$folder/$_.csv" } qw(first released-1 released-2) ], 'no other object has appeared');
	error_like($node, q(BEGIN; SELECT s3export.copy_to('lake', 'VALUES (1)', 'prepared.csv', wait => false); PREPARE TRANSACTION 'p'),
		{ sqlstate => '0A000', message => 'cannot PREPARE a transaction that has queued an export' }, 'PREPARE TRANSACTION');
	sql(q(BEGIN; SAVEPOINT a; SELECT s3export.copy_to('lake', 'VALUES (1)', 'prepared.csv', wait => false); ROLLBACK TO a; PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'));
	is(sql('SELECT count(*) FROM s3export.jobs'), $before + 2, 'a transaction whose job was rolled back can be prepared');
	error_like($node, q(BEGIN; SELECT s3export.copy_to('lake', 'VALUES (1)', 'own.csv', wait => false); SELECT s3export.wait((SELECT max(job_id) FROM s3export.jobs))),
		{ sqlstate => '55000', message => qr/^cannot wait for job \d+$/, detail => qr/commits/, hint => 'Commit first.' }, 'a transaction that waits for its own job');
}

# ---- it sees what its transaction has committed, and queues from wherever SQL runs
{
	sql(q(CREATE TABLE t (a int); CREATE FUNCTION export_it(path text) RETURNS bigint LANGUAGE plpgsql AS
		$$DECLARE job bigint; BEGIN INSERT INTO t VALUES (1); SELECT job_id INTO job FROM s3export.copy_to('lake', 't', path, wait => false); INSERT INTO t VALUES (2); RETURN job; END$$));
	my $job = sql(q(SELECT export_it('function.csv')));

	is(finish($job), 'succeeded', 'from a function');
	is(s3_get("$folder/function.csv"), "a\n1\n2\n", 'with all that the transaction has done');
	sql(q(DO $$BEGIN PERFORM s3export.copy_to('lake', 't', 'do.csv', wait => false); EXCEPTION WHEN division_by_zero THEN NULL; END$$));
	is(finish(sql('SELECT max(job_id) FROM s3export.jobs')), 'succeeded', 'from a DO block with an exception handler');
	sql(q(SELECT s3export.copy_to('lake', 'VALUES (' || n || ')', 'many-' || n || '.csv', wait => false) FROM generate_series(1, 5) n));
	finish($_) foreach split /\n/, sql(q(SELECT job_id FROM s3export.jobs WHERE path LIKE 'many%'));
	is(scalar(() = s3_list("$folder/many-")), 5, 'several in one statement');
}

# ---- arguments are checked at once
foreach my $case (
	[ q('nobody', 'VALUES (1)'), '42704', 'an unknown connector' ],
	[ q('lake', 'DELETE FROM t'), '22023', 'what is not a query' ],
	[ q('lake', 'SELECT missing FROM t'), '42703', 'a query that does not parse' ],
	[ q('lake', 'VALUES (1)', '../x.csv'), '22023', 'a path' ],
	[ q('lake', 'VALUES (1)', delimiter => ',,'), '0A000', 'an option of CSV' ],
	[ q('lake', 'VALUES (1)', settings => '{no_such_setting}'), '42704', 'an unknown setting' ],
	[ q('lake', 'VALUES (1)', settings => '{app.unset}'), '42704', 'a setting of nobody' ],
	[ q('lake', 'VALUES (1)', settings => '{max_connections}'), '55P02', 'a setting of the server' ],
	[ q('lake', 'VALUES (1)', settings => '{role}'), '22023', 'the role' ],
	[ q('lake', 'VALUES (1)', settings => '{transaction_isolation}'), '22023', 'a setting of the transaction' ],
	[ q('lake', 'VALUES (1)', settings => ARRAY[NULL::text]), '22004', 'a null among settings' ])
{
	my ($arguments, $sqlstate, $what) = @$case;

	error_like($node, "SELECT s3export.copy_to($arguments, wait => false)", { sqlstate => $sqlstate }, "checked at once: $what");
}
error_like($node, q(CREATE TEMP TABLE mine (a int); SELECT s3export.copy_to('lake', 'mine', wait => false)),
	{ sqlstate => '0A000', message => 'cannot queue an export of temporary tables' }, 'checked at once: temporary tables');
error_like($node, q(SELECT s3export.copy_to('lake', 'VALUES (1)', wait => NULL)), { sqlstate => '22004' }, 'wait is true or false');
error_like($node, q(BEGIN READ ONLY; SELECT s3export.copy_to('lake', 'VALUES (1)', wait => false)), { sqlstate => '25006' }, 'not in a read-only transaction');

# ---- whose job it is
sql(q(CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE team NOLOGIN; GRANT alice, team TO bob; GRANT pg_read_all_data TO alice;
	SELECT s3export.grant_usage('lake', 'alice'); SELECT s3export.grant_usage('lake', 'team')));
{
	my $job = queue(q(SELECT current_user, session_user, current_setting('is_superuser')), 'alice.csv', before => 'SET ROLE alice');

	is(finish($job), 'succeeded', 'after SET ROLE');
	is(s3_get("$folder/alice.csv"), "current_user,session_user,current_setting\nalice,alice,off\n", 'the role is the worker\'s');
	sql(q(CREATE FUNCTION as_alice() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$SELECT job_id FROM s3export.copy_to('lake', 'SELECT current_user', 'definer.csv', wait => false)$$;
		ALTER FUNCTION as_alice OWNER TO alice));
	$job = sql('SELECT as_alice()');
	is(finish($job), 'succeeded', 'from a SECURITY DEFINER function');
	is(s3_get("$folder/definer.csv"), "current_user\nalice\n", 'the function\'s owner is the role');
	is($node->safe_psql('postgres', "SELECT state FROM s3export.wait($job)", extra_params => [ '-U', 'bob' ]), 'succeeded', 'a member of the owner may wait');
	$job = queue(q(VALUES (1)), 'root.csv');
	error_like($node, "SELECT s3export.wait($job)", { sqlstate => '42704', message => "job $job does not exist" }, 'others do not know the job', user => 'alice');
	error_like($node, "SELECT s3export.cancel($job)", { sqlstate => '42704', message => "job $job does not exist" }, 'nor may they cancel it', user => 'alice');
	error_like($node, 'SELECT s3export.wait(999999)', { sqlstate => '42704' }, 'a job that is not there');
	finish($job);
	if ($node->pg_version < 17)
	{
		error_like($node, q(SET ROLE team; SELECT s3export.copy_to('lake', 'VALUES (1)', wait => false)),
			{ sqlstate => '55000', message => 'cannot queue an export of role "team", which is not permitted to log in', hint => qr/LOGIN/ }, 'a role that may not log in');
	}
	else
	{
		is(finish(queue('SELECT current_user', 'team.csv', before => 'SET ROLE team')), 'succeeded', 'a role that may not log in');
	}
}
{
	sql(q(CREATE TABLE restricted (a int); CREATE FUNCTION in_index(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN PERFORM s3export.copy_to('lake', 'VALUES (1)', wait => false); RETURN 1; END$$; INSERT INTO restricted VALUES (1)));
	error_like($node, 'CREATE INDEX ON restricted (in_index(a))', { sqlstate => '42501', message => 'cannot queue an export within security-restricted operation' }, 'security-restricted operations');
}

# ---- settings
{
	my $before = q(SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Europe/Rome'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; SET extra_float_digits = 0;
		SET quote_all_identifiers = on; SET timezone_abbreviations = 'India'; SET search_path = elsewhere, public; SET row_security = off; SET app.tenant = 'x"y\z'; SET work_mem = '7MB'; SET s3export.part_size = '6MB');
	my $source = q(SELECT timestamptz '2026-11-22 12:00+00' AS t, timestamptz '2026-11-22 12:00 IST' AS a, 'place'::regclass AS c, interval '1 day 2 hours' AS i, '\x41'::bytea AS b, 0.1::float8 + 0.2 AS f, (SELECT what FROM place) AS p,
		current_setting('app.tenant', true) AS tenant, current_setting('work_mem') AS work_mem, current_setting('s3export.part_size') AS part_size, current_setting('row_security') AS row_security);

	sql(q(CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.place AS SELECT 'elsewhere' AS what; CREATE TABLE place AS SELECT 'public' AS what));
	is(finish(queue($source, 'settings.csv', before => $before, settings => '{app.tenant,work_mem}')), 'succeeded', 'settings');
	is(s3_get("$folder/settings.csv"), copy_oracle($node, $source, 'HEADER', $before), 'are the session\'s, those that are named too');
	finish(queue(q(SELECT current_setting('work_mem')), 'unnamed.csv', before => q(SET work_mem = '7MB')));
	is(s3_get("$folder/unnamed.csv"), "current_setting\n4MB\n", 'others are the role\'s and the server\'s');

	sql(q(CREATE TABLE tenants (tenant text, v int); INSERT INTO tenants VALUES ('red', 1), ('blue', 2); ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
		CREATE POLICY p ON tenants USING (tenant = current_setting('app.tenant'))));
	is(finish(queue('tenants', 'red.csv', before => q(SET ROLE alice; SET app.tenant = 'red'), settings => '{app.tenant}')), 'succeeded', 'row security');
	is(s3_get("$folder/red.csv"), "tenant,v\nred,1\n", 'sees what the session sees');
	error_like($node, q(SELECT s3export.copy_to('lake', 'tenants', wait => false)), { sqlstate => '42501', message => qr/row-level security/ }, 'row_security = off is an error at once', before => 'SET ROLE alice; SET row_security = off;');

	# A schema of the user's in the path does not get between us and our tables.
	sql(q(CREATE SCHEMA trap; CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
		CREATE FUNCTION trap.jsonb_each_text(jsonb, OUT key text, OUT value text) RETURNS SETOF record LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$));
	is(finish(queue('VALUES (1)', 'trap.csv', before => 'SET search_path = trap, pg_catalog')), 'succeeded', 'search_path');

	# What has become impossible since then fails the job, with the reason.
	my $hold = hold(1);
	my @before = map { queue(held(1), "before$_.csv") } 1, 2;
	my $job;

	sql('GRANT SET ON PARAMETER log_min_duration_statement TO alice');
	wait_for_state($_, 'running') foreach @before;
	$job = queue('VALUES (1)', 'denied.csv', before => 'SET ROLE alice; SET log_min_duration_statement = 1000', settings => '{log_min_duration_statement}');
	sql('REVOKE SET ON PARAMETER log_min_duration_statement FROM alice');
	release(1, $hold);
	error_like($node, "SELECT s3export.wait($job)", { sqlstate => '42501', message => 'permission denied to set parameter "log_min_duration_statement"' }, 'a setting that may no longer be set');
	is(job($job, 'state, error_code, uploader_pid IS NULL'), 'failed|42501|t', 'the row says so');
	finish($_) foreach @before;
	error_like($node, q(SET ROLE alice; SELECT s3export.copy_to('lake', 'VALUES (1)', wait => false, settings => '{log_min_duration_statement}')), { sqlstate => '42501' }, 'a setting that the role may not set');
}

# ---- statement_timeout
{
	my $started = time;

	error_like($node, 'SELECT s3export.wait(' . queue('SELECT pg_sleep(60)', 'timeout.csv', before => q(SET statement_timeout = '1s'), settings => '{statement_timeout}') . ')',
		{ sqlstate => '57014', message => 'canceling statement due to statement timeout' }, 'statement_timeout, carried');
	sql(q(ALTER ROLE alice SET statement_timeout = '1s'));
	error_like($node, 'SELECT s3export.wait(' . queue('SELECT pg_sleep(60)', 'timeout2.csv', before => 'SET ROLE alice') . ')',
		{ sqlstate => '57014', message => 'canceling statement due to statement timeout' }, 'statement_timeout, the role\'s');
	sql(q(ALTER ROLE alice RESET statement_timeout));
	cmp_ok(time - $started, '<', 30, 'in time');
	is(sql(q(SELECT string_agg(state, ' ') FROM s3export.jobs WHERE path LIKE 'timeout%')), 'cancelled cancelled', 'the rows say so');
	sql(q(ALTER ROLE alice SET default_transaction_read_only = on; ALTER ROLE alice SET default_transaction_isolation = 'serializable'));
	is(finish(queue(q(SELECT current_setting('transaction_isolation')), 'isolation.csv', before => 'SET ROLE alice')), 'succeeded', 'a role that is read-only by default');
	is(s3_get("$folder/isolation.csv"), "current_setting\nserializable\n", 'and exports as the role is set');
	sql('ALTER ROLE alice RESET ALL');
}

# ---- what is seen meanwhile, and the order
{
	my $hold = hold(1);
	my @jobs = map { queue(held(1), "order$_.csv") } 1 .. 4;
	my $other;

	wait_for_state($_, 'running') foreach @jobs[ 0, 1 ];
	poll_until(sub { job($jobs[3], 'waiting_for') ne '' }, 'what the last job waits for');
	is(job($_, 'state, waiting_for, leader_pid'), 'queued|2 jobs that are running|', 'the next wait, and say for what') foreach @jobs[ 2, 3 ];
	is(sql("SELECT application_name, backend_type, usename, query FROM pg_stat_activity WHERE pid = " . job($jobs[0], 'leader_pid')),
		"s3export job $jobs[0]|s3export job|" . sql('SELECT current_user') . '|' . held(1), 'pg_stat_activity shows the query');
	is(sql("SELECT state FROM s3export.wait($jobs[0], '300 ms')"), 'running', 'wait returns when its time is over');
	is(sql("SELECT state FROM s3export.wait($jobs[3], '0')"), 'queued', 'or at once');
	set_running(3);
	wait_for_state($jobs[2], 'running');
	pass('max_running_jobs counts at once');
	set_running(1);
	release(1, $hold);
	is(finish($_), 'succeeded', 'and then they run') foreach @jobs;
	is(job($jobs[3], 'waiting_for'), '', 'and wait no more');
	cmp_ok(sql("SELECT count(*) FROM s3export.jobs a, s3export.jobs b WHERE a.job_id < b.job_id AND a.started_at > b.started_at AND a.job_id >= $jobs[0]"), '==', 0, 'in their order');
	set_running(2);
	no_processes('a queue');
}

# ---- two jobs for one object
{
	my $hold = hold(1);
	my $first = queue(held(1), 'same.csv');
	my $second = queue('VALUES (2)', 'same.csv', if_exists => 'overwrite');
	my $third = queue('VALUES (3)', 'another.csv');

	is(finish($third), 'succeeded', 'a job for another object goes past');
	is(job($second, 'state, waiting_for'), "queued|job $first, which writes the same object", 'a job for the same object waits');
	release(1, $hold);
	is(finish($second), 'succeeded', 'and is next');
	is(s3_get("$folder/same.csv"), "column1\n2\n", 'the last one has the object');
}

# ---- the queue is bounded
{
	set_running(0);
	my @jobs = map { queue('VALUES (1)', "bound$_.csv") } 1 .. 3;
	error_like($node, q(SET s3export.max_queued_jobs = 3; SELECT s3export.copy_to('lake', 'VALUES (1)', 'bound4.csv', wait => false)),
		{ sqlstate => '53400', message => 'too many exports are queued', detail => 'The limit is 3.', hint => qr/max_queued_jobs/ }, 'the queue is bounded');
	error_like($node, q(SET s3export.max_queued_jobs = 5; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT s3export.copy_to('lake', 'VALUES (' || n || ')', wait => false) FROM generate_series(1, 3) n),
		{ sqlstate => '53400' }, 'with what the transaction itself has queued');
	poll_until(sub { job($jobs[0], 'waiting_for') eq 's3export.max_running_jobs to be more than 0' }, 'the reason of a stopped queue');

	# A cancel that is not committed keeps the job in its place, and out of a worker's hands.
	my $cancel = start_sql("BEGIN; SELECT s3export.cancel($jobs[0]); SELECT pg_sleep(3); ROLLBACK");
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query ~ '^BEGIN; SELECT s3export.cancel' AND wait_event = 'PgSleep')) }, 'the cancel');
	set_running(2);
	is(finish($jobs[1]), 'succeeded', 'the next job does not wait for a cancel that is not committed');
	is(state($jobs[0]), 'queued', 'nor does it start the first');
	$cancel->{handle}->finish;
	is(finish($_), 'succeeded', 'which runs when the cancel was rolled back') foreach @jobs[ 0, 2 ];
}

# ---- cancel
{
	my $hold = hold(1);
	my @jobs = map { queue(held(1), "cancel$_.csv") } 1 .. 3;

	wait_for_state($jobs[1], 'running');
	is(sql("SELECT s3export.cancel($jobs[2])"), 't', 'cancel of a queued job');
	is(job($jobs[2], 'state, error_code, started_at, waiting_for'), 'cancelled|57014||', 'at once');
	is(sql("SELECT s3export.cancel($jobs[2])"), 'f', 'not twice');
	poll_until(sub { job($jobs[0], 'uploader_pid') }, 'the uploader');
	is(sql("SELECT s3export.cancel($jobs[0])"), 't', 'cancel of a running job');
	error_like($node, "SELECT s3export.wait($jobs[$_])", { sqlstate => '57014', message => 'canceling the export due to user request' }, 'wait raises the reason') foreach 0, 2;
	is(state($jobs[1]), 'running', 'the other goes on');
	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 's3export job $jobs[0]'") == 0 }, 'the end of the worker');
	pass('the worker has not waited for its query');
	release(1, $hold);
	is(finish($jobs[1]), 'succeeded', 'to its end');
	is(sql("SELECT s3export.cancel($jobs[1])"), 'f', 'and cannot be cancelled then');
	is_deeply([ s3_list("$folder/cancel") ], ["$folder/cancel2.csv"], 'no object of the others');
	is_deeply([ s3_uploads("$folder/cancel") ], [], 'no upload either');
}
{
	my $session = start_sql(q(SELECT s3export.copy_to('lake', $$SELECT repeat('x', 260000), pg_sleep(0.3) FROM generate_series(1, 2000)$$, 'sync.csv', parallel => 0)));
	my $job;

	poll_until(sub { $job = sql(q(SELECT job_id FROM s3export.jobs WHERE path = 'sync.csv' AND state = 'running')) }, 'the export');
	is(sql("SELECT s3export.cancel($job)"), 't', 'cancel of another session\'s export');
	wait_for_state($job, 'cancelled');
	$session->{handle}->finish;
	like($session->{err}, qr/ERROR:  57014: canceling the export due to user request/, 'that session has the error');
}
{
	# A worker that waits for a lock has no uploader yet.
	my ($job, $lock);

	set_running(0);
	$job = queue('VALUES (1)', 'early.csv');
	$lock = start_sql(q(BEGIN; LOCK s3export.connector; SELECT pg_sleep(600)));
	poll_until(sub { sql(q(SELECT count(*) FROM pg_locks WHERE relation = 's3export.connector'::regclass AND mode = 'AccessExclusiveLock' AND granted)) }, 'the lock');
	set_running(2);
	wait_for_state($job, 'running');
	is(job($job, 'uploader_pid'), '', 'a job without an uploader yet');
	is(sql("SELECT s3export.cancel($job)"), 't', 'is cancelled');
	wait_for_state($job, 'cancelled');
	sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^BEGIN; LOCK'));
	$lock->{handle}->finish;
	error_like($node, "SELECT s3export.wait($job)", { sqlstate => '57014', message => 'canceling statement due to user request' }, 'and says so');
}

# ---- snapshots
{
	my $hold = hold(1);
	my $job = queue(held(1), 'snapshot.csv');
	my $session = start_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) > 0 FROM s3export.jobs; SELECT state FROM s3export.wait($job); SELECT state FROM s3export.jobs WHERE job_id = $job; COMMIT");

	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query ~ '^BEGIN ISOLATION' AND state = 'active')) }, 'the session that waits');
	sleep 0.5;
	release(1, $hold);
	$session->{handle}->finish;
	like($session->{out}, qr/^succeeded\nrunning$|^succeeded\nqueued$/m, 'wait sees the end in REPEATABLE READ, where the view does not');
	$session = start_sql('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT pg_sleep(2); SELECT s3export.cancel((SELECT max(job_id) FROM s3export.jobs)); COMMIT');
	$session->{handle}->finish;
	like($session->{out}, qr/^f$/m, 'cancel knows it too');
}

# ---- what happens to the connector and the role while a job is queued
{
	my $hold = hold(1);
	my @others = map { queue(held(1), "other$_.csv") } 1, 2;
	my %jobs;

	wait_for_state($_, 'running') foreach @others;
	sql(q(CREATE ROLE leaver LOGIN; CREATE ROLE locked_out LOGIN; CREATE ROLE nologin LOGIN;) . join ';', map { "SELECT s3export.grant_usage('lake', '$_')" } qw(leaver locked_out nologin));
	foreach my $name ('doomed', 'turned')
	{
		create_connector($node, $name, folder_path => "$name-$folder");
		$jobs{$name} = sql("SELECT job_id FROM s3export.copy_to('$name', 'VALUES (1)', wait => false)");
	}
	foreach my $role (qw(leaver locked_out nologin))
	{
		$jobs{$role} = queue('VALUES (1)', "$role.csv", before => "SET ROLE $role");
	}
	$jobs{revoked} = queue('VALUES (1)', 'revoked.csv', before => 'SET ROLE alice');
	$jobs{select} = queue('SELECT * FROM t', 'select.csv', before => 'SET ROLE bob; SET ROLE alice');
	$jobs{table} = queue('TABLE dropped', 'table.csv', before => 'CREATE TABLE dropped (a int)');
	$jobs{renamed} = queue('VALUES (1)', 'renamed.csv');
	$jobs{nobodys} = queue('SELECT current_user', 'nobodys.csv');
	sql("SET client_min_messages = error; UPDATE s3export.job SET owner = '-' WHERE job_id = $jobs{nobodys}");
	sql(q(SELECT s3export.drop_connector('doomed'); UPDATE s3export.connector SET kind = 'currents' WHERE name = 'turned'; SELECT s3export.alter_connector('lake', new_name => 'ocean'); SELECT s3export.revoke_usage('ocean', 'alice');
		SELECT s3export.revoke_usage('ocean', 'leaver'); DROP ROLE leaver; ALTER ROLE nologin NOLOGIN; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; DROP TABLE dropped;
		GRANT CONNECT ON DATABASE postgres TO alice, bob, nologin));
	release(1, $hold);
	is(finish($jobs{renamed}), 'succeeded', 'a renamed connector');
	error_like($node, "SELECT s3export.wait($jobs{doomed})", { sqlstate => '42704', message => 'the connector of the export has been dropped' }, 'a dropped connector');
	error_like($node, "SELECT s3export.wait($jobs{turned})", { sqlstate => '42809', message => 'connector "turned" is not of kind "data_export"' }, 'a connector that has become a current');
	error_like($node, "SELECT s3export.wait($jobs{revoked})", { sqlstate => '42501', message => 'permission denied for connector "ocean"' }, 'usage revoked');
	error_like($node, "SELECT s3export.wait($jobs{leaver})", { sqlstate => '28000', message => qr/^role with OID \d+ does not exist$/ }, 'a dropped role');
	error_like($node, "SELECT s3export.wait($jobs{nobodys})", { sqlstate => '28000', message => 'the role that queued the export does not exist' }, 'no role, which is not the superuser');
	error_like($node, "SELECT s3export.wait($jobs{locked_out})", { sqlstate => '42501', message => 'permission denied for database "postgres"' }, 'a role that may no longer connect');
	error_like($node, "SELECT s3export.wait($jobs{nologin})", { sqlstate => '28000', message => 'role "nologin" is not permitted to log in' }, 'a role that may no longer log in') if $node->pg_version < 17;
	error_like($node, "SELECT s3export.wait($jobs{table})", { sqlstate => '42P01', message => 'relation "dropped" does not exist' }, 'a dropped table');
	is(sql('SELECT count(*) FROM s3export.jobs WHERE state IN (\'queued\', \'running\')'), 0, 'none is left');
	sql(q(SELECT s3export.alter_connector('ocean', new_name => 'lake'); SELECT s3export.grant_usage('lake', 'alice'); GRANT CONNECT ON DATABASE postgres TO PUBLIC));
	no_processes('jobs that cannot start');
}

# ---- the query fails
error_like($node, 'SELECT s3export.wait(' . queue('SELECT 1 / (3 - g) FROM generate_series(1, 5) g', 'zero.csv') . ')', { sqlstate => '22012', message => 'division by zero' }, 'a query that fails');

# ---- restarts
{
	my $hold = hold(1);
	my @jobs = map { queue(held(1), "restart$_.csv") } 1 .. 3;

	# A job without an uploader is put back.
	poll_until(sub { job($jobs[1], 'state, uploader_pid IS NOT NULL') eq 'running|t' }, 'an uploader of the second job');
	$node->restart('fast');
	eval { $hold->finish };
	is(job($jobs[$_], 'state'), 'cancelled', 'a shutdown ends what runs') foreach 0, 1;
	is(job($jobs[2], 'state'), 'queued', 'and leaves what is queued');
	is(finish($jobs[2]), 'succeeded', 'which the next wait() starts');

	$hold = hold(1);
	@jobs = map { queue(held(1), "crash$_.csv") } 1 .. 4;
	wait_for_state($jobs[1], 'running');
	kill 'KILL', sql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 's3export dispatcher'));
	eval { $hold->finish };
	poll_until(sub { server_answers($node) }, 'the end of the recovery');
	is(state($_), 'queued', 'a crash leaves what is queued') foreach @jobs[ 2, 3 ];
	error_like($node, "SELECT s3export.wait($jobs[0])", { sqlstate => '08006', message => "the processes of job $jobs[0] have died", hint => qr/recover/ }, 'wait does not wait for the dead');
	sql(q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'after-crash.csv')));
	poll_until(sub { state($jobs[3]) eq 'succeeded' }, 'the queue');
	is(state($jobs[2]), 'succeeded', 'which the next copy_to starts');
}

$node->stop;
s3_clear($folder);
done_testing();
