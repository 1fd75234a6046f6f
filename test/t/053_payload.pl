# Bodies whose SHA-256 is signed and bodies whose is not: what arrives at the
# store, and what a person is told by one that takes them only signed.  Then how
# many parts are sent at once.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = s3export_node('main', aws_settings($s3), q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '5s'));
my $other = s3export_node('other', (aws_settings($s3))[1], q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '5s'));
my %keys = scripted_user($s3);
my $wide = 'SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, 11000) i';
my $oracle = copy_oracle($node, $wide, 'HEADER');
my %folder;
my %place = (bucket => 'exports', region => 'us-east-1');

# An object of one request and one of parts; what came of all bodies with rows, in one line.
sub arrived
{
	my ($server, $name, %arguments) = @_;
	my $folder = $folder{$name} = unique_folder();
	my $since = $s3->log;
	my (%seen, @bodies);

	create_connector($server, $name, %arguments, %keys, folder_path => $folder);
	$server->safe_psql('postgres', "SELECT s3export.copy_to('$name', 'VALUES (1)', 'one.csv')");
	$server->safe_psql('postgres', "SELECT s3export.copy_to('$name', " . sql_literal($wide) . ", 'wide.csv')");
	is($s3->object('exports', "$folder/one.csv"), "column1\n1\n", "$name: one request: its bytes");
	ok($s3->object('exports', "$folder/wide.csv") eq $oracle, "$name: by parts: its bytes");
	@bodies = grep { $_->{operation} =~ /^(PutObject|UploadPart)$/ } $s3->log(since => $since, service => 's3');
	is(scalar(grep { $_->{signature} ne 'valid' } @bodies), 0, "$name: signatures are valid");
	foreach my $entry (@bodies)
	{
		my $headers = $entry->{headers};

		$seen{$entry->{operation}} = 1;
		$seen{$entry->{tls} ? 'https' : 'http'} = 1;
		$seen{$headers->{'x-amz-content-sha256'} =~ /^[0-9a-f]{64}$/ ? 'SHA-256' : $headers->{'x-amz-content-sha256'}} = 1;
		$seen{'CRC32C'} = 1 if exists $headers->{'x-amz-checksum-crc32c'};
	}
	return join(' ', sort keys %seen);
}

# ---- what arrives
is(arrived($other, 'http', %place, endpoint_url => $s3->url), 'PutObject SHA-256 UploadPart http', 'over http bodies are signed');
is(arrived($other, 'http_signed', %place, endpoint_url => $s3->url, payload_signing => 'signed'),
	'PutObject SHA-256 UploadPart http', 'signed, over http');
is(arrived($other, 'http_unsigned', %place, endpoint_url => $s3->url, payload_signing => 'unsigned'),
	'PutObject UNSIGNED-PAYLOAD UploadPart http', 'unsigned, over http');
is(arrived($other, 'https', %place, endpoint_url => $s3->url('https')),
	'PutObject UNSIGNED-PAYLOAD UploadPart https', 'over https bodies are not signed, and have no checksum that not every store takes');
is(arrived($other, 'https_signed', %place, endpoint_url => $s3->url('https'), payload_signing => 'signed'),
	'PutObject SHA-256 UploadPart https', 'signed, over https');
is(arrived($node, 'aws', %place, endpoint_url => undef), 'CRC32C PutObject UNSIGNED-PAYLOAD UploadPart https', 'AWS gets a checksum');
is(arrived($node, 'aws_signed', %place, endpoint_url => undef, payload_signing => 'signed'),
	'CRC32C PutObject SHA-256 UploadPart https', 'signed, to AWS: the checksum is sent as well');

# ---- Ceph's gateway takes both, over plain http
SKIP:
{
	skip 'there is no gateway', 4 unless $S3{ENDPOINT};
	foreach my $signing ('signed', 'unsigned')
	{
		my $folder = unique_folder();

		create_connector($other, "rgw_$signing", folder_path => $folder, payload_signing => $signing);
		$other->safe_psql('postgres', "SELECT s3export.copy_to('rgw_$signing', 'VALUES (1)', 'one.csv')");
		$other->safe_psql('postgres', "SELECT s3export.copy_to('rgw_$signing', " . sql_literal($wide) . ", 'wide.csv')");
		is(s3_get("$folder/one.csv"), "column1\n1\n", "$signing: the gateway has an object");
		ok(s3_get("$folder/wide.csv") eq $oracle, "$signing: and one of parts");
	}
}

# ---- a change
$other->safe_psql('postgres', q(SELECT s3export.alter_connector('http_unsigned', payload_signing => 'signed')));
{
	my $since = $s3->log;

	$other->safe_psql('postgres', q(SELECT s3export.copy_to('http_unsigned', 'VALUES (2)', 'two.csv')));
	is(($s3->log(since => $since, operation => 'PutObject'))[0]{payload}, 'signed', 'an altered connector signs');
}

# ---- a store that takes none
foreach my $case ([ 'XAmzContentSHA256Mismatch', 400 ], [ 'NotImplemented', 501 ])
{
	my ($code, $status) = @$case;
	my $hint = qr/\nHINT:  Check that the server takes requests whose bodies are not signed; with payload_signing => 'signed' they are\.\n/;

	$s3->call('add_fault', do => 'error', code => $code, status => $status, times => undef, match => { operation => 'PutObject' });
	like(error_text($other, q(SELECT s3export.copy_to('https', 'VALUES (3)', 'three.csv'))), $hint, "$code for an unsigned body");
	unlike(error_text($other, q(SELECT s3export.copy_to('https_signed', 'VALUES (3)', 'three.csv'))), $hint, "$code for a signed one");
	$s3->call('clear_faults');
}

# ---- parts at the same time: as many as help, of those that may be
sub most_in_flight
{
	my ($settings, $name) = @_;

	$s3->call('clear_log');
	$other->safe_psql('postgres', "$settings SELECT s3export.copy_to('https', 'SELECT repeat(''x'', 1000000) FROM generate_series(1, 160)', '$name.csv')");
	$s3->call('delete_object', bucket => 'exports', key => "$folder{https}/$name.csv");
	return $s3->call('stats')->{most_in_flight}{UploadPart};
}

$s3->call('add_fault', do => 'stall', seconds => 0.5, when => 'before', times => undef, match => { operation => 'UploadPart' });
{
	my $most = most_in_flight('', 'slow');

	cmp_ok($most, '>=', 8, "a store that is slow for each connection is sent many parts at once");
	cmp_ok($most, '<=', 16, 'and no more than may be');
	is(most_in_flight('SET s3export.max_concurrent_parts = 3;', 'three'), 3, 's3export.max_concurrent_parts bounds them');
	is(most_in_flight(q(SET s3export.upload_memory = '20MB';), 'little'), 3, 'and so does s3export.upload_memory');
	is(most_in_flight('SET s3export.max_concurrent_parts = 1;', 'alone'), 1, 'one at a time');
}

done_testing();
