package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

const (
	// partSize is what is sent of a file in one request: of a dozen connections each holds one, and S3 allows 10 000 parts.
	partSize = 16 << 20
	maxParts = 10_000
	// pushFiles and pushParts are how many files, and parts of each, are sent at once.
	pushFiles = 2
	pushParts = 4
	// contentMark names the content of an object, so that what an interrupted upload finished is not sent again.
	contentMark = "Pilotlight-Content"
)

// Push implements store.Remote.
func (r *Remote) Push(ctx context.Context, found store.Snapshot, list store.Listing, revision string, progress func(store.Progress)) error {
	at := r.snapshot(found.Repo, found.Commit)
	old, err := at.readManifest(ctx)
	if err != nil && !errors.Is(err, store.ErrFileNotFound) && !errors.Is(err, errManifest) {
		return err
	}
	here := map[string]manifestEntry{} // what an earlier push, perhaps of other files, or another store put there
	for _, e := range old.Files {
		if e.Here {
			here[e.Path] = e
		}
	}
	p := &upload{at: at, from: found.Path, report: progress, here: here}
	p.now = store.Progress{Phase: store.Pushing, Files: len(found.Files)}
	for _, f := range found.Files {
		p.now.Bytes += f.Size
	}
	if err := p.all(ctx, found.Files); err != nil {
		return err
	}
	m := manifest{Version: 1, Repo: found.Repo, Commit: found.Commit}
	for _, f := range list.Files {
		e, ok := here[f.Path]
		if !ok {
			e = manifestEntry{Path: f.Path, Size: f.Size, SHA256: f.SHA256, GitOID: f.GitOID}
		}
		m.Files = append(m.Files, e)
	}
	slices.SortFunc(m.Files, func(a, b manifestEntry) int { return cmp.Compare(a.Path, b.Path) })
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := at.write(ctx, manifestName, append(text, '\n')); err != nil {
		return err
	}
	if isCommit(revision) {
		return nil
	}
	return r.bucket.at(store.RemoteFolder(found.Repo)).write(ctx, "refs/"+revision, []byte(found.Commit))
}

// write replaces a small object whole.
func (b *Bucket) write(ctx context.Context, name string, content []byte) error {
	key := b.location.key(name)
	_, err := b.client.PutObject(ctx, b.location.Bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{DisableMultipart: true, SendContentMd5: true})
	return b.explain(err, key)
}

// upload is one push of a snapshot's files.
type upload struct {
	at   *Bucket
	from string // the snapshot's folder

	mu     sync.Mutex // guards the fields below
	report func(store.Progress)
	now    store.Progress
	here   map[string]manifestEntry
}

func (p *upload) update(change func(*store.Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
	p.report(p.now)
}

func (p *upload) all(ctx context.Context, files []store.File) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan store.File)
	var workers sync.WaitGroup
	for range pushFiles {
		workers.Go(func() {
			for f := range queue {
				if err := p.file(ctx, f); err != nil {
					cancel(fmt.Errorf("%s: %w", f.Path, err))
				}
			}
		})
	}
	for _, f := range files {
		select {
		case queue <- f:
		case <-ctx.Done():
		}
	}
	close(queue)
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// file uploads one file, unless it is there. Its content is checked first: what is damaged on this disk must not be handed on.
func (p *upload) file(ctx context.Context, f store.File) error {
	entry := manifestEntry{Path: f.Path, Size: f.Size, SHA256: f.SHA256, GitOID: f.GitOID, Here: true}
	p.mu.Lock()
	had, ok := p.here[f.Path]
	p.mu.Unlock()
	key := p.at.location.key(f.Path)
	if ok && had.Size == f.Size && (f.SHA256 == "" || had.SHA256 == f.SHA256) && had.GitOID == f.GitOID {
		if info, err := p.at.client.StatObject(ctx, p.at.location.Bucket, key, minio.StatObjectOptions{}); err == nil && info.Size == f.Size {
			p.update(func(now *store.Progress) { now.FilesDone++; now.BytesDone += f.Size })
			return nil
		} else if err != nil && !notFound(err) {
			return p.at.explain(err, key)
		}
	}
	file, err := os.Open(filepath.Join(p.from, filepath.FromSlash(f.Path)))
	if err != nil {
		return err
	}
	defer file.Close() // it was only read
	part := max(partSize, (f.Size+maxParts-1)/maxParts)
	sum, tag, err := sums(ctx, file, f, part)
	if err != nil {
		return err
	}
	if f.SHA256 == "" && f.GitOID == "" {
		entry.SHA256 = sum
	}
	if err := p.send(ctx, file, key, f.Size, part, sum, tag); err != nil {
		return err
	}
	p.mu.Lock()
	p.here[f.Path] = entry
	p.mu.Unlock()
	p.update(func(now *store.Progress) { now.FilesDone++ })
	return nil
}

