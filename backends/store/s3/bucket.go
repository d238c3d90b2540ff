package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

// Options say which folder of which object store.
type Options struct {
	Location Location
	Settings Settings // of ReadSettings
	// Connections is how many may be idle at once: as many as a download uses. 0 is 8.
	Connections int
}

// Bucket is a folder in an object store. It is a store.Source; Close it when done.
type Bucket struct {
	location  Location
	settings  Settings
	client    *minio.Client
	transport *http.Transport
}

// amazon is the host that minio-go turns into the one of the bucket's region.
const amazon = "s3.amazonaws.com"

// New makes a client; it asks nobody anything yet.
func New(o Options) (*Bucket, error) {
	if o.Settings.creds == nil {
		return nil, errors.New("BUG: settings that ReadSettings did not make")
	}
	if o.Connections == 0 {
		o.Connections = 8
	}
	b := &Bucket{location: o.Location, settings: o.Settings}
	b.transport = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute, // the end of a large multipart upload may take that long
		ExpectContinueTimeout: 2 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   o.Connections,
		DisableCompression:    true,     // sizes and ranges count in bytes of the file
		ReadBufferSize:        64 << 10, // a weight file is read in large pieces
	}
	if o.Settings.CABundle != "" {
		pem, err := os.ReadFile(o.Settings.CABundle)
		if err != nil {
			return nil, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("AWS_CA_BUNDLE=%s holds no certificate", o.Settings.CABundle)
		}
		b.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	host, secure := amazon, true
	if e := o.Settings.Endpoint; e != nil {
		host, secure = e.Host, e.Scheme == "https"
	}
	style := minio.BucketLookupPath
	if !o.Settings.PathStyle {
		style = minio.BucketLookupDNS
		if strings.Contains(o.Location.Bucket, ".") && secure {
			style = minio.BucketLookupPath // no certificate covers it
		}
	}
	client, err := minio.New(host, &minio.Options{
		Creds: o.Settings.creds, Secure: secure, Transport: b.transport, Region: o.Settings.Region, BucketLookup: style,
		MaxRetries: 2, // package store tries again, and waits longer
	})
	if err != nil {
		return nil, err
	}
	client.SetAppInfo("pilotlight", "")
	b.client = client
	return b, nil
}

// Close lets go of idle connections.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// Location is where it is.
func (b *Bucket) Location() Location { return b.location }

// at is a folder below this one, through the same client.
func (b *Bucket) at(name string) *Bucket {
	below := *b
	below.location = b.location.Join(name)
	return &below
}

// read returns a small object whole. It returns store.ErrFileNotFound if there is none.
func (b *Bucket) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	key := b.location.key(name)
	body, _, _, err := (minio.Core{Client: b.client}).GetObject(ctx, b.location.Bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, b.explain(err, key)
	}
	defer body.Close() // what was read is read
	text, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, b.explain(err, key)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", store.ErrBadListing, key, limit)
	}
	return text, nil
}
