# A dump takes connectors along and leaves their secrets behind; a restored
# connector says so, and works again with new credentials.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use Test::More;

my $secret = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
my $token = 'FwoGZXIvYXdzEXAMPLETOKEN';
my $role = 'arn:aws:iam::123456789012:role/export';

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "$_\n") foreach currents_settings(), q(s3export.retry_timeout = '1s');
$node->start;

$node->safe_psql(
	'postgres', qq{
	CREATE EXTENSION s3export;
	CREATE ROLE alice;
	CREATE ROLE bob;
	CREATE ROLE gone;
	GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice;
	GRANT CREATE ON SCHEMA public TO alice;
	GRANT CREATE ON DATABASE postgres TO alice;
	ALTER ROLE alice REPLICATION;
	SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', '$secret');
	SET ROLE alice;
	SELECT s3export.create_connector('keys', 'bucket', access_key_id => 'ASIAIOSFODNN7EXAMPLE',
		secret_access_key => '$secret', session_token => '$token', validate => false);
	SELECT s3export.create_connector('role', 'bucket', folder_path => 'role', role_arn => '$role',
		payload_signing => 'unsigned', validate => false);
	CREATE TABLE public.events (id int PRIMARY KEY);
	CREATE TABLE public.orders (id int PRIMARY KEY);
	CREATE TABLE public.gone (id int PRIMARY KEY);
	SELECT s3export.create_connector('flow', 'bucket', kind => 'currents', folder_path => 'flow', role_arn => '$role',
		tables => '{orders,gone,events}', operations => '{insert,update}', drop_after => '1 day', validate => false);
	SELECT s3export.create_connector('quiet', 'bucket', kind => 'currents', folder_path => 'quiet', role_arn => '$role', validate => false);
	SELECT s3export.grant_usage('keys', 'bob');
	SELECT s3export.grant_usage('keys', 'gone');
	RESET ROLE;
	DROP ROLE gone;
	CREATE DATABASE restored;
});

my $columns = 'connector_id, name, owner, kind, auth_method, access_key_id, role_arn, external_id, '
  . 'uri, addressing, payload_signing, created_at, validated_at';
my $currents = 'SELECT name, owner, state, tables, operations, compression, max_events_per_file, drop_after, slot_name, events_sent'
  . ' FROM s3export.currents ORDER BY name';
my $list = "SELECT $columns FROM s3export.connectors ORDER BY name";
my $before = $node->safe_psql('postgres', $list);
my $sealed = $node->safe_psql('postgres', q{SELECT encode(sealed, 'hex') FROM s3export.secret});
is(scalar(split(/\n/, $sealed)), 2, 'two secrets are stored');

# One that flows, whose table was renamed since, and whose slot is of this database.
$node->safe_psql('postgres', q{SET ROLE alice; SELECT s3export.launch('flow'); ALTER TABLE public.orders RENAME TO "New ""orders"});
# There is no S3 that would take the batch which tells of the launch.
$node->safe_psql('postgres', q{SET ROLE alice; SELECT s3export.deliver('flow', "raise" => false)});
my $flowing = $node->safe_psql('postgres', $currents);
like($flowing, qr/^flow\|alice\|running\|\{"public\.\\"New \\"\\"orders\\"",public\.events,public\.gone\}\|\{insert,update\}\|none\|15000\|24:00:00\|s3export_\d+_\d+\|0$/m,
	'a current is launched');

# Nothing of a secret, sealed or not.
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
my $text = slurp_file($dump);
like($text, qr/^COPY s3export\.connector /m, 'the dump has connectors');
like($text, qr/ASIAIOSFODNN7EXAMPLE/, 'and access key IDs');
foreach my $bytes ($secret, $token, split(/\n/, $sealed))
{
	is(index($text, $bytes), -1, 'no secret in the dump');
}
unlike($text, qr/^COPY s3export\.secret /m, 'nor its table');
unlike($text, qr/^COPY s3export\.installation /m, 'nor what external IDs are made of');
my @grants = $text =~ /^\d+\t(?:bob|gone|\d+)\t[tf]\t\S+$/mg;
is(scalar(@grants), 1, 'the grant to a dropped role is left out');

