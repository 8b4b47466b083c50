import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import software.amazon.awssdk.core.async.AsyncRequestBody;
import software.amazon.awssdk.core.async.AsyncResponseTransformer;
import software.amazon.awssdk.core.retry.RetryPolicy;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3AsyncClient;
import software.amazon.awssdk.services.s3.S3Client;

/** Puts an object and prints it: {@code Client http|sdk|async BASE BUCKET KEY TEXT}. All else is in the environment. */
public class Client {
    public static void main(String[] told) throws Exception {
        String bucket = told[2], key = told[3], text = told[4];
        System.out.println(switch (told[0]) {
            case "http" -> byHttp(URI.create(told[1] + "/" + bucket + "/" + key), text);
            case "sdk" -> bySdk(bucket, key, text);
            default -> byAsyncSdk(bucket, key, text);
        });
        System.exit(0);
    }

    static String byHttp(URI uri, String text) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        var put = client.send(HttpRequest.newBuilder(uri).PUT(BodyPublishers.ofString(text)).build(), BodyHandlers.ofString());
        if (put.statusCode() != 200) {
            throw new IllegalStateException(put.statusCode() + " " + put.body());
        }
        return client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body();
    }

    // A variable, AWS_ENDPOINT_URL_S3, tells of an endpoint.
    static String bySdk(String bucket, String key, String text) {
        try (S3Client client = S3Client.builder().forcePathStyle(true).overrideConfiguration(o -> o.retryPolicy(RetryPolicy.none())).build()) {
            client.putObject(put -> put.bucket(bucket).key(key), RequestBody.fromString(text));
            return client.getObjectAsBytes(get -> get.bucket(bucket).key(key)).asUtf8String();
        }
    }

    static String byAsyncSdk(String bucket, String key, String text) throws Exception {
        var builder = S3AsyncClient.builder().forcePathStyle(true).overrideConfiguration(o -> o.retryPolicy(RetryPolicy.none()));
        try (S3AsyncClient client = builder.build()) {
            client.putObject(put -> put.bucket(bucket).key(key), AsyncRequestBody.fromString(text)).get();
            return client.getObject(get -> get.bucket(bucket).key(key), AsyncResponseTransformer.toBytes()).get().asUtf8String();
        }
    }
}
