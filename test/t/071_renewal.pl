# Exports that outlast the sessions that sign them, of every kind, go on with
# the next session, and send no part again for that reason.
use strict;
use warnings;
use lib 'test/lib';
use Digest::MD5 ();
use File::Temp qw(tempdir);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use S3Export;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

my $account = '111122223333';
my $issuer = 'oidc.example.org/id/1234';
my $key = 'AKIABASEBASEBASEBASE';
my $secret = 'base-secret-base-secret-base-secret-base';
my $dir = tempdir(CLEANUP => 1);
my $session_seconds = 5;

# One server for each export, so that the requests in its log are of one.
my (%server, %node, %role, %run);

sub file
{
	my ($name, $content) = @_;

	# As Kubernetes does it: whoever reads it sees one or the other.
	open my $file, '>', "$dir/$name.new" or die "could not write $dir/$name: $!";
	print $file $content;
	close $file;
	rename "$dir/$name.new", "$dir/$name" or die "could not rename: $!";
	return "$dir/$name";
}

sub start
{
	my ($kind, $trusted, $action, $environment) = @_;
	my $server = $server{$kind} = ScriptedS3->start;

	$server->call('configure', longest_session => $session_seconds);
	$server->call('add_bucket', name => 'acme', owner => $account);
	$server->call('add_user', access_key_id => $key, secret_access_key => $secret);
	$role{$kind} = $server->call('add_role', name => $kind,
		trust => { Version => '2012-10-17', Statement => [ { Effect => 'Allow', Action => $action, Principal => $trusted } ] })->{arn};
	$server->call('set_instance_role', role => $role{$kind}, duration => $session_seconds);
	$server->call('set_container_role', role => $role{$kind}, duration => $session_seconds, renew => 2, authorization => 'first-authorization-token');

	local %ENV = %ENV;
	delete @ENV{ grep { /^AWS_/ } keys %ENV };
	%ENV = (%ENV, $environment->($server));
	$node{$kind} = s3export_node($kind, 's3export.allow_ambient_credentials = on', "s3export.part_size = '5MB'",
		's3export.max_concurrent_parts = 4', 'log_min_messages = debug2');
	return;
}

# Half a megabyte each eighth of a second.
sub export
{
	my ($kind, $seconds, %arguments) = @_;
	my $rows = $seconds * 8;
	my $name = delete $arguments{name} // 'lake';
	my ($out, $err) = ('', '');

	with_s3({ ENDPOINT => $server{$kind}->url, BUCKET => 'acme', REGION => 'us-east-1' }, sub { create_connector($node{$kind}, $name, access_key_id => undef, secret_access_key => undef, folder_path => $name, %arguments) });
	$server{$kind}->call('clear_log');
	$run{$kind} = { name => $name, rows => $rows, out => \$out, err => \$err, since => time,
		handle => IPC::Run::start([ 'psql', '-XAtq', '-d', $node{$kind}->connstr('postgres'), '-c',
			"SELECT rows FROM s3export.copy_to('$name', "
			  . "'SELECT repeat(md5(i::text), 16384) FROM generate_series(1, $rows) i, LATERAL (SELECT pg_sleep(0.125 + 0 * i)) s', 'a.csv')" ],
			'<', \undef, '>', \$out, '2>', \$err) };
	return;
}

