# Debian's pg_cron delivers every five minutes, for an hour: no run is lost or
# doubled, and each has its files.  The server's clock runs forty times as fast
# (clock.c), so that the hour takes a minute and a half.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

my $factor = 40;
my $runs_wanted = $ENV{S3EXPORT_TEST_CRON_RUNS} // 12;
my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my %folder = (first => unique_folder(), second => unique_folder());

set_clock_factor($factor);
my $node = with_clock(sub {
	currents_node('main', 'log_min_messages = debug1', 'checkpoint_timeout = 1d', 'autovacuum = off',
		"s3export.request_timeout = '1h'", "s3export.stall_timeout = '1h'", "s3export.connect_timeout = '1h'");
});

$s3->call('configure', max_skew => 10000000);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
cron.host = '@{[ $node->host ]}'
CONF
with_clock(sub { $node->restart });

sub sql { return $node->safe_psql('postgres', @_); }

my ($real, $fake) = (time, sql('SELECT extract(epoch FROM clock_timestamp())'));
sleep 1;
cmp_ok(sql('SELECT extract(epoch FROM clock_timestamp())') - $fake, '>', $factor, 'the clock of the server is fast');

sql('CREATE EXTENSION pg_cron');
foreach my $name ('first', 'second')
{
	sql("CREATE TABLE $name (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())");
	create_connector($node, $name, at_endpoint($s3), %keys, folder_path => $folder{$name}, kind => 'currents', tables => "{$name}", validate => \'false');
	launch($node, $name);
}
my $job = sql(q(SELECT cron.schedule('deliver', '*/5 * * * *', 'SELECT s3export.deliver()')));

# Every moment has its events.  In the middle S3 takes longer than the time between two runs.
my $hour = $runs_wanted * 5 * 60;
my ($begin, $stalled) = (time, 0);

while ((time - $begin) * $factor < $hour + 30)
{
	sql("INSERT INTO first SELECT FROM generate_series(1, 3); INSERT INTO second DEFAULT VALUES");
	if (!$stalled && (time - $begin) * $factor > $hour / 2)
	{
		$s3->call('add_fault', do => 'stall', seconds => 12, match => { operation => 'PutObject', key => $folder{first} });
		$stalled = 1;
	}
	sleep 0.3;
}
sql("SELECT cron.unschedule($job)");
poll_until(sub { sql(q(SELECT count(*) FROM cron.job_run_details WHERE status NOT IN ('succeeded', 'failed'))) == 0 }, 'the last run');

# ---- the runs
my @runs = map { [ split /\|/ ] } split /\n/, sql(q(SELECT status, extract(epoch FROM start_time), extract(epoch FROM end_time), return_message FROM cron.job_run_details ORDER BY start_time));
my $first_slot = int($runs[0][1] / 300) * 300;
my @late;

note(sprintf '%s at %.0f s, %.0f s: %s', $_->[0], $_->[1] - $first_slot, $_->[2] - $_->[1], $_->[3]) foreach @runs;
cmp_ok(scalar(@runs), '>=', $runs_wanted, "$runs_wanted runs");
is(scalar(grep { $_->[0] ne 'succeeded' } @runs), 0, 'all have succeeded');
foreach my $n (0 .. $#runs)
{
	my $after = $runs[$n][1] - ($first_slot + 300 * $n);
	my $waited = $n > 0 && $runs[ $n - 1 ][2] > $first_slot + 300 * $n;

	push @late, "run $n: $after s after its time" if $after < 0 || ($after > 240 && !$waited);
	push @late, "run $n: begins before the end of the one before" if $n > 0 && $runs[$n][1] < $runs[ $n - 1 ][2] - 2;
}
is_deeply(\@late, [], 'each at its time, or when the one before has ended');
ok((grep { $_->[2] - $_->[1] > 300 } @runs), 'one has taken longer than the time between two');

# ---- what they delivered
my %jobs;
foreach my $name ('first', 'second')
{
	$jobs{$name} = sql("SELECT count(*) FROM s3export.jobs WHERE connector = '$name' AND state = 'succeeded' AND rows > 0");
	# On a busy machine there may be a run with nothing to send, as no row is older than it by a minute of the fast clock.
	cmp_ok($jobs{$name}, '>=', @runs - 2, "$name: nearly each run has something to deliver");
	is(sql(<<"SQL"), 0, "$name: one delivery within each run that has something to deliver");
WITH r AS (SELECT start_time, end_time, lag(end_time) OVER (ORDER BY start_time) AS before FROM cron.job_run_details),
	d AS (SELECT r.*, (SELECT count(*) FROM s3export.jobs j WHERE j.connector = '$name' AND j.rows > 0 AND j.started_at BETWEEN r.start_time AND r.end_time) AS deliveries FROM r)
SELECT count(*) FROM d WHERE deliveries > 1 OR deliveries = 0 AND EXISTS
	(SELECT FROM $name t WHERE t.at > coalesce(d.before, '-infinity') AND t.at < d.start_time - interval '1 min')
SQL

	my @files = files_in_scripted($s3, $folder{$name});
	my @before = map { $_->{values}{id} } events(@files);
	my $row = deliver($node, $name);

	cmp_ok($row->{events}, '<', scalar(@before), "$name: the runs have delivered most");
	@files = files_in_scripted($s3, $folder{$name});
	my @events = events(@files);
	is(join(' ', map { $_->{values}{id} } @events), sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM $name"), "$name: each event once");
	is_deeply([ wrong_files(@files), wrong_events(all_events(@files)), wrong_batches(objects_in_scripted($s3, $folder{$name})) ], [], "$name: files");
	my %hours = map { $_->{file}{date} => 1 } @events;
	cmp_ok(scalar(keys %hours), '>=', 2, "$name: of both hours") if $runs_wanted >= 12;
	cmp_ok(scalar(@files), '<=', 1 + $jobs{$name} + keys %hours, "$name: a file for each run and hour");
}
is(sql(q(SELECT count(*) FROM s3export.current_events WHERE event IN ('failed', 'suspended', 'lost'))), 0, 'nothing has failed');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
