<?php
// Puts an object and prints it: client.php curl|streams BASE BUCKET KEY TEXT. All else is in the environment.

[, $kind, $base, $bucket, $key, $text] = $argv;
$url = "$base/$bucket/$key";

function by_curl(string $method, string $url, ?string $body): string {
    $curl = curl_init($url);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true, CURLOPT_CUSTOMREQUEST => $method]);
    if ($body !== null) {
        curl_setopt_array($curl, [CURLOPT_POSTFIELDS => $body, CURLOPT_HTTPHEADER => ['content-type: text/plain']]);
    }
    $answer = curl_exec($curl);
    if ($answer === false) {
        throw new RuntimeException(curl_error($curl));
    }
    return $answer;
}

function by_streams(string $method, string $url, ?string $body): string {
    $options = ['method' => $method, 'header' => 'content-type: text/plain', 'content' => $body ?? ''];
    // PHP's own streams read no proxy from the environment.
    $proxy = getenv('https_proxy');
    if ($proxy !== false && str_contains($url, 'amazonaws.com')) {
        $options += ['proxy' => str_replace('http://', 'tcp://', $proxy), 'request_fulluri' => true];
    }
    $answer = file_get_contents($url, false, stream_context_create(['http' => $options]));
    if ($answer === false) {
        throw new RuntimeException('no answer');
    }
    return $answer;
}

$by = "by_$kind";
$by('PUT', $url, $text);
echo $by('GET', $url, null);
