# Uploads that an export has begun and does not end: each is aborted, or a row names
# it, whenever the error comes; and nobody waits for that longer than he has to.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(time sleep);

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '20s'), q(s3export.stall_timeout = '10s'));
my $folder = unique_folder();

create_connector($node, 'lake', at_endpoint($s3), %keys, folder_path => $folder, validate => \'false');

# Ends with an error when some parts have been filled.
my $failing = q(SELECT i/(6300-i), repeat('x', 1024), CASE WHEN i = 6250 THEN pg_sleep(0.4) END FROM generate_series(1,12000) i);

sub copy_sql
{
	my ($query, $path, %more) = @_;

	return 'SELECT rows FROM s3export.copy_to(' . join(', ', map { sql_literal($_) } 'lake', $query, $path)
	  . join('', map { ", $_ => " . sql_literal($more{$_}) } sort keys %more) . ')';
}

sub add_faults
{
	$s3->call('add_fault', %$_) foreach @_;
	return;
}

sub on
{
	my ($file, @operations) = @_;

	return (match => { operation => \@operations, key => "$file\$" });
}

# The state of the job of a path, and of its files.
sub states
{
	return $node->safe_psql('postgres', q(SELECT j.state || ' ' || coalesce(string_agg(f.state || CASE WHEN f.upload_id IS NULL THEN '' ELSE ' with an upload' END, ', '), 'no file')
		FROM s3export.job j LEFT JOIN s3export.job_file f USING (job_id) WHERE j.path = ) . sql_literal($_[0]) . q( GROUP BY j.job_id, j.state));
}

# Until the job of a path has ended; it may outlive its session.
sub ends
{
	my ($path) = @_;

	return poll_until(sub { $node->safe_psql('postgres', 'SELECT bool_and(finished_at IS NOT NULL) FROM s3export.job WHERE path = ' . sql_literal($path)) eq 't' }, "the end of $path");
}

sub requests
{
	my ($operation, $file, $since) = @_;

	return scalar grep { $_->{operation} eq $operation && ($_->{key} // '') =~ /$file$/ } $s3->log(since => $since);
}

# ---- an id that comes when the export has failed already
add_faults(
	{ do => 'error', code => 'AccessDenied', status => 403, times => undef, on('late.csv', 'AbortMultipartUpload') },
	{ do => 'stall', seconds => 1, when => 'after', times => 1, on('late.csv', 'CreateMultipartUpload') });
error_like($node, copy_sql($failing, 'late.csv', parallel => \'0'), { sqlstate => '22012' }, 'an export that fails before its upload has an id');
ends('late.csv');
is(states('late.csv'), 'failed uploading with an upload', 'the upload, which cannot be aborted, has a row');
is($node->safe_psql('postgres', q(SELECT upload_id FROM s3export.job_files WHERE uri LIKE '%/late.csv')), ($s3->uploads('exports'))[0]{upload_id}, 'with its id');
is($node->safe_psql('postgres', q(SELECT open_uploads FROM s3export.jobs WHERE uri LIKE '%/late.csv')), 1, 'the job says that it is open');
$s3->call('clear_faults');
is($node->safe_psql('postgres', q(SELECT string_agg(action, ' ') FROM s3export.recover())), 'aborted', 'recovery aborts it');
is(scalar($s3->uploads('exports')), 0, 'nothing is left of it');

# ---- parts that are under way when the upload is aborted
{
	my $since = $s3->log;

	# S3 says yes to the first abort, and what arrives afterwards stays.
	add_faults(
		{ do => 'stall', seconds => 30, times => undef, on('flight.csv', 'UploadPart') },
		{ do => 'answer', status => 204, times => 1, on('flight.csv', 'AbortMultipartUpload') });
	error_like($node, copy_sql($failing, 'flight.csv', parallel => \'0'), { sqlstate => '22012' }, 'an export that fails while parts are under way');
	ends('flight.csv');
	is(scalar($s3->uploads('exports')), 0, 'an abort that has missed a part is repeated');
	is(states('flight.csv'), 'failed aborted', 'before the row says that it is aborted');
	is(requests('AbortMultipartUpload', 'flight.csv', $since), 3, 'until the upload is unknown');
	$s3->call('clear_faults');

	add_faults(
		{ do => 'stall', seconds => 30, times => undef, on('maybe.csv', 'UploadPart') },
		{ do => 'answer', status => 204, times => 1, on('maybe.csv', 'AbortMultipartUpload') },
		{ do => 'error', code => 'AccessDenied', times => undef, on('maybe.csv', 'AbortMultipartUpload') });
	error_like($node, copy_sql($failing, 'maybe.csv', parallel => \'0'), { sqlstate => '22012' }, 'an abort that cannot be repeated');
	ends('maybe.csv');
	like(states('maybe.csv'), qr/with an upload$/, 'leaves the upload in its row');
	$s3->call('clear_faults');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.recover())), 1, 'for recovery');

	$since = $s3->log;
	error_like($node, copy_sql($failing =~ s/pg_sleep\(0\.4\)/pg_sleep(2)/r, 'still.csv', parallel => \'0'), { sqlstate => '22012' }, 'an export that fails when nothing is under way');
	ends('still.csv');
	is(requests('AbortMultipartUpload', 'still.csv', $since), 1, 'is aborted by one request');
	is(scalar($s3->uploads('exports')), 0, 'nothing is left of all of them');
}

