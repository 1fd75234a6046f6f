# Keys and roles: every permission is tested before anything is saved, and what
# is missing is said.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

s3_or_skip();
my $node = s3export_node('main');
my $folder = unique_folder();
my @all = qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:GetObject s3:DeleteObject s3:AbortMultipartUpload);
my $tag = join '', map { chr(97 + rand 26) } 1 .. 8;

sub connectors
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM s3export.connectors');
}

sub secrets
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM s3export.secret');
}

# ---- what is wrong is said, and nothing is saved
foreach my $case (
	[ 'a wrong secret', { secret_access_key => 'wrong' x 8 }, '28000', qr/SignatureDoesNotMatch/, qr/secret/ ],
	[ 'an unknown key', { access_key_id => 'NOSUCHKEY0123456' }, '28000', qr/InvalidAccessKeyId/, qr/./ ],
	[ 'no such bucket', { bucket => 'no-such-bucket-here' }, '42704', qr/NoSuchBucket|404/, qr/bucket/i ],
	[ 'nobody at the endpoint', { endpoint_url => 'http://127.0.0.1:1' }, '08006', qr/./, qr/./ ])
{
	my ($what, $arguments, $sqlstate, $detail, $hint) = @$case;
	my $title = $sqlstate eq '28000' ? qr/^S3 credentials are invalid/ : qr/^S3 cannot be used as configured/;

	error_like($node, "SET s3export.retry_timeout = '1s'; SELECT " . connector_sql('bad', folder_path => $folder, %$arguments),
		{ message => $title, sqlstate => $sqlstate, detail => $detail, hint => $hint }, "$what is said");
	is(connectors() . secrets(), '00', "$what: nothing is saved");
}

# ---- each permission
# Ceph answers NoSuchKey before it looks for s3:GetObject, so the scripted server
# tests that one.  Who may not list is told 403 of a key that is not there: then
# two checks cannot be told apart.
foreach my $missing (grep { $_ ne 's3:AbortMultipartUpload' && $_ ne 's3:GetObject' } @all)
{
	my $name = lc($missing =~ s/s3://r) . $tag;
	my ($id, $secret) = s3_user($name, grep { $_ ne $missing } @all);

	s3_secret($secret);
	error_like($node, 'SELECT ' . connector_sql('lame', folder_path => $folder, access_key_id => $id, secret_access_key => $secret),
		{ message => qr/^S3 credentials are invalid/, sqlstate => '28000', detail => qr/\Q$missing\E/ }, "without $missing");
	my $failed = $node->safe_psql('postgres', 'SELECT string_agg(action, \',\') FROM ('
		  . (connector_sql('x', folder_path => $folder, access_key_id => $id, secret_access_key => $secret)
			  =~ s/create_connector\((.*), name => 'x'(.*)\)$/test_credentials($1$2)/r =~ s/^/SELECT * FROM /r)
		  . ') t WHERE NOT ok');
	is($failed, $missing eq 's3:ListBucket' ? 's3:ListBucket,s3:GetObject' : $missing, "without $missing: its check fails");
}
is(connectors() . secrets(), '00', 'nothing was saved');

# A currents connector never deletes.
{
	my ($id, $secret) = s3_user("currents$tag", grep { $_ ne 's3:DeleteObject' } @all);

	s3_secret($secret);
	create_connector($node, 'flow', kind => 'currents', folder_path => "$folder/flow", access_key_id => $id, secret_access_key => $secret);
	is($node->safe_psql('postgres', q(SELECT string_agg("check" || '=' || ok, ', ') FROM s3export.test_credentials('flow'))),
		'bucket=true, list bucket=true, bucket location=true, put object=true, get object=true', 'the checks of a currents connector');
}
is_deeply([ s3_list($folder) ], [], 'the checks leave no object behind');
is_deeply([ s3_uploads($folder) ], [], 'and no upload');

# ---- rotation
create_connector($node, 'lake', folder_path => "$folder/lake");
error_like($node, q(SELECT s3export.set_credentials('lake', access_key_id => 'NOSUCHKEY0123456', secret_access_key => 'nothing')),
	{ message => qr/^S3 credentials are invalid/ }, 'new keys are tested before they replace the old');
is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'old.csv'))), 1, 'which still work');
{
	my ($id, $secret) = s3_user("new$tag", @all);

	s3_secret($secret);
	$node->safe_psql('postgres', "SELECT s3export.set_credentials('lake', access_key_id => '$id', secret_access_key => '$secret')");
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'new.csv'))), 1, 'the new ones work');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.secret)), 2, 'the old secret is gone');
}

# ---- roles
error_like($node, 'SELECT ' . connector_sql('role', folder_path => "$folder/role", role_arn => $S3{ROLE_ARN}),
	{ hint => qr/set_identity/ }, 'a role needs an identity');
$node->safe_psql('postgres', "SELECT s3export.set_identity('$S3{STS_ACCESS_KEY_ID}', '$S3{STS_SECRET_ACCESS_KEY}')");
s3_secret($S3{STS_SECRET_ACCESS_KEY});
create_connector($node, 'role', folder_path => "$folder/role", role_arn => $S3{ROLE_ARN});
is($node->safe_psql('postgres', q(SELECT "check", ok, action FROM s3export.test_credentials('role') LIMIT 1)), 'assume role|t|sts:AssumeRole', 'the role is assumed');
is($node->safe_psql('postgres', q(SET s3export.part_size = '5MB';
	SELECT rows FROM s3export.copy_to('role', 'SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 20000) g', 'role.csv'))), 20000, 'an export with a role');
# In Ceph an object belongs to the role, and even the bucket's owner cannot read it.
like(s3_ok('ls', "$folder/role/"), qr/^@{[ $node->safe_psql('postgres', q(SELECT bytes FROM s3export.job_files WHERE uri LIKE '%role.csv')) ]}\t/m, 'all of it arrives');
error_like($node, 'SELECT ' . connector_sql('norole', folder_path => "$folder/norole", role_arn => 'arn:aws:iam:::role/nobody', role_wait => '0'),
	{ message => qr/^S3 credentials are invalid/, detail => qr/sts:AssumeRole/, hint => qr/role/ }, 'a role that is not there');
{
	my $arn = s3_role("reader$tag", 's3:ListBucket', 's3:GetBucketLocation', 's3:GetObject');

	error_like($node, 'SELECT ' . connector_sql('readonly', folder_path => "$folder/readonly", role_arn => $arn),
		{ message => qr/^S3 credentials are invalid/, detail => qr/s3:PutObject/ }, 'a role that may not write');
}

# ---- temporary keys of a user's own
{
	my $keys = s3_assume();

	create_connector($node, 'session', folder_path => "$folder/session", access_key_id => $keys->{AccessKeyId},
		secret_access_key => $keys->{SecretAccessKey}, session_token => $keys->{SessionToken});
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('session', 'VALUES (1)', 'token.csv'))), 1, 'a session token');
	error_like($node, 'SELECT ' . connector_sql('tokenless', folder_path => "$folder/tokenless", access_key_id => $keys->{AccessKeyId}, secret_access_key => $keys->{SecretAccessKey}),
		{ message => qr/^S3 credentials are invalid/ }, 'its keys without it');
}

$node->stop;
s3_clear($folder);
done_testing();
