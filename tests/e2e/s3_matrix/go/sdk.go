package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

func sdkCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return err.Error()
}

func bySDK(base, bucket string) {
	ctx := context.Background()
	loaded, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(1))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	client := s3.NewFromConfig(loaded, func(options *s3.Options) {
		options.UsePathStyle = true
		options.BaseEndpoint = aws.String(base)
	})
	tell := func(step string, result any, err error) { report(step, result, err, sdkCode) }
	name := aws.String(bucket)

	put := func(step, key string, input s3.PutObjectInput, body string) {
		input.Bucket, input.Key = name, aws.String(key)
		if input.Body == nil {
			input.Body = strings.NewReader(body)
		}
		out, err := client.PutObject(ctx, &input)
		result := ""
		if err == nil {
			result = aws.ToString(out.ETag)
		}
		tell(step, result, err)
	}
	put("put empty", "empty", s3.PutObjectInput{}, "")
	put("put small", "small", s3.PutObjectInput{
		ContentType: aws.String("text/x-small"), CacheControl: aws.String("max-age=5"),
		Metadata: map[string]string{"colour": "blue  green"},
	}, bytesOf(small))
	put("put encoded", "encoded", s3.PutObjectInput{ContentEncoding: aws.String("gzip")}, bytesOf(small))
	put("put medium", "medium", s3.PutObjectInput{}, bytesOf(medium))
	put("put odd", odd, s3.PutObjectInput{}, bytesOf(small))
	for _, algorithm := range []types.ChecksumAlgorithm{"CRC32C", "SHA1", "SHA256", "CRC64NVME"} {
		put("put "+string(algorithm), string(algorithm), s3.PutObjectInput{ChecksumAlgorithm: algorithm}, bytesOf(medium))
	}
	put("put if there is none", "small", s3.PutObjectInput{IfNoneMatch: aws.String("*")}, "other")
	put("put a wrong checksum", "wrong", s3.PutObjectInput{ChecksumCRC32: aws.String("AAAAAA==")}, bytesOf(small))

	uploader := manager.NewUploader(client, func(up *manager.Uploader) { up.PartSize = part; up.Concurrency = 2 })
	up := func(step, key string, body string) {
		input := &s3.PutObjectInput{Bucket: name, Key: aws.String(key), Body: stream{strings.NewReader(body)}}
		out, err := uploader.Upload(ctx, input)
		result := ""
		if err == nil {
			result = aws.ToString(out.ETag)
		}
		tell(step, result, err)
	}
	up("upload medium", "up/medium", bytesOf(medium))
	up("upload large", "up/large", bytesOf(large))

	keys := []string{"empty", "small", "encoded", "medium", odd, "CRC32C", "SHA1", "SHA256", "CRC64NVME", "wrong", "up/medium", "up/large", "none"}
	for _, key := range keys {
		head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: name, Key: aws.String(key), ChecksumMode: types.ChecksumModeEnabled})
		result := ""
		if err == nil {
			sums := []*string{head.ChecksumCRC32, head.ChecksumCRC32C, head.ChecksumSHA1, head.ChecksumSHA256, head.ChecksumCRC64NVME}
			for _, sum := range sums {
				result += aws.ToString(sum) + ","
			}
			result = fmt.Sprint(aws.ToInt64(head.ContentLength), " ", aws.ToString(head.ETag), " ", aws.ToString(head.ContentType), " ",
				aws.ToString(head.ContentEncoding), " ", aws.ToString(head.CacheControl), " ", head.Metadata, " ", result)
		}
		tell("head "+key, result, err)
		got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: aws.String(key)})
		if err == nil {
			result, err = digest(got.Body)
		}
		tell("get "+key, result, err)
	}
	get := func(step string, input s3.GetObjectInput) {
		input.Bucket, input.Key = name, aws.String("medium")
		got, err := client.GetObject(ctx, &input)
		result := ""
		if err == nil {
			sum, failed := digest(got.Body)
			result, err = aws.ToString(got.ContentRange)+" "+sum, failed
		}
		tell(step, result, err)
	}
	get("get a range", s3.GetObjectInput{Range: aws.String("bytes=100-299")})
	get("get the end", s3.GetObjectInput{Range: aws.String("bytes=-7")})
	get("get beyond", s3.GetObjectInput{Range: aws.String("bytes=900000-")})
	get("get if it matches", s3.GetObjectInput{IfMatch: aws.String(`"no"`)})

	buffer := manager.NewWriteAtBuffer(nil)
	count, err := manager.NewDownloader(client, func(down *manager.Downloader) { down.PartSize = part; down.Concurrency = 2 }).
		Download(ctx, buffer, &s3.GetObjectInput{Bucket: name, Key: aws.String("up/large")})
	tell("download large", fmt.Sprint(count, string(buffer.Bytes()) == bytesOf(large)), err)

	copied, err := client.CopyObject(ctx, &s3.CopyObjectInput{Bucket: name, Key: aws.String("copy"), CopySource: aws.String(bucket + "/small")})
	result := ""
	if err == nil {
		result = aws.ToString(copied.CopyObjectResult.ETag)
	}
	tell("copy", result, err)
	_, err = client.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: name, Key: aws.String("small"), Tagging: &types.Tagging{
		TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("b c+d")}},
	}})
	tell("tag", "", err)
	tags, err := client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: name, Key: aws.String("small")})
	result = ""
	if err == nil {
		for _, tag := range tags.TagSet {
			result += aws.ToString(tag.Key) + "=" + aws.ToString(tag.Value)
		}
	}
	tell("tags", result, err)

	list := func(step string, input s3.ListObjectsV2Input) {
		input.Bucket = name
		pages := s3.NewListObjectsV2Paginator(client, &input)
		var found []string
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				tell(step, "", err)
				return
			}
			for _, object := range page.Contents {
				found = append(found, fmt.Sprint(aws.ToString(object.Key), ":", aws.ToInt64(object.Size)))
			}
			for _, prefix := range page.CommonPrefixes {
				found = append(found, aws.ToString(prefix.Prefix))
			}
		}
		sort.Strings(found)
		tell(step, strings.Join(found, "|"), nil)
	}
	list("list", s3.ListObjectsV2Input{})
	list("list by twos", s3.ListObjectsV2Input{MaxKeys: aws.Int32(2)})
	list("list folders", s3.ListObjectsV2Input{Delimiter: aws.String("/")})
	list("list a prefix", s3.ListObjectsV2Input{Prefix: aws.String("a b+c%25/")})

	var all []types.ObjectIdentifier
	for _, key := range []string{"empty", odd, "SHA1"} {
		all = append(all, types.ObjectIdentifier{Key: aws.String(key)})
	}
	gone, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: name, Delete: &types.Delete{Objects: all}})
	result = ""
	if err == nil {
		result = fmt.Sprint(len(gone.Deleted), len(gone.Errors))
	}
	tell("delete many", result, err)
	_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: aws.String("copy")})
	tell("delete", "", err)
	list("list the rest", s3.ListObjectsV2Input{})
}