# Backups are often made by a role that is not a superuser.
$node->safe_psql('postgres', 'CREATE ROLE backup LOGIN IN ROLE pg_read_all_data');
$node->command_ok(
	[ 'pg_dump', '-U', 'backup', '-f', $node->basedir . '/backup.sql', 'postgres' ],
	'pg_dump by a member of pg_read_all_data');

$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restore');
is($node->safe_psql('restored', $list), $before, 'connectors are the same after a restore');
is($node->safe_psql('restored', $currents), $flowing =~ s/\|running\|/|created|/r =~ s/\|s3export_\d+_\d+\|/||/r, 'and so are currents, but that they have not been launched');
unlike($text, qr/^COPY s3export\.(?:current_state|current_table|current_event|current_batch|current_gap) /m, 'as the dump has nothing that belongs to the server alone');
is( $node->safe_psql('restored', 'SELECT count(*) FROM s3export.secret'), '0',
	'and have no secrets');
is( $node->safe_psql(
		'restored', 'SELECT name FROM s3export.connectors WHERE NOT credentials_missing'),
	'', 'which the view says');

sub error_of
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('restored', $sql);

	isnt($rc, 0, "fails: $sql");
	return $err;
}

my $error = error_of(q{SET ROLE alice; SELECT * FROM s3export.test_credentials('keys')});
like($error, qr/ERROR:  credentials of connector "keys" are missing/, 'the use of keys fails');
like($error, qr/HINT:  Use s3export\.set_credentials\(\)/, 'with a hint');
$error = error_of(q{SET ROLE alice; SELECT * FROM s3export.test_credentials('role')});
like($error, qr/ERROR:  credentials of the base identity are missing/, 'the use of a role fails');
like($error, qr/HINT:  A superuser can set them again with s3export\.set_identity\(\)/,
	'with a hint');

# A current has no slot here, and nothing to send with.
$error = error_of(q{SET ROLE alice; SELECT s3export.resume('flow')});
like($error, qr/ERROR:  cannot resume connector "flow"\nDETAIL:  It has not been launched\.\nHINT:  Launch it/, 'a restored current cannot go on');
$error = error_of(q{SET ROLE alice; SELECT s3export.launch('flow')});
like($error, qr/ERROR:  credentials of the base identity are missing/, 'nor be launched without credentials');
is($node->safe_psql('postgres', $currents), $flowing, 'where they came from nothing has changed');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT database) FROM pg_replication_slots'), '1|1', 'no slot has come of it');

# The grant holds.
is( $node->safe_psql('restored', 'SET ROLE bob; SELECT name FROM s3export.connectors'),
	'keys', 'grants are restored');

# Nothing tells the rows of a dump from those that somebody else has made up.
$error = error_of(qq{SET ROLE alice; SELECT s3export.set_credentials('keys', 'AKIAI44QH8DHBEXAMPLE', '$secret', validate => false)});
like($error, qr/ERROR:  a row of table "connector" was not written by the functions of s3export\nDETAIL:  It was restored from a dump, .*\nHINT:  A superuser .* s3export\.adopt\(\)/, 'restored rows wait for a superuser');
is($node->safe_psql('restored', 'SELECT "table", count(*) FROM s3export.adopt() GROUP BY 1 ORDER BY 1'), "base_identity|1\nconnector|4\nconnector_grant|1\ncredential|5\ncurrent|2\nexternal_id|1", 'who accepts them all');

# The repair, by the owner and by the superuser.
$node->safe_psql(
	'restored', qq{
	SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', '$secret');
	SET ROLE alice;
	SELECT s3export.set_credentials('keys', 'AKIAI44QH8DHBEXAMPLE', '$secret', validate => false);
});
is( $node->safe_psql(
		'restored',
		'SELECT name, credentials_missing, access_key_id FROM s3export.connectors ORDER BY name'),
	"flow|f|\nkeys|f|AKIA...MPLE\nquiet|f|\nrole|f|", 'new credentials repair them');
