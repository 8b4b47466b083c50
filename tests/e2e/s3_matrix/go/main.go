// Two clients of S3: `client sdk|minio BUCKET`. Each prints what every step of it came to, a line each: step, tab, result.
// All else is in the environment: keys, region, proxy, and S3_MATRIX_BASE, the endpoint's URL.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	small  = 1000
	medium = 300_000
	// Two parts: the smallest that S3 takes, and a rest.
	large = 6<<20 + 5
	part  = 5 << 20
	odd   = "a b+c%25/é日/*'()!~&=?#.txt"
)

// The same bytes in every client.
func bytesOf(size int) string {
	pattern := make([]byte, 65521)
	for i := range pattern {
		pattern[i] = byte(i*31 + (i>>8)*17)
	}
	return strings.Repeat(string(pattern), size/len(pattern)+1)[:size]
}

// A reader that can neither seek nor tell its length.
type stream struct{ io.Reader }

func digest(reader io.ReadCloser) (string, error) {
	defer reader.Close()
	hash := sha256.New()
	count, err := io.Copy(hash, reader)
	return fmt.Sprintf("%d %s", count, hex.EncodeToString(hash.Sum(nil))[:16]), err
}

func report(step string, result any, err error, code func(error) string) {
	if err != nil {
		result = "error " + code(err)
	}
	fmt.Printf("%s\t%v\n", step, result)
}

func main() {
	kind, bucket := os.Args[1], os.Args[2]
	base := os.Getenv("S3_MATRIX_BASE")
	if kind == "sdk" {
		bySDK(base, bucket)
	} else {
		byMinio(base, bucket)
	}
}
