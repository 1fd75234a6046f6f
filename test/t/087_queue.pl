# The queue is fair: roles take turns, nobody takes all places, locked rows keep nobody, and
# where there are no workers it waits ever longer, and says so once.
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
use Time::HiRes qw(time sleep);

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'max_worker_processes = 24', q(s3export.retry_timeout = '0'));

sub sql
{
	my ($statement, $user) = @_;

	return $node->safe_psql('postgres', $statement, extra_params => [ '-U', $user // getpwuid($>) ]);
}

sub sqlstate_of { return sql_error($node, $_[0])->{sqlstate} // 'none'; }

sub set
{
	my ($name, $value) = @_;

	$node->append_conf('postgresql.conf', "s3export.$name = $value");
	$node->reload;
	poll_until(sub { sql("LOAD 's3export'; SHOW s3export.$name") eq $value }, "the setting $name");
	return;
}

# Jobs of a role, as many as sources; returns their ids.
sub queue
{
	my ($role, @sources) = @_;

	return split /\n/, sql(join(';', map { "SELECT job_id FROM s3export.copy_to('lake', " . sql_literal($_) . ", 'x{job}.csv', wait => false)" } @sources), $role);
}

sub states { return sql('SELECT string_agg(DISTINCT state, \' \' ORDER BY state) FROM s3export.jobs WHERE job_id IN (' . join(',', @_) . ')'); }

sub drain
{
	sql(q(SELECT s3export.cancel(job_id) FROM s3export.jobs WHERE state IN ('queued', 'running')));
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')) == 0 }, 'the end of all workers');
	return;
}

# A session that goes on until it is killed.
sub start_session
{
	my ($role, $statement) = @_;
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-U', $role, '-d', $node->connstr('postgres'), '-c', $statement, '-c', "SELECT 'there'", '-c', 'SELECT pg_sleep(600)' ], '>', \my $out, '2>', \my $err);

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE usename = '$role' AND query ~ 'pg_sleep.600' AND state = 'active'") > 0 }, "a session of $role");
	return $session;
}

sub end_sessions
{
	my ($role) = @_;

	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '$role' AND backend_type = 'client backend'");
	return;
}

create_connector($node, 'lake', bucket => 'exports', endpoint_url => $s3->url, %keys);
sql("CREATE ROLE $_ LOGIN; SELECT s3export.grant_usage('lake', '$_')") foreach qw(bob carol dave);

# ---- an open transaction that has cancelled many jobs
{
	set(max_running_jobs => 0);
	my @jobs = queue('bob', ('SELECT 1') x 150);
	my $session = start_session('bob', q(BEGIN; SELECT count(s3export.cancel(job_id)) FROM s3export.jobs WHERE state = 'queued'));

	set(max_running_jobs => 2);
	my ($job) = queue('carol', 'SELECT 1');
	my $since = time;
	is(sql("SELECT state FROM s3export.wait($job, '20 s')", 'carol'), 'succeeded', 'others do not wait for an open transaction');
	cmp_ok(time - $since, '<', 5, 'nor are they kept by it');
	end_sessions('bob');
	$session->finish;
	drain();
}

# ---- turns
{
	set(max_running_jobs => 1);
	my @bobs = queue('bob', ('SELECT pg_sleep(0.5)') x 12);
	my ($carols) = queue('carol', 'SELECT 1');

	is(sql("SELECT state FROM s3export.wait($carols, '20 s')", 'carol'), 'succeeded', 'a job of another role');
	cmp_ok(sql("SELECT count(*) FROM s3export.jobs b, s3export.jobs c WHERE c.job_id = $carols AND b.started_at BETWEEN c.queued_at AND c.started_at AND b.job_id IN (" . join(',', @bobs) . ')'), '<=', 2, 'does not wait for all that were queued before');
	sql("SELECT s3export.wait($bobs[2])");
	is(sql('SELECT bool_and(finished_at > lag) FROM (SELECT finished_at, lag(finished_at) OVER (ORDER BY job_id) FROM s3export.jobs WHERE job_id IN (' . join(',', @bobs) . ') AND finished_at IS NOT NULL) j'), 't', 'those of one role run in the order of their ids');
	drain();
}

# ---- places
{
	set(max_running_jobs => 3);
	my @bobs = queue('bob', ('SELECT pg_sleep(60)') x 5);

	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE state = 'running'") == 2 }, 'two jobs');
	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE waiting_for = 'jobs of its role that are running'") == 3 }, 'the others');
	my ($carols) = queue('carol', 'SELECT 1');
	is(sql("SELECT state FROM s3export.wait($carols, '20 s')", 'carol'), 'succeeded', 'one place is for other roles');
	my @own = queue(scalar(getpwuid($>)), ('SELECT pg_sleep(60)') x 3);
	set(max_running_jobs => 6);
	poll_until(sub { states(@own) eq 'running' }, 'the jobs of a superuser');
	pass('who has no limit of its own');
	set(max_running_jobs_per_role => 1);
	drain();
	@bobs = queue('bob', ('SELECT pg_sleep(60)') x 2);
	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE state = 'queued' AND waiting_for = 'jobs of its role that are running'") == 1 }, 'the second job');
	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE state = 'running'") == 1 }, 'the first job');
	pass('the limit can be set');
	drain();
	set(max_running_jobs_per_role => -1);
}

# ---- who is told, and of what
{
	my $listener = $node->background_psql('postgres');

	$listener->query('LISTEN s3export');
	my ($good) = queue('bob', 'SELECT 1');
	my ($bad) = queue('bob', 'SELECT 1 / 0');
	sql("SELECT s3export.wait($good)");
	sqlstate_of("SELECT s3export.wait($bad)");
	sql(q(SELECT rows FROM s3export.copy_to('lake', 'SELECT 1', 'told.csv')));
	my $own = sql('SELECT max(job_id) FROM s3export.jobs');
	my $heard = $listener->query('SELECT 1');

	$listener->quit;
	like($heard, qr/Asynchronous notification "s3export" with payload "\{"job_id" : $_->[0], "state" : "$_->[1]"\}"/, "job $_->[0], $_->[1]") foreach [ $good, 'succeeded' ], [ $bad, 'failed' ], [ $own, 'succeeded' ];
}

# ---- several at once
{
	my ($good) = queue('bob', 'SELECT 1');
	my ($bad) = queue('bob', 'SELECT 1 / (i - 1) FROM generate_series(1, 1) i');
	my ($late) = queue('bob', 'SELECT 2');

	is(sql("SELECT job_id, state, rows, error_code, error_message FROM s3export.wait('{$good,$bad,$late}'::bigint[], \"raise\" => false)", 'bob'),
		"$good|succeeded|1||\n$bad|failed|0|22012|division by zero\n$late|succeeded|1||", 'a row for each job');
	foreach my $statement ("SELECT * FROM s3export.wait(ARRAY[$good,$bad,$late])", "SELECT s3export.wait($bad)")
	{
		my (undef, undef, $error) = $node->psql('postgres', $statement);

		like($error, qr/ERROR:  division by zero\nCONTEXT:  export job $bad to "s3:\/\/exports\/lake\/x$bad\.csv"/, "an error names its job: $statement");
	}
	is(sqlstate_of("SELECT * FROM s3export.wait(ARRAY[$good, 99999])"), '42704', 'a job that does not exist');
	is(sqlstate_of("SELECT * FROM s3export.wait(ARRAY[$good, NULL])"), '22004', 'null');
	is(sql(q(SELECT count(*) FROM s3export.wait('{}'::bigint[]))), 0, 'none');
}

# ---- a source that is too long, and one that is kept once
{
	is(sqlstate_of("SELECT s3export.copy_to('lake', 'SELECT 1 -- ' || repeat('x', 1024 * 1024), 'long.csv')"), '54000', 'a source that is too long');
	is(sqlstate_of("SELECT s3export.copy_to('lake', 'SELECT 1', 'long.csv', \"null\" => repeat('x', 1024 * 1024), wait => false)"), '54000', 'arguments that are too long');
	my ($job) = queue('bob', 'SELECT 1 AS once');
	is(sql("SELECT count(*) FROM s3export.job WHERE job_id = $job AND arguments::text LIKE '%once%'"), 0, 'a source is kept once');
	is(sql("SELECT rows FROM s3export.wait($job)"), 1, 'and run');
}

# ---- waiting jobs
{
	set(max_running_jobs => 0);
	set(max_queued_jobs => 10);
	my @bobs = queue('bob', ('SELECT 1') x 5);
	is(sql_error($node, q(SELECT s3export.copy_to('lake', 'SELECT 1', wait => false)), user => 'bob')->{message}, 'too many exports of role "bob" are queued', 'half of the queue is for others');
	is(scalar(queue('carol', ('SELECT 1') x 5)), 5, 'who can use it');
	is(sql_error($node, q(SELECT s3export.copy_to('lake', 'SELECT 1', wait => false)), user => 'dave')->{message}, 'too many exports are queued', 'all have a limit, too');
	set(max_queued_jobs => 1000);
	drain();
	set(max_running_jobs => 3);
}

# ---- exports of sessions
{
	set(max_exports_per_role => 2);
	my @exports = map { IPC::Run::start([ 'psql', '-XAtq', '-U', 'bob', '-d', $node->connstr('postgres'), '-c', "SELECT s3export.copy_to('lake', 'SELECT pg_sleep(600)', 's$_.csv')" ], '>', \my $out, '2>', \my $err) } 1, 2;

	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE state = 'running'") == 2 }, 'two exports');
	my $error = sql_error($node, q(SELECT s3export.copy_to('lake', 'SELECT 1', 's3.csv')), user => 'bob');
	is("$error->{sqlstate} $error->{message}", '53400 too many exports of the role are running', 'no third one of a role');
	is(sql(q(SELECT rows FROM s3export.copy_to('lake', 'SELECT 1', 'carol.csv')), 'carol'), 1, 'but one of another');
	my ($job) = queue('bob', 'SELECT 1');
	poll_until(sub { sql("SELECT waiting_for FROM s3export.jobs WHERE job_id = $job") eq 'exports of its role that are running' }, 'a queued one waits');
	sql(q(SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE state = 'running'));
	$_->finish foreach @exports;
	is(sql("SELECT state FROM s3export.wait($job, '20 s')"), 'succeeded', 'until there is a place');
	drain();
}

# ---- what a job's query says while it is planned
# Such errors are its own: they neither put it back nor hold up others.
sql(<<'SQL');
CREATE FUNCTION says(state text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'my own' USING ERRCODE = state; END$$;
CREATE FUNCTION much() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING MESSAGE = repeat('é', 600), DETAIL = repeat('€', 500); END$$;
CREATE FUNCTION thinks() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(60); RETURN 1; END$$;
SQL
foreach my $state (qw(53000 53400))
{
	my ($job) = queue(scalar(getpwuid($>)), "SELECT says('$state')");

	poll_until(sub { states($job) ne 'queued' && states($job) ne 'running' }, "the end of a job that says $state");
	is(sql("SELECT state, error_code, error_message FROM s3export.jobs WHERE job_id = $job"), "failed|$state|my own", "a query that raises $state while it is planned fails");
}

# No character of a message is cut.
{
	my ($job) = queue(scalar(getpwuid($>)), 'SELECT much()');

	poll_until(sub { states($job) eq 'failed' }, 'the end of a job with a long message');
	like(sql("SELECT upper(error_message || error_detail) FROM s3export.jobs WHERE job_id = $job"), qr/^\xc3\x89/, 'a message that is too long ends with a whole character');
}

# Who ends a worker ends its job; a server that stops puts it back.
{
	my ($job) = queue(scalar(getpwuid($>)), 'SELECT thinks()');
	my $planning = sub { sql("SELECT count(*) FROM s3export.jobs j JOIN pg_stat_activity a ON a.pid = j.leader_pid WHERE job_id = $job AND a.wait_event = 'PgSleep'") == 1 };

	poll_until($planning, 'a job that is planned');
	sql("SELECT pg_terminate_backend(leader_pid) FROM s3export.jobs WHERE job_id = $job");
	poll_until(sub { states($job) eq 'cancelled' }, 'the end of a job whose worker is terminated');
	is(sql("SELECT error_code FROM s3export.jobs WHERE job_id = $job"), '57P01', 'a worker that is terminated while it plans: its job is cancelled');
	($job) = queue(scalar(getpwuid($>)), 'SELECT thinks()');
	poll_until($planning, 'another');
	$node->restart;
	is(states($job), 'queued', 'a server that stops meanwhile puts it back');
	drain();
}

# Both braces of a pair are one.
{
	my @jobs = split /\n/, sql(join ';', ("SELECT job_id FROM s3export.copy_to('lake', 'SELECT 1, pg_sleep(1)', 'one-{{job}}.csv', if_exists => 'overwrite', wait => false)") x 2);

	poll_until(sub { states(@jobs) eq 'succeeded' || states(@jobs) =~ /failed/ }, 'two jobs of one path');
	is(states(@jobs), 'succeeded', 'a path in which {{job}} is no placeholder is one path');
}

# ---- an error that would end processes
{
	$node->safe_psql('postgres', 'ALTER DATABASE postgres SET exit_on_error = on');
	my $error = sql_error($node, "SET exit_on_error = off; SELECT s3export.copy_to('lake', 'SELECT 1 / (i - 5) FROM generate_series(1, 9) i', 'ends.csv')");
	my ($job) = queue(scalar(getpwuid($>)), 'SELECT 1 / (i - 5) FROM generate_series(1, 9) i');

	is($error->{sqlstate}, '22012', 'with exit_on_error for the database: the error');
	is(sql(q(SELECT state, error_code, open_uploads FROM s3export.jobs WHERE path = 'ends.csv')), 'failed|22012|0', 'is recorded by the uploader');
	poll_until(sub { states($job) eq 'failed' }, 'the end of a queued job');
	is(sql("SELECT error_code FROM s3export.jobs WHERE job_id = $job"), '22012', 'and by the worker of a queued job');
	sql('ALTER DATABASE postgres RESET exit_on_error');
}

# ---- no workers: one for the dispatcher, one for a job, none for its uploader
{
	$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
	$node->restart;
	my $offset = -s $node->logfile;
	my @jobs = queue(scalar(getpwuid($>)), ('SELECT 1') x 3);

	poll_until(sub { sql("SELECT count(*) FROM s3export.jobs WHERE waiting_for = 'a free background worker'") == 3 }, 'jobs without workers');
	sleep 8;
	my $log = slurp_file($node->logfile, $offset);
	is(scalar(() = $log =~ /LOG:  queued exports wait for a free background worker/g), 1, 'the log says once that there are no workers');
	unlike($log, qr/ERROR:  could not start an uploader/, 'and has no error of every try');
	cmp_ok(scalar(() = $log =~ /LOG:  starting background worker process "s3export job/g), '<=', 5, 'which are ever fewer') if $log =~ /starting background worker/;
	is(states(@jobs), 'queued', 'the jobs stay queued');
	drain();
}

$node->stop;
done_testing();
