package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

// largeFile is from which size on an object is asked for checksums beside its ETag: one more request is nothing beside fetching it.
const largeFile = 1 << 20

// checker compares content with an object's SHA-256 checksum, if it was uploaded with one, and with its ETag where that is a sum of MD5s. An
// ETag proves nothing where the object is encrypted with a key of its own, and a multipart one only if the parts' size is known: the server is
// asked for both. https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
type checker struct {
	bucket *Bucket
	key    string
	size   int64
	etag   string

	sha256 string // hex; set by Begin
	strict bool   // the ETag is a sum of MD5s for sure
}

// Begin asks for checksums. What cannot be learnt is not checked: the caller's own hash is remembered in any case.
func (c *checker) Begin(ctx context.Context) hash.Hash {
	sum, parts := c.parts()
	c.sha256, c.strict = "", sum
	if !sum && c.size < largeFile {
		return nil
	}
	if c.size >= largeFile || parts > 0 {
		info, err := c.head(ctx, 0)
		if err != nil {
			return nil
		}
		c.sha256 = fullSHA256(info)
		c.strict = sum && !encrypted(info)
	}
	switch {
	case !c.strict:
		return nil
	case parts == 0:
		return md5.New()
	}
	first, err := c.head(ctx, 1)
	// The parts of all usual uploads have one size, but for the last.
	if err != nil || first.Size <= 0 || first.Size > c.size || (c.size+first.Size-1)/first.Size != int64(parts) {
		c.strict = false
		return nil
	}
	return &partsMD5{size: first.Size, whole: md5.New(), part: md5.New()}
}

func (c *checker) head(ctx context.Context, part int) (minio.ObjectInfo, error) {
	opts := minio.StatObjectOptions{Checksum: part == 0, PartNumber: part}
	if err := opts.SetMatchETag(c.etag); c.etag != "" && err != nil {
		return minio.ObjectInfo{}, err
	}
	return c.bucket.client.StatObject(ctx, c.bucket.location.Bucket, c.key, opts)
}

// End compares.
func (c *checker) End(ctx context.Context, sha256 string, sum []byte) error {
	if c.sha256 != "" && sha256 != c.sha256 {
		return fmt.Errorf("%w: the object's sha256 is %s, got %s", store.ErrHashMismatch, c.sha256, sha256)
	}
	if sum == nil {
		return nil
	}
	want, got := strings.Split(c.etag, "-")[0], hex.EncodeToString(sum)
	if want == got {
		return nil
	}
	if c.size < largeFile { // not asked yet
		if info, err := c.head(ctx, 0); err != nil || encrypted(info) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%w: the object's ETag is %s, the content makes %s", store.ErrHashMismatch, c.etag, got)
}

// parts says whether the ETag has the form of a sum of MD5s, and of how many parts (0: of the object whole).
func (c *checker) parts() (sum bool, parts int) {
	digits, count, multi := strings.Cut(c.etag, "-")
	if len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" {
		return false, 0
	}
	if !multi {
		return true, 0
	}
	parts, err := strconv.Atoi(count)
	return err == nil && parts > 0, parts
}

// encrypted says whether the ETag is of the encrypted bytes: with keys of AWS KMS or the customer's own.
func encrypted(info minio.ObjectInfo) bool {
	kind := info.Headers.Get("x-amz-server-side-encryption")
	return strings.HasPrefix(kind, "aws:kms") || info.Headers.Get("x-amz-server-side-encryption-customer-algorithm") != ""
}

// fullSHA256 is the object's SHA-256 in hex, "" if the server keeps none of the whole content.
func fullSHA256(info minio.ObjectInfo) string {
	if strings.EqualFold(info.ChecksumMode, "COMPOSITE") || strings.Contains(info.ChecksumSHA256, "-") {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(info.ChecksumSHA256)
	if err != nil || len(raw) != 32 {
		return ""
	}
	return hex.EncodeToString(raw)
}

// partsMD5 is the MD5 of the MD5s of parts, as multipart uploads make ETags of.
type partsMD5 struct {
	size        int64 // of a part
	in          int64 // bytes of this part seen
	whole, part hash.Hash
}

func (p *partsMD5) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if p.in == p.size {
			p.whole.Write(p.part.Sum(nil))
			p.part.Reset()
			p.in = 0
		}
		take := min(int64(len(b)), p.size-p.in)
		p.part.Write(b[:take])
		p.in += take
		b = b[take:]
	}
	return n, nil
}

// Sum ends the last part.
func (p *partsMD5) Sum(b []byte) []byte {
	if p.in > 0 {
		p.whole.Write(p.part.Sum(nil))
		p.in = 0
		p.part.Reset()
	}
	return p.whole.Sum(b)
}

func (p *partsMD5) Reset()         { p.whole.Reset(); p.part.Reset(); p.in = 0 }
func (p *partsMD5) Size() int      { return md5.Size }
func (p *partsMD5) BlockSize() int { return md5.BlockSize }
