// Uploads 3 MiB with java.net.http, three times on one connection, and says how it went. Arguments: proxy's URL, CA file, URL.
import java.io.FileInputStream;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Upload {
    public static void main(String[] arguments) throws Exception {
        URI proxy = URI.create(arguments[0]);
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (FileInputStream file = new FileInputStream(arguments[1])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder()
            .proxy(ProxySelector.of(new InetSocketAddress(proxy.getHost(), proxy.getPort())))
            .sslContext(tls).version(HttpClient.Version.HTTP_2).build();
        for (boolean expects : new boolean[] {false, true, false}) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[2])).expectContinue(expects).timeout(Duration.ofSeconds(20))
                .PUT(HttpRequest.BodyPublishers.ofByteArray(new byte[3 << 20])).build();
            try {
                HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
                System.out.println((response.version() == HttpClient.Version.HTTP_2 ? 2 : 1) + " " + response.statusCode() + " "
                    + response.body() + " true");
            } catch (Exception error) {
                System.out.println(error);
            }
        }
        System.exit(0);
    }
}
