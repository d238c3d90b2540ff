package s3

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Scheme begins the address of a model in an object store: s3://BUCKET/PREFIX.
const Scheme = "s3://"

// Location is a folder in an object store.
type Location struct {
	Bucket string
	Prefix string // without slashes at its ends; "" is the whole bucket
}

// ParseLocation reads s3://BUCKET or s3://BUCKET/PREFIX.
func ParseLocation(address string) (Location, error) {
	rest, ok := strings.CutPrefix(address, Scheme)
	if !ok {
		return Location{}, fmt.Errorf("%q does not begin with %s", address, Scheme)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	l := Location{Bucket: bucket, Prefix: strings.Trim(prefix, "/")}
	if strings.Contains(bucket, "@") {
		return Location{}, fmt.Errorf("an address of an object store holds no credentials: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	if strings.ContainsAny(rest, "?#") {
		return Location{}, fmt.Errorf("%q: an address of an object store has no query or fragment", address)
	}
	if err := s3utils.CheckValidBucketNameStrict(bucket); err != nil {
		return Location{}, fmt.Errorf("%q: the bucket's name: %w", address, err)
	}
	for part := range strings.SplitSeq(l.Prefix, "/") {
		if l.Prefix != "" && (part == "" || part == "." || part == "..") {
			return Location{}, fmt.Errorf("%q: the part %q of the prefix cannot be a folder's name", address, part)
		}
	}
	return l, nil
}

func (l Location) String() string {
	if l.Prefix == "" {
		return Scheme + l.Bucket
	}
	return Scheme + l.Bucket + "/" + l.Prefix
}

// Join is a folder below this one.
func (l Location) Join(name string) Location {
	return Location{Bucket: l.Bucket, Prefix: l.key(name)}
}

// key is the object's name of a file in the folder.
func (l Location) key(name string) string {
	if l.Prefix == "" {
		return name
	}
	return l.Prefix + "/" + name
}

// parseEndpoint reads an endpoint's address as Amazon's tools take it: a scheme and a host, nothing else.
func parseEndpoint(name, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s=%q: want http://HOST:PORT or https://HOST", name, address)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%s: an endpoint is a scheme and a host only, without a path, a query or credentials", name)
	}
	return u, nil
}
