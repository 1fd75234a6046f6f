# S3 that is away for a while or does not answer, and servers and sessions that end
# while an export waits for it.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

my $s3 = scripted_s3();
my $names = PostgreSQL::Test::Utils::tempdir() . '/names.so';

PostgreSQL::Test::Utils::system_or_bail('cc', '-shared', '-fPIC', '-o', $names, dirname(abs_path(__FILE__)) . '/../lib/names.c', '-ldl');
my $node = do {
	local $ENV{LD_PRELOAD} = $names;

	s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '5min'), q(s3export.stall_timeout = '1s'), q(s3export.request_timeout = '1s'));
};
my %keys = scripted_user($s3);
my $folder = unique_folder();
my $rows = 13000;
my %complete = (match => { operation => 'CompleteMultipartUpload' });

# In the middle the rows wait for a file.
my $gate = $node->data_dir . '/gate';
my $query = "SELECT i, filler, CASE WHEN i = 6500 THEN gate() ELSE '' END AS gate FROM wide ORDER BY i";

$node->safe_psql('postgres', <<"SQL");
CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, $rows) i;
CREATE FUNCTION gate() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE (pg_stat_file('gate', true)).size IS NULL LOOP PERFORM pg_sleep(0.05); END LOOP;
	RETURN '';
END \$\$;
SQL
my $whole = copy_oracle($node, q(SELECT i, filler, '' AS gate FROM wide ORDER BY i), 'HEADER');
create_connector($node, 'lake', at_endpoint($s3), %keys, folder_path => $folder);

