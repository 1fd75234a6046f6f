#!/usr/bin/perl
# Tests of ScriptedS3.pm: does it start, drive and end the server?

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use lib $FindBin::RealBin;
use HTTP::Tiny;
use ScriptedS3;
use Test::More;

# The process that is killed below cannot remove its directory.
$ENV{TMPDIR} = tempdir(TMPDIR => 1, CLEANUP => 1);

my $s3 = ScriptedS3->start;
my $pid = $s3->{pid};
ok($s3->port > 0 && $s3->port('control') > 0 && $s3->port('imds') > 0 && $s3->port('container') > 0, 'ports');
is($s3->url, 'http://127.0.0.1:' . $s3->port, 'URL');

like($s3->call('add_user', access_key_id => 'AKIATEST', secret_access_key => 's')->{arn}, qr/^arn:aws:iam::\d{12}:user/, 'a call');
ok(!eval { $s3->call('add_bucket', name => 'x', colour => 'red'); 1 }, 'a call that is refused dies');
like($@, qr/add_bucket: 400 .*a bucket has: name/, 'with the reason');

$s3->call('add_bucket', name => 'exports');
my $body = join('', map { chr } 0 .. 127) . "\x{e9}\x{263a}";
$s3->call('put_object', bucket => 'exports', key => "a b/\x{e9}&c", body => $body);
utf8::encode(my $bytes = $body);
is($s3->object('exports', "a b/\x{e9}&c"), $bytes, 'an object comes back, byte for byte');
is($s3->object('exports', 'none'), undef, 'an object that is not there');
is_deeply([ $s3->keys_of('exports') ], ["a b/\x{e9}&c"], 'keys');
is_deeply([ $s3->uploads('exports') ], [], 'uploads');

my $http = HTTP::Tiny->new(proxy => undef, http_proxy => undef);
is($http->get($s3->url . '/exports/a')->{status}, 403, 'unsigned requests are refused');
my @log = $s3->log(operation => 'GetObject');
is_deeply([ map { "$_->{key} $_->{signature} $_->{code}" } @log ], ['a missing AccessDenied'], 'the log');
$s3->call('listen', on => ScriptedS3::false);
is($http->get($s3->url . '/exports/a')->{status}, 599, 'not listening');
$s3->call('listen', on => ScriptedS3::true);
is($http->get($s3->url . '/exports/a')->{status}, 403, 'listening again');

$s3->stop;
is(kill(0, $pid), 0, 'the server has ended');
{
    my $second = ScriptedS3->start;
    $pid = $second->{pid};
    is(kill(0, $pid), 1, 'another server');
}
is(kill(0, $pid), 0, 'ends with its object');

# A test that is killed leaves no server behind.
pipe(my $reader, my $writer) or die;
my $child = fork() // die;
if ($child == 0)
{
    my $orphan = ScriptedS3->start;
    syswrite($writer, "$orphan->{pid}\n");
    sleep(60);
    exit(0);
}
close($writer);
chomp($pid = readline($reader));
kill('KILL', $child);
waitpid($child, 0);
for (1 .. 50)
{
    last unless kill(0, $pid);
    select(undef, undef, undef, 0.1);
}
is(kill(0, $pid), 0, 'a server whose test was killed ends by itself');

SKIP:
{
    my $six = eval { ScriptedS3->start(host => '::1') };
    skip('no IPv6 loopback address here', 2) unless $six;
    like($six->url, qr{^http://\[::1\]:\d+$}, 'URL with an IPv6 address');
    is($http->get($six->url . '/exports/a')->{status}, 403, 'and an answer');
}

done_testing();
