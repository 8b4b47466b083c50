# Puts an object and prints it: client.rb BASE BUCKET KEY TEXT. All else is in the environment.
require "net/http"

base, bucket, key, text = ARGV
url = URI("#{base}/#{bucket}/#{key}")
Net::HTTP.start(url.host, url.port, use_ssl: url.scheme == "https") do |http|
  http.put(url.request_uri, text, "content-type" => "text/plain").value
  answer = http.get(url.request_uri)
  answer.value
  print answer.body
end