# ---- the next export to the path, while the last one is being aborted
add_faults({ do => 'stall', seconds => 3, when => 'after', times => undef, on('again.csv', 'CreateMultipartUpload', 'AbortMultipartUpload') });
error_like($node, copy_sql($failing, 'again.csv', parallel => \'0'), { sqlstate => '22012' }, 'an export that fails, and takes a while to be aborted');
is($node->safe_psql('postgres', copy_sql('SELECT 1', 'again.csv')), 1, 'the next one to its path waits for that');
is(states('again.csv') =~ tr/\n//, 1, 'there are two jobs');
$s3->call('clear_faults');
$node->safe_psql('postgres', 'SELECT s3export.recover()');
is(scalar($s3->uploads('exports')), 0, 'nothing is left');
{
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', copy_sql('SELECT pg_sleep(4)', 'busy.csv') ], '>', \$out, '2>', \$err);

	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM s3export.job WHERE path = 'busy.csv')) == 1 }, 'an export that runs');
	error_like($node, copy_sql('SELECT 1', 'busy.csv'), { sqlstate => '55006', message => qr/^another export writes to/ }, 'one that runs is not waited for');
	$run->finish;
}

# ---- a success that has an error in it: its code decides
foreach my $case (
	[ 'InvalidPart', '38000|39000', qr/^could not complete upload/ ],
	[ 'NoSuchKey', '38000|39000', qr/^could not complete upload/ ],
	[ 'EntityTooSmall', '53400', qr/^could not complete upload/ ],
	[ 'PreconditionFailed', '42710', qr/already exists$/ ])
{
	my ($code, $sqlstate, $message) = @$case;
	my $since = $s3->log;
	my $start = time;

	add_faults({ do => 'error', status => 200, code => $code, times => undef, on("$code.csv", 'CompleteMultipartUpload') });
	error_like($node, copy_sql(q(SELECT repeat('x', 1024) FROM generate_series(1, 6000)), "$code.csv"), { sqlstate => qr/^($sqlstate)$/, message => $message, detail => qr/$code.*1 attempt\.$/ },
		"status 200 with $code: the error, with no doubt about the object");
	cmp_ok(time - $start, '<', 15, "status 200 with $code: is not tried for long");
	is(requests('CompleteMultipartUpload', "$code.csv", $since), 1, "status 200 with $code: is asked once");
	$s3->call('clear_faults');
}
is(scalar($s3->uploads('exports')), 0, 'nothing is left of them');

# ---- others, and a server that stops, do not wait for aborts
{
	my $files = 10;
	my $query = "SELECT i/($files-i), repeat('x', 5600000) FROM generate_series(1, " . 2 * $files . ') i';
	my $start;

	$node->safe_psql('postgres', 'CREATE DATABASE other');
	add_faults({ do => 'stall', seconds => 60, times => undef, on('csv', 'AbortMultipartUpload') });
	error_like($node, copy_sql($query, 'many/x.csv', max_rows_per_file => \'1', parallel => \'0'), { sqlstate => '22012' }, 'an export of many files fails');
	poll_until(sub { scalar($s3->log(operation => 'AbortMultipartUpload')) > 0 || $s3->call('stats')->{in_flight}{AbortMultipartUpload} }, 'an abort');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')), 1, 'its uploads are being aborted');
	$start = time;
	$node->safe_psql('postgres', 'DROP DATABASE other');
	cmp_ok(time - $start, '<', 2, 'what needs all processes of the server does not wait');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')), 1, 'they still are');
	$start = time;
	$node->stop('fast');
	cmp_ok(time - $start, '<', 5, 'a server that stops waits for 2 seconds');
	$s3->call('clear_faults');
	$node->start;
	like(states('many/x.csv'), qr/^failed .*with an upload/, 'what is left is in the rows');
	$node->safe_psql('postgres', 'SELECT s3export.recover()');
	is(scalar($s3->uploads('exports')), 0, 'and is aborted by recovery');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
