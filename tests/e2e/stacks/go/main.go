// Puts an object and prints it: `go-client http|sdk BASE BUCKET KEY TEXT`. All else is in the environment.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func byHTTP(url, text string) (string, error) {
	put, err := http.NewRequest(http.MethodPut, url, strings.NewReader(text))
	if err != nil {
		return "", err
	}
	if _, err = send(put); err != nil {
		return "", err
	}
	get, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	return send(get)
}

func send(request *http.Request) (string, error) {
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// A variable, AWS_ENDPOINT_URL_S3, tells of an endpoint.
func bySDK(bucket, key, text string) (string, error) {
	ctx := context.Background()
	loaded, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(1))
	if err != nil {
		return "", err
	}
	client := s3.NewFromConfig(loaded, func(options *s3.Options) { options.UsePathStyle = true })
	put := &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key), Body: strings.NewReader(text)}
	if _, err = client.PutObject(ctx, put); err != nil {
		return "", err
	}
	got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	return string(body), err
}

func main() {
	kind, base, bucket, key, text := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	var told string
	var err error
	if kind == "http" {
		told, err = byHTTP(base+"/"+bucket+"/"+key, text)
	} else {
		told, err = bySDK(bucket, key, text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(told)
}