// sums reads the file, checks it against the hash that it must have, and returns its sha256 and the ETag that S3 will give it.
func sums(ctx context.Context, file io.Reader, f store.File, part int64) (sha, tag string, err error) {
	content := sha256.New()
	var etag hash.Hash = md5.New()
	if f.Size > part {
		etag = &partsMD5{size: part, whole: md5.New(), part: md5.New()}
	}
	all := []io.Writer{content, etag}
	git := sha1.New() // git's own
	if f.GitOID != "" && f.SHA256 == "" {
		fmt.Fprintf(git, "blob %d\x00", f.Size)
		all = append(all, git)
	}
	buffer := make([]byte, 256<<10)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(all...)}, cancelled{ctx, io.LimitReader(file, f.Size+1)}, buffer)
	if err != nil {
		return "", "", err
	}
	sha, tag = hex.EncodeToString(content.Sum(nil)), hex.EncodeToString(etag.Sum(nil))
	switch {
	case n != f.Size:
		return "", "", fmt.Errorf("%w: the store's file has %d bytes, and %d are listed", store.ErrHashMismatch, n, f.Size)
	case f.SHA256 != "" && f.SHA256 != sha:
		return "", "", fmt.Errorf("%w: the store's file has %s, and %s is listed", store.ErrHashMismatch, sha, f.SHA256)
	case f.SHA256 == "" && f.GitOID != "" && f.GitOID != hex.EncodeToString(git.Sum(nil)):
		return "", "", fmt.Errorf("%w: the store's file is not %s", store.ErrHashMismatch, f.GitOID)
	}
	if f.Size > part {
		tag += fmt.Sprintf("-%d", (f.Size+part-1)/part)
	}
	return sha, tag, nil
}

// send uploads a file and compares the ETag that comes back.
func (p *upload) send(ctx context.Context, file *os.File, key string, size, part int64, sum, tag string) error {
	bucket := p.at.location.Bucket
	info, err := p.at.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err == nil && info.Size == size && info.UserMetadata[contentMark] == sum {
		p.update(func(now *store.Progress) { now.BytesDone += size })
		return nil
	} else if err != nil && !notFound(err) {
		return p.at.explain(err, key)
	}
	counter := counted(func(n int) { // by several goroutines, and again for a part that is sent again
		p.update(func(now *store.Progress) {
			now.BytesDone = min(now.BytesDone+int64(n), now.Bytes)
			now.BytesFetched += int64(n)
		})
	})
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	done, err := p.at.client.PutObject(ctx, bucket, key, file, size, minio.PutObjectOptions{
		PartSize: uint64(part), NumThreads: pushParts, Progress: counter, UserMetadata: map[string]string{contentMark: sum}, ContentType: "application/octet-stream",
	})
	if err != nil {
		return p.at.explain(err, key)
	}
	if got := strings.Trim(done.ETag, `"`); len(got) >= 32 && got != tag {
		if info, err := p.at.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{}); err == nil && !encrypted(info) && isSum(got) {
			return fmt.Errorf("%w: uploaded as ETag %s, want %s", store.ErrHashMismatch, got, tag)
		}
	}
	return nil
}

// isSum says whether an ETag looks like a sum of MD5s.
func isSum(etag string) bool {
	sum, _ := (&checker{etag: etag}).parts()
	return sum
}

// counted is told of bytes by minio-go, which reads from it as many as it has sent.
type counted func(n int)

func (c counted) Read(b []byte) (int, error) {
	c(len(b))
	return len(b), nil
}

// cancelled reads until its context ends.
type cancelled struct {
	ctx context.Context
	io.Reader
}

func (c cancelled) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.Reader.Read(b)
}
