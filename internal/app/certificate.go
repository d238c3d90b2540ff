package app

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/internal/config"
)

// certificate is what clients are shown. It follows its files, and a reload may replace them by others; a pair that is no good
// leaves the one before in force. Safe for concurrent use.
type certificate struct {
	log     *slog.Logger
	watched bool // follow the files
	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // guards the fields below
	cancel context.CancelFunc
	watch  sync.WaitGroup
}

// pair is a certificate and its key as they were read from files.
type pair struct {
	files       []config.File // the certificate's, the key's
	certificate tls.Certificate
}

func loadPair(files config.TLS) (*pair, error) {
	var texts [][]byte
	p := &pair{}
	for _, path := range []string{files.Cert, files.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		texts = append(texts, text)
		p.files = append(p.files, config.File{Path: path, Digest: sha256.Sum256(text)})
	}
	var err error
	if p.certificate, err = tls.X509KeyPair(texts[0], texts[1]); err != nil {
		return nil, fmt.Errorf("tls: %s and %s: %w", files.Cert, files.Key, err)
	}
	return p, nil
}

// get is for tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// show makes p what new connections see.
func (c *certificate) show(p *pair) {
	c.current.Store(&p.certificate)
	leaf := p.certificate.Leaf
	level, now := slog.LevelInfo, time.Now()
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "certificate loaded", "subject", leaf.Subject.String(), "names", leaf.DNSNames,
		"valid_from", leaf.NotBefore, "valid_until", leaf.NotAfter)
}

// follow shows p, and from then on what its files hold.
func (c *certificate) follow(p *pair) {
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(p)
	if !c.watched {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.watch.Go(func() {
		err := config.WatchFiles(ctx, p.files, func() {
			next, err := loadPair(config.TLS{Cert: p.files[0].Path, Key: p.files[1].Path})
			if err != nil {
				c.log.Error("certificate not reloaded; the one before stays in force", "error", err.Error())
				return
			}
			c.show(next)
		})
		if err != nil {
			c.log.Error("changes of the certificate go unseen until the next reload", "error", err.Error())
		}
	})
}

// close ends the watch; what is shown stays.
func (c *certificate) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
	}
	c.watch.Wait()
}
