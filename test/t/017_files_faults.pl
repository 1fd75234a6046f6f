# Several files and a server that fails while they are put in place: what is
# there is said, by the error and by the rows, and no upload stays open.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = s3export_node('main', q(s3export.retry_timeout = '3s'), q(s3export.max_concurrent_parts = 1));
my %keys = scripted_user($s3);
my $folder = unique_folder();
my $exports = 0;

create_connector($node, 'lake', at_endpoint($s3), %keys, folder_path => $folder);

# Five files, of a part each that is sent while the query runs, or "small" ones that are
# sent when they are to appear; returns the error as a person sees it, and the names that are there.
sub meets
{
	my ($what, $faults, %more) = @_;
	my $name = 'e' . ++$exports;
	my $filler = $more{small} ? 1 : 600000;
	my ($error, @there);

	$s3->call('add_fault', %$_) foreach @$faults;
	$s3->call('put_object', bucket => 'exports', key => "$folder/$name/$_", body => 'old') foreach @{ $more{old} // [] };
	$error = error_text($node, "SELECT s3export.copy_to('lake', 'SELECT n, repeat(''x'', $filler) FROM generate_series(1, 50) n', '$name/f.csv', max_rows_per_file => 10, manifest => true"
		  . ($more{arguments} // '') . ')');
	$error =~ s{(?<=/)e\d+(?=/)}{EXPORT}g;
	is(scalar(grep { $_->{used} == 0 } @{ $s3->call('list_faults')->{faults} }), 0, "$what: it did happen");
	$s3->call('clear_faults');
	@there = grep { ($s3->object('exports', "$folder/$name/$_") // 'old') ne 'old' } 'f.csv', (map { "f_part$_.csv" } 2 .. 5), '_f.manifest.json';
	is(scalar($s3->uploads('exports')), 0, "$what: no upload stays open");
	is($node->safe_psql('postgres', qq{SELECT string_agg(regexp_replace(uri, '.*/', '') || ' ' || f.state, ', ' ORDER BY file_no)
			FROM s3export.job_files f JOIN s3export.jobs j USING (job_id, uri) WHERE j.path = '$name/f.csv'} =~ s/USING \(job_id, uri\)/USING (job_id)/r =~ s/\buri\b/f.uri/r),
		$more{rows}, "$what: the files' rows");
	is($node->safe_psql('postgres', "SELECT state, files, coalesce(error_detail, '') ~ ' of the 5 files are in place' FROM s3export.jobs WHERE path = '$name/f.csv'"), $more{job},
		"$what: the job's row");
	is(join(' ', @there), $more{there}, "$what: what is there");
	fault_outcome("five files and a manifest: $what", caller_cell($error), job_cell($node, "$name/f.csv"),
		(grep { /part|^f\.csv/ } @there) . ' of the files, ' . ((grep { /manifest/ } @there) ? 'the manifest' : 'no manifest'))
	  if @$faults || $more{old};
	return $error;
}

my %complete = (match => { operation => 'CompleteMultipartUpload' });
my $five = 'f.csv done, f_part2.csv done, f_part3.csv done, f_part4.csv done, f_part5.csv done';
my $every = 'f.csv f_part2.csv f_part3.csv f_part4.csv f_part5.csv';

is(meets('no fault', [], rows => "_f.manifest.json done, $five", job => 'succeeded|5|f', there => "$every _f.manifest.json"), "no error\n", 'no fault');
is($node->safe_psql('postgres', 'SELECT count(*) FROM s3export.job_files WHERE etag IS NOT NULL AND crc32c IS NOT NULL'), 6, 'each file has its ETag and CRC');
is_deeply([ grep { /Complete|Put/ } map { $_->{operation} } $s3->log ], [ ('CompleteMultipartUpload') x 5, 'PutObject' ], 'the manifest comes last');

is(meets('the third Complete fails', [ { do => 'slow_down', skip => 2, times => 1000, %complete } ],
		rows => '_f.manifest.json aborted, f.csv done, f_part2.csv done, f_part3.csv aborted, f_part4.csv aborted, f_part5.csv aborted',
		job => 'failed|2|t', there => 'f.csv f_part2.csv') =~ s/\d+ attempts/N attempts/r, <<'TEXT', 'the third Complete fails: the error');
ERROR:  38000: could not complete upload of object "s3://exports/FOLDER/EXPORT/f_part3.csv"
DETAIL:  S3 answered SlowDown (HTTP status 503) to s3:PutObject: Please reduce your request rate. Request ID ID, N attempts.  2 of the 5 files are in place: see s3export.job_files.
HINT:  S3 asks for fewer requests: reduce s3export.max_concurrent_parts, or try again later.
TEXT

like(meets('the fourth file is there already', [], old => ['f_part4.csv'],
		rows => '_f.manifest.json aborted, f.csv done, f_part2.csv done, f_part3.csv done, f_part4.csv aborted, f_part5.csv aborted',
		job => 'failed|3|t', there => 'f.csv f_part2.csv f_part3.csv'),
	qr/^ERROR:  42710: .*3 of the 5 files are in place/s, 'the fourth file is there already');

like(meets('the manifest is refused', [ { do => 'slow_down', times => 1000, match => { operation => 'PutObject' } } ],
		rows => "_f.manifest.json aborted, $five", job => 'failed|5|t', there => $every),
	qr/^ERROR:  38000: could not upload object "[^"]*f\.manifest\.json".* 5 of the 5 files are in place/s, 'the manifest is refused');

like(meets('no Complete gets through', [ { do => 'slow_down', times => 1000, %complete } ],
		rows => join(', ', map { "$_ aborted" } '_f.manifest.json', split / /, $every), job => 'failed|0|t', there => ''),
	qr/ 0 of the 5 files are in place/, 'no Complete gets through');

is(meets('an answer is lost', [ { do => 'lost_reply', forget => ScriptedS3::true, skip => 1, %complete } ],
		rows => "_f.manifest.json done, $five", job => 'succeeded|5|f', there => "$every _f.manifest.json"), "no error\n", 'an answer is lost');
like(meets('the last part fails', [ { do => 'error', code => 'AccessDenied', status => 403, skip => 4, times => 1000, match => { operation => 'UploadPart' } } ],
		rows => join(', ', map { "$_ aborted" } split / /, $every), job => 'failed|0|f', there => ''), qr/^ERROR:  .*could not upload part 1 of object/, 'the last part fails');

# Small files are sent by one request, at the end.
{
	my $since = $s3->log;
	my %put = (match => { operation => 'PutObject', key => '\.csv$' });

	is(meets('small files', [], small => 1, rows => "_f.manifest.json done, $five", job => 'succeeded|5|f', there => "$every _f.manifest.json"), "no error\n", 'small files');
	is_deeply([ grep { /Upload|Put/ } map { $_->{operation} } grep { $_->{n} >= $since } $s3->log ], [ ('PutObject') x 6 ], 'small files: their requests');
	like(meets('the third of the small files fails', [ { do => 'slow_down', skip => 2, times => 1000, %put } ], small => 1,
			rows => '_f.manifest.json aborted, f.csv done, f_part2.csv done, f_part3.csv aborted, f_part4.csv aborted, f_part5.csv aborted',
			job => 'failed|2|t', there => 'f.csv f_part2.csv'),
		qr{^ERROR:  38000: could not upload object "s3://exports/FOLDER/EXPORT/f_part3.csv".* 2 of the 5 files are in place}s, 'the third of the small files fails');
	like(meets('the fourth of the small files is there already', [], small => 1, old => ['f_part4.csv'],
			rows => '_f.manifest.json aborted, f.csv done, f_part2.csv done, f_part3.csv done, f_part4.csv aborted, f_part5.csv aborted',
			job => 'failed|3|t', there => 'f.csv f_part2.csv f_part3.csv'),
		qr/^ERROR:  42710: .*3 of the 5 files are in place/s, 'the fourth of the small files is there already');
	is(meets('the answer to a small file is lost', [ { do => 'lost_reply', forget => ScriptedS3::true, skip => 1, %put } ], small => 1,
			rows => "_f.manifest.json done, $five", job => 'succeeded|5|f', there => "$every _f.manifest.json"), "no error\n", 'the answer to a small file is lost');
}

# The uploader ends while it looks for one file, and the other has just appeared.
{
	my %of = map { my $key = "$folder/two/$_"; $_ => sub { { operation => $_[0], key => $key } } } 'f.csv', 'f_part2.csv';
	my ($handle, $error);
	my $seen = sub
	{
		my ($operation, $file) = @_;

		return grep { $_->{key} eq "$folder/two/$file" } $s3->log(operation => $operation);
	};

	$s3->call('add_fault', do => 'lost_reply', forget => ScriptedS3::true, match => $of{'f.csv'}->('CompleteMultipartUpload'));
	$s3->call('add_fault', do => 'stall', when => 'before', match => $of{'f.csv'}->('HeadObject'));
	my $held = $s3->call('add_fault', do => 'stall', when => 'before', match => $of{'f_part2.csv'}->('CompleteMultipartUpload'))->{id};
	$handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET s3export.max_concurrent_parts = 2',
			'-c', "SELECT s3export.copy_to('lake', 'SELECT n, repeat(''x'', 600000) FROM generate_series(1, 20) n', 'two/f.csv', max_rows_per_file => 10)" ], '>', \my $out, '2>', \$error);
	poll_until(sub { $seen->('HeadObject', 'f.csv') }, 'the look at the first file');
	$s3->call('release', id => $held);
	poll_until(sub { grep { defined $_->{status} } $seen->('CompleteMultipartUpload', 'f_part2.csv') }, 'the second file');
	sleep 1;
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(uploader_pid) FROM s3export.jobs WHERE path = 'two/f.csv'));
	$handle->finish;
	$s3->call('clear_faults');
	like($error, qr/1 of the 2 files are in place/, 'an answer came while the uploader ended: the error');
	is($node->safe_psql('postgres', q(SELECT f.state, f.etag IS NOT NULL, f.crc32c IS NOT NULL FROM s3export.job_files f JOIN s3export.jobs j USING (job_id) WHERE j.path = 'two/f.csv' AND file_no = 2)),
		'done|t|t', 'an answer came while the uploader ended: the row');
}

# Ceph 16 leaves the ETag out of its answer to Complete: the object is asked for it.
{
	my @heads;
	my $since;
	my %blind = scripted_user($s3, policy => allow(qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:AbortMultipartUpload)));
	my $etags = sub
	{
		my ($path) = @_;

		return $node->safe_psql('postgres', "SELECT string_agg(coalesce(f.etag, '-'), ' ' ORDER BY f.uri) FROM s3export.job_files f JOIN s3export.jobs j USING (job_id) WHERE j.path = '$path' AND f.file_no > 0");
	};

	$s3->call('configure', etag_style => 'empty');
	$since = $s3->log;
	is(meets('Complete tells no ETag', [], rows => "_f.manifest.json done, $five", job => 'succeeded|5|f', there => "$every _f.manifest.json"), "no error\n", 'Complete tells no ETag');
	is($etags->("e$exports/f.csv"), join(' ', map { '"' . ($_->{etag} =~ tr/"//dr) . '"' } grep { $_->{key} =~ m{/e$exports/.*csv$} } @{ $s3->call('objects', bucket => 'exports')->{objects} }),
		'Complete tells no ETag: the rows have those of the objects');
	unlike($s3->object('exports', "$folder/e$exports/_f.manifest.json"), qr/"etag": null/, 'Complete tells no ETag: the manifest has them');
	@heads = grep { $_->{n} >= $since && $_->{key} =~ m{/e$exports/} } $s3->log(operation => 'HeadObject');
	is(scalar(@heads), 5, 'Complete tells no ETag: one request for each');

	create_connector($node, 'blind', at_endpoint($s3), %blind, folder_path => "$folder/blind", validate => \'false');
	is(error_text($node, "SELECT s3export.copy_to('blind', 'SELECT n, repeat(''x'', 300000) FROM generate_series(1, 50) n', 'b.csv', max_rows_per_file => 25)"), "no error\n",
		'Complete tells no ETag, and nobody may look: no error');
	is($etags->('b.csv'), '- -', 'Complete tells no ETag, and nobody may look: none');
	$s3->call('configure', etag_style => 'quot');
}

$node->stop;
$s3->stop;
done_testing();