is( $node->safe_psql(
		'restored',
		q{SELECT count(*) FROM s3export.base_identity b JOIN s3export.connector c USING (credential_id)}
	),
	'0',
	'the base identity has credentials of its own');

# Sequences went along: a new connector takes no number that is in use.
$node->safe_psql(
	'restored', qq{
	SET ROLE alice;
	SELECT s3export.create_connector('new', 'bucket', folder_path => 'new', role_arn => '$role', validate => false)});
is( $node->safe_psql(
		'restored',
		q{SELECT connector_id > (SELECT max(connector_id) FROM s3export.connector WHERE name <> 'new'),
			credential_id > (SELECT max(credential_id) FROM s3export.connector WHERE name <> 'new')
			FROM s3export.connector WHERE name = 'new'}),
	't|t',
	'sequences are restored');

# A role that had no external ID gets another one in the copy than at home.
my %external_id;
foreach my $database ('postgres', 'restored')
{
	$node->safe_psql(
		$database, qq{
		GRANT EXECUTE ON FUNCTION s3export.create_connector TO bob;
		SET ROLE bob;
		SELECT s3export.create_connector('bob', 'bucket', folder_path => 'bob', role_arn => '$role', validate => false)});
	$external_id{$database} = $node->safe_psql($database,
		q{SELECT external_id FROM s3export.connectors WHERE name = 'bob'});
	like($external_id{$database}, qr/^s3export-[0-9a-f]{32}$/, "an external ID in $database");
}
isnt($external_id{postgres}, $external_id{restored}, 'external IDs of a copy are its own');

# ---- another cluster, where one of three roles is missing; and a role that was dropped
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
my $odd = q("Odd ""role");

