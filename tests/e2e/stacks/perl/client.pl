# Puts an object and prints it: client.pl lwp|tiny BASE BUCKET KEY TEXT. All else is in the environment.
use strict;
use warnings;

my ($kind, $base, $bucket, $key, $text) = @ARGV;
my $url = "$base/$bucket/$key";

if ($kind eq 'lwp') {
    require LWP::UserAgent;
    my $agent = LWP::UserAgent->new(timeout => 30);
    my $put = $agent->put($url, 'content-type' => 'text/plain', Content => $text);
    die $put->status_line unless $put->is_success;
    my $got = $agent->get($url);
    die $got->status_line unless $got->is_success;
    print $got->decoded_content;
} else {
    require HTTP::Tiny;
    my $agent = HTTP::Tiny->new(timeout => 30, verify_SSL => 1);
    my $put = $agent->put($url, { headers => { 'content-type' => 'text/plain' }, content => $text });
    die "$put->{status} $put->{content}" unless $put->{success};
    my $got = $agent->get($url);
    die "$got->{status} $got->{content}" unless $got->{success};
    print $got->{content};
}
