# Hints that lead to what is to be done where the answer alone leads elsewhere: to
# the region, to the signing of bodies, to the setting that was too short; and no
# network is no matter of credentials.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my ($proxy, $ca_file) = aws_settings($s3);
my $node = s3export_node('main', $ca_file, q(s3export.retry_timeout = '2s'), q(s3export.stall_timeout = '1s'), q(s3export.part_size = '5MB'));
my $folder = unique_folder();
my @place = (at_endpoint($s3), folder_path => $folder, validate => \'false');

create_connector($node, 'lake', @place, %keys);

sub copy_sql
{
	return "SELECT rows FROM s3export.copy_to('$_[0]', " . sql_literal($_[2] // 'SELECT 1') . ", '$_[1]')";
}

# ---- keys and regions
$s3->call('add_fault', do => 'error', code => 'SignatureDoesNotMatch', times => undef);
create_connector($node, 'nowhere', @place, %keys, region => undef, folder_path => "$folder/nowhere");
error_like($node, copy_sql('nowhere', 'x.csv'), { sqlstate => '28000', detail => qr/SignatureDoesNotMatch/, hint => qr/secret access key\..*no region, and "us-east-1" was signed for: set the region/ },
	'a signature that does not match, with a region that nobody has given');
my $hint = sql_error($node, copy_sql('lake', 'x.csv'))->{hint};
like($hint, qr/secret access key/, 'with one that was given the secret is to be checked');
unlike($hint, qr/region/, 'and not the region');
$s3->call('clear_faults');
$s3->call('add_fault', do => 'error', code => 'InvalidAccessKeyId', times => undef);
unlike(sql_error($node, copy_sql('lake', 'x.csv'))->{hint}, qr/GovCloud/, 'AWS has nothing to do with the keys of other stores');
$node->append_conf('postgresql.conf', "$proxy\n");
$node->reload;
create_connector($node, 'aws', @place, %keys, endpoint_url => undef, folder_path => "$folder/aws");
error_like($node, copy_sql('aws', 'x.csv'), { sqlstate => '28000', hint => qr/^Check the access key ID.*GovCloud.*set the region\.$/ }, 'a key that AWS does not know');
$s3->call('clear_faults');
$node->append_conf('postgresql.conf', "s3export.proxy = ''\n");
$node->reload;

# ---- bodies that are not signed
create_connector($node, 'https', @place, %keys, endpoint_url => $s3->url('https'), folder_path => "$folder/https");
$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'PutObject' }, times => undef);
error_like($node, copy_sql('https', 'x.csv'), { sqlstate => '28000', hint => qr/^Check that the policies.*not signed: with payload_signing => 'signed' they are\.$/ }, 'AccessDenied for a body that is not signed');
unlike(sql_error($node, copy_sql('lake', 'x.csv'))->{hint}, qr/payload_signing/, 'for one that is, policies alone matter');
$s3->call('clear_faults');

# ---- a server that is slow to answer
{
	my $parts = q(SELECT repeat('x', 1024) FROM generate_series(1, 6000));
	my ($status, $out, $err);

	$s3->call('add_fault', do => 'stall', seconds => 30, when => 'after', match => { operation => 'UploadPart' }, times => undef);
	error_like($node, copy_sql('lake', 'slow.csv', $parts),
		{ sqlstate => '08006', detail => qr/: no answer 1000 ms after all was sent\. \d+ attempts\.$/, hint => qr/raise s3export\.stall_timeout/ }, 'parts that are answered too late');
	$s3->call('clear_faults');
	$s3->call('add_fault', do => 'stall', seconds => 30, when => 'body', match => { operation => 'UploadPart' }, times => undef);
	error_like($node, copy_sql('lake', 'stuck.csv', q(SELECT repeat(md5(i::text), 320) FROM generate_series(1, 6000) i)),
		{ sqlstate => '08006', detail => qr/: no (progress for 1000 ms|answer 1000 ms after all was sent)\./, hint => qr/raise s3export\.stall_timeout/ }, 'parts that are not taken');
	$s3->call('clear_faults');

	$s3->call('add_fault', do => 'stall', seconds => 30, when => 'after', match => { operation => 'UploadPart' }, times => 14);
	($status, $out, $err) = $node->psql('postgres', q(SET s3export.progress_notice = on; SET s3export.retry_timeout = '60s'; ) . copy_sql('lake', 'notice.csv', $parts));
	like($err, qr/^psql:<stdin>:1: NOTICE:  export: .* sent.*; waiting for S3.*; \d+ requests sent again$/m, 'notices tell that parts are sent again');
	is($out, '6000', 'and it ends well');
	$s3->call('clear_faults');
}

# ---- no network
foreach my $case ([ 'nobody listens', 'http://127.0.0.1:1' ], [ 'no such host', 'http://no-such-host.invalid' ])
{
	my ($what, $url) = @$case;
	my %expected = (sqlstate => '08006');

	error_like($node, 'SELECT ' . connector_sql('none', @place, %keys, endpoint_url => $url, folder_path => 'none', validate => \'true'), { %expected, message => 'S3 cannot be used as configured: check "bucket" failed' }, "$what: create_connector");
	create_connector($node, 'none', @place, %keys, endpoint_url => $url, folder_path => "$folder/none");
	error_like($node, copy_sql('none', 'x.csv'), { %expected, message => qr/^could not look for object/ }, "$what: copy_to");
	my $said = join ' ', map { $_ // '' } %{ sql_error($node, copy_sql('none', 'x.csv')) };
	unlike($said, qr/credential|secret|access key/i, "$what: credentials are not blamed");
	$node->safe_psql('postgres', q(SELECT s3export.drop_connector('none')));
}
{
	my $role = scripted_role($s3, 'exporter');

	$node->safe_psql('postgres', "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}')");
	create_connector($node, 'role', @place, role_arn => $role, endpoint_url => undef, sts_endpoint_url => 'http://127.0.0.1:1', folder_path => "$folder/role");
	error_like($node, copy_sql('role', 'x.csv'), { sqlstate => '08006', message => qr/^could not get credentials/, detail => qr/^No answer came/ }, 'STS cannot be reached');
}
foreach my $case ([ 'KeyTooLongError', 400 ], [ 'NotImplemented', 501 ])
{
	my ($code, $status) = @$case;

	$s3->call('add_fault', do => 'error', code => $code, status => $status, match => { operation => 'CreateMultipartUpload' }, times => undef);
	error_like($node, 'SELECT ' . connector_sql('odd', @place, %keys, folder_path => "$folder/odd", validate => \'true'), { sqlstate => qr/^(?!28)/, message => 'S3 cannot be used as configured: check "put object" failed', detail => qr/$code/ },
		"$code is no matter of credentials");
	$s3->call('clear_faults');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