# What psql says about a dump.
sub restore
{
	my ($file, $database, @options) = @_;

	$other->safe_psql('postgres', "CREATE DATABASE $database");
	my ($out, $err) = run_command([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', @options, '-f', $file, $other->connstr($database) ]);
	is($?, 0, "$database: restored");
	return $err;
}

# Everybody's connectors and grants, and the owners of the credentials.
sub roles_of
{
	my ($database) = @_;

	return $other->safe_psql($database, q(
		SELECT c.name, c.owner, k.owner, (SELECT string_agg(g.grantee::text, ' ' ORDER BY g.grantee::text COLLATE "C") FROM s3export.connector_grant g WHERE g.connector_id = c.connector_id)
			FROM s3export.connector c JOIN s3export.credential k USING (credential_id) ORDER BY c.name));
}

my $make = q(SELECT s3export.create_connector('%s', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/export', validate => false));
$node->safe_psql('postgres', qq(CREATE DATABASE source; CREATE ROLE carol; CREATE ROLE dave; CREATE ROLE $odd));
$node->safe_psql('source', join ';', 'CREATE EXTENSION s3export',
	(map { sprintf($make, "of $_") . "; SELECT s3export.alter_connector('of $_', owner => '$_', validate => false)" } qw(alice carol dave)),
	q(SELECT s3export.create_connector('shares', 'bucket', credentials_from => 'of carol', validate => false); SELECT s3export.alter_connector('shares', owner => 'alice', validate => false)),
	(map { "SELECT s3export.grant_usage('of alice', '$_')" } 'bob', 'carol', 'dave', $odd), q(SELECT s3export.grant_usage('of carol', 'bob')), q(SELECT s3export.grant_usage('of dave', 'carol')));
my %oid = map { split /\|/ } split /\n/, $node->safe_psql('source', q(SELECT rolname, oid FROM pg_roles WHERE rolname IN ('alice', 'bob', 'carol', 'dave')));
my $external_id = $node->safe_psql('source', q(SELECT external_id FROM s3export.connectors WHERE name = 'of alice'));
$node->safe_psql('source', 'DROP ROLE dave');
$other->safe_psql('postgres', "CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE $odd");

$node->command_ok([ 'pg_dump', '-f', $node->basedir . '/roles.sql', 'source' ], 'pg_dump of four roles');
$text = slurp_file($node->basedir . '/roles.sql');
unlike($text, qr/\b$oid{$_}\b/, "the dump has no number for $_") foreach sort keys %oid;
my $said = restore($node->basedir . '/roles.sql', 'fewer');
# Of each owner a connector and its credentials, of carol two grants and an external ID, too.
is(scalar(() = $said =~ /WARNING:  role "carol" does not exist\nHINT:  Create it and load the dump again, or give its connectors another owner with s3export\.alter_connector\(owner => \.\.\.\)/g), 5, 'a role that is missing is a warning');
is(scalar(() = $said =~ /WARNING:  "-" does not name a role\nDETAIL:  .* dropped before the dump was made\.\nHINT:  Give its connectors another owner/g), 2, 'and so is one that was dropped');
is(scalar(() = $said =~ /^psql:/mg), 7, 'nothing else is said');
my $restored = qq(of alice|alice|alice|$odd bob\nof carol|-|-|bob\nof dave|-|-|\nshares|alice|-|);
is(roles_of('fewer'), $restored, 'connectors without an owner and the grants of all others are there');
is($other->safe_psql('fewer', 'SELECT role, external_id FROM s3export.external_id WHERE role <> current_user::regrole'), "alice|$external_id", 'and so is the external ID of who is there');
is($other->safe_psql('fewer', q(SET ROLE bob; SELECT name, owner FROM s3export.connectors ORDER BY name)), "of alice|alice\nof carol|-", 'a grantee sees whose use is granted');
is($other->safe_psql('fewer', q(SET ROLE alice; SELECT name FROM s3export.connectors ORDER BY name)), "of alice\nshares", 'but without an owner nobody else does');

is($other->safe_psql('fewer', 'SELECT count(*) > 0 FROM s3export.adopt()'), 't', 'they are accepted');

sub other_error
{
	my ($sql) = @_;

	return ($other->psql('fewer', $sql))[2];
}

like(other_error(q(SELECT * FROM s3export.test_credentials('of carol'))),
	qr/ERROR:  there is no external ID to assume role "arn:aws:iam::123456789012:role\/export" with\nDETAIL:  .*\nHINT:  A superuser can give the connector an owner with s3export\.alter_connector\(owner => \.\.\.\)/,
	'a role is not assumed with an external ID that is nobody\'s');
like(other_error(q(SET ROLE bob; SELECT s3export.copy_to('of carol', 'VALUES (1)'))), qr/ERROR:  there is no external ID/, 'nor for a grantee');
like(other_error(q(SELECT s3export.set_credentials('of dave', role_arn => 'arn:aws:iam::123456789012:role/export'))), qr/ERROR:  there is no external ID/, 'nor for another role');

# A dump of that makes no difference, in any of the forms that a dump has.
foreach my $form ([], [ '--column-inserts' ], [ '--quote-all-identifiers', '--rows-per-insert=3' ])
{
	my $database = 'again' . @$form;

	$other->command_ok([ 'pg_dump', @$form, '-f', $other->basedir . '/again.sql', 'fewer' ], "pg_dump @$form");
	restore($other->basedir . '/again.sql', $database);
	is(roles_of($database), $restored, 'a dump of unknown roles can be restored');
}

# The repair, while a publication makes every table keep an identity.
$other->safe_psql('fewer', 'CREATE PUBLICATION everything FOR ALL TABLES');
like(other_error(q(SET ROLE alice; SELECT s3export.alter_connector('shares', owner => 'alice', validate => false))), qr/^$/, 'an owner who only shares credentials');
like(roles_of('fewer'), qr/^shares\|alice\|-\|$/m, 'does not get them');
$other->safe_psql('fewer', q(SELECT s3export.alter_connector('of carol', owner => 'bob', validate => false); SELECT s3export.alter_connector('of dave', owner => 'alice', validate => false);
	SELECT s3export.revoke_usage('of alice', 'bob'); SELECT s3export.grant_usage('of dave', 'bob'); SELECT s3export.revoke_usage('of dave', 'bob')));
is(roles_of('fewer'), qq(of alice|alice|alice|$odd\nof carol|bob|bob|bob\nof dave|alice|alice|\nshares|alice|bob|), 'a superuser gives connectors, and credentials that are shared, an owner');
like($other->safe_psql('fewer', q(SET ROLE bob; SELECT external_id FROM s3export.connectors WHERE name = 'of carol')), qr/^s3export-[0-9a-f]{32}$/, 'whose external ID they have');
isnt($external_id, $other->safe_psql('fewer', q(SET ROLE bob; SELECT external_id FROM s3export.connectors WHERE name = 'of carol')), 'and nobody else\'s');

# Where the role was dropped.
is($node->safe_psql('source', q(SELECT owner::text FROM s3export.connectors WHERE name = 'of dave')), $oid{dave}, 'a dropped role is shown as a number');
$node->safe_psql('source', q(SELECT s3export.alter_connector('of dave', owner => 'bob', validate => false)));
is($node->safe_psql('source', q(SELECT owner FROM s3export.connectors WHERE name = 'of dave')), 'bob', 'and can be replaced as an owner');

# What is read: names alone, and never a number.
foreach my $case ([ 'alice', 'alice' ], [ '"alice"', 'alice' ], [ 'ALICE', 'alice' ], [ $odd, $odd ], [ 'nobody here', undef ], [ 'a.b', undef ],
	[ '10', '-', qr/WARNING:  "10" does not name a role/ ], [ '"10"', '-', qr/WARNING:  role "10" does not exist/ ],
	[ '-', '-', qr/WARNING:  "-" does not name a role/ ], [ '"-"', '-', qr/WARNING:  role "-" does not exist/ ], [ 'nobody', '-', qr/WARNING:  role "nobody" does not exist/ ],
	[ '', undef ])
{
	my ($name, $role, $warning) = @$case;
	my ($status, $out, $err) = $other->psql('fewer', "SELECT '$name'::s3export.role");

	is($status == 0 ? $out : undef, $role, "as a role: $name");
	like($err, defined $role ? ($warning // qr/^$/) : qr/ERROR:  invalid name syntax/, 'and what is said');
}
is($other->safe_psql('fewer', qq(SET session_replication_role = replica; SET client_min_messages = error; COPY s3export.connector_grant (connector_id, grantee) FROM stdin;\n1\t10\n1\tnobody\n\\.\nSELECT count(*) FROM s3export.connector_grant WHERE connector_id = 1 AND grantee = 10::oid OR grantee = 0::oid)),
	0, 'nor are they granted anything');
my $binary = $other->basedir . '/roles.bin';
is($other->safe_psql('fewer', "CREATE TEMP TABLE roles (role s3export.role); INSERT INTO roles VALUES ('alice'), ('bob'); COPY roles TO '$binary' (FORMAT binary);
	COPY roles FROM '$binary' (FORMAT binary); SELECT role, count(*) FROM roles GROUP BY role ORDER BY role::text"), "alice|2\nbob|2", 'roles travel in binary, too');
$other->stop;

# DROP EXTENSION leaves nothing behind but slots of currents, which are no objects of a database.
$node->safe_psql('restored', q{SET ROLE alice; SELECT s3export.drop_connector('flow')});
$node->safe_psql('restored', 'DROP EXTENSION s3export');
is( $node->safe_psql(
		'restored', q{SELECT count(*) FROM pg_namespace WHERE nspname = 's3export'}),
	'0',
	'DROP EXTENSION drops the tables with the secrets');

$node->stop;

done_testing();
