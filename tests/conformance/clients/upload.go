// Uploads 3 MiB with net/http, three times on one connection, and says how it went. Arguments: proxy's URL, CA file, URL.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(os.Args[2])
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		panic("no CA")
	}
	proxy, err := url.Parse(os.Args[1])
	if err != nil {
		panic(err)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyURL(proxy),
		TLSClientConfig:       &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2:     true,
		ExpectContinueTimeout: 10 * time.Second,
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for _, expects := range []string{"", "100-continue", ""} {
		request, err := http.NewRequest("PUT", os.Args[3], bytes.NewReader(make([]byte, 3<<20)))
		if err != nil {
			panic(err)
		}
		if expects != "" {
			request.Header.Set("Expect", expects)
		}
		response, err := client.Do(request)
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		fmt.Println(response.ProtoMajor, response.StatusCode, string(body), err == nil)
	}
}
