package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/tags"
)

func minioCode(err error) string {
	if code := minio.ToErrorResponse(err).Code; code != "" {
		return code
	}
	return err.Error()
}

func byMinio(base, bucket string) {
	ctx := context.Background()
	place, err := url.Parse(base)
	var client *minio.Client
	if err == nil {
		client, err = minio.New(place.Host, &minio.Options{
			Creds:  credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
			Secure: place.Scheme == "https", Region: os.Getenv("AWS_REGION"), BucketLookup: minio.BucketLookupPath,
			MaxRetries: 1, TrailingHeaders: true,
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tell := func(step string, result any, err error) { report(step, result, err, minioCode) }
	put := func(step, key, body string, size int64, options minio.PutObjectOptions) {
		options.PartSize = part
		info, err := client.PutObject(ctx, bucket, key, stream{strings.NewReader(body)}, size, options)
		tell(step, fmt.Sprint(info.ETag, " ", info.Size), err)
	}
	put("put empty", "empty", "", 0, minio.PutObjectOptions{})
	put("put small", "small", bytesOf(small), small, minio.PutObjectOptions{
		ContentType: "text/x-small", CacheControl: "max-age=5", UserMetadata: map[string]string{"colour": "blue  green"},
	})
	put("put medium", "medium", bytesOf(medium), medium, minio.PutObjectOptions{})
	put("put without trailers", "plain", bytesOf(medium), medium, minio.PutObjectOptions{DisableContentSha256: true, SendContentMd5: true})
	put("put odd", odd, bytesOf(small), small, minio.PutObjectOptions{})
	sums := map[string]minio.ChecksumType{
		"CRC32": minio.ChecksumCRC32, "CRC32C": minio.ChecksumCRC32C, "SHA1": minio.ChecksumSHA1, "SHA256": minio.ChecksumSHA256,
	}
	for _, name := range []string{"CRC32", "CRC32C", "SHA1", "SHA256"} {
		for step, body := range map[string]string{"empty ": "", "": bytesOf(medium)} {
			put("put "+step+name, step+name, body, int64(len(body)), minio.PutObjectOptions{Checksum: sums[name]})
		}
	}
	put("upload large", "up/large", bytesOf(large), large, minio.PutObjectOptions{NumThreads: 2})
	put("upload a stream", "up/stream", bytesOf(large), -1, minio.PutObjectOptions{})

	keys := []string{"empty", "small", "medium", "plain", odd, "CRC32", "empty CRC32", "SHA256", "up/large", "up/stream", "none"}
	for _, key := range keys {
		options := minio.StatObjectOptions{Checksum: true}
		info, err := client.StatObject(ctx, bucket, key, options)
		result := ""
		if err == nil {
			sums := info.ChecksumCRC32 + "," + info.ChecksumCRC32C + "," + info.ChecksumSHA1 + "," + info.ChecksumSHA256
			result = fmt.Sprint(info.Size, " ", info.ETag, " ", info.ContentType, " ", info.Metadata.Get("Content-Encoding"), " ",
				info.Metadata.Get("Cache-Control"), " ", info.UserMetadata, " ", sums)
		}
		tell("head "+key, result, err)
		object, err := client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
		if err == nil {
			result, err = digest(object)
		}
		tell("get "+key, result, err)
	}
	var ranged minio.GetObjectOptions
	_ = ranged.SetRange(100, 299)
	result := ""
	object, err := client.GetObject(ctx, bucket, "medium", ranged)
	if err == nil {
		result, err = digest(object)
	}
	tell("get a range", result, err)
	copied, err := client.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "copy"}, minio.CopySrcOptions{Bucket: bucket, Object: "small"})
	tell("copy", copied.ETag, err)
	set, _ := tags.NewTags(map[string]string{"a": "b c+d"}, true)
	tell("tag", "", client.PutObjectTagging(ctx, bucket, "small", set, minio.PutObjectTaggingOptions{}))
	told, err := client.GetObjectTagging(ctx, bucket, "small", minio.GetObjectTaggingOptions{})
	if err == nil {
		result = told.String()
	}
	tell("tags", result, err)
	list := func(step string, options minio.ListObjectsOptions) {
		var found []string
		for object := range client.ListObjects(ctx, bucket, options) {
			if object.Err != nil {
				tell(step, "", object.Err)
				return
			}
			found = append(found, fmt.Sprint(object.Key, ":", object.Size))
		}
		sort.Strings(found)
		tell(step, strings.Join(found, "|"), nil)
	}
	list("list", minio.ListObjectsOptions{Recursive: true})
	list("list by twos", minio.ListObjectsOptions{Recursive: true, MaxKeys: 2})
	list("list folders", minio.ListObjectsOptions{})
	list("list, version 1", minio.ListObjectsOptions{Recursive: true, UseV1: true})
	gone := make(chan minio.ObjectInfo, 3)
	for _, key := range []string{"empty", odd, "SHA1"} {
		gone <- minio.ObjectInfo{Key: key}
	}
	close(gone)
	failed := 0
	for range client.RemoveObjects(ctx, bucket, gone, minio.RemoveObjectsOptions{}) {
		failed++
	}
	tell("delete many", failed, nil)
	tell("delete", "", client.RemoveObject(ctx, bucket, "copy", minio.RemoveObjectOptions{}))
	list("list the rest", minio.ListObjectsOptions{Recursive: true})
}
