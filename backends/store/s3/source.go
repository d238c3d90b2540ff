package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

// List lists the objects below the prefix. There is one revision, "" or "main"; where a manifest of ours lies there (see Remote), its commit and
// hashes are taken, else the commit is derived from names, sizes and ETags.
func (b *Bucket) List(ctx context.Context, revision string) (store.Listing, error) {
	found, err := b.objects(ctx)
	if err != nil {
		return store.Listing{}, fmt.Errorf("listing %s: %w", b.location, err)
	}
	var list store.Listing
	if _, ok := found[manifestName]; ok {
		if list, err = b.manifestListing(ctx, found); err != nil {
			return store.Listing{}, fmt.Errorf("listing %s: %w", b.location, err)
		}
	} else {
		for _, f := range found {
			list.Files = append(list.Files, f)
		}
		list.Commit = store.DerivedCommit(list.Files)
	}
	if revision != "" && revision != "main" && revision != list.Commit {
		return store.Listing{}, fmt.Errorf("%w: %s has no revision %q", store.ErrRevisionNotFound, b.location, revision)
	}
	if len(list.Files) == 0 {
		return store.Listing{}, &Error{Err: store.ErrNotFound, Code: "Empty", Problem: fmt.Sprintf("nothing lies below %s", b.location),
			Advice: "check the prefix; `aws s3 ls` lists what is there"}
	}
	return list, list.Check()
}

// objects are the files below the prefix, by path. A page that fails is asked for again by the client, a listing by package store.
func (b *Bucket) objects(ctx context.Context) (map[string]store.File, error) {
	files := map[string]store.File{}
	folder := b.location.key("") // ends in '/', unless it is the whole bucket
	for object := range b.client.ListObjectsIter(ctx, b.location.Bucket, minio.ListObjectsOptions{Prefix: folder, Recursive: true}) {
		if object.Err != nil {
			return nil, b.explain(object.Err, b.location.String())
		}
		name := strings.TrimPrefix(object.Key, folder)
		if name == "" || strings.HasSuffix(name, "/") && object.Size == 0 {
			continue // what consoles put down for an empty folder
		}
		if len(files) >= store.MaxFiles {
			return nil, fmt.Errorf("%w: more than %d files", store.ErrBadListing, store.MaxFiles)
		}
		file := store.File{Path: name, Size: object.Size, Version: cmp.Or(object.ETag, modified(object.LastModified))}
		file.Checker = &checker{bucket: b, key: object.Key, size: object.Size, etag: object.ETag}
		files[name] = file
	}
	return files, ctx.Err()
}

func modified(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Open reads part of an object that must still be what was listed.
func (b *Bucket) Open(ctx context.Context, _ string, file store.File, offset, length int64) (io.ReadCloser, error) {
	key := b.location.key(file.Path)
	if length == 0 {
		return http.NoBody, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	body, err := b.open(ctx, key, file, offset, length)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return store.NewBody(ctx, cancel, body, length), nil
}

func (b *Bucket) open(ctx context.Context, key string, file store.File, offset, length int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
	if err := opts.SetRange(offset, offset+length-1); err != nil {
		return nil, err
	}
	tagged := file.Version != "" && !strings.Contains(file.Version, ":") // an ETag holds none, a time does
	if tagged {
		if err := opts.SetMatchETag(file.Version); err != nil {
			return nil, err
		}
	}
	body, info, header, err := (minio.Core{Client: b.client}).GetObject(ctx, b.location.Bucket, key, opts)
	if err != nil {
		return nil, b.explain(err, key)
	}
	if now := cmp.Or(info.ETag, modified(info.LastModified)); file.Version != "" && now != file.Version {
		return nil, errors.Join(fmt.Errorf("%w: version %q was listed, now it is %q", store.ErrChanged, file.Version, shorten(now)), body.Close())
	}
	var from, to, total int64
	if _, err := fmt.Sscanf(header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err != nil {
		from, to, total = 0, info.Size-1, info.Size // the whole object
	}
	switch {
	case total != file.Size:
		return nil, errors.Join(fmt.Errorf("%w: %d bytes were listed, the object has %d", store.ErrChanged, file.Size, total), body.Close())
	case from != offset || to != offset+length-1:
		return nil, errors.Join(fmt.Errorf("asked for bytes %d to %d, got %d to %d", offset, offset+length-1, from, to), body.Close())
	}
	return body, nil
}