sub finish
{
	my ($kind, $seconds, $operation) = @_;
	my $run = $run{$kind};
	my $server = $server{$kind};
	my (%times, %status);

	$run->{handle}->finish;
	is(${ $run->{out} }, "$run->{rows}\n", "$kind: the export ends well") or diag(${ $run->{err} });
	cmp_ok(time - $run->{since}, '>=', $seconds, "$kind: it took its time");

	my @parts = $server->log(operation => 'UploadPart');
	$times{ $_->{part} }++, $status{ $_->{status} }++ foreach @parts;
	cmp_ok(scalar(keys %times), '>=', $seconds / 2, "$kind: it has many parts");
	is_deeply([ grep { $times{$_} != 1 } keys %times ], [], "$kind: no part was sent twice");
	is_deeply(\%status, { 200 => scalar @parts }, "$kind: none was refused");
	my %sessions = map { $_->{access_key_id} => 1 } @parts;
	cmp_ok(scalar(keys %sessions), '>=', POSIX::ceil($seconds / $session_seconds), "$kind: sessions took turns");
	is(scalar(grep { $_->{code} && $_->{code} =~ /^ExpiredToken/ } $server->log), 0, "$kind: nobody was told that a session is over");
	cmp_ok(scalar(grep { $_->{worked} } $server->log(operation => $operation)), '<=', 2 * $seconds / $session_seconds + 4, "$kind: nor asked too often");
	my $expected =
	  $node{$kind}->safe_psql('postgres', "SELECT md5(string_agg(repeat(md5(i::text), 16384) || E'\\n', '' ORDER BY i)) FROM generate_series(1, $run->{rows}) i");
	is(Digest::MD5::md5_hex(($server->object('acme', "$run->{name}/a.csv") // '') =~ s/^repeat\n//r), $expected, "$kind: the object is right");
	return;
}

my %off = (AWS_EC2_METADATA_DISABLED => 'true', HOME => $dir);
s3_secret($secret, 'first-authorization-token', 'second-authorization-token', 'first-web-identity-token', 'second-web-identity-token');

start('role', { AWS => $account }, 'sts:AssumeRole', sub { %off });
start('web', { Federated => "arn:aws:iam::$account:oidc-provider/$issuer" }, 'sts:AssumeRoleWithWebIdentity', sub {
	return (%off, AWS_ROLE_ARN => $role{web}, AWS_WEB_IDENTITY_TOKEN_FILE => file('web', "first-web-identity-token\n"), AWS_ENDPOINT_URL_STS => $_[0]->url);
});
start('container', { AWS => $account }, 'sts:AssumeRole', sub {
	return (%off, AWS_CONTAINER_CREDENTIALS_FULL_URI => 'http://127.0.0.1:' . $_[0]->port('container') . '/v2/credentials/test',
		AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE => file('authorization', "first-authorization-token\n"));
});
start('instance', { AWS => $account }, 'sts:AssumeRole', sub {
	return (%off, AWS_EC2_METADATA_DISABLED => 'false', AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://127.0.0.1:' . $_[0]->port('imds'));
});
# A role with an ambient base identity: both have sessions of their own.
start('chain', { AWS => $account }, 'sts:AssumeRole', sub {
	return (%off, AWS_EC2_METADATA_DISABLED => 'false', AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://127.0.0.1:' . $_[0]->port('imds'));
});
$server{web}->call('add_web_identity', token => 'first-web-identity-token', issuer => $issuer, sub => 'postgres');
$node{role}->safe_psql('postgres', "SELECT s3export.set_identity('$key', '$secret')");

export('role', 30, role_arn => $role{role});
export($_, 12, auth_method => 'ambient') foreach qw(web container instance);
export('chain', 12, role_arn => $role{chain});

# The tokens change when the exports have begun, and the first are not good any more.
foreach my $case ([ 'web', 'AssumeRoleWithWebIdentity' ], [ 'container', 'ContainerCredentials' ])
{
	$server{ $case->[0] }->call('wait', operation => $case->[1], count => 1, timeout => 30);
}
file('web', 'second-web-identity-token');
file('authorization', 'second-authorization-token');
$server{web}->call('add_web_identity', token => 'second-web-identity-token', issuer => $issuer, sub => 'postgres');
$server{web}->call('add_web_identity', token => 'first-web-identity-token', issuer => $issuer, sub => 'postgres', expires_in => -1);
$server{container}->call('set_container_role', role => $role{container}, duration => $session_seconds, renew => 2, authorization => 'second-authorization-token');

finish('web', 12, 'AssumeRoleWithWebIdentity');
finish('container', 12, 'ContainerCredentials');
finish('instance', 12, 'ImdsCredentials');
finish('chain', 12, 'AssumeRole');
finish('role', 30, 'AssumeRole');

# ---- while STS is out of order, the session that there is serves to its end
$session_seconds = 16;
$server{role}->call('configure', longest_session => $session_seconds);
export('role', 24, role_arn => $role{role}, folder_path => 'second', name => 'second');
$server{role}->call('wait', operation => 'UploadPart', count => 1, timeout => 30);
my $log_before = -s $node{role}->logfile;
$server{role}->call('add_fault', do => 'answer', match => { operation => 'AssumeRole' }, times => undef, status => 500);
poll_until(sub {
	return PostgreSQL::Test::Utils::slurp_file($node{role}->logfile, $log_before)
	  =~ /LOG:  could not renew the session of role "\Q$role{role}\E": HTTP status 500\n.*DETAIL:  Those in use are good for another [1-4] seconds/;
}, 'a renewal that fails');
my $failed_at = $server{role}->log;
poll_until(sub { scalar(grep { $_->{operation} eq 'UploadPart' && $_->{n} >= $failed_at } $server{role}->log) > 0 }, 'a part after that');
pass('role: parts go on when a renewal fails');
sleep 4;
$server{role}->call('clear_faults');
finish('role', 24, 'AssumeRole');

# ---- and when it stays so, the export fails and says why
$server{role}->call('configure', longest_session => 5);
export('role', 20, role_arn => $role{role}, folder_path => 'third', name => 'third');
$server{role}->call('wait', operation => 'UploadPart', count => 1, timeout => 30);
$server{role}->call('add_fault', do => 'error', match => { operation => 'AssumeRole' }, times => undef, code => 'AccessDenied', status => 403,
	message => 'not any more');
$run{role}{handle}->finish;
like(${ $run{role}{err} }, qr/^ERROR:  could not get credentials for object .*\nDETAIL:  STS answered AccessDenied \(HTTP status 403\) to sts:AssumeRole: not any more\..*\nHINT:  Check that role "\Q$role{role}\E" exists/s,
	'the export fails when its session is over');
is(scalar($server{role}->uploads('acme')), 1, 'its upload could not be aborted without a session');
is($node{role}->safe_psql('postgres', "SELECT open_uploads > 0 FROM s3export.jobs ORDER BY job_id DESC LIMIT 1"), 't', 'but the job knows it');

$_->stop foreach values %server;
done_testing();