sub start
{
	my ($file, %options) = @_;
	my ($out, $error) = ('', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'),
			map({ ('-c', $_) } @{ $options{before} // [] }),
			'-c', "SELECT rows FROM s3export.copy_to('" . ($options{connector} // 'lake') . "', " . sql_literal($options{query} // $query) . ", '$file')" ],
		'>', \$out, '2>', \$error);

	return { file => $file, handle => $handle, out => \$out, error => \$error, since => $s3->log };
}

sub job
{
	my ($file, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM s3export.jobs WHERE uri LIKE '%/$file' ORDER BY job_id DESC LIMIT 1");
}

# Starts one that has sent a part and waits for its gate.
sub start_half
{
	my ($file, @more) = @_;
	my $export;

	unlink $gate;
	$export = start($file, @more);
	poll_until(sub { grep { ($_->{key} // '') eq "$folder/$file" && $_->{worked} } $s3->log(operation => 'UploadPart') }, "a part of $file");
	return $export;
}

# The three things that are asserted of an export that has ended, and the line for the table.
sub seen
{
	my ($fault, $export, @wanted) = @_;
	my @seen = (caller_cell(${ $export->{error} }), job_cell($node, $export->{file}), scripted_cell($s3, "$folder/$export->{file}", $whole));

	is_deeply(\@seen, \@wanted, "$fault: the caller, the job's row, the bucket") or diag(${ $export->{error} });
	fault_outcome($fault, @seen);
	return;
}

# ---- S3 is away, and comes back
# An outage of three minutes at the default s3export.retry_timeout takes S3EXPORT_TEST_OUTAGE=180;
# some seconds have several rounds of retries, too.
my $seconds = $ENV{S3EXPORT_TEST_OUTAGE} // 6;
my %outage = (
	'S3 refuses connections, and comes back' => [ sub { $s3->call('listen', on => ScriptedS3::false) }, sub { $s3->call('listen', on => ScriptedS3::true) } ],
	'S3 falls silent, and comes back' => [ sub { kill 'STOP', $s3->{pid} }, sub { kill 'CONT', $s3->{pid} } ]);
foreach my $fault (sort keys %outage)
{
	my ($away, $back) = @{ $outage{$fault} };
	my $export = start_half($fault =~ s/\W+/_/gr . '.csv');
	my $since = time;

	$away->();
	append_to_file($gate, "\n");
	sleep $seconds;
	ok($export->{handle}->pumpable, "$fault: the export waits");
	$back->();
	$export->{handle}->finish;
	is(${ $export->{out} }, "$rows\n", "$fault: the rows are counted");
	cmp_ok(time - $since, '>=', $seconds, "$fault: it was away");
	cmp_ok(job($export->{file}, 'requests'), '>=', 6, "$fault: several rounds of retries");
	seen($fault, $export, 'success', 'succeeded', 'the whole object');
}

# Longer than it is waited for.
{
	my $fault = 'S3 refuses connections for longer than s3export.retry_timeout';
	my $export = start_half('too_long.csv', before => [ q(SET s3export.retry_timeout = '2s') ]);

	$s3->call('listen', on => ScriptedS3::false);
	append_to_file($gate, "\n");
	$export->{handle}->finish;
	seen($fault, $export, '`08006` could not upload a part of object', 'failed `08006`, names the upload that is left', 'no object, 1 open upload');
	$s3->call('listen', on => ScriptedS3::true);
	is($node->safe_psql('postgres', 'SELECT action FROM s3export.recover()'), 'aborted', "$fault: recover() when it is back");
	is(scalar($s3->uploads('exports')), 0, "$fault: nothing is left");
}

# ---- sessions that end while an export waits
# In the pause before it tries again
my %ended = (
	pg_cancel_backend => '`57014` canceling statement due to user request',
	pg_terminate_backend => '`57P01` terminating connection due to administrator command');
foreach my $function (sort keys %ended)
{
	my $export = start_half("$function.csv");
	my $started;

	$s3->call('add_fault', do => 'slow_down', match => { operation => 'UploadPart' }, times => undef);
	append_to_file($gate, "\n");
	poll_until(sub { $node->safe_psql('postgres', "SELECT phase FROM s3export.progress WHERE job_id = " . job($export->{file}, 'job_id')) eq 'retrying' }, 'a pause');
	$started = time;
	$node->safe_psql('postgres', "SELECT $function(" . job($export->{file}, 'leader_pid') . ')');
	$export->{handle}->finish;
	cmp_ok(time - $started, '<', 2, "$function while S3 is overloaded: at once");
	poll_until(sub { job($export->{file}, 'state') eq 'cancelled' }, 'the end of the job');
	$s3->call('clear_faults');
	seen("$function in the pause before a retry", $export, $ended{$function}, 'cancelled `57014`', 'no object');
}

# In a TLS handshake that the other side does not take part in, and while a name is looked up.
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "could not listen: $!";
create_connector($node, 'handshake', at_endpoint($s3), %keys, endpoint_url => 'https://127.0.0.1:' . $silent->sockport, folder_path => $folder, validate => \'false');
create_connector($node, 'lookup', at_endpoint($s3), %keys, endpoint_url => 'http://unanswered.example.org', folder_path => $folder, validate => \'false');
foreach my $case ([ 'handshake', 'in a TLS handshake' ], [ 'lookup', 'while a name is looked up' ])
{
	my ($connector, $what) = @$case;

	foreach my $function (sort keys %ended)
	{
		my $file = "$connector $function.csv";
		my $export = start($file, connector => $connector, before => [ q(SET s3export.connect_timeout = '60s'), q(SET s3export.request_timeout = '60s') ]);
		my $started;

		poll_until(sub { job($file, 'state') eq 'running' }, "the row of $file");
		sleep 0.5;
		$started = time;
		$node->safe_psql('postgres', "SELECT $function(" . job($file, 'leader_pid') . ')');
		$export->{handle}->finish;
		cmp_ok(time - $started, '<', 2, "$function $what: at once");
		poll_until(sub { job($file, 'state') eq 'cancelled' }, 'the end of the job');
		poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')) == 0 }, 'the end of the uploader');
		seen("$function $what", $export, $ended{$function}, 'cancelled `57014`', 'no object');
	}
}

# ---- names that lead to where requests must not go
foreach my $case ([ 'loopback', 'a loopback address' ], [ 'metadata', 'a link-local address' ])
{
	my ($bucket, $address) = @$case;
	my $file = "$bucket.csv";
	my %export = (file => $file);

	create_connector($node, $bucket, at_aws(), %keys, bucket => $bucket, region => 'us-east-1', folder_path => $folder, validate => \'false');
	my $error = sql_error($node, "SET s3export.retry_timeout = 0; SELECT s3export.copy_to('$bucket', 'VALUES (1)', '$file')");
	like($error->{detail} // '', qr/\Q$address\E/, "a host of AWS's that resolves to $address: the reason") or diag(explain($error));
	my @seen = (caller_cell($error), job_cell($node, $file), scripted_cell($s3, "$folder/$file", undef));
	is_deeply(\@seen, [ '`08006` could not look for object', 'failed `08006`', 'no object' ], "a host of AWS's that resolves to $address");
	fault_outcome("a host of AWS's resolves to $address", @seen);
}

# ---- a fast shutdown while the object is made: it is there, or not
foreach my $when ('before', 'after')
{
	my $what = 'a fast shutdown while the object is completed, and ' . ($when eq 'after' ? 'made' : 'not made');
	my $file = "shutdown_$when.csv";
	my $since = $s3->log;
	my ($export, $started);

	$s3->call('add_fault', do => 'stall', when => $when, %complete);
	append_to_file($gate, "\n");
	$export = start($file);
	poll_until(sub { job($file, 'state') eq 'completing' && grep { $_->{n} >= $since } $s3->log(operation => 'CompleteMultipartUpload') }, 'the last request');
	poll_until(sub { $when eq 'before' || defined $s3->object('exports', "$folder/$file") }, 'the object');
	$started = time;
	$node->stop('fast');
	cmp_ok(time - $started, '<', 15, "$what: is fast");
	$export->{handle}->finish;
	$s3->call('clear_faults');
	$node->start;
	is(job_cell($node, $file), 'cancelled `57P01`, in doubt', "$what: the row does not know");
	is($node->safe_psql('postgres', 'SELECT action, detail FROM s3export.recover()'), $when eq 'after'
		? "completed|The object is in place, with the token and the size of this job's."
		: 'aborted|There is no such object.', "$what: recover()");
	seen($what, $export, $ended{pg_terminate_backend}, $when eq 'after'
		? ('succeeded, settled by recovery', 'the whole object')
		: ('cancelled `57P01`, settled by recovery', 'no object'));
}

is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')), 0, 'no uploader stays');
is(scalar($s3->uploads('exports')), 0, 'no upload stays open');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
